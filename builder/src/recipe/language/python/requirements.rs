//! requirements.txt with hashes, as pip reads it: one pinned package a line.

use url::Url;

use super::lock::{Locked, LockedFile, LockedPackage, file_name, holds, integrity};
use super::marker::{Environment, normalised};
use super::version::Version;
use crate::recipe::language::LockfileError;

/// The file.
pub(super) const FILE: &str = "requirements.txt";
/// A second one with what builds need and images do not.
pub(super) const BUILD_FILE: &str = "requirements-build.txt";
/// How deep files may include each other.
const MOST_DEPTH: usize = 16;
const HASHES: &str = "make the file with `pip-compile --generate-hashes`, `uv pip compile \
    --generate-hashes` or `uv export`";

/// Reads files of the source by their path.
pub(super) type Files<'a> = dyn Fn(&str) -> Option<&'a str> + 'a;

/// Reads a file and all that it includes.
pub(super) fn read(
    file: &str,
    files: &Files<'_>,
    environment: &Environment,
) -> Result<Locked, LockfileError> {
    let mut locked = Locked::default();
    let mut reader = Reader { files, environment, locked: &mut locked };
    reader.file(file, 0)?;
    Ok(locked)
}

struct Reader<'a, 'f> {
    files: &'a Files<'f>,
    environment: &'a Environment,
    locked: &'a mut Locked,
}

/// A line with its options apart.
struct Line<'a> {
    requirement: &'a str,
    hashes: Vec<&'a str>,
}

impl Reader<'_, '_> {
    fn file(&mut self, file: &str, depth: usize) -> Result<(), LockfileError> {
        let malformed =
            |problem: String| LockfileError::Malformed { file: file.to_owned(), problem };
        let text = (self.files)(file)
            .ok_or_else(|| malformed("it is included, but it is not in the source".to_owned()))?;
        if depth > MOST_DEPTH {
            return Err(malformed("files include each other too deeply".to_owned()));
        }
        for (number, line) in logical_lines(text) {
            let at = format!("{file}:{number}");
            self.line(file, &at, &line, depth)?;
        }
        Ok(())
    }

    fn line(
        &mut self,
        file: &str,
        at: &str,
        line: &str,
        depth: usize,
    ) -> Result<(), LockfileError> {
        if let Some(included) = option(line, &["-r", "--requirement"]) {
            let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
            let path = joined(folder, included).ok_or_else(|| LockfileError::Malformed {
                file: at.to_owned(),
                problem: format!("{included:?} leads out of the source"),
            })?;
            return self.file(&path, depth + 1);
        }
        if let Some(folder) = option(line, &["-e", "--editable"]) {
            return self.project(file, at, folder);
        }
        // Indexes, constraints and the like: where things are had from is this host's to say, and
        // what is pinned needs no constraint.
        if line.starts_with('-') {
            return Ok(());
        }
        if line.starts_with('.') || line.starts_with("file:") {
            return self.project(file, at, line.strip_prefix("file:").unwrap_or(line));
        }
        self.requirement(at, &Line::new(line))
    }

    fn project(&mut self, file: &str, at: &str, folder: &str) -> Result<(), LockfileError> {
        let folder = folder.split([' ', ';', '[']).next().unwrap_or_default();
        let base = file.rsplit_once('/').map_or("", |(folder, _)| folder);
        let path = joined(base, folder).ok_or_else(|| LockfileError::Malformed {
            file: at.to_owned(),
            problem: format!("{folder:?} leads out of the source"),
        })?;
        let path = if path.is_empty() { ".".to_owned() } else { path };
        if !self.locked.projects.contains(&path) {
            self.locked.projects.push(path);
        }
        Ok(())
    }

    fn requirement(&mut self, at: &str, line: &Line<'_>) -> Result<(), LockfileError> {
        let malformed = |problem: String| LockfileError::Malformed { file: at.to_owned(), problem };
        let (requirement, marker) = match line.requirement.split_once(';') {
            Some((requirement, marker)) => (requirement.trim(), Some(marker)),
            None => (line.requirement.trim(), None),
        };
        if !holds(at, marker, self.environment)? {
            return Ok(());
        }
        let end = requirement
            .find(|it: char| !(it.is_ascii_alphanumeric() || "-_.".contains(it)))
            .unwrap_or(requirement.len());
        let (name, rest) = requirement.split_at(end);
        if name.is_empty() {
            return Err(malformed(format!("{requirement:?} names no package")));
        }
        let rest = rest.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(extras) => extras.split_once(']').map_or("", |(_, rest)| rest).trim_start(),
            None => rest,
        };
        let origin = |origin: &str| LockfileError::Origin {
            file: at.to_owned(),
            package: name.to_owned(),
            origin: origin.to_owned(),
            help: "use a published version, or keep its source as a folder of the project",
        };
        let (version, url) = match rest.strip_prefix('@') {
            Some(address) if address.trim().starts_with("git+") => return Err(origin("git")),
            Some(address) => {
                let url = Url::parse(address.trim()).map_err(|_| origin("a path"))?;
                if !matches!(url.scheme(), "http" | "https") {
                    return Err(origin("a path"));
                }
                (String::new(), Some(url))
            }
            None => {
                let version = rest.strip_prefix("===").or_else(|| rest.strip_prefix("=="));
                let version = version.map(str::trim);
                let version = version.filter(|it| Version::new(it).is_some());
                let version = version.ok_or_else(|| LockfileError::Origin {
                    file: at.to_owned(),
                    package: name.to_owned(),
                    origin: "no certain version (NAME==VERSION)".to_owned(),
                    help: HASHES,
                })?;
                (version.to_owned(), None)
            }
        };
        let files = self.files_of(at, name, &version, url.as_ref(), &line.hashes)?;
        let package = LockedPackage { name: normalised(name), version, files };
        // Several files of a project may name one package.
        if !self.locked.packages.contains(&package) {
            self.locked.packages.push(package);
        }
        Ok(())
    }

    fn files_of(
        &self,
        at: &str,
        name: &str,
        version: &str,
        url: Option<&Url>,
        hashes: &[&str],
    ) -> Result<Vec<LockedFile>, LockfileError> {
        let package = format!("{name} {version}").trim_end().to_owned();
        let mut files = Vec::new();
        for hash in hashes {
            let Some(hash) = integrity(hash) else { continue };
            let integrity = hash.map_err(|source| LockfileError::Hash {
                file: at.to_owned(),
                package: package.clone(),
                source,
            })?;
            let name = url.and_then(|url| file_name(url.path()));
            files.push(LockedFile { name, integrity, url: url.cloned() });
        }
        match files.is_empty() {
            true => Err(LockfileError::NoHash { file: at.to_owned(), package, help: HASHES }),
            false => Ok(files),
        }
    }
}

impl<'a> Line<'a> {
    fn new(line: &'a str) -> Self {
        let mut hashes = Vec::new();
        let mut requirement = line.len();
        let mut words = line.match_indices(" --").map(|(at, _)| at).peekable();
        while let Some(at) = words.next() {
            requirement = requirement.min(at);
            let end = words.peek().copied().unwrap_or(line.len());
            let word = line[at..end].trim();
            if let Some(hash) = option(word, &["--hash"]) {
                hashes.push(hash);
            }
        }
        Self { requirement: &line[..requirement], hashes }
    }
}

/// The value of an option: `-r FILE`, `-rFILE`, `--requirement FILE` or `--requirement=FILE`.
fn option<'a>(line: &'a str, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| {
        let rest = line.strip_prefix(name)?;
        let is_short = !name.starts_with("--");
        match rest.strip_prefix([' ', '=', '\t']) {
            Some(value) => Some(value.trim()),
            None => (is_short && !rest.is_empty()).then_some(rest.trim()),
        }
    })
}

/// A path below the source; `None` if it leads out of it.
fn joined(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    if path.starts_with('/') {
        return None;
    }
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            other => parts.push(other),
        }
    }
    Some(parts.join("/"))
}

/// Lines with their numbers, without comments, joined where they end in a backslash.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let (start, mut joined) = open.take().unwrap_or((number + 1, String::new()));
        let is_comment = line.trim_start().starts_with('#');
        if let Some(before) = line.strip_suffix('\\').filter(|_| !is_comment) {
            joined.push_str(before);
            open = Some((start, joined));
            continue;
        }
        joined.push_str(line);
        lines.push((start, joined));
    }
    lines.extend(open);
    let stripped = lines.into_iter().map(|(number, line)| {
        let line = match line.trim_start().starts_with('#') {
            true => "",
            false => line.split(" #").next().unwrap_or_default(),
        };
        (number, line.split_whitespace().collect::<Vec<_>>().join(" "))
    });
    stripped.filter(|(_, line)| !line.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        let variables = [("python_version", "3.11"), ("sys_platform", "linux")];
        Environment {
            variables: variables.map(|(name, value)| (name, value.to_owned())).into(),
            ..Environment::default()
        }
    }

    fn parse(files: &[(&str, &str)]) -> Result<Locked, LockfileError> {
        let find = |path: &str| files.iter().find(|(name, _)| *name == path).map(|(_, text)| *text);
        read(FILE, &find, &environment())
    }

    fn hash(digit: char) -> String {
        format!("--hash=sha256:{}", digit.to_string().repeat(64))
    }

    #[test]
    fn the_format_of_pip_is_read() {
        let (one, two, three) = (hash('1'), hash('2'), hash('3'));
        let text = format!(
            "# made by a tool\n--index-url https://index.example.com/simple\n\
             --extra-index-url=https://other.example.com/\n-c constraints.txt\n-r more/base.txt\n\
             Flask_Login[x,y]==0.6.3 ; python_version >= \"3.8\" \\\n    {one} \\\n    {two}\n\
             \x20   # via app\nold==1.0 ; python_version < \"3\" \\\n    {three}\n-e .\n"
        );
        let base = format!("colorama==0.4.6 {three} # a comment\n./../lib\n");
        let locked = parse(&[(FILE, &text), ("more/base.txt", &base)]).unwrap();
        let seen: Vec<(&str, &str, usize)> = locked
            .packages
            .iter()
            .map(|it| (it.name.as_str(), it.version.as_str(), it.files.len()))
            .collect();
        assert_eq!(seen, [("colorama", "0.4.6", 1), ("flask-login", "0.6.3", 2)]);
        assert_eq!(locked.projects, ["lib", "."]);
    }

    #[test]
    fn an_address_is_taken_with_its_hash() {
        let text = format!("a @ https://files.example.com/a-1.0-py3-none-any.whl {}", hash('1'));
        let locked = parse(&[(FILE, &text)]).unwrap();
        let file = &locked.packages[0].files[0];
        assert_eq!(file.name.as_deref(), Some("a-1.0-py3-none-any.whl"));
        assert!(file.url.is_some());
    }

    #[test]
    fn what_cannot_be_followed_says_where_and_how_to_mend_it() {
        let wrong = |text: &str| parse(&[(FILE, text)]).unwrap_err();
        let error = wrong("\nflask==3.0\n");
        assert_eq!(error.to_string(), "requirements.txt:2: flask 3.0 has no hash");
        assert!(error.hint().unwrap().contains("--generate-hashes"));
        let error = wrong(&format!("flask>=3.0 {}", hash('1')));
        assert!(error.to_string().contains("no certain version"), "{error}");
        let error = wrong(&format!("a @ git+https://example.com/a {}", hash('1')));
        assert!(error.to_string().contains("git"), "{error}");
        for text in ["a==1.0 --hash=md5:00", "a==1.0 --hash=sha256:00"] {
            let error = wrong(text);
            assert!(error.to_string().contains("a 1.0"), "{error}");
        }
        for text in [
            "-r gone.txt",
            "-r ../x",
            "-r /etc/passwd",
            "-e ../../x",
            "===1",
            "-r requirements.txt",
        ] {
            assert!(matches!(wrong(text), LockfileError::Malformed { .. }), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "(-r |-e |--hash=|sha256:|[a-c=@;\\[\\].#\\\\/ \n'\"<>é0-9])*") {
            let _ = parse(&[(FILE, &text)]);
        }
    }
}
