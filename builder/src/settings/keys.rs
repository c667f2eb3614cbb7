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

/// Public keys that are believed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustedKeys {
    /// Keys as written: `NAME:BASE64`.
    pub lines: Vec<String>,
    /// Files with one such line for each key.
    pub files: Vec<PathBuf>,
}

impl TrustedKeys {
    pub(super) fn add(&mut self, text: &str, base: &Path) -> Result<(), ValueError> {
        if is_key(text) {
            self.lines.push(text.to_owned());
        } else if text.is_empty() || text.contains(['\n', '\0']) {
            return Err(ValueError::new(
                "trusted key",
                text,
                "it is neither NAME:BASE64 nor a path",
            ));
        } else {
            self.files.push(base.join(text));
        }
        Ok(())
    }
}

/// Whether a text is `NAME:BASE64` of a key's length (ed25519: 32 bytes, or 64 with both halves).
fn is_key(text: &str) -> bool {
    let Some((name, key)) = text.split_once(':') else { return false };
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"+._-".contains(&byte);
    let length = BASE64.decode(key.as_bytes()).map(|bytes| bytes.len());
    !name.is_empty() && name.bytes().all(named) && matches!(length, Ok(32 | 64))
}
