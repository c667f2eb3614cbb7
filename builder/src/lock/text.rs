//! Writes the lock's text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use jiff::Timestamp;

use crate::spec::{ImageName, Platform};

use super::model::{
    Index, IndexKey, LayerMember, Lock, LockedImage, LockedPackage, LockedPlatform, PackageKey,
    VERSION,
};
use super::references::References;
use super::request::LockedRequest;

const HEAD: &str = "\
# What this project's images are made of, chosen by drystone. Commit this file.
# `drystone build` adds what is missing; only `drystone update` moves what stands here.
";

impl Lock {
    /// The lock as text: the same for equal values, whatever order they were made in.
    pub fn to_text(&self) -> String {
        let mut text = String::from(HEAD);
        self.write(&mut text).expect("writing to a string cannot fail");
        text
    }

    fn write(&self, text: &mut String) -> fmt::Result {
        writeln!(text, "version = {VERSION}")?;
        for (key, index) in &self.indexes {
            write_index(text, key, index)?;
        }
        let mut references = BTreeMap::new();
        for (name, image) in &self.images {
            write_image(text, name, image)?;
            for (platform, content) in &image.platforms {
                let references = references
                    .entry(*platform)
                    .or_insert_with(|| References::of_lock(self, *platform));
                write_platform(text, name, *platform, content, references)?;
            }
        }
        for (key, package) in &self.packages {
            write_package(text, key, package)?;
        }
        Ok(())
    }
}

fn write_index(text: &mut String, key: &IndexKey, index: &Index) -> fmt::Result {
    writeln!(text, "\n[[index]]")?;
    writeln!(text, "repository = {}", quote(key.archive.repository.as_str()))?;
    writeln!(text, "suite = {}", quote(key.archive.suite.as_str()))?;
    writeln!(text, "architecture = {}", quote(key.architecture.as_str()))?;
    let components = index.components.iter().map(|component| quote(component.as_str()));
    writeln!(text, "components = [{}]", components.collect::<Vec<_>>().join(", "))?;
    writeln!(text, "release = {}", quote(&index.release.to_hex()))?;
    writeln!(text, "date = {}", date(index.date))?;
    if let Some(valid_until) = index.valid_until {
        writeln!(text, "valid-until = {}", date(valid_until))?;
    }
    writeln!(text, "signer = {}", quote(index.signer.as_str()))
}

fn write_package(text: &mut String, key: &PackageKey, package: &LockedPackage) -> fmt::Result {
    writeln!(text, "\n[[package]]")?;
    writeln!(text, "name = {}", quote(key.name.as_str()))?;
    writeln!(text, "version = {}", quote(key.version.as_str()))?;
    writeln!(text, "architecture = {}", quote(key.architecture.as_str()))?;
    writeln!(text, "repository = {}", quote(package.archive.repository.as_str()))?;
    writeln!(text, "suite = {}", quote(package.archive.suite.as_str()))?;
    if package.source != key.name {
        writeln!(text, "source = {}", quote(package.source.as_str()))?;
    }
    writeln!(text, "path = {}", quote(package.path.as_str()))?;
    writeln!(text, "size = {}", package.size)?;
    writeln!(text, "sha256 = {}", quote(&package.sha256.to_hex()))?;
    if let Some(tree) = package.tree {
        writeln!(text, "tree = {}", quote(&tree.to_string()))?;
    }
    if let Some(control) = package.control {
        writeln!(text, "control = {}", quote(&control.to_string()))?;
    }
    Ok(())
}

fn write_image(text: &mut String, name: &ImageName, image: &LockedImage) -> fmt::Result {
    let title = format!("image.{}", key(name.as_str()));
    writeln!(text, "\n[{title}]")?;
    if let Some(when) = image.date {
        writeln!(text, "date = {}", date(when))?;
    }
    if let Some(base) = &image.base {
        writeln!(text, "from = {}", quote(&base.from))?;
        writeln!(text, "base = {}", quote(&base.digest.to_hex()))?;
    }
    if let Some(suite) = &image.suite {
        writeln!(text, "suite = {}", quote(suite.as_str()))?;
    }
    write_list(text, "archives", image.archives.iter().map(ToString::to_string))?;
    if let Some(request) = &image.request {
        writeln!(text, "\n[{title}.request]")?;
        write_request(text, request)?;
    }
    for (table, ids) in [("users", &image.users), ("groups", &image.groups)] {
        if !ids.is_empty() {
            writeln!(text, "\n[{title}.{table}]")?;
            ids.iter().try_for_each(|(name, id)| writeln!(text, "{} = {id}", key(name)))?;
        }
    }
    for (recipe, locked) in &image.recipes {
        writeln!(text, "\n[{title}.recipe.{}]", key(recipe.as_str()))?;
        for (source, digest) in &locked.sources {
            writeln!(text, "{} = {}", key(source), quote(&digest.to_hex()))?;
        }
    }
    Ok(())
}

/// What image.toml leaves out is left out.
fn write_request(text: &mut String, request: &LockedRequest) -> fmt::Result {
    writeln!(text, "suite = {}", quote(request.suite.as_str()))?;
    let components: Vec<_> =
        request.components.iter().map(|component| component.as_str()).collect();
    if components != ["main"] {
        write_list(text, "components", components.iter().map(ToString::to_string))?;
    }
    write_list(text, "packages", request.packages.iter().map(ToString::to_string))?;
    if request.essential {
        writeln!(text, "essential = true")?;
    }
    if request.recommends {
        writeln!(text, "recommends = true")?;
    }
    write_list(text, "exclude", request.exclude.iter().map(ToString::to_string))?;
    write_list(text, "repositories", request.repositories.iter().map(ToString::to_string))?;
    write_list(text, "recipes", request.recipes.iter().map(ToString::to_string))
}

fn write_platform(
    text: &mut String,
    image: &ImageName,
    platform: Platform,
    content: &LockedPlatform,
    references: &References<'_>,
) -> fmt::Result {
    let title = format!("image.{}.platform.{}", key(image.as_str()), key(platform.as_str()));
    writeln!(text, "\n[{title}]")?;
    let roles: [(&str, &BTreeSet<PackageKey>); 3] = [
        ("packages", &content.packages),
        ("essential", &content.essential),
        ("configure", &content.configure),
    ];
    for (role, keys) in roles {
        write_list(text, role, keys.iter().map(|key| references.text(key)))?;
    }
    if let Some(order) = &content.order {
        writeln!(text, "order = {}", quote(order))?;
    }
    write_layers(text, &content.layers)?;
    if !content.recipes.is_empty() {
        writeln!(text, "\n[{title}.build]")?;
        for (recipe, keys) in &content.recipes {
            let name = key(recipe.as_str());
            match keys.is_empty() {
                true => writeln!(text, "{name} = []")?,
                false => write_list(text, &name, keys.iter().map(|key| references.text(key)))?,
            }
        }
    }
    if !content.found_by.is_empty() {
        writeln!(text, "\n[{title}.found-by]")?;
        for (package, recipe) in &content.found_by {
            writeln!(text, "{} = {}", key(package.as_str()), quote(recipe.as_str()))?;
        }
    }
    Ok(())
}

/// A list with one item a line; nothing when it is empty.
fn write_list(text: &mut String, name: &str, items: impl Iterator<Item = String>) -> fmt::Result {
    let mut items = items.peekable();
    if items.peek().is_none() {
        return Ok(());
    }
    writeln!(text, "{name} = [")?;
    items.try_for_each(|item| writeln!(text, "    {},", quote(&item)))?;
    writeln!(text, "]")
}

/// One layer a line, or for a pack one member a line: a package that moves is then one line.
fn write_layers(text: &mut String, layers: &[Vec<LayerMember>]) -> fmt::Result {
    if layers.is_empty() {
        return Ok(());
    }
    writeln!(text, "layers = [")?;
    for layer in layers {
        match layer.as_slice() {
            [] => writeln!(text, "    [],")?,
            [one] => writeln!(text, "    [{}],", quote(&one.to_string()))?,
            members => {
                writeln!(text, "    [")?;
                for member in members {
                    writeln!(text, "        {},", quote(&member.to_string()))?;
                }
                writeln!(text, "    ],")?;
            }
        }
    }
    writeln!(text, "]")
}

fn date(timestamp: Timestamp) -> String {
    quote(&timestamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// A TOML key: bare where TOML permits it.
fn key(name: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !name.is_empty() && name.bytes().all(bare) { name.to_owned() } else { quote(name) }
}

/// A TOML basic string (TOML 1.0, "String").
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            character if character.is_control() => {
                // Control characters lie below U+00A0, so four digits hold every one.
                quoted.push_str(&format!("\\u{:04X}", u32::from(character)));
            }
            character => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}
