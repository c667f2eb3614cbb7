//! dpkg's database as files, written by hand: `/var/lib/dpkg` (dpkg(1), FILES).

use std::collections::BTreeMap;

use drystone_store::tree::{Entry, SpoolError, TreePath, TreeSpool};

use super::Package;
use super::triggers::Triggers;
use crate::finish::status::{PackageState, StatusError, status_paragraph};

/// Where the database is.
pub const DIRECTORY: &str = "var/lib/dpkg";

/// Control files that dpkg does not keep in `info`, or that the import added.
const NOT_KEPT: [&str; 3] = ["control", "list", "conffiles.md5"];

/// The status file of packages in their states, sorted as dpkg sorts it.
pub fn status<'p>(
    packages: impl IntoIterator<Item = (&'p Package, PackageState)>,
) -> Result<String, StatusError> {
    let mut sorted: Vec<_> = packages.into_iter().collect();
    sorted.sort_by_key(|(package, _)| (&package.name, &package.architecture));
    let mut text = String::new();
    for (package, state) in sorted {
        text.push_str(&paragraph(package, state)?);
        text.push('\n');
    }
    Ok(text)
}

/// What the status file says of a package in a state, whose configuration files are filled in.
pub fn paragraph(package: &Package, state: PackageState) -> Result<String, StatusError> {
    let state = PackageState { conffiles: package.conffiles(), ..state };
    status_paragraph(&package.control_text(), &state)
}

/// Adds the database of newly unpacked packages: control files and lists of `new`, with what dpkg
/// makes of its own (`information`, by name), and the shared files of all packages.
pub fn add_files(
    spool: &mut TreeSpool,
    new: &[Package],
    information: &BTreeMap<String, String>,
    status: &str,
    triggers: &Triggers,
    architecture: &str,
) -> Result<(), SpoolError> {
    for parent in ["var", "var/lib", DIRECTORY] {
        spool.add_empty(Entry::directory(path(parent)))?;
    }
    for name in ["alternatives", "info", "parts", "triggers", "updates"] {
        spool.add_empty(Entry::directory(path(&format!("{DIRECTORY}/{name}"))))?;
    }
    let mut files: BTreeMap<String, (u32, Vec<u8>)> = BTreeMap::from([
        ("arch".into(), (0o644, format!("{architecture}\n").into_bytes())),
        ("status".into(), (0o644, status.into())),
        ("lock".into(), (0o640, Vec::new())),
        ("lock-frontend".into(), (0o640, Vec::new())),
        ("info/format".into(), (0o644, b"1\n".to_vec())),
    ]);
    for (name, text) in triggers.files() {
        let mode = if name == "Lock" { 0o600 } else { 0o644 };
        files.insert(format!("triggers/{name}"), (mode, text.into_bytes()));
    }
    for package in new {
        let prefix = format!("info/{}", package.info_name());
        for (name, (mode, bytes)) in &package.control_files {
            if !NOT_KEPT.contains(&name.as_str()) {
                files.insert(format!("{prefix}.{name}"), (*mode, bytes.clone()));
            }
        }
        files.insert(format!("{prefix}.list"), (0o644, package.list().into_bytes()));
    }
    for (name, text) in information {
        files.insert(format!("info/{name}"), (0o644, text.clone().into_bytes()));
    }
    for (name, (mode, bytes)) in files {
        spool.add_file(path(&format!("{DIRECTORY}/{name}")), mode, &bytes)?;
    }
    Ok(())
}

fn path(text: &str) -> TreePath {
    TreePath::new(text).expect("package names were checked, so the path is valid")
}
