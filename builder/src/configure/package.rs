//! A package as dpkg knows it once it is unpacked: control files and what they say.

use std::collections::BTreeMap;

use drystone_store::realisation::Output;
use drystone_store::store::{Store, StoreError};

use super::ConfigureError;
use super::triggers::{Directive, parse_directives};
use crate::finish::status::Conffile;
use drystone_source::debian::control;
use drystone_source::debian::deb::{CONFFILE_DIGESTS, ImportedDeb, LIST};
use drystone_source::debian::relation::RelationField;

/// A package that was imported, with its control files.
#[derive(Debug, Clone)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture (`all` for independent ones).
    pub architecture: String,
    /// Its priority, such as `optional`.
    pub priority: String,
    /// Whether it is `Multi-Arch: same`, which shows in file names of dpkg's database.
    pub is_multi_arch_same: bool,
    /// Replaces, as written.
    pub replaces: RelationField,
    /// Pre-Depends, as written.
    pub pre_depends: RelationField,
    /// Depends, as written.
    pub depends: RelationField,
    /// Names that it provides.
    pub provides: RelationField,
    /// Control files by name, with their modes.
    pub control_files: BTreeMap<String, (u32, Vec<u8>)>,
    /// Its triggers.
    pub directives: Vec<Directive>,
    /// The data tree.
    pub data: Output,
    /// The control tree.
    pub control: Output,
}

impl Package {
    /// Reads a package's control tree.
    pub fn load(store: &Store, imported: &ImportedDeb) -> Result<Self, ConfigureError> {
        let mut control_files = BTreeMap::new();
        store.read_tree(&imported.control, |entry, content| {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).map_err(|source| StoreError::Io {
                action: "read",
                path: entry.path.as_str().into(),
                source,
            })?;
            control_files.insert(entry.path.to_string(), (entry.mode, bytes));
            Ok::<(), StoreError>(())
        })?;
        let bad = |problem: String| ConfigureError::Control {
            package: imported.data.path.name().to_owned(),
            problem,
        };
        let text = control_files.get("control").ok_or_else(|| bad("no control file".into()))?;
        let text = std::str::from_utf8(&text.1).map_err(|error| bad(error.to_string()))?;
        let paragraph = control::paragraphs(text)
            .next()
            .ok_or_else(|| bad("its control file is empty".into()))?
            .map_err(|error| bad(error.to_string()))?;
        let value = |name: &str| paragraph.value(name).unwrap_or_default().to_owned();
        let relation = |name: &str| {
            RelationField::new(&value(name)).map_err(|error| bad(format!("{name}: {error}")))
        };
        let directives = match control_files.get("triggers") {
            Some((_, bytes)) => parse_directives(&String::from_utf8_lossy(bytes)),
            None => Vec::new(),
        };
        Ok(Self {
            name: value("Package"),
            version: value("Version"),
            architecture: value("Architecture"),
            priority: value("Priority"),
            is_multi_arch_same: value("Multi-Arch") == "same",
            replaces: relation("Replaces")?,
            pre_depends: relation("Pre-Depends")?,
            depends: relation("Depends")?,
            provides: relation("Provides")?,
            directives,
            data: imported.data.clone(),
            control: imported.control.clone(),
            control_files,
        })
    }

    /// The part of dpkg's file names that stands for this package: `NAME` or `NAME:ARCH`.
    pub fn info_name(&self) -> String {
        match self.is_multi_arch_same {
            true => format!("{}:{}", self.name, self.architecture),
            false => self.name.clone(),
        }
    }

    /// The control file as text.
    pub fn control_text(&self) -> String {
        self.text("control")
    }

    /// Whether it has this maintainer script.
    pub fn has_script(&self, name: &str) -> bool {
        self.control_files.contains_key(name)
    }

    /// Whether configuring it can have an effect: a script of the two that an installation runs,
    /// or an interest in triggers.
    pub fn has_effects(&self) -> bool {
        self.has_script("preinst") || self.has_script("postinst")
    }

    /// Configuration files with the MD5 of the package's content, as dpkg's status names them.
    pub fn conffiles(&self) -> Vec<Conffile> {
        let text = self.text(CONFFILE_DIGESTS);
        let mut digests: BTreeMap<&str, &str> =
            text.lines().filter_map(|line| line.rsplit_once(' ')).collect();
        // dpkg keeps the order of the package's own `conffiles`.
        self.text("conffiles")
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let path = words.next_back()?;
                let remove_on_upgrade = words.any(|word| word == "remove-on-upgrade");
                // Of what an upgrade will remove, the package itself has nothing (deb-conffiles(5)).
                let gone = remove_on_upgrade.then_some("newconffile");
                let md5 = digests.remove(path).or(gone)?.to_owned();
                Some(Conffile { path: path.to_owned(), md5, obsolete: false, remove_on_upgrade })
            })
            .collect()
    }

    /// dpkg's file list.
    pub fn list(&self) -> String {
        self.text(LIST)
    }

    fn text(&self, name: &str) -> String {
        let bytes = self.control_files.get(name).map_or(&[][..], |(_, bytes)| bytes);
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// Whether this package declares Replaces for `other`.
    pub fn replaces(&self, other: &Self) -> bool {
        self.replaces.names().any(|name| {
            name == other.name || other.provides.names().any(|provided| provided == name)
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use drystone_store::digest::BlobDigest;
    use drystone_store::path::StorePath;
    use drystone_store::realisation::ListingRef;

    use super::*;

    /// A package of a name with further control fields, perhaps with a `postinst`; its trees are
    /// nowhere.
    pub fn package(name: &str, fields: &str, has_postinst: bool) -> Package {
        let control = format!("Package: {name}\nVersion: 4\nArchitecture: amd64\n{fields}");
        let paragraph = control::paragraphs(&control).next().unwrap().unwrap();
        let relation = |name| RelationField::new(paragraph.value(name).unwrap_or("")).unwrap();
        let script = ("postinst".to_owned(), (0o755, b"#!/bin/sh\n".to_vec()));
        let nowhere = Output {
            path: StorePath::new("a".repeat(52).parse().unwrap(), name),
            diff_id: format!("sha256:{}", "0".repeat(64)).parse().unwrap(),
            size: 1024,
            layers: Vec::new(),
            listing: ListingRef { digest: BlobDigest::of(b""), size: 0 },
            references: Vec::new(),
        };
        Package {
            name: name.to_owned(),
            version: "4".to_owned(),
            architecture: "amd64".to_owned(),
            is_multi_arch_same: false,
            priority: String::new(),
            replaces: relation("Replaces"),
            pre_depends: relation("Pre-Depends"),
            depends: relation("Depends"),
            provides: relation("Provides"),
            control_files: has_postinst.then_some(script).into_iter().collect(),
            directives: Vec::new(),
            data: nowhere.clone(),
            control: nowhere,
        }
    }
}
