//! Platforms as OCI names them, and the Debian architectures that serve them.

use std::fmt;

use crate::document::ValueError;

use super::names::Architecture;

/// One platform that both sides know.
struct Known {
    text: &'static str,
    operating_system: &'static str,
    architecture: &'static str,
    variant: Option<&'static str>,
    debian: &'static str,
    also: &'static [&'static str],
}

const fn known(
    text: &'static str,
    architecture: &'static str,
    variant: Option<&'static str>,
    debian: &'static str,
    also: &'static [&'static str],
) -> Known {
    Known { text, operating_system: "linux", architecture, variant, debian, also }
}

/// `GOARCH` names (OCI image index specification, `platform`) against Debian's architectures.
/// `also` are spellings of the same platform that OCI permits; they are brought to the first form.
static KNOWN: [Known; 10] = [
    known("linux/amd64", "amd64", None, "amd64", &["linux/amd64/v1"]),
    known("linux/arm64", "arm64", None, "arm64", &["linux/arm64/v8"]),
    known("linux/386", "386", None, "i386", &[]),
    known("linux/arm/v7", "arm", Some("v7"), "armhf", &["linux/arm"]),
    known("linux/arm/v5", "arm", Some("v5"), "armel", &[]),
    known("linux/ppc64le", "ppc64le", None, "ppc64el", &[]),
    known("linux/riscv64", "riscv64", None, "riscv64", &[]),
    known("linux/s390x", "s390x", None, "s390x", &[]),
    known("linux/mips64le", "mips64le", None, "mips64el", &[]),
    known("linux/loong64", "loong64", None, "loong64", &[]),
];

/// What people write for a platform when they think of it by another name.
static NICKNAMES: [(&str, &str); 9] = [
    ("x86_64", "linux/amd64"),
    ("x86-64", "linux/amd64"),
    ("aarch64", "linux/arm64"),
    ("i386", "linux/386"),
    ("i686", "linux/386"),
    ("armhf", "linux/arm/v7"),
    ("armel", "linux/arm/v5"),
    ("ppc64el", "linux/ppc64le"),
    ("mips64el", "linux/mips64le"),
];

/// A platform that images can be built for.
#[derive(Clone, Copy)]
pub struct Platform(&'static Known);

impl Platform {
    /// Reads `linux/amd64` and the like.
    pub fn new(text: &str) -> Result<Self, ValueError> {
        let found = KNOWN.iter().find(|known| known.text == text || known.also.contains(&text));
        found.map(Self).ok_or_else(|| {
            let error = ValueError::new("platform", text, "it is not known");
            error.with_help(match Self::meant(text) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => {
                    let names = KNOWN.iter().map(|known| known.text).collect::<Vec<_>>();
                    format!("known: {}", names.join(", "))
                }
            })
        })
    }

    fn meant(text: &str) -> Option<&'static str> {
        let bare = text.rsplit_once("linux/").map_or(text, |(_, bare)| bare);
        let nickname = NICKNAMES.iter().find(|(name, _)| *name == bare).map(|(_, meant)| *meant);
        nickname.or_else(|| {
            let with_system = format!("linux/{bare}");
            KNOWN.iter().map(|known| known.text).find(|known| *known == with_system)
        })
    }

    /// The default of an image that names no platform, on every host alike.
    pub fn default_platform() -> Self {
        Self(&KNOWN[0])
    }

    /// The platform that this program was compiled for, if images can be built for it.
    pub fn host() -> Option<Self> {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "linux/amd64",
            "aarch64" => "linux/arm64",
            "x86" => "linux/386",
            "arm" => "linux/arm/v7",
            "powerpc64" => "linux/ppc64le",
            "riscv64" => "linux/riscv64",
            "s390x" => "linux/s390x",
            "loongarch64" => "linux/loong64",
            _ => return None,
        };
        Self::new(architecture).ok()
    }

    /// All platforms, in a fixed order.
    pub fn all() -> impl Iterator<Item = Self> {
        KNOWN.iter().map(Self)
    }

    /// The text form: `linux/arm/v7`.
    pub fn as_str(self) -> &'static str {
        self.0.text
    }

    /// OCI's `os`.
    pub fn operating_system(self) -> &'static str {
        self.0.operating_system
    }

    /// OCI's `architecture`.
    pub fn architecture(self) -> &'static str {
        self.0.architecture
    }

    /// OCI's `variant`.
    pub fn variant(self) -> Option<&'static str> {
        self.0.variant
    }

    /// The Debian architecture whose packages run there, as text.
    pub fn debian_name(self) -> &'static str {
        self.0.debian
    }

    /// The Debian architecture whose packages run there.
    pub fn debian_architecture(self) -> Architecture {
        Architecture::new(self.0.debian).expect("the table holds valid names; a test reads all")
    }
}

impl PartialEq for Platform {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for Platform {}

impl PartialOrd for Platform {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Platform {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.text.cmp(other.0.text)
    }
}

impl std::hash::Hash for Platform {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.text.hash(state);
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.text)
    }
}

impl fmt::Debug for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_platform_reads_itself_and_has_an_architecture() {
        for platform in Platform::all() {
            assert_eq!(Platform::new(platform.as_str()), Ok(platform));
            assert_eq!(platform.debian_architecture().as_str(), platform.debian_name());
        }
        assert_eq!(Platform::new("linux/arm64/v8").unwrap().as_str(), "linux/arm64");
        assert_eq!(Platform::new("linux/arm").unwrap().debian_name(), "armhf");
    }

    #[test]
    fn other_names_are_advised() {
        let help = |text| Platform::new(text).unwrap_err().help().unwrap_or("").to_owned();
        for (text, meant) in [("amd64", "linux/amd64"), ("linux/aarch64", "linux/arm64")] {
            assert!(help(text).contains(meant), "{text}: {}", help(text));
        }
        assert!(help("windows/amd64").starts_with("known: "));
    }
}
