//! What a script left in an output's folder, as a tree.

use std::io::Read as _;

use drystone_store::tree::{Entry, Kind, TreePath, TreeSpool};

use super::RecipeError;
use crate::finish::private_keys;
use crate::sandbox::{SandboxError, Scan};
use drystone_source::debian::deb::merge_usr;

/// Files up to this size are searched for private keys.
const KEY_LIMIT: u64 = 1 << 20;
const SETUID_BITS: u32 = 0o6000;
/// Folders that exist in builds and in no image.
const BUILD_FOLDERS: [&str; 3] = ["build", "out", "tmp"];

/// An output that is looked at.
pub struct Collected<'a> {
    /// The recipe.
    pub recipe: &'a str,
    /// The output.
    pub output: &'a str,
}

impl Collected<'_> {
    /// Takes what is in the folder, as 0:0 with modes 0644 and 0755, mapped to merged `/usr`.
    pub fn take(&self, scan: &Scan, spool: &mut TreeSpool) -> Result<(), RecipeError> {
        let (recipe, output) = (self.recipe.to_owned(), self.output.to_owned());
        if let Some(found) = scan.unsupported().first() {
            let (path, what) = (found.path.clone(), found.what.clone());
            return Err(RecipeError::Special { recipe, output, path, what });
        }
        if scan.entries().is_empty() {
            return Err(RecipeError::Empty { recipe, output });
        }
        for (index, item) in scan.entries().iter().enumerate() {
            let entry = self.normalised(&item.entry)?;
            match entry.kind {
                Kind::File { size } => {
                    let mut file = scan.open(index)?;
                    if size > KEY_LIMIT {
                        spool.replace(entry, &mut file)?;
                        continue;
                    }
                    let mut bytes = Vec::new();
                    file.read_to_end(&mut bytes).map_err(|source| SandboxError::Io {
                        action: "read, in an output,".into(),
                        path: entry.path.as_str().into(),
                        source,
                    })?;
                    self.refuse_key(&entry, &bytes)?;
                    spool.replace(entry, &mut bytes.as_slice())?;
                }
                _ => spool.replace(entry, &mut std::io::empty())?,
            }
        }
        Ok(())
    }

    fn normalised(&self, written: &Entry) -> Result<Entry, RecipeError> {
        let (recipe, output) = (self.recipe.to_owned(), self.output.to_owned());
        let is_symlink = matches!(written.kind, Kind::Symlink { .. });
        let mut entry = written.clone();
        entry.path = merge_usr(entry.path, is_symlink);
        (entry.uid, entry.gid) = (0, 0);
        entry.xattrs.clear();
        match &mut entry.kind {
            Kind::Directory => entry.mode = 0o755,
            Kind::File { .. } | Kind::HardLink { .. } => {
                if entry.mode & SETUID_BITS != 0 {
                    return Err(RecipeError::Setuid { recipe, output, path: entry.path });
                }
                entry.mode = if entry.mode & 0o111 == 0 { 0o644 } else { 0o755 };
                if let Kind::HardLink { target } = &mut entry.kind {
                    *target = merge_usr(target.clone(), false);
                }
            }
            Kind::Symlink { target } => {
                if let Some(problem) = link_problem(&written.path, target) {
                    let (path, target) = (entry.path, target.clone());
                    return Err(RecipeError::Link { recipe, output, path, target, problem });
                }
            }
            Kind::Deletion => {}
        }
        Ok(entry)
    }

    fn refuse_key(&self, entry: &Entry, bytes: &[u8]) -> Result<(), RecipeError> {
        match private_keys::detect(bytes) {
            Some(kind) if !private_keys::is_public(entry.path.as_str()) => {
                Err(RecipeError::PrivateKey {
                    recipe: self.recipe.to_owned(),
                    output: self.output.to_owned(),
                    path: entry.path.clone(),
                    kind: kind.to_string(),
                })
            }
            _ => Ok(()),
        }
    }
}

/// What is wrong with a link's text, if anything is.
fn link_problem(path: &TreePath, target: &str) -> Option<&'static str> {
    if let Some(absolute) = target.strip_prefix('/') {
        let top = absolute.split('/').find(|part| !part.is_empty()).unwrap_or_default();
        return BUILD_FOLDERS.contains(&top).then_some("leads into the build");
    }
    let mut depth = path.components().count() - 1;
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if depth == 0 => return Some("leads out of the output"),
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_in_the_image() {
        let path = TreePath::new("usr/lib/x.so").unwrap();
        for good in ["x.so.1", "../share/x", "/usr/share/x", "../../etc/x", "/outer", "/"] {
            assert_eq!(link_problem(&path, good), None, "{good}");
        }
        for bad in ["../../../etc/x", "../x/../../../y", "/build/source/x", "//out/out/x", "/tmp/x"]
        {
            assert!(link_problem(&path, bad).is_some(), "{bad}");
        }
    }
}
