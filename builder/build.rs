//! Names the program by the sources of what shapes images, so that no cache answers for another
//! version: see `src/build/whole.rs`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

fn main() -> io::Result<()> {
    let mut files = Vec::new();
    // The other crates stand beside this one; a published package names them by their versions.
    for folder in ["src", "data", "../source/src", "../http/src", "../store/src"] {
        let folder = Path::new(folder);
        if folder.is_dir() {
            println!("cargo::rerun-if-changed={}", folder.display());
            find(folder, &mut files)?;
        }
    }
    files.sort();
    let mut hasher = blake3::Hasher::new();
    for file in files {
        let content = fs::read(&file)?;
        hasher.update(file.to_string_lossy().as_bytes());
        hasher.update(&[0]);
        hasher.update(blake3::hash(&content).as_bytes());
    }
    println!("cargo::rustc-env=DRYSTONE_SOURCES={}", hasher.finalize().to_hex());
    Ok(())
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => find(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}
