//! image.toml: what a user writes, read into the checked [`Image`].
//!
//! ```text
//! text -> document::Table (places, schema) -> Image -> Image::normalised (identity)
//! ```
//!
//! An [`Image`] holds only values that passed their own type's check ([`names`](PackageName),
//! paths, platforms…), so later steps never meet a bad name or path. Reading touches no file, no
//! network and no environment.

mod config;
mod debian;
mod files;
mod image;
mod names;
mod normalised;
mod options;
mod platform;
mod recipe;
mod recipe_file;
mod reference;
pub mod schema;
mod starter;
mod users;
mod values;

#[cfg(test)]
mod tests;

pub use config::{Account, Config, Healthcheck, UserReference};
pub use debian::{Debian, PackageRequest, RemoveState, Repository};
pub use files::{FileEntry, FileSource};
pub use image::{Image, SCHEMA};
pub use names::{
    AccountName, Architecture, Component, ImageName, Name, PackageName, PackageVersion, Suite, Tag,
    VersionPattern,
};
pub use options::{Compression, Finish, ImageOptions, Layers, MOST_LAYERS};
pub use platform::Platform;
pub use recipe::{ArchiveKind, DEFAULT_OUTPUT, Recipe, RecipeBuilder, RecipeOutput, RecipeSource};
pub use recipe_file::ReadFile;
pub use reference::ImageReference;
pub use starter::starter;
pub use users::{Group, User};
pub(crate) use values::address;
pub use values::{
    CacheAddress, LocalPath, PathPattern, Port, Protocol, RootedPath, duration, size,
};
