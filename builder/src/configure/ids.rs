//! Numbers of accounts that scripts allocate: the lock pins them, so that adding a package never
//! changes who owns the data in a volume.
//!
//! Scripts allocate as they always do, from what is free in their root; afterwards the numbers are
//! moved to the pinned ones, in owners and in the account files alike. Accounts that the lock does
//! not know keep their number if no pinned account has it, else they get the lowest free one.

use std::collections::{BTreeMap, BTreeSet};

use drystone_store::tree::{TreePath, TreeSpool};

use super::ConfigureError;
use super::attribution::{ACCOUNT_FILES, Attribution};

/// Numbers that Debian policy 9.2.2 gives out dynamically to the system's own accounts.
const DYNAMIC: std::ops::RangeInclusive<u32> = 100..=999;

/// Pinned numbers by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PinnedIds {
    /// Users.
    pub users: BTreeMap<String, u32>,
    /// Groups.
    pub groups: BTreeMap<String, u32>,
}

/// Accounts with dynamic numbers that scripts made, by name: users, then groups.
pub fn allocated(attribution: &Attribution) -> PinnedIds {
    let numbers = |file: usize| {
        attribution
            .accounts
            .iter()
            .flat_map(|(_, lines)| lines.file(file))
            .filter_map(|line| number_of(line))
            .filter(|(_, number)| DYNAMIC.contains(number))
            .collect()
    };
    PinnedIds { users: numbers(0), groups: numbers(1) }
}

fn number_of(line: &str) -> Option<(String, u32)> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    Some((name, fields.nth(1)?.parse().ok()?))
}

/// Moves allocated numbers to the pinned ones.
pub fn apply(
    spool: &mut TreeSpool,
    attribution: &mut Attribution,
    pinned: &PinnedIds,
) -> Result<(), ConfigureError> {
    let made = allocated(attribution);
    let users = moves(&made.users, &pinned.users);
    let groups = moves(&made.groups, &pinned.groups);
    if users.is_empty() && groups.is_empty() {
        return Ok(());
    }
    let to = |map: &BTreeMap<u32, u32>, id: u32| map.get(&id).copied().unwrap_or(id);
    spool.map_owners(&|uid, gid| (to(&users, uid), to(&groups, gid)));
    for (file, name) in ACCOUNT_FILES.iter().enumerate().take(2) {
        for suffix in ["", "-"] {
            let path = TreePath::new(format!("{name}{suffix}")).expect("the path is valid");
            let Some(entry) = spool.entry(&path).cloned() else { continue };
            let Some(bytes) = spool.content(&path)? else { continue };
            let text = String::from_utf8_lossy(&bytes);
            let text: String =
                text.lines().map(|line| rewrite(line, file, &users, &groups) + "\n").collect();
            let kind = drystone_store::tree::Kind::File { size: text.len() as u64 };
            let entry = drystone_store::tree::Entry { kind, ..entry };
            spool.replace(entry, &mut text.as_bytes())?;
        }
        for (_, lines) in &mut attribution.accounts {
            for line in lines.file_mut(file) {
                *line = rewrite(line, file, &users, &groups);
            }
        }
    }
    Ok(())
}

/// From the numbers that were allocated to those that are wanted; only what moves.
fn moves(made: &BTreeMap<String, u32>, pinned: &BTreeMap<String, u32>) -> BTreeMap<u32, u32> {
    let mut taken: BTreeSet<u32> = pinned.values().copied().collect();
    let mut moves = BTreeMap::new();
    for (name, from) in made {
        if let Some(to) = pinned.get(name) {
            moves.insert(*from, *to);
        }
    }
    for (name, from) in made.iter().filter(|(name, _)| !pinned.contains_key(*name)) {
        let is_free = !taken.contains(from);
        let to = if is_free { Some(*from) } else { DYNAMIC.clone().find(|id| !taken.contains(id)) };
        // Nine hundred accounts are more than any image has; one more keeps its number.
        let to = to.unwrap_or(*from);
        tracing::debug!(name, from, to, "number of an account that the lock does not know");
        taken.insert(to);
        moves.insert(*from, to);
    }
    moves.retain(|from, to| from != to);
    moves
}

/// A line of the account file with this number, with its numbers moved.
fn rewrite(
    line: &str,
    file: usize,
    users: &BTreeMap<u32, u32>,
    groups: &BTreeMap<u32, u32>,
) -> String {
    let mut fields: Vec<String> = line.split(':').map(str::to_owned).collect();
    let mut put = |at: usize, map: &BTreeMap<u32, u32>| {
        if let Some(field) = fields.get_mut(at)
            && let Some(to) = field.parse().ok().and_then(|id: u32| map.get(&id))
        {
            *field = to.to_string();
        }
    };
    match file {
        0 => {
            put(2, users);
            put(3, groups);
        }
        _ => put(2, groups),
    }
    fields.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use drystone_store::tree::Entry;

    fn attribution() -> Attribution {
        let mut attribution = Attribution::default();
        attribution.add_account_lines("redis", 0, "", "redis:x:100:101::/var/lib/redis:/bin/false");
        attribution.add_account_lines("redis", 1, "", "redis:x:101:\nadm:x:4:redis");
        attribution.add_account_lines("dbus", 0, "", "messagebus:x:101:102::/x:/bin/false");
        attribution.add_account_lines("dbus", 1, "", "messagebus:x:102:");
        attribution
    }

    #[test]
    fn pinned_numbers_win_and_new_accounts_make_room() {
        let directory = tempfile::tempdir().unwrap();
        let path = |text: &str| TreePath::new(text).unwrap();
        let mut spool = TreeSpool::new(directory.path());
        let passwd = "root:x:0:0:root:/root:/bin/bash\nredis:x:100:101::/var/lib/redis:/bin/false\n\
            messagebus:x:101:102::/x:/bin/false\n";
        spool.add_file(path("etc/passwd"), 0o644, passwd.as_bytes()).unwrap();
        let mut data = Entry::directory(path("var/lib/redis"));
        (data.uid, data.gid) = (100, 101);
        spool.add_empty(data).unwrap();
        let mut attribution = attribution();
        let pinned = PinnedIds {
            users: [("messagebus".to_owned(), 100)].into(),
            groups: [("messagebus".to_owned(), 101)].into(),
        };
        apply(&mut spool, &mut attribution, &pinned).unwrap();
        let text = String::from_utf8(spool.content(&path("etc/passwd")).unwrap().unwrap()).unwrap();
        assert_eq!(
            text,
            "root:x:0:0:root:/root:/bin/bash\nredis:x:101:100::/var/lib/redis:/bin/false\n\
             messagebus:x:100:101::/x:/bin/false\n"
        );
        let data = spool.entry(&path("var/lib/redis")).unwrap();
        assert_eq!((data.uid, data.gid), (101, 100));
        assert_eq!(attribution.accounts[0].1.group, ["redis:x:100:", "adm:x:4:redis"]);
        let again = allocated(&attribution);
        assert_eq!(again.users["messagebus"], 100);
    }

    #[test]
    fn nothing_moves_without_pins() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = TreeSpool::new(directory.path());
        let mut attribution = attribution();
        let before = attribution.clone();
        apply(&mut spool, &mut attribution, &PinnedIds::default()).unwrap();
        assert_eq!(attribution, before);
        let same = allocated(&before);
        apply(&mut spool, &mut attribution, &same).unwrap();
        assert_eq!(attribution, before);
    }
}
