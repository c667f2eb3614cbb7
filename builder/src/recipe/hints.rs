//! What a failed script lacked, read from the end of its output.

use crate::resolve::MissingFile;

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

/// Where programs stand.
const PROGRAMS: &[&str] = &["usr/bin", "usr/sbin", "bin", "sbin", "usr/games"];
/// Where headers stand.
const HEADERS: &[&str] =
    &["usr/include", "usr/include/x86_64-linux-gnu", "usr/include/aarch64-linux-gnu"];
/// Where libraries stand, and what `pkg-config` reads.
const LIBRARIES: &[&str] =
    &["usr/lib", "usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "lib"];
const PKG_CONFIG: &[&str] = &[
    "usr/lib/pkgconfig",
    "usr/share/pkgconfig",
    "usr/lib/x86_64-linux-gnu/pkgconfig",
    "usr/lib/aarch64-linux-gnu/pkgconfig",
];

/// Names that no package has: the scripts of these packages make them.
const ALTERNATIVES: &[(&str, &str)] = &[
    ("c++", "g++"),
    ("c99", "gcc"),
    ("cc", "gcc"),
    ("java", "default-jre-headless"),
    ("javac", "default-jdk-headless"),
];

/// Which package to add.
pub fn comes_with<S: AsRef<str>>(what: &str, packages: &[S]) -> String {
    let names: Vec<&str> = packages.iter().map(AsRef::as_ref).collect();
    format!(
        "`{what}` comes with Debian's package {}: add it to the recipe's `debian`",
        names.join(" or ")
    )
}

/// What would mend a failure, and what file was missing, as far as its output says so.
pub fn hint(tail: &str) -> (Option<String>, Option<MissingFile>) {
    for line in tail.lines().rev() {
        if let Some(missing) = missing_file(line) {
            let made = ALTERNATIVES.iter().find(|(name, _)| *name == missing.tail);
            if let Some((name, package)) = made {
                return (Some(comes_with(name, &[*package])), None);
            }
            let hint = format!(
                "`{}` is in none of the recipe's packages: add the one that has it to `debian`",
                missing.tail
            );
            return (Some(hint), Some(missing));
        }
        if let Some(hint) = of_language(line).or_else(|| of_host(line)) {
            return (Some(hint), None);
        }
    }
    (None, None)
}

/// The file that a line complains of.
fn missing_file(line: &str) -> Option<MissingFile> {
    let line = line.trim_end();
    let file = |folders, tail: &str| Some(MissingFile { folders, tail: tail.to_owned() });
    if let Some(name) = missing_program(line) {
        return file(PROGRAMS, name);
    }
    // cc: `a.c:1:10: fatal error: zlib.h: No such file or directory`.
    if let Some((_, rest)) = line.split_once("fatal error: ")
        && let Some(header) =
            rest.strip_suffix(": No such file or directory").or_else(|| clang_header(rest))
    {
        return file(HEADERS, header).filter(|_| is_path(header));
    }
    // ld: `cannot find -lz: No such file or directory`, or a start file such as Scrt1.o.
    if let Some((_, rest)) = line.split_once("cannot find ") {
        let name = rest.split([':', ' ']).next().unwrap_or(rest);
        return match name.strip_prefix("-l") {
            Some(name) if is_path(name) => file(LIBRARIES, &format!("lib{name}.so")),
            _ if is_path(name) && name.ends_with(".o") => file(LIBRARIES, name),
            _ => None,
        };
    }
    // pkg-config: `Package 'zlib', required by ..., not found` or `No package 'zlib' found`.
    let quoted = |line: &'_ str| line.split('\'').nth(1).map(str::to_owned);
    let of_pkg_config = (line.starts_with("Package '") && line.ends_with("not found"))
        || (line.starts_with("No package '") && line.ends_with("found"));
    if of_pkg_config && let Some(name) = quoted(line).filter(|name| is_path(name)) {
        return file(PKG_CONFIG, &format!("{name}.pc"));
    }
    None
}

/// clang: `a.c:1:10: fatal error: 'zlib.h' file not found`.
fn clang_header(rest: &str) -> Option<&str> {
    rest.strip_suffix("' file not found")?.strip_prefix('\'')
}

/// Whether this may be the end of a path, so that a search for it can find something.
fn is_path(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._/".contains(&byte);
    !text.is_empty() && !text.starts_with('/') && text.bytes().all(is_letter)
}

/// What the host, or the world of recipes, does not have.
fn of_host(line: &str) -> Option<String> {
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
    let is_refused = line.contains("Read-only file system") || line.contains("Permission denied");
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
    fn the_missing_file_is_named() {
        for (tail, name) in [
            ("sh: 1: gcc: not found\n", "gcc"),
            ("make: gcc: No such file or directory\nmake: *** [x] Error 127\n", "gcc"),
            ("bash: line 1: cmake: command not found\n", "cmake"),
            ("a.c:1:10: fatal error: zlib.h: No such file or directory\n", "zlib.h"),
            ("a.c:1:10: fatal error: 'openssl/ssl.h' file not found\n", "openssl/ssl.h"),
            ("/usr/bin/ld: cannot find Scrt1.o: No such file or directory\n", "Scrt1.o"),
            ("/usr/bin/ld: cannot find -lz: No such file or directory\n", "libz.so"),
            ("/usr/bin/ld: cannot find -lpq\ncollect2: error: ld returned 1\n", "libpq.so"),
            ("No package 'libffi' found\n", "libffi.pc"),
            ("Package 'zlib', required by 'virtual:world', not found\n", "zlib.pc"),
        ] {
            let (hint, missing) = hint(tail);
            assert_eq!(missing.map(|missing| missing.tail).as_deref(), Some(name), "{tail}");
            assert!(hint.is_some_and(|hint| hint.contains(name)), "{tail}");
        }
        let unknown = hint("sh: 1: frobnicate: not found").0;
        assert!(unknown.unwrap().contains("none of the recipe's"));
        for tail in [
            "test failed\n",
            "cp: cannot open '/build/source/x': Permission denied",
            "/usr/bin/ld: cannot find /build/source/x.o: No such file or directory\n",
            "a.c:1:10: fatal error: /etc/x.h: No such file or directory\n",
        ] {
            assert_eq!(hint(tail), (None, None), "{tail}");
        }
    }

    #[test]
    fn what_scripts_make_is_known() {
        let (hint, missing) = hint("make: cc: No such file or directory\n");
        assert_eq!(missing, None);
        assert!(hint.unwrap().starts_with("`cc` comes with Debian's package gcc:"));
    }

    #[test]
    fn what_the_world_of_recipes_lacks_is_told() {
        for (line, said) in [
            ("dd: error writing 'x': No space left on device", "store gc"),
            ("sh: 0: Cannot fork", "process-limit"),
            ("/bin/sh: 1: cannot create /etc/passwd: Permission denied", "/etc/passwd belongs"),
            (
                "cp: cannot create regular file '/usr/bin/x': Permission denied",
                "/usr/bin/x belongs",
            ),
        ] {
            assert!(hint(line).0.is_some_and(|hint| hint.contains(said)), "{line}");
        }
    }
}
