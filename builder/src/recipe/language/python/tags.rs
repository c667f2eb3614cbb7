//! Which wheels a Python can use, and which of them it would rather have.
//!
//! `NAME-VERSION(-BUILD)?-PYTHON-ABI-PLATFORM.whl`, where each of the last three may be several,
//! joined by dots. The order is that of pip: the nearest ABI first, then the newest platform.

use super::version::Version;

/// The Python that packages are installed for: CPython on glibc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interpreter {
    /// Its version.
    pub python: (u64, u64),
    /// glibc's version.
    pub glibc: (u64, u64),
    /// The machine, as `uname -m` names it.
    pub machine: &'static str,
}

/// How well a file fits; the least is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(u64, u64, i64);

/// A wheel's file name, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WheelName<'a> {
    pub name: &'a str,
    pub version: &'a str,
    build: i64,
    pythons: Vec<&'a str>,
    abis: Vec<&'a str>,
    platforms: Vec<&'a str>,
}

impl<'a> WheelName<'a> {
    /// Takes a file name apart; `None` if it is no wheel's.
    pub fn new(file_name: &'a str) -> Option<Self> {
        let parts: Vec<&str> = file_name.strip_suffix(".whl")?.split('-').collect();
        let (build, tags) = match parts.as_slice() {
            [_, _, tags @ ..] if tags.len() == 3 => (-1, tags),
            [_, _, build, tags @ ..] if tags.len() == 3 => {
                let end = build.find(|it: char| !it.is_ascii_digit()).unwrap_or(build.len());
                (build[..end].parse().ok()?, tags)
            }
            _ => return None,
        };
        let split = |text: &'a str| text.split('.').collect();
        Some(Self {
            name: parts[0],
            version: parts[1],
            build,
            pythons: split(tags[0]),
            abis: split(tags[1]),
            platforms: split(tags[2]),
        })
    }

    /// How well it fits an interpreter; `None` if it does not.
    pub fn rank(&self, interpreter: &Interpreter) -> Option<Rank> {
        let all = self.pythons.iter().flat_map(|python| {
            let abis = self.abis.iter().map(move |abi| (python, abi));
            abis.flat_map(|(python, abi)| {
                self.platforms.iter().map(move |platform| (python, abi, platform))
            })
        });
        let ranks = all.filter_map(|(python, abi, platform)| {
            let (pure, distance) = interpreter.platform_rank(platform)?;
            let abi = interpreter.abi_rank(python, abi, pure)?;
            Some(Rank(abi, distance, -self.build))
        });
        ranks.min()
    }
}

impl Interpreter {
    /// Whether a platform is `any`, and how far it is from this one.
    fn platform_rank(&self, platform: &str) -> Option<(bool, u64)> {
        if platform == "any" {
            return Some((true, 0));
        }
        let rest = platform.strip_suffix(self.machine)?.strip_suffix('_')?;
        if rest == "linux" {
            return Some((false, u64::MAX));
        }
        let glibc = match rest {
            "manylinux1" => (2, 5),
            "manylinux2010" => (2, 12),
            "manylinux2014" => (2, 17),
            _ => {
                let (major, minor) = rest.strip_prefix("manylinux_")?.split_once('_')?;
                (major.parse().ok()?, minor.parse::<u64>().ok()?)
            }
        };
        let fits = glibc.0 == self.glibc.0 && glibc.1 <= self.glibc.1;
        fits.then(|| (false, self.glibc.1 - glibc.1))
    }

    /// The place of a Python and ABI in pip's order.
    fn abi_rank(&self, python: &str, abi: &str, pure: bool) -> Option<u64> {
        let (major, minor) = self.python;
        let version = |prefix: &str| -> Option<(u64, Option<u64>)> {
            let digits = python.strip_prefix(prefix)?;
            if !digits.bytes().all(|byte| byte.is_ascii_digit()) || digits.is_empty() {
                return None;
            }
            let rest = &digits[1..];
            let minor = if rest.is_empty() { None } else { Some(rest.parse().ok()?) };
            Some((digits[..1].parse().ok()?, minor))
        };
        // Pure ones come last, those for this very Python first among them.
        let last = if pure { 1000 } else { 0 };
        if let Some((of, its)) = version("cp") {
            if of != major {
                return None;
            }
            return match (abi, its) {
                (_, Some(its)) if its == minor && abi == format!("cp{major}{minor}") => Some(0),
                ("abi3", Some(its)) if its == minor => Some(1),
                ("none", Some(its)) if its == minor => Some(last + 2),
                ("abi3", Some(its)) if its < minor && its >= 2 => Some(3 + minor - its),
                _ => None,
            };
        }
        let (of, its) = version("py")?;
        if of != major || abi != "none" {
            return None;
        }
        match its {
            Some(its) if its == minor => Some(last + 100),
            None => Some(last + 101),
            Some(its) if its < minor => Some(last + 101 + minor - its),
            Some(_) => None,
        }
    }
}

/// The version in the name of a source archive of a package whose name is known.
pub(super) fn source_version(file_name: &str) -> Option<&str> {
    let stem = file_name.strip_suffix(".tar.gz").or_else(|| file_name.strip_suffix(".zip"))?;
    // Old archives have dashes in their names: the version is what reads as one.
    let mut from = 0;
    while let Some(at) = stem[from..].find('-') {
        let rest = &stem[from + at + 1..];
        if Version::new(rest).is_some() {
            return Some(rest);
        }
        from += at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bookworm() -> Interpreter {
        Interpreter { python: (3, 11), glibc: (2, 36), machine: "x86_64" }
    }

    fn rank(tags: &str) -> Option<Rank> {
        WheelName::new(&format!("a-1.0-{tags}.whl")).unwrap().rank(&bookworm())
    }

    #[test]
    fn wheels_are_preferred_as_pip_does() {
        let ordered = [
            "cp311-cp311-manylinux_2_34_x86_64",
            "cp311-cp311-manylinux2014_x86_64",
            "cp311-cp311-manylinux_2_5_x86_64.manylinux1_x86_64",
            "cp311-cp311-linux_x86_64",
            "cp311-abi3-manylinux2014_x86_64",
            "cp310-abi3-manylinux2014_x86_64",
            "cp37-abi3-manylinux_2_28_x86_64",
            "py3-none-manylinux2014_x86_64",
            "cp311-none-any",
            "py311-none-any",
            "py2.py3-none-any",
            "py38-none-any",
        ];
        for pair in ordered.windows(2) {
            assert!(rank(pair[0]).unwrap() < rank(pair[1]).unwrap(), "{} {}", pair[0], pair[1]);
        }
    }

    #[test]
    fn what_cannot_run_has_no_rank() {
        for tags in [
            "cp310-cp310-manylinux2014_x86_64",
            "cp312-abi3-manylinux2014_x86_64",
            "cp311-cp311-musllinux_1_1_x86_64",
            "cp311-cp311-manylinux_2_39_x86_64",
            "cp311-cp311-manylinux2014_aarch64",
            "cp311-cp311-win_amd64",
            "cp311-cp311-macosx_11_0_arm64",
            "cp313-cp313t-manylinux2014_x86_64",
            "pp310-pypy310_pp73-manylinux2014_x86_64",
            "py2-none-any",
            "py312-none-any",
            "cpx-none-any",
        ] {
            assert_eq!(rank(tags), None, "{tags}");
        }
    }

    #[test]
    fn file_names_are_taken_apart() {
        let wheel = WheelName::new("Flask_Login-0.6.3-2b-py3-none-any.whl").unwrap();
        assert_eq!((wheel.name, wheel.version, wheel.build), ("Flask_Login", "0.6.3", 2));
        let newer = WheelName::new("a-1.0-3-py3-none-any.whl").unwrap().rank(&bookworm());
        assert!(newer < rank("py3-none-any"), "the later build is preferred");
        for wrong in ["a.whl", "a-1.0.whl", "a-1.0-py3-none-any.zip", "a-1-b-c-d-e-f-g.whl", ""] {
            assert!(WheelName::new(wrong).is_none(), "{wrong}");
        }
        assert_eq!(source_version("zope.interface-5.4.0.tar.gz"), Some("5.4.0"));
        assert_eq!(source_version("python-dateutil-2.9.0.post0.tar.gz"), Some("2.9.0.post0"));
        assert_eq!(source_version("a.zip"), None);
    }
}
