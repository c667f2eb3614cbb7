//! The image configuration of the OCI image specification 1.1 (`config.md`), as Drystone writes it.
//!
//! The configuration's bytes name the image, so they are frozen: fields stand in the order in which
//! the specification's own Go types write them, keys of maps are sorted, nothing is written twice or
//! as null. `Healthcheck` is docker's extension: OCI has no field for it, engines read it all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use drystone_store::digest::DiffId;
use serde::Serialize;

use super::{ImageError, LayerRef};

/// The search path of images that set none: Debian's for root, so that tools in `sbin` are found.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What marks a history entry as one of Drystone's layers.
pub const HISTORY_COMMENT: &str = "drystone.layer.v1";

/// The operating system, architecture and variant that an image is for, as OCI writes them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Platform {
    /// The processor, as Go names it: `amd64`, `arm64`.
    pub architecture: String,
    /// The operating system: `linux`.
    pub os: String,
    /// The processor's variant: `v7` of `linux/arm/v7`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let is_word = |word: &&str| {
            !word.is_empty()
                && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        let words: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match words.as_slice() {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some((*variant).to_owned())),
            _ => return Err(ImageError::Platform { text: text.to_owned() }),
        };
        if !words.iter().all(is_word) {
            return Err(ImageError::Platform { text: text.to_owned() });
        }
        Ok(Self { os: (*os).to_owned(), architecture: (*architecture).to_owned(), variant })
    }
}

/// The transport protocol of an exposed port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP, the default.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A port that the image's program listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// The port's number, never 0.
    pub number: u16,
    /// The transport protocol.
    pub protocol: Protocol,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        write!(f, "{}/{protocol}", self.number)
    }
}

impl FromStr for Port {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let error = || ImageError::Port { text: text.to_owned() };
        let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return Err(error()),
        };
        let is_plain = number.bytes().all(|byte| byte.is_ascii_digit());
        match number.parse() {
            Ok(number) if number != 0 && is_plain => Ok(Self { number, protocol }),
            _ => Err(error()),
        }
    }
}

/// The numeric user and group that the image's program runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserIds {
    /// The user id.
    pub uid: u32,
    /// The primary group id.
    pub gid: u32,
}

/// A command that tells whether the running container works (docker's extension).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Healthcheck {
    /// `["CMD", program, argument...]`, `["CMD-SHELL", line]` or `["NONE"]`.
    #[serde(rename = "Test")]
    pub test: Vec<String>,
    /// Nanoseconds between two runs; 0 leaves it to the engine.
    #[serde(rename = "Interval", skip_serializing_if = "is_zero")]
    pub interval: u64,
    /// Nanoseconds that one run may take; 0 leaves it to the engine.
    #[serde(rename = "Timeout", skip_serializing_if = "is_zero")]
    pub timeout: u64,
    /// Nanoseconds after the start during which failures do not count.
    #[serde(rename = "StartPeriod", skip_serializing_if = "is_zero")]
    pub start_period: u64,
    /// Nanoseconds between two runs during the start period.
    #[serde(rename = "StartInterval", skip_serializing_if = "is_zero")]
    pub start_interval: u64,
    /// Failures in a row that make a container unhealthy; 0 leaves it to the engine.
    #[serde(rename = "Retries", skip_serializing_if = "is_zero")]
    pub retries: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// What a container of the image runs and how: all names resolved, all defaults of image.toml applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageConfig {
    /// The platform that the image is for.
    pub platform: Platform,
    /// The creation time, in seconds since 1970-01-01T00:00:00Z.
    pub created: i64,
    /// The user and group; none means root by the engine's default.
    pub user: Option<UserIds>,
    /// The ports that the program listens on.
    pub exposed_ports: BTreeSet<Port>,
    /// Environment variables; `PATH` is added when it is missing.
    pub env: BTreeMap<String, String>,
    /// The program and its fixed arguments; none leaves it to the base image.
    pub entrypoint: Option<Vec<String>>,
    /// The default arguments, or the program when there is no entrypoint; none leaves it to the base.
    pub command: Option<Vec<String>>,
    /// Absolute paths that hold data of a container's own.
    pub volumes: BTreeSet<String>,
    /// The directory that the program starts in.
    pub working_directory: Option<String>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the program to end: `SIGQUIT`, `SIGRTMIN+3`.
    pub stop_signal: Option<String>,
    /// The health check.
    pub healthcheck: Option<Healthcheck>,
}

impl ImageConfig {
    /// A configuration that sets nothing but the platform and the creation time.
    pub const fn new(platform: Platform, created: i64) -> Self {
        Self {
            platform,
            created,
            user: None,
            exposed_ports: BTreeSet::new(),
            env: BTreeMap::new(),
            entrypoint: None,
            command: None,
            volumes: BTreeSet::new(),
            working_directory: None,
            labels: BTreeMap::new(),
            stop_signal: None,
            healthcheck: None,
        }
    }

    /// Serialises the configuration of an image with these layers, lowest layer first.
    ///
    /// There is exactly one history entry for each layer: some engines refuse any other number.
    ///
    /// # Errors
    /// A creation time without an RFC 3339 form, or an impossible variable name.
    pub fn to_json(&self, layers: &[LayerRef]) -> Result<Vec<u8>, ImageError> {
        let created = rfc3339(self.created)?;
        let history = layers.iter().map(|layer| History::of(layer, &created)).collect();
        let document = Document {
            created: &created,
            platform: &self.platform,
            config: self.to_runtime()?,
            rootfs: RootFs {
                kind: "layers",
                diff_ids: layers.iter().map(|layer| layer.diff_id).collect(),
            },
            history,
        };
        Ok(serde_json::to_vec(&document)
            .expect("strings, numbers and string keys always serialise"))
    }

    fn to_runtime(&self) -> Result<Runtime<'_>, ImageError> {
        Ok(Runtime {
            user: self.user.map(|ids| format!("{}:{}", ids.uid, ids.gid)),
            exposed_ports: self
                .exposed_ports
                .iter()
                .map(|port| (port.to_string(), Empty {}))
                .collect(),
            env: self.to_env()?,
            entrypoint: self.entrypoint.as_deref().unwrap_or_default(),
            command: self.command.as_deref().unwrap_or_default(),
            volumes: self.volumes.iter().map(|path| (path.as_str(), Empty {})).collect(),
            working_directory: self.working_directory.as_deref(),
            labels: &self.labels,
            stop_signal: self.stop_signal.as_deref(),
            healthcheck: self.healthcheck.as_ref(),
        })
    }

    fn to_env(&self) -> Result<Vec<String>, ImageError> {
        Self::to_env_of(self.env.clone(), true)
    }

    /// Variables as lines, with a `PATH` if there must be one.
    pub(super) fn to_env_of(
        mut variables: BTreeMap<String, String>,
        needs_path: bool,
    ) -> Result<Vec<String>, ImageError> {
        if needs_path {
            variables.entry("PATH".to_owned()).or_insert_with(|| DEFAULT_PATH.to_owned());
        }
        let is_legal = |name: &str| !name.is_empty() && !name.contains(['=', '\0']);
        if let Some(name) = variables.keys().find(|name| !is_legal(name)) {
            return Err(ImageError::VariableName { name: name.clone() });
        }
        Ok(variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
    }
}

/// Writes a time as RFC 3339 in UTC with whole seconds: `2023-06-10T08:00:00Z`.
///
/// # Errors
/// A time before the year 0 or after the year 9999.
pub fn rfc3339(seconds: i64) -> Result<String, ImageError> {
    let error = || ImageError::CreatedOutOfRange { seconds };
    let text = jiff::Timestamp::from_second(seconds).map_err(|_| error())?.to_string();
    // RFC 3339 has four digits for the year and no sign.
    if text.len() == 20 { Ok(text) } else { Err(error()) }
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Document<'a> {
    created: &'a str,
    #[serde(flatten)]
    platform: &'a Platform,
    config: Runtime<'a>,
    rootfs: RootFs,
    history: Vec<History<'a>>,
}

#[derive(Serialize)]
struct Runtime<'a> {
    #[serde(rename = "User", skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(rename = "ExposedPorts", skip_serializing_if = "BTreeMap::is_empty")]
    exposed_ports: BTreeMap<String, Empty>,
    #[serde(rename = "Env")]
    env: Vec<String>,
    #[serde(rename = "Entrypoint", skip_serializing_if = "<[String]>::is_empty")]
    entrypoint: &'a [String],
    #[serde(rename = "Cmd", skip_serializing_if = "<[String]>::is_empty")]
    command: &'a [String],
    #[serde(rename = "Volumes", skip_serializing_if = "BTreeMap::is_empty")]
    volumes: BTreeMap<&'a str, Empty>,
    #[serde(rename = "WorkingDir", skip_serializing_if = "Option::is_none")]
    working_directory: Option<&'a str>,
    #[serde(rename = "Labels", skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
    #[serde(rename = "StopSignal", skip_serializing_if = "Option::is_none")]
    stop_signal: Option<&'a str>,
    #[serde(rename = "Healthcheck", skip_serializing_if = "Option::is_none")]
    healthcheck: Option<&'a Healthcheck>,
}

#[derive(Serialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: Vec<DiffId>,
}

#[derive(Serialize)]
pub(super) struct History<'a> {
    created: &'a str,
    created_by: String,
    comment: &'static str,
}

impl<'a> History<'a> {
    pub(super) fn of(layer: &LayerRef, created: &'a str) -> Self {
        let created_by = format!("drystone: {}", layer.title);
        Self { created, created_by, comment: HISTORY_COMMENT }
    }
}

#[cfg(test)]
mod tests {
    use drystone_store::digest::BlobDigest;

    use super::*;
    use crate::image::Compression;

    fn layer(number: u8, title: &str) -> LayerRef {
        LayerRef {
            digest: BlobDigest::from_bytes([number; 32]),
            size: 1000 + u64::from(number),
            diff_id: DiffId::from_bytes([number + 100; 32]),
            uncompressed_size: Some(4096),
            media_type: Compression::Gzip1.media_type(),
            title: title.to_owned(),
        }
    }

    fn full() -> ImageConfig {
        let mut config = ImageConfig::new("linux/arm/v7".parse().unwrap(), 1_686_384_000);
        config.user = Some(UserIds { uid: 10001, gid: 20002 });
        config.exposed_ports =
            ["8080", "53/udp", "80/tcp"].map(|port| port.parse().unwrap()).into();
        config.env = [("ZONE", "a=b"), ("APP", "é")].map(|(k, v)| (k.into(), v.into())).into();
        config.entrypoint = Some(vec!["/bin/app".into()]);
        config.command = Some(vec!["-x".into(), "<&>".into()]);
        config.volumes = ["/var/lib/b", "/a"].map(str::to_owned).into();
        config.working_directory = Some("/srv".into());
        config.labels = [("b", "2"), ("a", "1")].map(|(k, v)| (k.into(), v.into())).into();
        config.stop_signal = Some("SIGQUIT".into());
        config.healthcheck = Some(Healthcheck {
            test: vec!["CMD".into(), "true".into()],
            interval: 30_000_000_000,
            timeout: 0,
            start_period: 0,
            start_interval: 0,
            retries: 3,
        });
        config
    }

    /// Freezes the bytes that name every image. A change here changes every image's digest.
    #[test]
    fn golden_configuration() {
        let json = full().to_json(&[layer(1, "libc6 2.36"), layer(2, "finish")]).unwrap();
        insta::assert_snapshot!(String::from_utf8(json).unwrap());
    }

    #[test]
    fn golden_smallest_configuration() {
        let config = ImageConfig::new("linux/amd64".parse().unwrap(), 0);
        insta::assert_snapshot!(String::from_utf8(config.to_json(&[]).unwrap()).unwrap());
    }

    #[test]
    fn a_path_of_the_user_is_kept() {
        let mut config = full();
        config.env.insert("PATH".into(), "/opt/bin".into());
        assert_eq!(config.to_env().unwrap(), ["APP=é", "PATH=/opt/bin", "ZONE=a=b"]);
    }

    #[test]
    fn impossible_values_are_refused_by_name() {
        for name in ["", "A=B", "A\0"] {
            let mut config = full();
            config.env.insert(name.into(), "x".into());
            assert!(
                matches!(config.to_json(&[]), Err(ImageError::VariableName { .. })),
                "{name:?}"
            );
        }
        for seconds in [i64::MIN, i64::MAX, 253_402_300_800, -62_167_219_201] {
            assert!(rfc3339(seconds).is_err(), "{seconds}");
        }
        assert_eq!(rfc3339(315_532_800).unwrap(), "1980-01-01T00:00:00Z");
        for text in ["0", "65536", "80/icmp", "", "http", "80/", "+80"] {
            assert!(text.parse::<Port>().is_err(), "{text}");
        }
        for text in ["linux", "linux/", "/amd64", "linux/arm/v7/x", "Linux/amd64", ""] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
