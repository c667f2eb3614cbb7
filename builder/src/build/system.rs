//! The image's own last package-level layer: accounts, loader cache, package status for scanners,
//! and corrections among packages. Pure: it needs no sandbox.

use std::collections::{BTreeMap, BTreeSet};

use drystone_store::derivation::Derivation;
use drystone_store::digest::TreeHash;
use drystone_store::layer::Compression;
use drystone_store::listing::Listing;
use drystone_store::realisation::Output;
use drystone_store::store::Store;
use drystone_store::tree::{Entry, Kind, TreePath, TreeSpool};

use super::corrections;
use super::view::StackView;
use super::{BuildError, PlatformWork};
use crate::configure::Package;
use crate::finish::accounts::{AccountTexts, Accounts, LAST_CHANGE, RequestedGroup, RequestedUser};
use crate::finish::loader_cache::{Ldconfig, Machine};
use crate::finish::root_view::RootView;
use crate::finish::shebang;
use crate::finish::status::{PackageState, scanner_files};
use crate::spec;
use crate::stack::Diversion;

/// Version of the `finish` builder: rises whenever its output can change.
const VERSION: u32 = 4;
/// Version of the `interpreters` builder: rises whenever its output can change.
const INTERPRETERS_VERSION: u32 = 2;
/// The one file of its tree: a line for each interpreter that is missing.
const MISSING: &str = "missing";
/// `/etc/ld.so.conf` as Debian's libc-bin ships it, for images without that package.
const LOADER_CONFIGURATION: &str = "include /etc/ld.so.conf.d/*.conf\n";

/// The longest `#!` line that Linux reads, and some more.
const INTERPRETER_LINE: u64 = 4096;
/// Scripts below these are run by the system's own tools, or by hand, if at all.
const NOT_PROGRAMS: [&str; 3] = ["etc/", "usr/share/", "var/lib/dpkg/"];

/// What the layer is made of.
pub struct System<'a> {
    /// The store.
    pub store: &'a Store,
    /// The image.
    pub image: &'a spec::Image,
    /// The platform's work so far.
    pub work: &'a PlatformWork,
    /// Recipes and local files, where they matter to the loader cache or the accounts.
    pub above: Vec<&'a Output>,
    /// Debian's name of the architecture.
    pub architecture: &'a str,
}

impl System<'_> {
    /// The accounts of the image, `[users]` and `[groups]` included.
    pub fn accounts(&self) -> Result<Accounts, BuildError> {
        let mut accounts = match &self.work.accounts {
            Some(texts) => Accounts::from_texts(texts, Some(LAST_CHANGE))?,
            None => self.master_accounts()?,
        };
        if self.work.accounts.is_none() {
            let packages = self.work.package_names();
            for (package, lines) in self.work.account_lines() {
                if packages.contains(package.as_str()) && package != "base-passwd" {
                    let text = |number: usize| {
                        lines.file(number).iter().map(|line| format!("{line}\n")).collect()
                    };
                    let texts = AccountTexts {
                        passwd: text(0),
                        group: text(1),
                        shadow: text(2),
                        gshadow: text(3),
                    };
                    accounts.add_package(package, &texts)?;
                }
            }
        }
        let groups: Vec<RequestedGroup> = self
            .image
            .groups
            .iter()
            .map(|(name, group)| RequestedGroup { name: name.to_string(), gid: group.gid })
            .collect();
        let users: Vec<RequestedUser> = self
            .image
            .users
            .iter()
            .map(|(name, user)| {
                let is_shared = accounts.has_group_number(user.gid)
                    || groups.iter().any(|group| group.gid == user.gid)
                    || user.gid != user.uid;
                RequestedUser {
                    name: name.to_string(),
                    uid: user.uid,
                    // Without a number a group of the user's own is made.
                    gid: is_shared.then_some(user.gid),
                    groups: user.groups.iter().map(ToString::to_string).collect(),
                    home: Some(user.home.to_string()),
                    shell: Some(user.shell.to_string()),
                    comment: Some(user.comment.clone()),
                }
            })
            .collect();
        accounts.add_requested(&users, &groups)?;
        Ok(accounts)
    }

    fn master_accounts(&self) -> Result<Accounts, BuildError> {
        let Some(base) = &self.work.base_passwd else {
            return Ok(Accounts::from_texts(&minimal_accounts(), Some(LAST_CHANGE))?);
        };
        let mut texts = [String::new(), String::new()];
        self.store.read_tree(base, |entry, content| {
            let number = match entry.path.as_str() {
                "usr/share/base-passwd/passwd.master" => 0,
                "usr/share/base-passwd/group.master" => 1,
                _ => return Ok(()),
            };
            content
                .read_to_string(&mut texts[number])
                .map(drop)
                .map_err(|source| BuildError::Content { path: entry.path.clone(), source })
        })?;
        Ok(Accounts::from_master(&texts[0], &texts[1], Some(LAST_CHANGE))?)
    }

    fn derivation(&self) -> Result<Derivation, BuildError> {
        let work = self.work;
        let trees: Vec<TreeHash> = work
            .stack()
            .into_iter()
            .chain(self.above.iter().copied())
            .map(|output| *output.path.hash())
            .collect();
        // In the order of unpacking, which corrections go by.
        let controls: Vec<String> =
            work.unpacked().iter().map(|package| package.control.path.hash().to_string()).collect();
        let texts = self.accounts()?.to_texts();
        let mut derivation = Derivation::new("finish", VERSION)
            .with_inputs(trees)
            .with_arg("controls", controls)
            .with_arg("essential", work.is_essential)
            .with_arg("accounts", vec![texts.passwd, texts.group, texts.shadow, texts.gshadow])
            .with_arg("diversions", diversion_texts(&work.diversions));
        derivation.platform = Some(format!("linux/{}", self.architecture));
        Ok(derivation)
    }

    /// The layer; `None` when there is nothing in it.
    pub fn realise(&self) -> Result<Option<Output>, BuildError> {
        // A base has its own accounts, loader cache and status.
        if self.work.base.is_some() && !self.asks_for_accounts() {
            return Ok(None);
        }
        let derivation = self.derivation()?;
        let mut output = self.store.realised_output(&derivation.id(), "out")?;
        if output.is_none() {
            let mut spool = self.make()?;
            let made = self.store.add_tree("system", Compression::Store1, &mut spool)?;
            self.store.put_realisation(&derivation, [("out".to_owned(), made.clone())])?;
            output = Some(made);
        }
        // An empty tree is two zero blocks.
        Ok(output.filter(|output| output.size > 1024))
    }

    /// Scripts of the image whose interpreter is not in it, one line for each interpreter.
    ///
    /// Policy lets packages use Essential programs without a dependency, so images without the
    /// Essential set can lack some. The answer is a tree of its own (builder `interpreters`), so
    /// that whoever has it from a cache reads no program.
    pub fn missing_interpreters(&self) -> Result<Vec<String>, BuildError> {
        if self.work.is_essential || self.work.base.is_some() {
            return Ok(Vec::new());
        }
        let trees: Vec<&Output> =
            self.work.stack().into_iter().chain(self.above.iter().copied()).collect();
        let derivation = Derivation::new("interpreters", INTERPRETERS_VERSION)
            .with_inputs(trees.iter().map(|output| *output.path.hash()));
        if let Some(output) = self.store.realised_output(&derivation.id(), "out")? {
            return self.known_interpreters(&output);
        }
        let view = StackView::new(self.store, trees, wanted)?;
        let programs: Vec<&TreePath> = view
            .entries()
            .filter(|entry| matches!(entry.kind, Kind::File { .. }) && entry.mode & 0o111 != 0)
            .map(|entry| &entry.path)
            .filter(|path| !NOT_PROGRAMS.iter().any(|top| path.as_str().starts_with(top)))
            .collect();
        let missing = shebang::missing_interpreters(&view, programs, shebang::DEFAULT_PATH)
            .map_err(|error| BuildError::Interpreters(Box::new(error)))?;
        let mut by_interpreter: BTreeMap<String, (Vec<String>, Option<&str>)> = BTreeMap::new();
        for item in missing {
            let entry = by_interpreter.entry(item.interpreter).or_default();
            entry.0.push(format!("/{}", item.script));
            entry.1 = item.package;
        }
        let lines: Vec<String> = by_interpreter
            .into_iter()
            .map(|(interpreter, (scripts, package))| {
                let (needs, are_used) = match scripts.len() {
                    1 => (" needs".to_owned(), "it is used"),
                    count => (format!(" and {} more need", count - 1), "they are used"),
                };
                let mend = package.map_or_else(String::new, |package| {
                    format!("; add \"{package}\" to packages if {are_used}")
                });
                format!("{interpreter} is not in the image, but {}{needs} it{mend}", scripts[0])
            })
            .collect();
        let mut spool = self.store.spool();
        let path = TreePath::new(MISSING).expect("the name is a valid path");
        spool.add_file(path, 0o644, lines.join("\n").as_bytes())?;
        let output = self.store.add_tree("interpreters", Compression::Store1, &mut spool)?;
        self.store.put_realisation(&derivation, [("out".to_owned(), output)])?;
        Ok(lines)
    }

    fn known_interpreters(&self, output: &Output) -> Result<Vec<String>, BuildError> {
        let mut text = String::new();
        self.store.read_tree(output, |entry, content| {
            let error = |source| BuildError::Content { path: entry.path.clone(), source };
            content.read_to_string(&mut text).map(drop).map_err(error)
        })?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    fn asks_for_accounts(&self) -> bool {
        !self.image.users.is_empty() || !self.image.groups.is_empty()
    }

    fn make(&self) -> Result<TreeSpool, BuildError> {
        let work = self.work;
        let trees: Vec<&Output> =
            work.stack().into_iter().chain(self.above.iter().copied()).collect();
        let view = StackView::new(self.store, trees, wanted)?;
        let mut spool = self.store.spool();
        corrections::add(
            self.store,
            &work.unpacked(),
            &work.diversions,
            &work.configured,
            &mut spool,
        )?;
        if !work.is_essential || self.asks_for_accounts() {
            for file in self.accounts()?.to_files() {
                let mut entry = Entry::file(file.path, file.mode, file.content.len() as u64);
                (entry.uid, entry.gid) = (file.uid, file.gid);
                spool.replace(entry, &mut file.content.as_slice())?;
            }
        }
        if !work.is_essential {
            for package in &work.packages {
                add_scanner_files(&mut spool, package)?;
            }
        }
        if !work.is_essential || !self.above.is_empty() {
            self.add_loader_cache(&view, &mut spool)?;
        }
        if work.is_essential {
            empty_run(&view, &mut spool)?;
        }
        add_parents(&mut spool, &view)?;
        Ok(spool)
    }

    fn add_loader_cache(
        &self,
        view: &StackView<'_>,
        spool: &mut TreeSpool,
    ) -> Result<(), BuildError> {
        let Some(libc) = self.work.packages.iter().find(|package| package.name == "libc6") else {
            return Ok(());
        };
        let Ok(machine) = Machine::from_architecture(self.architecture) else { return Ok(()) };
        let path = |text: &str| TreePath::new(text).expect("the path is valid");
        let ldconfig = Ldconfig::new(machine, "Debian", &libc.version)?;
        let configuration = path("etc/ld.so.conf");
        if view.entry(&configuration).is_none() {
            spool.add_file(configuration, 0o644, LOADER_CONFIGURATION.as_bytes())?;
        }
        let with_configuration = WithConfiguration { view };
        let cache = ldconfig.run(&with_configuration)?;
        spool.replace(
            Entry::file(path("etc/ld.so.cache"), 0o644, cache.content.len() as u64),
            &mut cache.content.as_slice(),
        )?;
        for change in cache.links {
            match change.target {
                Some(target) => {
                    spool.replace(Entry::symlink(change.path, target), &mut std::io::empty())?
                }
                None => {
                    if let Ok(deletion) = Entry::deletion(&change.path) {
                        spool.replace(deletion, &mut std::io::empty())?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Removes what scripts left below `/run`, as mmdebstrap does: it is of a running system. `/run/lock`
/// stays, since `/var/lock` leads there.
fn empty_run(view: &StackView<'_>, spool: &mut TreeSpool) -> Result<(), BuildError> {
    for entry in view.entries() {
        let name = entry.path.as_str().strip_prefix("run/");
        if name.is_some_and(|name| name != "lock" && !name.contains('/'))
            && let Ok(deletion) = Entry::deletion(&entry.path)
        {
            spool.replace(deletion, &mut std::io::empty())?;
        }
    }
    Ok(())
}

/// Diversions as part of the identity: without the Essential set they come from trees that are no
/// inputs.
fn diversion_texts(diversions: &[Diversion]) -> Vec<String> {
    let text = |rule: &Diversion| {
        format!("divert {} {} {}", rule.package.as_deref().unwrap_or(":"), rule.from, rule.to)
    };
    diversions.iter().map(text).collect()
}

/// A view in which `/etc/ld.so.conf` stands even when no package brings it.
struct WithConfiguration<'a> {
    view: &'a StackView<'a>,
}

impl RootView for WithConfiguration<'_> {
    fn node(&self, path: &str) -> std::io::Result<Option<crate::finish::root_view::Node>> {
        let node = self.view.node(path)?;
        if node.is_none() && path == "etc/ld.so.conf" {
            let size = LOADER_CONFIGURATION.len() as u64;
            return Ok(Some(crate::finish::root_view::Node::File { id: 0, mode: 0o644, size }));
        }
        Ok(node)
    }

    fn list(&self, path: &str) -> std::io::Result<Vec<String>> {
        self.view.list(path)
    }

    fn read(&self, path: &str, limit: u64) -> std::io::Result<Vec<u8>> {
        if path == "etc/ld.so.conf" && self.view.node(path)?.is_none() {
            return Ok(LOADER_CONFIGURATION.into());
        }
        self.view.read(path, limit)
    }
}

/// Contents that the loader cache is made from.
fn is_wanted(entry: &Entry) -> bool {
    entry.path.name().contains(".so") || entry.path.as_str().starts_with("etc/ld.so.conf")
}

/// What is kept of a tree: libraries whole, the first line of programs.
fn wanted(entry: &Entry) -> u64 {
    match is_wanted(entry) {
        true => u64::MAX,
        false if entry.mode & 0o111 != 0 => INTERPRETER_LINE,
        false => 0,
    }
}

/// Whether a file of a recipe or of the project can matter to accounts or the loader cache.
pub fn matters(listing: &Listing) -> bool {
    listing.entries().iter().any(|item| {
        item.entry.kind != Kind::Directory
            && (is_wanted(&item.entry) || item.entry.path.as_str() == "etc/ld.so.cache")
    })
}

fn add_scanner_files(spool: &mut TreeSpool, package: &Package) -> Result<(), BuildError> {
    let conffiles = package.conffiles();
    let state = PackageState::installed(conffiles);
    let md5sums = package.control_files.get("md5sums").map(|(_, bytes)| bytes.as_slice());
    for file in scanner_files(&package.control_text(), md5sums, &state)? {
        spool.add_file(file.path, 0o644, &file.content)?;
    }
    Ok(())
}

/// Adds the directories above everything in `spool` as the root has them.
fn add_parents(spool: &mut TreeSpool, view: &StackView<'_>) -> Result<(), BuildError> {
    let mut missing: BTreeSet<TreePath> = BTreeSet::new();
    for entry in spool.entries() {
        let mut parent = entry.path.parent();
        while let Some(directory) = parent {
            parent = directory.parent();
            missing.insert(directory);
        }
    }
    for path in missing {
        if let Some(entry) = view.entry(&path).filter(|entry| entry.kind == Kind::Directory) {
            spool.add_empty(entry.clone())?;
        }
    }
    Ok(())
}

/// Accounts of an image that has no Debian packages: root and nobody.
fn minimal_accounts() -> AccountTexts {
    AccountTexts {
        passwd: "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n".to_owned(),
        group: "root:x:0:\nnogroup:x:65534:\n".to_owned(),
        shadow: String::new(),
        gshadow: String::new(),
    }
}
