//! Where the image goes.

use std::path::{Path, PathBuf};

use drystone_builder::output::{
    Engine, EngineKind, ImageName, LoadOutcome, Output, load, write_archive_file, write_layout,
};
use drystone_builder::progress::{Event, Progress};
use drystone_builder::spec::Image;
use serde::Serialize;

use super::name;
use super::pushing::Moved;
use crate::arguments::BuildArguments;
use crate::diagnostics::Failure;
use crate::interrupt;
use crate::progress::Display;

/// Where the image goes, and what it is called there.
pub struct Targets {
    /// Its name.
    pub name: ImageName,
    /// The tarball, if one is wanted.
    pub archive: Option<PathBuf>,
    layout: Option<PathBuf>,
    engines: Vec<EngineKind>,
}

/// One place where the image arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Written {
    /// A tarball.
    Archive {
        /// The file.
        path: PathBuf,
        /// Its bytes; 0 for what is no regular file.
        size: u64,
    },
    /// An OCI layout.
    OciLayout {
        /// The folder.
        path: PathBuf,
    },
    /// A container engine.
    Engine {
        /// `docker` or `podman`.
        engine: String,
        /// Whether it had the image already.
        already_there: bool,
    },
    /// A registry, or a folder as one.
    Registry {
        /// `REF@sha256:…`.
        reference: String,
        /// What was sent.
        blobs: Moved,
    },
}

impl Written {
    /// Where it was pushed to, if it was.
    pub fn pushed(&self) -> Option<&str> {
        match self {
            Self::Registry { reference, .. } => Some(reference),
            _ => None,
        }
    }
}

/// Where the tarball goes when nothing is said.
pub fn default_archive(image: &Image) -> PathBuf {
    let last = image.name.as_str().rsplit('/').next().unwrap_or("image");
    image.directory.join(format!("{last}.tar"))
}

impl Targets {
    /// Decides from what was typed.
    pub fn new(arguments: &BuildArguments, image: &Image) -> Result<Self, Failure> {
        let elsewhere = !arguments.load.is_empty()
            || arguments.oci_layout.is_some()
            || !arguments.push.is_empty();
        let archive = match &arguments.output {
            Some(path) => Some(path.clone()),
            None if elsewhere => None,
            None => Some(default_archive(image)),
        };
        if let Some(folder) = archive.as_deref().filter(|path| path.is_dir()) {
            return Err(Failure::usage(format!("{} is a folder", folder.display()))
                .hint("`-o` names a file; `--oci-layout` writes into a folder"));
        }
        Ok(Self {
            name: name(arguments.tag.as_deref(), image)?,
            archive,
            layout: arguments.oci_layout.clone(),
            engines: arguments.load.iter().copied().map(EngineKind::from).collect(),
        })
    }

    /// Whether the layers' bytes are written anywhere but to a registry.
    pub const fn need_layers(&self) -> bool {
        self.archive.is_some() || self.layout.is_some() || !self.engines.is_empty()
    }

    /// Writes the image everywhere.
    pub fn write(&self, output: &Output<'_>, display: &Display) -> Result<Vec<Written>, Failure> {
        let mut written = Vec::new();
        if let Some(path) = &self.archive {
            phase(display, format!("write {}", path.display()));
            let size = write_archive_file(output, path)?;
            written.push(Written::Archive { path: path.clone(), size });
        }
        if let Some(path) = &self.layout {
            interrupt::check().map_err(Failure::of)?;
            phase(display, format!("write the layout {}", path.display()));
            write_layout(output, path)?;
            written.push(Written::OciLayout { path: path.clone() });
        }
        for kind in &self.engines {
            interrupt::check().map_err(Failure::of)?;
            phase(display, format!("load into {kind}"));
            let outcome = load(output, &Engine::new(*kind))?;
            let already_there = outcome == LoadOutcome::AlreadyThere;
            written.push(Written::Engine { engine: kind.to_string(), already_there });
        }
        display.event(Event::Done { name: PHASE.to_owned() });
        Ok(written)
    }
}

const PHASE: &str = "output";

fn phase(display: &Display, text: String) {
    display.event(Event::Phase { name: PHASE.to_owned(), text });
}

/// A path for JSON.
pub fn shown(path: &Path) -> String {
    path.display().to_string()
}
