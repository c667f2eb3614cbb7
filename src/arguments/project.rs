//! `init`, `add`, `remove`, `doctor`, `completions`, `man`.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use super::ImageOption;

/// `drystone init`.
#[derive(Debug, Clone, Args)]
pub struct InitArguments {
    /// The folder to write it to; made if it is missing
    #[arg(value_name = "DIR", default_value = ".")]
    pub directory: PathBuf,
    /// The image's name [default: the folder's]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The Debian suite
    #[arg(long, value_name = "SUITE", default_value = "bookworm")]
    pub suite: String,
}

/// `drystone add`.
#[derive(Debug, Clone, Args)]
pub struct AddArguments {
    /// Packages, as NAME or as NAME=VERSION, where `22.*` stands for all versions of 22
    #[arg(value_name = "PACKAGE", required = true)]
    pub packages: Vec<String>,
    /// The repository of image.toml that they come from
    #[arg(long, value_name = "REPOSITORY")]
    pub from: Option<String>,
    #[command(flatten)]
    pub image: ImageOption,
}

/// `drystone remove`.
#[derive(Debug, Clone, Args)]
pub struct RemoveArguments {
    /// Packages that image.toml names
    #[arg(value_name = "PACKAGE", required = true)]
    pub packages: Vec<String>,
    #[command(flatten)]
    pub image: ImageOption,
}

/// `drystone doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorArguments {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `drystone completions`.
#[derive(Debug, Clone, Args)]
pub struct CompletionsArguments {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// `drystone man`.
#[derive(Debug, Clone, Args)]
pub struct ManArguments {
    /// The folder to write them to; made if it is missing
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}
