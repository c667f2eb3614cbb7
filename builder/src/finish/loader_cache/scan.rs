//! The libraries of every directory, and the SONAME links that they need.

use std::collections::BTreeMap;
use std::io;

use drystone_store::tree::TreePath;

use super::super::root_view::{Node, RootView, join, resolve};
use super::cache_file::{StringTable, compare_names};
use super::elf::{self, FLAG_ELF, FLAG_LIBC5, FLAG_LIBC6};
use super::{Ldconfig, LinkChange, LoaderCacheError, Machine};

/// The library type that a line of `ld.so.conf` may ask for (before glibc 2.37).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LibraryType {
    Any,
    Libc5,
    Libc6,
}

/// One entry of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedLibrary {
    pub soname: String,
    pub path: String,
    pub flags: i32,
    pub isa_level: u32,
    /// Capabilities by the old scheme: one bit for each.
    pub capabilities: u64,
    /// The `glibc-hwcaps` subdirectory.
    pub subdirectory: Option<String>,
}

struct Directory {
    /// As configured, not resolved: so it stands in the cache.
    path: String,
    /// Resolved: two names of one directory are scanned once.
    real: String,
    kind: LibraryType,
    subdirectory: Option<String>,
}

/// The best library for one SONAME in one directory so far.
struct Candidate {
    name: String,
    soname: String,
    flags: i32,
    isa_level: u32,
    is_link: bool,
}

/// The root with the links that ldconfig has changed so far.
struct Overlay<'a> {
    root: &'a dyn RootView,
    links: BTreeMap<String, Option<String>>,
}

impl RootView for Overlay<'_> {
    fn node(&self, path: &str) -> io::Result<Option<Node>> {
        match self.links.get(path) {
            Some(Some(target)) => Ok(Some(Node::Symlink { target: target.clone() })),
            Some(None) => Ok(None),
            None => self.root.node(path),
        }
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        // A directory is listed before its links are changed, so the root's own answer is right.
        self.root.list(path)
    }

    fn read(&self, path: &str, limit: u64) -> io::Result<Vec<u8>> {
        self.root.read(path, limit)
    }
}

/// One run of ldconfig.
pub struct Scan<'a> {
    pub ldconfig: &'a Ldconfig,
    overlay: Overlay<'a>,
    directories: Vec<Directory>,
    libraries: Vec<CachedLibrary>,
    strings: StringTable,
}

fn read_error(path: &str) -> impl FnOnce(io::Error) -> LoaderCacheError {
    let path = path.to_owned();
    move |source| LoaderCacheError::Read { path, source }
}

impl<'a> Scan<'a> {
    pub fn new(ldconfig: &'a Ldconfig, root: &'a dyn RootView) -> Self {
        Self {
            ldconfig,
            overlay: Overlay { root, links: BTreeMap::new() },
            directories: Vec::new(),
            libraries: Vec::new(),
            strings: StringTable::default(),
        }
    }

    pub fn root(&self) -> &dyn RootView {
        &self.overlay
    }

    /// Adds a configured directory and its `glibc-hwcaps` subdirectories, if it exists.
    pub fn add_directory(&mut self, path: &str, kind: LibraryType) -> Result<(), LoaderCacheError> {
        let resolved = resolve(&self.overlay, path).map_err(read_error(path))?;
        let Some((real, _)) = resolved else { return Ok(()) };
        let added = self.push(Directory { path: path.to_owned(), real, kind, subdirectory: None });
        if added { self.add_subdirectories(path, kind) } else { Ok(()) }
    }

    fn push(&mut self, directory: Directory) -> bool {
        if let Some(known) = self.directories.iter_mut().find(|known| known.real == directory.real)
        {
            known.kind = directory.kind;
            return false;
        }
        self.directories.push(directory);
        true
    }

    fn add_subdirectories(
        &mut self,
        path: &str,
        kind: LibraryType,
    ) -> Result<(), LoaderCacheError> {
        let parent = format!("{path}/glibc-hwcaps");
        let resolved = resolve(&self.overlay, &parent).map_err(read_error(&parent))?;
        let Some((real_parent, Node::Directory)) = resolved else { return Ok(()) };
        for name in self.names(&real_parent)? {
            if name.starts_with('.') || name.contains(':') {
                continue;
            }
            let inside = join(&real_parent, &name);
            let resolved = resolve(&self.overlay, &inside).map_err(read_error(&inside))?;
            if let Some((real, Node::Directory)) = resolved {
                self.strings.add(&name);
                let path = format!("{parent}/{name}");
                self.push(Directory { path, real, kind, subdirectory: Some(name) });
            }
        }
        Ok(())
    }

    fn names(&self, directory: &str) -> Result<Vec<String>, LoaderCacheError> {
        let mut names = self.overlay.list(directory).map_err(read_error(directory))?;
        names.sort();
        Ok(names)
    }

    /// Scans every directory; subdirectories found on the way are scanned last.
    pub fn search(&mut self) -> Result<(), LoaderCacheError> {
        let mut next = 0;
        while next < self.directories.len() {
            self.search_directory(next)?;
            next += 1;
        }
        Ok(())
    }

    fn search_directory(&mut self, index: usize) -> Result<(), LoaderCacheError> {
        let directory = &self.directories[index];
        let (path, real, kind) = (directory.path.clone(), directory.real.clone(), directory.kind);
        let subdirectory = directory.subdirectory.clone();
        if self.overlay.node(&real).map_err(read_error(&real))? != Some(Node::Directory) {
            return Ok(());
        }
        let mut candidates: Vec<Candidate> = Vec::new();
        for name in self.names(&real)? {
            if let Some(mut found) = self.examine(index, &name)? {
                found.flags = match (found.flags, kind) {
                    (FLAG_ELF, LibraryType::Libc5) => FLAG_LIBC5,
                    (FLAG_ELF, LibraryType::Libc6) => FLAG_LIBC6,
                    (flags, _) => flags,
                };
                self.consider(&mut candidates, found);
            }
        }
        let capabilities = match subdirectory {
            None if self.ldconfig.legacy => path_capabilities(self.ldconfig.machine, &path),
            _ => 0,
        };
        // ldconfig keeps its list newest first, which decides between entries that compare equal.
        for candidate in candidates.into_iter().rev() {
            let file = if subdirectory.is_none() {
                if !candidate.is_link {
                    self.link(&real, &candidate)?;
                }
                &candidate.soname
            } else {
                &candidate.name
            };
            let library = CachedLibrary {
                path: format!("{path}/{file}"),
                soname: candidate.soname,
                flags: candidate.flags,
                isa_level: candidate.isa_level,
                capabilities,
                subdirectory: subdirectory.clone(),
            };
            self.strings.add(&library.path);
            self.strings.add(&library.soname);
            self.libraries.push(library);
        }
        Ok(())
    }

    /// Looks at one name of a directory.
    fn examine(&mut self, index: usize, name: &str) -> Result<Option<Candidate>, LoaderCacheError> {
        let directory = &self.directories[index];
        let in_subdirectory = directory.subdirectory.is_some();
        let file = join(&directory.real, name);
        let node = self.overlay.node(&file).map_err(read_error(&file))?;
        let is_file = match node {
            Some(Node::File { .. }) => true,
            Some(Node::Directory | Node::Symlink { .. }) => false,
            Some(Node::Other) | None => return Ok(None),
        };
        let is_link = matches!(node, Some(Node::Symlink { .. }));
        let capability =
            self.ldconfig.legacy && !in_subdirectory && is_capability(self.ldconfig.machine, name);
        if !is_library_name(name) && (is_file || (!in_subdirectory && !capability)) {
            return Ok(None);
        }
        if is_temporary_name(name, self.ldconfig.legacy) {
            return Ok(None);
        }
        let Some((target, node)) = resolve(&self.overlay, &file).map_err(read_error(&file))? else {
            if name.contains(".so.") {
                self.overlay.links.insert(file, None);
            }
            return Ok(None);
        };
        match node {
            Node::Directory if capability => {
                let path = format!("{}/{name}", directory.path);
                let kind = directory.kind;
                self.push(Directory { path, real: target, kind, subdirectory: None });
                Ok(None)
            }
            Node::File { .. } => {
                let content = self.overlay.read(&target, u64::MAX).map_err(read_error(&target))?;
                Ok(elf::inspect(self.ldconfig, &content)
                    .map(|library| candidate(name, is_link, library)))
            }
            _ => Ok(None),
        }
    }

    /// Enters a library among the candidates of its directory: files before links, then the
    /// highest version.
    fn consider(&self, candidates: &mut Vec<Candidate>, found: Candidate) {
        let machine = self.ldconfig.machine;
        let Some(known) = candidates.iter_mut().find(|known| known.soname == found.soname) else {
            candidates.push(found);
            return;
        };
        let better = (!found.is_link && known.is_link)
            || (found.is_link == known.is_link
                && compare_names(machine, &known.name, &found.name).is_lt());
        if better {
            let specific = |flags| flags == FLAG_LIBC5 || flags == FLAG_LIBC6;
            if (known.flags == FLAG_ELF && specific(found.flags))
                || (specific(known.flags) && found.flags == FLAG_ELF)
            {
                known.flags = found.flags;
            }
            known.name = found.name;
            known.is_link = found.is_link;
            known.isa_level = found.isa_level;
        }
    }

    /// Notes the link from the SONAME to the library, where ldconfig would make or replace it.
    fn link(&mut self, real: &str, library: &Candidate) -> Result<(), LoaderCacheError> {
        // A SONAME is bytes from a file: one that is no plain name must not place a link.
        let Ok(link) = TreePath::new(join(real, &library.soname)) else { return Ok(()) };
        if library.soname.contains('/') {
            return Ok(());
        }
        let file = join(real, &library.name);
        let error = || read_error(link.as_str());
        let existing = resolve(&self.overlay, link.as_str()).map_err(error())?;
        if let Some((_, existing)) = existing {
            let target = resolve(&self.overlay, &file).map_err(error())?.map(|(_, node)| node);
            let same = match (&existing, &target) {
                (Node::File { id: left, .. }, Some(Node::File { id: right, .. })) => left == right,
                _ => false,
            };
            let plain = !matches!(
                self.overlay.node(link.as_str()).map_err(error())?,
                Some(Node::Symlink { .. })
            );
            if target.is_none() || same || plain || LOADER_SONAMES.contains(&&*library.soname) {
                return Ok(());
            }
        }
        self.overlay.links.insert(link.as_str().to_owned(), Some(library.name.clone()));
        Ok(())
    }

    /// The libraries in scan order, the strings that were seen, and the changed links.
    pub fn finish(self) -> (Vec<CachedLibrary>, StringTable, Vec<LinkChange>) {
        let mut links: Vec<LinkChange> = Vec::new();
        for (path, target) in self.overlay.links {
            if let Ok(path) = TreePath::new(path) {
                links.push(LinkChange { path, target });
            }
        }
        links.sort();
        (self.libraries, self.strings, links)
    }
}

/// The names of dynamic loaders whose existing links Debian's ldconfig leaves alone. Three of the
/// names in Debian's patch run together for want of commas there, so they have no effect.
const LOADER_SONAMES: [&str; 12] = [
    "ld-kfreebsd-x86-64.so.1",
    "ld-linux-aarch64.so.1",
    "ld-linux-aarch64_be.so.1",
    "ld-linux-armhf.so.3",
    "ld-linux-ia64.so.2",
    "ld-linux-mipsn8.so.1",
    "ld-linux-x86-64.so.2",
    "ld-linux.so.2",
    "ld-linux.so.3",
    "ld.so.1",
    "ld64.so.1",
    "ld64.so.2",
];

/// Names a library by its SONAME, or by its own name where it has none or is the link for `ld`.
fn candidate(name: &str, mut is_link: bool, library: elf::Library) -> Candidate {
    let soname = library.soname.unwrap_or_else(|| name.to_owned());
    if is_link && name != soname && !(name.ends_with(".so") && soname.starts_with(name)) {
        is_link = false;
    }
    let soname = if is_link { name.to_owned() } else { soname };
    Candidate {
        name: name.to_owned(),
        soname,
        flags: library.flags,
        isa_level: library.isa_level,
        is_link,
    }
}

fn is_library_name(name: &str) -> bool {
    ((name.starts_with("lib") || name.starts_with("ld-")) && name.contains(".so"))
        || name.starts_with("ld.so.")
        || name.starts_with("ld64.so.")
}

/// Names that prelink, rpm and dpkg give to files that they are still writing.
fn is_temporary_name(name: &str, legacy: bool) -> bool {
    const PRELINK: &str = ".#prelink#";
    let bytes = name.as_bytes();
    let suffix = PRELINK.len() + 7;
    let random = bytes.len() >= suffix && bytes[bytes.len() - suffix..].starts_with(b".#prelink#.");
    if name.ends_with(PRELINK) || random {
        return true;
    }
    !legacy && (name.contains(';') || name.ends_with(".dpkg-new") || name.ends_with(".dpkg-tmp"))
}

/// The bit of `tls` subdirectories.
const TLS_BIT: u32 = 63;
/// The bit of the first platform name on x86.
const FIRST_PLATFORM: u32 = 48;
const X86_CAPABILITIES: [&str; 3] = ["sse2", "x86_64", "avx512_1"];
const X86_PLATFORMS: [&str; 4] = ["i586", "i686", "haswell", "xeon_phi"];
const ARM64_CAPABILITIES: [&str; 32] = [
    "fp", "asimd", "evtstrm", "aes", "pmull", "sha1", "sha2", "crc32", "atomics", "fphp",
    "asimdhp", "cpuid", "asimdrdm", "jscvt", "fcma", "lrcpc", "dcpop", "sha3", "sm3", "sm4",
    "asimddp", "sha512", "sve", "asimdfhm", "dit", "uscat", "ilrcpc", "flagm", "ssbs", "sb",
    "paca", "pacg",
];

/// The bit of a capability or platform directory before glibc 2.37.
fn capability_bit(machine: Machine, name: &str) -> Option<u32> {
    let position = |names: &[&str]| names.iter().position(|known| *known == name);
    let bit = |index: usize| u32::try_from(index).ok();
    let found = match machine {
        Machine::Amd64 | Machine::I386 => position(&X86_CAPABILITIES)
            .and_then(bit)
            .or_else(|| position(&X86_PLATFORMS).and_then(bit).map(|index| index + FIRST_PLATFORM)),
        Machine::Arm64 => position(&ARM64_CAPABILITIES).and_then(bit),
        Machine::Armhf => None,
    };
    found.or_else(|| (name == "tls").then_some(TLS_BIT))
}

/// Whether a subdirectory of this name is searched: on arm64 only `atomics` counts as important.
fn is_capability(machine: Machine, name: &str) -> bool {
    match machine {
        Machine::Arm64 => matches!(name, "atomics" | "tls"),
        _ => capability_bit(machine, name).is_some(),
    }
}

/// The sum of the capability bits at the end of a directory's path.
fn path_capabilities(machine: Machine, path: &str) -> u64 {
    path.rsplit('/')
        // Without its slash a path has no component that counts.
        .take(path.matches('/').count())
        .map_while(|name| capability_bit(machine, name))
        .fold(0, |sum, bit| sum.wrapping_add(1 << bit))
}
