//! Signing keys, as settings name them: the key itself, or a file that holds it.

use std::fmt;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;

use crate::document::ValueError;

/// Where the secret key is. Never printed: `Debug` hides the key itself.
#[derive(Clone, PartialEq, Eq)]
pub enum SigningKey {
    /// A file that holds it.
    File(PathBuf),
    /// The key itself: `NAME:BASE64`.
    Literal(String),
}

impl SigningKey {
    /// Takes `NAME:BASE64` as the key itself and all else as a path below `base`.
    pub(super) fn new(text: &str, base: &Path) -> Result<Self, ValueError> {
        if is_key(text) {
            return Ok(Self::Literal(text.to_owned()));
        }
        if text.len() > 1000 || text.contains(['\n', '\0']) {
            // Most likely a mangled key, so nothing of it may be shown.
            return Err(ValueError::new(
                "signing key",
                "…",
                "it is neither NAME:BASE64 nor a path",
            )
            .hidden());
        }
        Ok(Self::File(base.join(text)))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({path:?})"),
            Self::Literal(key) => {
                write!(f, "Literal({}:…)", key.split(':').next().unwrap_or_default())
            }
        }
    }
}

/// Public keys: those that are believed, or those that are revoked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustedKeys {
    /// Keys as written: `NAME:BASE64`, and conditions after semicolons.
    pub lines: Vec<String>,
    /// Files with one such line for each key.
    pub files: Vec<PathBuf>,
}

impl TrustedKeys {
    pub(super) fn add(&mut self, text: &str, base: &Path) -> Result<(), ValueError> {
        // What conditions there are is the cache's to know.
        match key_length(text.split(';').next().unwrap_or_default().trim()) {
            Some(PUBLIC) => self.lines.push(text.to_owned()),
            Some(_) => {
                let error = ValueError::new("public key", "…", "it is a secret key");
                return Err(error.hidden());
            }
            None if text.is_empty() || text.contains(['\n', '\0']) => {
                let reason = "it is neither NAME:BASE64 nor a path";
                return Err(ValueError::new("public key", text, reason));
            }
            None => self.files.push(base.join(text)),
        }
        Ok(())
    }
}

/// Bytes of a public key.
const PUBLIC: usize = 32;
/// Bytes of a secret key: both halves.
const SECRET: usize = 64;

/// Whether a text is `NAME:BASE64` of a key's length.
fn is_key(text: &str) -> bool {
    key_length(text).is_some()
}

/// The number of a key's bytes, for `NAME:BASE64` of an ed25519 key.
fn key_length(text: &str) -> Option<usize> {
    let (name, key) = text.split_once(':')?;
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"+._-".contains(&byte);
    let length = BASE64.decode(key.as_bytes()).map(|bytes| bytes.len()).ok()?;
    let is_named = !name.is_empty() && name.bytes().all(named);
    (is_named && matches!(length, PUBLIC | SECRET)).then_some(length)
}
