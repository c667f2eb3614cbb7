//! Private keys, found by content, so that none enters an image by accident.
//!
//! Checked are the outputs of `configure` (package scripts make host keys, snakeoil certificates,
//! keystores) and of `files` (a key lies beside the sources). Packages' own data is not checked:
//! it is public, and full of keys that are no secrets (test certificates of Python's standard
//! library, examples of OpenSSL). Documentation and libraries that scripts and recipes copy, or compile,
//! are passed over by path.
//!
//! A key is only what decodes as one: a PEM block needs its END line and a body of base64 with
//! the right structure inside, so text that merely talks about keys does not count. Formats:
//! RFC 7468, RFC 5958 (PKCS#8), RFC 8017 (PKCS#1), RFC 5915 (EC), OpenSSH's PROTOCOL.key, RFC 7292
//! (PKCS#12), RFC 9580 (OpenPGP), Java's JKS and JCEKS, PuTTY, Dropbear, GnuPG's private-keys-v1.d.

mod binary;
mod openpgp;
mod text;

/// What kind of private key a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PrivateKey {
    /// A PEM block: PKCS#8, PKCS#1, SEC 1 or DSA.
    Pem,
    /// An OpenSSH private key.
    OpenSsh,
    /// An OpenPGP secret key.
    OpenPgp,
    /// A PuTTY key file.
    Putty,
    /// A DER file: PKCS#8, PKCS#1 or SEC 1.
    Der,
    /// A PKCS#12 store with a key in it.
    Pkcs12,
    /// A Java keystore (JKS or JCEKS) with a key in it.
    JavaKeyStore,
    /// A host key of Dropbear.
    Dropbear,
    /// A key file of GnuPG's agent.
    GnuPgAgent,
}

impl std::fmt::Display for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pem => "a PEM private key",
            Self::OpenSsh => "an OpenSSH private key",
            Self::OpenPgp => "an OpenPGP secret key",
            Self::Putty => "a PuTTY private key",
            Self::Der => "a DER private key",
            Self::Pkcs12 => "a PKCS#12 store with a private key",
            Self::JavaKeyStore => "a Java keystore with a private key",
            Self::Dropbear => "a Dropbear host key",
            Self::GnuPgAgent => "a GnuPG private key",
        })
    }
}

/// Paths below these hold documentation: keys there are examples.
const DOCUMENTATION: [&str; 4] =
    ["usr/share/doc/", "usr/share/man/", "usr/share/info/", "usr/share/doc-base/"];
/// Folders of these names hold other people's libraries, as they are published or compiled from that:
/// keys there belong to their tests.
const LIBRARIES: [&str; 4] = ["dist-packages", "site-packages", "node_modules", "gems"];

/// Whether what stands at `path` (relative to the root) is public, so that keys there are no secrets.
pub fn is_public(path: &str) -> bool {
    DOCUMENTATION.iter().any(|directory| path.starts_with(directory))
        || path.split('/').rev().skip(1).any(|name| LIBRARIES.contains(&name))
}

/// The private key in a file's content, if there is one.
pub fn detect(content: &[u8]) -> Option<PrivateKey> {
    text::detect(content).or_else(|| binary::detect(content))
}

#[cfg(test)]
mod tests;
