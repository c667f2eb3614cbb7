//! `key`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `drystone key`.
#[derive(Debug, Clone, Subcommand)]
pub enum KeyCommand {
    /// Make a signing key, and print its public line
    Generate(KeyGenerateArguments),
    /// Print the public line of a signing key
    Public(KeyPublicArguments),
    /// Believe what a key signs: adds it to the user's config.toml
    Trust(KeyTrustArguments),
    /// Never believe a key again: adds it to the user's config.toml
    Revoke(KeyRevokeArguments),
    /// Show the keys that are trusted, and whether they count
    List(KeyListArguments),
}

/// `drystone key generate`.
#[derive(Debug, Clone, Args)]
pub struct KeyGenerateArguments {
    /// What the key is called: letters, digits, `+`, `.`, `_`, `-`
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The file to write the secret key to; it must not exist
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

/// `drystone key public`.
#[derive(Debug, Clone, Args)]
pub struct KeyPublicArguments {
    /// The file with the secret key [default: the key of the setting `signing-key`]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Print it as PEM, as `cosign verify --key` and openssl take it
    #[arg(long)]
    pub pem: bool,
}

/// `drystone key trust`.
#[derive(Debug, Clone, Args)]
pub struct KeyTrustArguments {
    /// The public line: `NAME:BASE64`, with `;not-before=DATE` and `;not-after=DATE` if wanted
    #[arg(value_name = "LINE")]
    pub line: String,
}

/// `drystone key revoke`.
#[derive(Debug, Clone, Args)]
pub struct KeyRevokeArguments {
    /// A trusted key's name or id, or any public line
    #[arg(value_name = "NAME|LINE")]
    pub key: String,
}

/// `drystone key list`.
#[derive(Debug, Clone, Args)]
pub struct KeyListArguments {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}
