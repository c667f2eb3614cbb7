//! Packages made by a test, in a repository signed with a key of its own.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{can_run, http, project, succeed};

/// Programs that a repository needs.
const PROGRAMS: &[&str] = &["dpkg-deb", "apt-ftparchive", "gpg", "xz", "gzip"];

/// A repository below a folder.
pub struct Repository {
    folder: PathBuf,
    keys: PathBuf,
}

/// A package as a test writes it: control fields, files, scripts.
pub struct Deb<'a> {
    pub name: &'a str,
    pub version: &'a str,
    /// Further lines of the control file.
    pub fields: &'a str,
    /// Paths without leading slash; a content that starts with `#!` makes an executable file, one
    /// that starts with `-> ` a link to what follows.
    pub files: &'a [(&'a str, &'a str)],
    /// `preinst`, `postinst`, `conffiles`, `triggers`… and their texts.
    pub control: &'a [(&'a str, &'a str)],
}

impl Repository {
    /// An empty one; `None`, said aloud, where its tools are missing.
    pub fn new(folder: &Path) -> Option<Self> {
        if !can_run(PROGRAMS, false) {
            return None;
        }
        fs::create_dir_all(folder.join("pool")).unwrap();
        let keys = folder.with_extension("keys");
        Some(Self { folder: folder.to_owned(), keys })
    }

    /// Makes a package and puts it in.
    pub fn add(&self, deb: &Deb<'_>) -> PathBuf {
        let work = self.folder.with_extension("work").join(deb.name);
        let _ = fs::remove_dir_all(&work);
        for (path, content) in deb.files {
            write(&work.join(path), content);
        }
        for (name, content) in deb.control {
            write(&work.join("DEBIAN").join(name), content);
        }
        let control = format!(
            "Package: {}\nVersion: {}\nArchitecture: all\nMaintainer: A Test <test@example.com>\n\
             Section: misc\nPriority: optional\n{}Description: made by a test\n",
            deb.name, deb.version, deb.fields
        );
        write(&work.join("DEBIAN/control"), &control);
        let target = self.path(deb.name, deb.version);
        let mut build = Command::new("dpkg-deb");
        build.args(["--root-owner-group", "-Zgzip", "--build"]).arg(&work).arg(&target);
        succeed(&mut build);
        target
    }

    /// Where a package lies.
    pub fn path(&self, name: &str, version: &str) -> PathBuf {
        self.folder.join("pool").join(format!("{name}_{version}_all.deb"))
    }

    /// Writes and signs the indexes anew.
    pub fn publish(&self, environment: &[(&str, &str)]) {
        let mut script = Command::new(project().join("tests/support/signed_repository.sh"));
        script.arg(&self.folder).arg(&self.keys).envs(environment.iter().copied());
        succeed(&mut script);
    }

    /// The public key.
    pub fn key(&self) -> PathBuf {
        self.keys.join("repository.asc")
    }

    /// A file of the repository.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Serves it; its address.
    pub fn serve(&self) -> String {
        http::serve(self.folder.clone())
    }

    /// The table of image.toml that names it.
    pub fn table(&self, address: &str) -> String {
        format!(
            "[debian.repository.local]\nurl = \"{address}\"\nsuite = \"test\"\nkey = \"{}\"\n",
            self.key().display()
        )
    }
}

fn write(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    if let Some(target) = content.strip_prefix("-> ") {
        symlink(target, path).unwrap();
    } else {
        fs::write(path, content).unwrap();
        let mode = if content.starts_with("#!") { 0o755 } else { 0o644 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    // Folders too: whatever the umask, dpkg-deb asks for 0755 on DEBIAN.
    let folder = path.parent().unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}
