//! dpkg's databases of diversions and overrides, as text files in `/var/lib/dpkg`.

use drystone_store::tree::TreePath;

use drystone_source::debian::deb::merge_usr;

/// A path that packages other than one put elsewhere (dpkg-divert(1)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diversion {
    /// The path as packages have it.
    pub from: TreePath,
    /// Where it goes instead.
    pub to: TreePath,
    /// The package that keeps the path for itself; `None` for a local diversion.
    pub package: Option<String>,
}

/// Mode and owner of a path, whatever packages say (dpkg-statoverride(1)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatOverride {
    /// The path.
    pub path: TreePath,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

fn tree_path(text: &str) -> Option<TreePath> {
    TreePath::from_rooted(text).ok().flatten().map(|path| merge_usr(path, false))
}

/// Reads `/var/lib/dpkg/diversions`: three lines each, path, new path, package or `:`.
/// `None` for a file that dpkg would not have written.
pub fn parse_diversions(text: &str) -> Option<Vec<Diversion>> {
    let lines: Vec<&str> = text.lines().collect();
    let (groups, rest) = lines.as_chunks::<3>();
    if !rest.is_empty() {
        return None;
    }
    groups
        .iter()
        .map(|[from, to, package]| {
            Some(Diversion {
                from: tree_path(from)?,
                to: tree_path(to)?,
                package: (*package != ":").then(|| (*package).to_owned()),
            })
        })
        .collect()
}

/// Reads `/var/lib/dpkg/statoverride`: `USER GROUP MODE PATH` lines. `id_of(name, is_group)` gives
/// the number of an account; `#NUMBER` stands for itself. `None` for a malformed file or an
/// unknown account.
pub fn parse_statoverrides(
    text: &str,
    id_of: &dyn Fn(&str, bool) -> Option<u32>,
) -> Option<Vec<StatOverride>> {
    let id = |name: &str, is_group| match name.strip_prefix('#') {
        Some(number) => number.parse().ok(),
        None => id_of(name, is_group),
    };
    text.lines()
        .map(|line| {
            let mut parts = line.splitn(4, ' ');
            let (user, group) = (parts.next()?, parts.next()?);
            let (mode, path) = (parts.next()?, parts.next()?);
            Some(StatOverride {
                path: tree_path(path)?,
                mode: u32::from_str_radix(mode, 8).ok()? & 0o7777,
                uid: id(user, false)?,
                gid: id(group, true)?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_read_as_dpkg_writes_them() {
        let text = "/bin/sh\n/bin/sh.distrib\ndash\n/usr/bin/x\n/usr/bin/y\n:\n";
        let found = parse_diversions(text).unwrap();
        assert_eq!(found[0].from.as_str(), "usr/bin/sh");
        assert_eq!(found[0].package.as_deref(), Some("dash"));
        assert_eq!(found[1].package, None);
        assert_eq!(parse_diversions("/bin/sh\n"), None);
        let ids = |name: &str, is_group: bool| match (name, is_group) {
            ("root", _) => Some(0),
            ("messagebus", true) => Some(104),
            _ => None,
        };
        let text = "root messagebus 4754 /usr/lib/dbus-1.0/dbus-daemon-launch-helper\n";
        let found = parse_statoverrides(text, &ids).unwrap();
        assert_eq!((found[0].mode, found[0].uid, found[0].gid), (0o4754, 0, 104));
        assert_eq!(parse_statoverrides("nobody root 644 /x\n", &ids), None);
    }
}
