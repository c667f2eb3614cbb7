//! Stacking packages' trees: who owns a path that several trees claim.
//!
//! Layers stay plain package trees, in an order that dpkg never saw. Where dpkg would have ended
//! with something else than the topmost tree's entry, a *correction* says so; corrections stand
//! above all package trees, so they hold whatever the order of the layers is:
//!
//! - a path of several packages belongs to the one that Replaces the others (dpkg(1), `Replaces`
//!   of Debian policy 7.6), and only what dpkg would refuse is a clash;
//! - a directory has the metadata of the package that was unpacked first;
//! - a diverted path is moved, except for the package that diverts (dpkg-divert(1));
//! - where one tree has a symbolic link and another a directory, what was unpacked first stays: a
//!   directory over a link means the link's target (dpkg refuses one that leads nowhere, but scripts
//!   may have made the target), and a link over a directory nothing.

mod diversion;

use std::collections::{BTreeMap, HashMap};

use drystone_store::listing::{Listing, ListingEntry};
use drystone_store::tree::{Entry, Kind, TreePath};

pub use diversion::{Diversion, StatOverride, parse_diversions, parse_statoverrides};

/// One package's tree, in the order of unpacking.
pub struct Member<'a> {
    /// The package's name.
    pub name: &'a str,
    /// Its tree's listing.
    pub listing: &'a Listing,
}

/// An entry that stands above all package trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correction {
    /// What stands there.
    pub entry: Entry,
    /// Where a file's content comes from: a member's number and a path of its tree.
    pub content: Option<(usize, TreePath)>,
}

/// A path that two packages set differently and that neither gives up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{first} and {second} both have /{path}, and neither declares Replaces")]
pub struct Clash {
    /// The path.
    pub path: TreePath,
    /// The package that was unpacked first.
    pub first: String,
    /// The other.
    pub second: String,
}

type Claim<'a> = (usize, &'a ListingEntry);

/// Finds the corrections for packages that are stacked.
///
/// `replaces(a, b)` says whether member `a` declares Replaces for member `b`.
pub fn corrections(
    members: &[Member<'_>],
    diversions: &[Diversion],
    replaces: &dyn Fn(usize, usize) -> bool,
) -> Result<Vec<Correction>, Vec<Clash>> {
    let mut claims: HashMap<&TreePath, Vec<Claim<'_>>> = HashMap::new();
    for (number, member) in members.iter().enumerate() {
        for item in member.listing.entries() {
            claims.entry(&item.entry.path).or_default().push((number, item));
        }
    }
    let mut state =
        State { members, diversions, replaces, found: BTreeMap::new(), clashes: Vec::new() };
    let mut kept: Vec<(TreePath, Kept)> = Vec::new();
    for (path, claims) in &claims {
        if claims.len() > 1 || diversions.iter().any(|rule| rule.from == **path) {
            kept.extend(state.resolve(path, claims));
        }
    }
    kept.sort();
    for (path, what) in &kept {
        match what {
            Kept::Link(target) => state.move_below_link(path, target),
            Kept::Directory => state.restore_directory(path),
        }
    }
    match state.clashes.is_empty() {
        true => Ok(state.found.into_values().collect()),
        false => {
            state.clashes.sort_by(|left, right| left.path.cmp(&right.path));
            Err(state.clashes)
        }
    }
}

/// What stays where one tree has a symbolic link and another a directory.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Kept {
    Link(String),
    Directory,
}

struct State<'a> {
    members: &'a [Member<'a>],
    diversions: &'a [Diversion],
    replaces: &'a dyn Fn(usize, usize) -> bool,
    found: BTreeMap<TreePath, Correction>,
    clashes: Vec<Clash>,
}

impl State<'_> {
    fn put(&mut self, to: TreePath, (number, item): Claim<'_>) {
        let from = item.entry.path.clone();
        let mut entry = Entry { path: to.clone(), ..item.entry.clone() };
        let mut content = None;
        match &item.entry.kind {
            Kind::File { .. } => content = Some((number, from)),
            // A hard link that moves alone becomes a file with the content of its first name.
            Kind::HardLink { target } => {
                if let Some(first) = self.members[number].listing.find(target) {
                    entry.kind = first.entry.kind.clone();
                    content = Some((number, target.clone()));
                }
            }
            _ => {}
        }
        self.found.insert(to, Correction { entry, content });
    }

    /// Settles a path; what stays where a link and a directory meet, for that concerns what is below.
    fn resolve(&mut self, path: &TreePath, claims: &[Claim<'_>]) -> Option<(TreePath, Kept)> {
        let directories = claims.iter().filter(|claim| is_directory(claim)).count();
        if directories == claims.len() {
            self.resolve_directory(path, claims);
            return None;
        }
        if directories > 0 {
            let link = claims.iter().find_map(|(_, item)| match &item.entry.kind {
                Kind::Symlink { target } => Some(target.clone()),
                _ => None,
            });
            if let Some(target) = link {
                let kept = match claims.first().is_some_and(is_directory) {
                    true => Kept::Directory,
                    false => Kept::Link(target),
                };
                return Some((path.clone(), kept));
            }
        }
        self.resolve_file(path, claims);
        None
    }

    fn resolve_directory(&mut self, path: &TreePath, claims: &[Claim<'_>]) {
        let data = |claim: &Claim<'_>| {
            let entry = &claim.1.entry;
            (entry.mode, entry.uid, entry.gid)
        };
        let Some(first) = claims.iter().min_by_key(|(number, _)| *number) else { return };
        if claims.iter().any(|claim| data(claim) != data(first)) {
            self.put(path.clone(), *first);
        }
    }

    fn resolve_file(&mut self, path: &TreePath, claims: &[Claim<'_>]) {
        let diversion = self.diversions.iter().find(|rule| rule.from == *path);
        let (moved, kept): (Vec<Claim<'_>>, Vec<Claim<'_>>) =
            claims.iter().partition(|(number, _)| {
                diversion
                    .is_some_and(|rule| rule.package.as_deref() != Some(self.members[*number].name))
            });
        if let Some(winner) = self.winner(path, &kept)
            && (kept.len() > 1 || !moved.is_empty())
            && differs(claims)
        {
            self.put(path.clone(), winner);
        }
        let Some(rule) = diversion else { return };
        let Some(winner) = self.winner(path, &moved) else { return };
        self.put(rule.to.clone(), winner);
        if kept.is_empty()
            && let Ok(deletion) = Entry::deletion(path)
        {
            let gone = Correction { entry: deletion, content: None };
            self.found.insert(gone.entry.path.clone(), gone);
        }
    }

    /// Who owns a path: the claims come in the order of unpacking.
    fn winner<'b>(&mut self, path: &TreePath, claims: &[Claim<'b>]) -> Option<Claim<'b>> {
        let mut claims = claims.iter().copied();
        let mut owner = claims.next()?;
        for claim in claims {
            if (self.replaces)(claim.0, owner.0) {
                owner = claim;
            } else if !(self.replaces)(owner.0, claim.0) && !same(&owner, &claim) {
                self.clashes.push(Clash {
                    path: path.clone(),
                    first: self.members[owner.0].name.to_owned(),
                    second: self.members[claim.0].name.to_owned(),
                });
            }
        }
        Some(owner)
    }

    /// One tree has a symbolic link where another has a directory: the link stays, and what is
    /// below the directory moves to the link's target.
    fn move_below_link(&mut self, path: &TreePath, target: &str) {
        let Some(target) = resolve_link(path, target) else { return };
        for number in 0..self.members.len() {
            let listing = self.members[number].listing;
            let Some(top) = listing.find(path) else { continue };
            if matches!(top.entry.kind, Kind::Symlink { .. }) {
                self.put(path.clone(), (number, top));
                continue;
            }
            for item in listing
                .entries()
                .iter()
                .filter(|item| item.entry.path != *path && item.entry.path.starts_with(path))
            {
                let rest = &item.entry.path.as_str()[path.as_str().len() + 1..];
                if let Ok(to) = target.join(rest) {
                    self.put(to, (number, item));
                }
            }
        }
    }

    /// One tree has a directory, and another a symbolic link, which may hide it: the directory stays
    /// with all that the trees have below it.
    fn restore_directory(&mut self, path: &TreePath) {
        let members = self.members;
        for (number, member) in members.iter().enumerate() {
            let is_directory = |item: &ListingEntry| item.entry.kind == Kind::Directory;
            if !member.listing.find(path).is_some_and(is_directory) {
                continue;
            }
            let is_below = |item: &&ListingEntry| item.entry.path.starts_with(path);
            for item in member.listing.entries().iter().filter(is_below) {
                let at = &item.entry.path;
                let is_gone =
                    Entry::deletion(at).is_ok_and(|gone| self.found.contains_key(&gone.path));
                if !self.found.contains_key(at) && !is_gone {
                    self.put(at.clone(), (number, item));
                }
            }
        }
    }
}

fn is_directory((_, item): &Claim<'_>) -> bool {
    item.entry.kind == Kind::Directory
}

fn same(left: &Claim<'_>, right: &Claim<'_>) -> bool {
    left.1 == right.1
}

fn differs(claims: &[Claim<'_>]) -> bool {
    claims.windows(2).any(|pair| !same(&pair[0], &pair[1]))
}

/// Where a symbolic link leads, as a path of the tree; `None` for the root or out of it.
pub fn resolve_link(link: &TreePath, target: &str) -> Option<TreePath> {
    let mut parts: Vec<&str> = match target.starts_with('/') {
        true => Vec::new(),
        false => {
            let mut parts: Vec<&str> = link.components().collect();
            parts.pop();
            parts
        }
    };
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    TreePath::new(parts.join("/")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use drystone_store::digest::FileHash;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn listing(entries: &[(&str, &str)]) -> Listing {
        let mut sorted = entries.to_vec();
        sorted.sort_by_key(|(name, _)| path(name));
        let mut listing = Listing::default();
        for (name, what) in sorted {
            let (entry, hash) = match what.split_once(' ') {
                Some(("d", mode)) => {
                    let mode = u32::from_str_radix(mode, 8).unwrap();
                    (Entry { mode, ..Entry::directory(path(name)) }, None)
                }
                Some(("l", target)) => (Entry::symlink(path(name), target), None),
                _ => {
                    let entry = Entry::file(path(name), 0o644, what.len() as u64);
                    (entry, Some(FileHash::of(what.as_bytes())))
                }
            };
            listing.push(entry, hash);
        }
        listing
    }

    fn found(
        members: &[(&str, &Listing)],
        diversions: &[Diversion],
        replaces: &[(usize, usize)],
    ) -> Result<Vec<(String, Option<usize>)>, Vec<Clash>> {
        let members: Vec<Member<'_>> =
            members.iter().map(|(name, listing)| Member { name, listing }).collect();
        let replaces = |a, b| replaces.contains(&(a, b));
        let found = corrections(&members, diversions, &replaces)?;
        let brief = |it: Correction| (it.entry.path.to_string(), it.content.map(|(at, _)| at));
        Ok(found.into_iter().map(brief).collect())
    }

    #[test]
    fn only_what_dpkg_refuses_is_a_clash() {
        let (a, b) = (listing(&[("usr/x", "one")]), listing(&[("usr/x", "two")]));
        let clash = found(&[("a", &a), ("b", &b)], &[], &[]).unwrap_err();
        assert_eq!(clash[0].to_string(), "a and b both have /usr/x, and neither declares Replaces");
        let second = found(&[("a", &a), ("b", &b)], &[], &[(1, 0)]).unwrap();
        assert_eq!(second, [("usr/x".into(), Some(1))]);
        let first = found(&[("a", &a), ("b", &b)], &[], &[(0, 1)]).unwrap();
        assert_eq!(first, [("usr/x".into(), Some(0))], "Replaces holds in either order");
        assert_eq!(found(&[("a", &a), ("c", &a)], &[], &[]).unwrap(), []);
    }

    #[test]
    fn the_first_package_decides_about_a_directory() {
        let a = listing(&[("var", "d 755"), ("var/mail", "d 2775")]);
        let b = listing(&[("var", "d 755"), ("var/mail", "d 755")]);
        let found = found(&[("a", &a), ("b", &b)], &[], &[]).unwrap();
        assert_eq!(found, [("var/mail".into(), None)]);
    }

    #[test]
    fn diversions_move_others_files_and_not_the_diverters() {
        let moreutils = listing(&[("usr/bin/parallel", "old"), ("usr/bin/ts", "ts")]);
        let parallel = listing(&[("usr/bin/parallel", "new")]);
        let diversions =
            parse_diversions("/usr/bin/parallel\n/usr/bin/parallel.moreutils\nparallel\n").unwrap();
        let both = found(&[("moreutils", &moreutils), ("parallel", &parallel)], &diversions, &[]);
        assert_eq!(
            both.unwrap(),
            [("usr/bin/parallel".into(), Some(1)), ("usr/bin/parallel.moreutils".into(), Some(0))]
        );
        let alone = found(&[("moreutils", &moreutils)], &diversions, &[]).unwrap();
        assert_eq!(
            alone,
            [("usr/bin/.wh.parallel".into(), None), ("usr/bin/parallel.moreutils".into(), Some(0))]
        );
    }

    #[test]
    fn a_directory_over_a_symlink_moves_to_its_target() {
        let base = listing(&[("run", "d 755"), ("var", "d 755"), ("var/run", "l /run")]);
        let other = listing(&[("var", "d 755"), ("var/run", "d 755"), ("var/run/x", "x")]);
        let found = found(&[("base", &base), ("other", &other)], &[], &[]);
        assert_eq!(found.unwrap(), [("run/x".into(), Some(1)), ("var/run".into(), None)]);
    }

    #[test]
    fn a_symlink_over_a_directory_is_left_out() {
        let first = listing(&[("lib", "d 755"), ("lib/x", "d 750"), ("lib/x/y", "y")]);
        let link = listing(&[("lib", "d 755"), ("lib/x", "l ../z"), ("z", "d 755")]);
        let third = listing(&[("lib", "d 755"), ("lib/x", "d 755"), ("lib/x/w", "w")]);
        let found = found(&[("first", &first), ("link", &link), ("third", &third)], &[], &[]);
        let expected =
            [("lib/x".into(), None), ("lib/x/w".into(), Some(2)), ("lib/x/y".into(), Some(0))];
        assert_eq!(found.unwrap(), expected);
    }
}
