//! Keys: ed25519, written as `NAME:BASE64`.
//!
//! ```text
//! public line    NAME:BASE64 of the 32 bytes of the public key
//! secret key     NAME:BASE64 of 64 bytes: the secret seed, then the public key
//! key id         the first 16 hexadecimal digits of SHA-256 of the 32 bytes of the public key
//! ```
//!
//! The name is for people; only the key itself identifies. A secret is in no `Debug` and no
//! `Display`, and its memory is wiped when it is dropped.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use sha2::Digest as _;
use zeroize::Zeroizing;

/// The longest name of a key, in bytes.
const MAX_NAME: usize = 100;
/// The longest secret key file that is read, in bytes: a key and some space around it.
const MAX_FILE: u64 = 4096;

/// Why a text or file is no key. Nothing of a secret is in any message.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The text has no colon.
    #[error("not a key: expected NAME:BASE64")]
    Form,
    /// The name has other characters than names may have, or too many.
    #[error("{name:?} is no name of a key: expected 1 to {MAX_NAME} of A-Z a-z 0-9 + . _ -")]
    Name {
        /// The name as written.
        name: String,
    },
    /// What follows the name is no base64.
    #[error("the key {name} is not base64")]
    Base64 {
        /// The key's name.
        name: String,
    },
    /// A secret key stands where a public one is wanted.
    #[error("the key {name} is a secret key, and a public one is wanted here")]
    IsSecret {
        /// The key's name.
        name: String,
    },
    /// A public key stands where a secret one is wanted.
    #[error("the key {name} is a public key, and a secret one is wanted here")]
    IsPublic {
        /// The key's name.
        name: String,
    },
    /// It has neither the length of a public nor of a secret key.
    #[error("the key {name} has {length} bytes: a public key has 32, a secret key has 64")]
    Length {
        /// The key's name.
        name: String,
        /// The number of bytes.
        length: usize,
    },
    /// The bytes are no usable point of the curve.
    #[error("the key {name} is no ed25519 key")]
    Point {
        /// The key's name.
        name: String,
    },
    /// The public half of a secret key does not belong to its seed.
    #[error("the two halves of the key {name} do not belong together")]
    Halves {
        /// The key's name.
        name: String,
    },
    /// A key file exists already, and keys are never overwritten.
    #[error("{} exists already, and keys are never overwritten", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A key file is too large to be one.
    #[error("{} is no key file: it is larger than {MAX_FILE} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A key file does not hold a key.
    #[error("{} holds no key", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<KeyError>,
    },
    /// A key file cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// The system gave no random bytes.
    #[error("the system gives no random numbers")]
    Random(#[source] getrandom::Error),
}

/// A key's short name in tags and envelopes: 16 hexadecimal digits. It finds keys and proves
/// nothing; signatures are checked with the whole key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A text that is no key id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no key id: expected 16 lower-case hexadecimal digits")]
pub struct ParseKeyIdError(String);

impl FromStr for KeyId {
    type Err = ParseKeyIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|it| it.try_into().ok());
        bytes.map(Self).ok_or_else(|| ParseKeyIdError(text.chars().take(100).collect()))
    }
}

/// A public key and its name. Equality and order are the key's; the name is for people.
#[derive(Clone)]
pub struct PublicKey {
    name: String,
    key: VerifyingKey,
}

impl PublicKey {
    /// The name, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The 32 bytes of the key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// The short name of the key.
    pub fn id(&self) -> KeyId {
        let digest = sha2::Sha256::digest(self.as_bytes());
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        KeyId(id)
    }

    /// Whether `signature` is this key's over `message`; signatures that others could have made
    /// from one (malleability, keys of small order) are none.
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        self.key.verify_strict(message, &signature).is_ok()
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for PublicKey {}

impl PartialOrd for PublicKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PublicKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, BASE64.encode(self.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, bytes) = parse(text)?;
        if bytes.len() == 64 {
            return Err(KeyError::IsSecret { name });
        }
        let Ok(bytes) = <&[u8; 32]>::try_from(bytes.as_slice()) else {
            return Err(KeyError::Length { name, length: bytes.len() });
        };
        match VerifyingKey::from_bytes(bytes) {
            // A key of small order "signs" anything.
            Ok(key) if !key.is_weak() => Ok(Self { name, key }),
            _ => Err(KeyError::Point { name }),
        }
    }
}

/// A secret key and its name. Neither `Debug` nor an error shows the secret.
pub struct SecretKey {
    name: String,
    key: SigningKey,
}

impl SecretKey {
    /// Makes a new key from the system's random numbers.
    pub fn generate(name: &str) -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).map_err(KeyError::Random)?;
        Self::from_seed(name, &seed)
    }

    /// The key that a seed of 32 bytes makes.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, KeyError> {
        check_name(name)?;
        Ok(Self { name: name.to_owned(), key: SigningKey::from_bytes(seed) })
    }

    /// The name, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey { name: self.name.clone(), key: self.key.verifying_key() }
    }

    /// Signs a message; the same message gives the same signature.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    /// The secret line `NAME:BASE64`, for its file only.
    pub fn to_secret_line(&self) -> Zeroizing<String> {
        let pair = Zeroizing::new(self.key.to_keypair_bytes());
        let encoded = Zeroizing::new(BASE64.encode(pair.as_slice()));
        Zeroizing::new(format!("{}:{}", self.name, encoded.as_str()))
    }

    /// Reads a key file.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Io { action: "read", path: path.to_owned(), source };
        let mut text = Zeroizing::new(String::new());
        let file = File::open(path).map_err(failed)?;
        // The text never grows, so that no copy of it is left behind.
        text.reserve_exact(MAX_FILE as usize + 1);
        file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > MAX_FILE {
            return Err(KeyError::TooLarge { path: path.to_owned() });
        }
        text.trim()
            .parse()
            .map_err(|source| KeyError::File { path: path.to_owned(), source: Box::new(source) })
    }

    /// Writes the key into a new file that only its owner can read. A file that exists is left as
    /// it is, and a crash leaves the whole file or none.
    pub fn write_new(&self, path: &Path) -> Result<(), KeyError> {
        let failed = |source| KeyError::Io { action: "write", path: path.to_owned(), source };
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        // Temporary files are made with mode 0600.
        let mut file =
            tempfile::Builder::new().prefix(".key-").tempfile_in(folder).map_err(failed)?;
        let line = self.to_secret_line();
        file.write_all(line.as_bytes()).and_then(|()| file.write_all(b"\n")).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist_noclobber(path).map_err(|error| match error.error.kind() {
            io::ErrorKind::AlreadyExists => KeyError::Exists { path: path.to_owned() },
            _ => failed(error.error),
        })?;
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({}:…)", self.name)
    }
}

impl FromStr for SecretKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, bytes) = parse(text)?;
        if bytes.len() == 32 {
            return Err(KeyError::IsPublic { name });
        }
        let Ok(pair) = <&[u8; 64]>::try_from(bytes.as_slice()) else {
            return Err(KeyError::Length { name, length: bytes.len() });
        };
        match SigningKey::from_keypair_bytes(pair) {
            Ok(key) => Ok(Self { name, key }),
            Err(_) => Err(KeyError::Halves { name }),
        }
    }
}

fn check_name(name: &str) -> Result<(), KeyError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"+._-".contains(&byte);
    match !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(legal) {
        true => Ok(()),
        false => Err(KeyError::Name { name: name.chars().take(MAX_NAME).collect() }),
    }
}

/// The name and the bytes, which may be a secret.
fn parse(text: &str) -> Result<(String, Zeroizing<Vec<u8>>), KeyError> {
    let (name, encoded) = text.split_once(':').ok_or(KeyError::Form)?;
    check_name(name)?;
    let wrong = || KeyError::Base64 { name: name.to_owned() };
    // Decoded in place, so that no copy is left behind.
    let most = BASE64.decode_len(encoded.len()).map_err(|_| wrong())?;
    let mut bytes = Zeroizing::new(vec![0; most]);
    let length = BASE64.decode_mut(encoded.as_bytes(), &mut bytes).map_err(|_| wrong())?;
    bytes.truncate(length);
    match length {
        0 => Err(wrong()),
        _ => Ok((name.to_owned(), bytes)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn key() -> SecretKey {
        SecretKey::from_seed("builder-1", &[7; 32]).unwrap()
    }

    #[test]
    fn text_forms_round_trip() {
        let (secret, public) = (key(), key().public());
        assert_eq!(public.to_string().parse::<PublicKey>().unwrap(), public);
        assert_eq!(
            public.to_string(),
            "builder-1:6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw=".to_owned()
        );
        let again: SecretKey = secret.to_secret_line().parse().unwrap();
        assert_eq!(again.public(), public);
        assert_eq!(again.sign(b"x"), secret.sign(b"x"));
        assert_eq!(public.id().to_string().parse(), Ok(public.id()));
        assert!("ABCDEF0123456789".parse::<KeyId>().is_err());
    }

    #[test]
    fn key_ids_are_what_common_tools_compute() {
        // printf %s 6kps…0iw= | base64 -d | sha256sum
        let digest = drystone_store::digest::BlobDigest::of(key().public().as_bytes()).to_hex();
        assert_eq!(key().public().id().to_string(), digest[..16]);
    }

    #[test]
    fn secrets_are_never_shown() {
        let secret = key();
        let line = secret.to_secret_line();
        let encoded = line.split_once(':').unwrap().1;
        assert!(!format!("{secret:?}").contains(&encoded[..8]));
        let as_public = line.parse::<PublicKey>().unwrap_err();
        assert!(matches!(as_public, KeyError::IsSecret { .. }));
        assert!(!format!("{as_public:?} {as_public}").contains(&encoded[..8]));
        let broken = format!("builder-1:{}!", &encoded[..80]);
        let error = broken.parse::<SecretKey>().unwrap_err();
        assert!(!format!("{error:?} {error}").contains(&encoded[..8]));
    }

    #[test]
    fn wrong_texts_are_refused_with_what_is_wrong() {
        let public = key().public().to_string();
        assert!(matches!(public.parse::<SecretKey>(), Err(KeyError::IsPublic { .. })));
        assert!(matches!("".parse::<PublicKey>(), Err(KeyError::Form)));
        assert!(matches!("a b:AAAA".parse::<PublicKey>(), Err(KeyError::Name { .. })));
        assert!(matches!("a:".parse::<PublicKey>(), Err(KeyError::Base64 { .. })));
        assert!(matches!("a:AAAA".parse::<PublicKey>(), Err(KeyError::Length { length: 3, .. })));
        // The neutral element of the curve: of small order, so it would verify forgeries.
        let mut weak = [0; 32];
        weak[0] = 1;
        let weak = format!("a:{}", BASE64.encode(&weak));
        assert!(matches!(weak.parse::<PublicKey>(), Err(KeyError::Point { .. })));
        let mut pair = key().key.to_keypair_bytes();
        pair[40] ^= 1;
        let halves = format!("a:{}", BASE64.encode(&pair)).parse::<SecretKey>();
        assert!(matches!(halves, Err(KeyError::Halves { .. })));
    }

    #[test]
    fn files_are_private_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("builder.key");
        key().write_new(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let before = fs::read(&path).unwrap();
        let other = SecretKey::generate("other").unwrap();
        assert!(matches!(other.write_new(&path), Err(KeyError::Exists { .. })));
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(SecretKey::read(&path).unwrap().public(), key().public());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing temporary is left");
        fs::write(folder.path().join("large"), vec![b'a'; 5000]).unwrap();
        let large = SecretKey::read(&folder.path().join("large"));
        assert!(matches!(large, Err(KeyError::TooLarge { .. })));
    }

    #[test]
    fn generated_keys_differ_and_sign() {
        let (one, two) = (SecretKey::generate("a").unwrap(), SecretKey::generate("a").unwrap());
        assert_ne!(one.public(), two.public());
        let signature = one.sign(b"message");
        assert!(one.public().verifies(b"message", &signature));
        assert!(!one.public().verifies(b"massage", &signature));
        assert!(!two.public().verifies(b"message", &signature));
    }
}
