//! What a failed script lacked, read from the end of its output.

/// Programs that scripts miss most, with the Debian package that has them.
const PROGRAMS: &[(&str, &str)] = &[
    ("ar", "binutils"),
    ("as", "binutils"),
    ("autoconf", "autoconf"),
    ("automake", "automake"),
    ("autoreconf", "autoconf"),
    ("bison", "bison"),
    ("c++", "g++"),
    ("cargo", "cargo"),
    ("cc", "gcc"),
    ("clang", "clang"),
    ("cmake", "cmake"),
    ("curl", "curl"),
    ("file", "file"),
    ("flex", "flex"),
    ("g++", "g++"),
    ("gcc", "gcc"),
    ("git", "git"),
    ("go", "golang-go"),
    ("javac", "default-jdk-headless"),
    ("jq", "jq"),
    ("ld", "binutils"),
    ("libtool", "libtool-bin"),
    ("libtoolize", "libtool"),
    ("m4", "m4"),
    ("make", "make"),
    ("meson", "meson"),
    ("ninja", "ninja-build"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("patch", "patch"),
    ("pkg-config", "pkgconf"),
    ("python3", "python3"),
    ("ruby", "ruby"),
    ("rustc", "rustc"),
    ("unzip", "unzip"),
    ("wget", "wget"),
    ("xz", "xz-utils"),
    ("zip", "zip"),
];

/// Headers and libraries that compilers miss most.
const FILES: &[(&str, &str)] = &[
    ("curl/curl.h", "libcurl4-openssl-dev"),
    ("ffi.h", "libffi-dev"),
    ("libpq-fe.h", "libpq-dev"),
    ("openssl/ssl.h", "libssl-dev"),
    ("Python.h", "python3-dev"),
    ("sqlite3.h", "libsqlite3-dev"),
    ("stdio.h", "libc6-dev"),
    ("stdlib.h", "libc6-dev"),
    ("zlib.h", "zlib1g-dev"),
    ("Scrt1.o", "libc6-dev"),
    ("crt1.o", "libc6-dev"),
];

/// Modules that builds of Python packages miss most: mostly what their pyproject.toml builds with.
const MODULES: &[(&str, &str)] = &[
    ("Cython", "cython3"),
    ("cffi", "python3-cffi"),
    ("flit_core", "flit"),
    ("hatch_vcs", "python3-hatch-vcs"),
    ("hatchling", "python3-hatchling"),
    ("numpy", "python3-numpy"),
    ("poetry", "python3-poetry-core"),
    ("setuptools_scm", "python3-setuptools-scm"),
];

/// What npm or pip lacked: nothing is fetched while a recipe is built.
fn of_language(line: &str) -> Option<String> {
    if line.contains("ENOTCACHED") || line.contains("npm ci` can only install") {
        return Some(
            "package.json asks for what package-lock.json does not name: run `npm install \
             --package-lock-only`"
                .to_owned(),
        );
    }
    let missing = line.split("No module named '").nth(1)?.split(['\'', '.']).next()?;
    Some(match MODULES.iter().find(|(module, _)| *module == missing) {
        Some((module, package)) => format!(
            "the Python module {module} comes with Debian's package {package}: add it to the \
             recipe's `debian`, or lock it in the dependency group `build` of uv.lock or in \
             requirements-build.txt"
        ),
        None => format!(
            "the Python module {missing} is not there: lock it, or add Debian's package of it to \
             the recipe's `debian`"
        ),
    })
}

/// What would mend a failure, if its output says what was missing.
pub fn hint(tail: &str) -> Option<String> {
    let add = |what: &str, package: &str| {
        format!("{what} comes with Debian's package {package}: add it to the recipe's `debian`")
    };
    for line in tail.lines().rev() {
        if let Some(hint) = of_language(line) {
            return Some(hint);
        }
        if let Some(name) = missing_program(line) {
            return Some(match PROGRAMS.binary_search_by(|(known, _)| known.cmp(&name)) {
                Ok(at) => add(&format!("`{name}`"), PROGRAMS[at].1),
                Err(_) => format!(
                    "`{name}` is in none of the recipe's packages: add the one that has it to \
                     `debian`"
                ),
            });
        }
        let is_missing = line.contains("No such file or directory") || line.contains("cannot find");
        let known = FILES.iter().find(|(file, _)| line.contains(file));
        if let Some((file, package)) = known.filter(|_| is_missing) {
            return Some(add(file, package));
        }
        if line.contains("No space left on device") {
            return Some(
                "the disk of the store (or, below /tmp, the memory for files there) is full: free \
                 some space with `drystone store gc`, or choose another store with `--store`"
                    .to_owned(),
            );
        }
        if line.contains("Cannot fork") || line.contains("fork: Resource temporarily unavailable") {
            return Some(
                "it started as many processes as it may: set the recipe's `process-limit`, or let \
                 it start fewer at once"
                    .to_owned(),
            );
        }
        let is_refused =
            line.contains("Read-only file system") || line.contains("Permission denied");
        if is_refused && let Some(place) = outside(line) {
            return Some(format!(
                "scripts may write below $out, /build and /tmp, and nowhere else; {place} \
                 belongs to the inputs"
            ));
        }
        if line.contains("Could not resolve host")
            || line.contains("Temporary failure in name resolution")
        {
            return Some(
                "recipes have no network: name what they need as `source`, `debian` or `recipes`"
                    .to_owned(),
            );
        }
    }
    None
}

/// The absolute path of the inputs that a line complains of.
fn outside(line: &str) -> Option<&str> {
    const OWN: [&str; 4] = ["/build", "/tmp", "/out", "/dev"];
    line.split(|letter: char| letter.is_whitespace() || "'\"`‘’:,".contains(letter))
        .filter(|word| word.len() > 1 && word.starts_with('/'))
        .rfind(|word| !OWN.iter().any(|own| word.starts_with(own)))
}

/// The program of a line such as `sh: 1: gcc: not found`.
fn missing_program(line: &str) -> Option<&str> {
    let line = line.trim_end();
    let rest = line
        .strip_suffix(": not found")
        .or_else(|| line.strip_suffix(": command not found"))
        .or_else(|| {
            line.strip_suffix(": No such file or directory").filter(|it| it.starts_with("make"))
        })?;
    let name = rest.rsplit(": ").next()?.rsplit('/').next()?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte);
    (!name.is_empty() && name.bytes().all(is_name)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_package_is_named() {
        for (tail, package) in [
            ("sh: 1: gcc: not found\n", "package gcc:"),
            ("make: gcc: No such file or directory\nmake: *** [x] Error 127\n", "package gcc:"),
            ("bash: line 1: cmake: command not found\n", "package cmake:"),
            ("a.c:1:10: fatal error: zlib.h: No such file or directory\n", "zlib1g-dev"),
            ("/usr/bin/ld: cannot find Scrt1.o: No such file or directory\n", "libc6-dev"),
        ] {
            let hint = hint(tail).unwrap_or_default();
            assert!(hint.contains(package), "{tail}: {hint}");
        }
        for (line, said) in [
            ("dd: error writing 'x': No space left on device", "store gc"),
            ("sh: 0: Cannot fork", "process-limit"),
            ("/bin/sh: 1: cannot create /etc/passwd: Permission denied", "/etc/passwd belongs"),
            (
                "cp: cannot create regular file '/usr/bin/x': Permission denied",
                "/usr/bin/x belongs",
            ),
        ] {
            assert!(hint(line).is_some_and(|hint| hint.contains(said)), "{line}");
        }
        assert_eq!(hint("cp: cannot open '/build/source/x': Permission denied"), None);
        assert!(hint("sh: 1: frobnicate: not found").unwrap().contains("none of the recipe's"));
        assert_eq!(hint("test failed\n"), None);
        assert!(PROGRAMS.windows(2).all(|pair| pair[0].0 < pair[1].0), "sorted for the search");
    }
}
