//! `/etc/passwd`, `/etc/group`, `/etc/shadow` and `/etc/gshadow` of an image.
//!
//! ```text
//! base-passwd's master files, as Debian's passwd package leaves them on a fresh system
//!   + what each package's scripts added      (in the order given)
//!   + [groups.NAME] and [users.NAME]         (in the order of their numbers)
//! ```
//!
//! A fresh Debian system copies the master files and then moves passwords into the shadow files
//! (`pwconv`, `grpconv`): `*` becomes `x` with `*` in the shadow line. Lines keep their order and
//! their text; a line is written anew only when something in it changes. Nobody gets a password:
//! new users are locked with `!`, as `adduser --system` does.
//!
//! Formats: passwd(5), group(5), shadow(5), gshadow(5).

use drystone_store::tree::TreePath;

mod database;
mod error;
mod request;

pub use error::{AccountError, AccountKind, Origin};
pub use request::{RequestedGroup, RequestedUser};

use database::{Group, GroupShadow, Shadow, User};

/// Days since 1970-01-01 of [`SOURCE_DATE_EPOCH`](https://reproducible-builds.org/specs/source-date-epoch/)
/// in Drystone's sandbox, 1980-01-01: the day of the last password change in shadow lines.
pub const LAST_CHANGE: u32 = 315_532_800 / 86_400;

/// The group that may read the shadow files, in base-passwd's table.
const SHADOW_GROUP: u32 = 42;

/// The texts of the four files, or of lines to be added to them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountTexts {
    /// Lines of `/etc/passwd`.
    pub passwd: String,
    /// Lines of `/etc/group`.
    pub group: String,
    /// Lines of `/etc/shadow`.
    pub shadow: String,
    /// Lines of `/etc/gshadow`.
    pub gshadow: String,
}

/// One of the four files as it stands in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountFile {
    /// Where it stands.
    pub path: TreePath,
    /// Permission bits.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// The content.
    pub content: Vec<u8>,
}

/// The accounts of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
    shadows: Vec<Shadow>,
    group_shadows: Vec<GroupShadow>,
    last_change: Option<u32>,
}

impl Accounts {
    /// The accounts of a fresh Debian system: base-passwd's `passwd.master` and `group.master`.
    ///
    /// `last_change` is the day (since 1970-01-01) that shadow lines give as that of the last
    /// password change: [`LAST_CHANGE`] equals what mmdebstrap makes under the sandbox's clock;
    /// `None` leaves the field empty.
    pub fn from_master(
        passwd_master: &str,
        group_master: &str,
        last_change: Option<u32>,
    ) -> Result<Self, AccountError> {
        let mut accounts = Self::empty(last_change);
        let texts = AccountTexts {
            passwd: passwd_master.to_owned(),
            group: group_master.to_owned(),
            ..AccountTexts::default()
        };
        accounts.read_base(&texts)?;
        accounts.move_passwords();
        Ok(accounts)
    }

    /// The accounts of an existing root.
    pub fn from_texts(
        texts: &AccountTexts,
        last_change: Option<u32>,
    ) -> Result<Self, AccountError> {
        let mut accounts = Self::empty(last_change);
        accounts.read_base(texts)?;
        Ok(accounts)
    }

    const fn empty(last_change: Option<u32>) -> Self {
        Self {
            users: Vec::new(),
            groups: Vec::new(),
            shadows: Vec::new(),
            group_shadows: Vec::new(),
            last_change,
        }
    }

    fn read_base(&mut self, texts: &AccountTexts) -> Result<(), AccountError> {
        self.users = database::parse(&texts.passwd, &Origin::Base)?;
        self.groups = database::parse(&texts.group, &Origin::Base)?;
        self.shadows = database::parse(&texts.shadow, &Origin::Base)?;
        self.group_shadows = database::parse(&texts.gshadow, &Origin::Base)?;
        Ok(())
    }

    /// Moves every password into the shadow files, as `pwconv` and `grpconv` do.
    fn move_passwords(&mut self) {
        let missing: Vec<_> = self
            .users
            .iter()
            .filter(|user| !self.shadows.iter().any(|shadow| shadow.name == user.name))
            .map(|user| Shadow::converted(&user.name, user.password(), self.last_change))
            .collect();
        self.shadows.extend(missing);
        for user in &mut self.users {
            user.set_password("x");
        }
        let missing: Vec<_> = self
            .groups
            .iter()
            .filter(|group| !self.group_shadows.iter().any(|shadow| shadow.name == group.name))
            .map(|group| GroupShadow::new(&group.name, group.password(), &group.members))
            .collect();
        self.group_shadows.extend(missing);
        for group in &mut self.groups {
            group.set_password("x");
        }
    }

    /// Adds what a package's scripts added to the files: whole lines, as they stand after the
    /// scripts ran. A line whose name is there already, with the same number, replaces that line;
    /// group members are added to those that are there.
    pub fn add_package(&mut self, package: &str, lines: &AccountTexts) -> Result<(), AccountError> {
        let origin = Origin::Package(package.to_owned());
        for group in database::parse::<Group>(&lines.group, &origin)? {
            self.add_group(group)?;
        }
        for user in database::parse::<User>(&lines.passwd, &origin)? {
            self.add_user(user)?;
        }
        for shadow in database::parse::<Shadow>(&lines.shadow, &origin)? {
            self.add_shadow(shadow);
        }
        for shadow in database::parse::<GroupShadow>(&lines.gshadow, &origin)? {
            self.add_group_shadow(shadow);
        }
        self.complete();
        Ok(())
    }

    /// Adds the groups and users of `image.toml`.
    ///
    /// A user without `gid` gets the group of its own name, which is made with the user's number
    /// unless it exists. All members of `groups` must exist in the end.
    pub fn add_requested(
        &mut self,
        users: &[RequestedUser],
        groups: &[RequestedGroup],
    ) -> Result<(), AccountError> {
        let mut groups = groups.to_vec();
        groups.sort_by(|left, right| (left.gid, &left.name).cmp(&(right.gid, &right.name)));
        for group in &groups {
            group.check()?;
            self.add_group(Group::new(&group.name, group.gid, Origin::Image))?;
        }
        let mut users = users.to_vec();
        users.sort_by(|left, right| (left.uid, &left.name).cmp(&(right.uid, &right.name)));
        for user in &users {
            user.check()?;
            self.add_requested_user(user)?;
        }
        self.complete();
        for user in &users {
            for group in &user.groups {
                self.add_member(group, &user.name)?;
            }
        }
        Ok(())
    }

    fn add_requested_user(&mut self, request: &RequestedUser) -> Result<(), AccountError> {
        let own_group = self.group_id(&request.name);
        let gid = request.gid.or(own_group).unwrap_or(request.uid);
        let known = self.users.iter().find(|user| user.name == request.name);
        let user = request.line(gid, known);
        self.add_user(user)?;
        let shared = request.gid.is_some() && self.groups.iter().any(|group| group.gid == gid);
        if own_group.is_none() && !shared {
            // Where the number is another group's this fails: a private group is never shared.
            self.add_group(Group::new(&request.name, gid, Origin::Image))?;
        }
        Ok(())
    }

    fn add_member(&mut self, group: &str, user: &str) -> Result<(), AccountError> {
        let found = self.groups.iter_mut().find(|known| known.name == group).ok_or_else(|| {
            AccountError::UnknownGroup { user: user.to_owned(), group: group.to_owned() }
        })?;
        found.add_member(user);
        if let Some(shadow) = self.group_shadows.iter_mut().find(|known| known.name == group) {
            shadow.add_member(user);
        }
        Ok(())
    }

    fn add_user(&mut self, user: User) -> Result<(), AccountError> {
        let holder =
            self.users.iter().find(|known| known.uid == user.uid && known.name != user.name);
        if let Some(holder) = holder {
            return Err(AccountError::IdTaken {
                kind: AccountKind::User,
                id: user.uid,
                name: user.name,
                origin: user.origin,
                holder: holder.name.clone(),
                holder_origin: holder.origin.clone(),
            });
        }
        match self.users.iter_mut().find(|known| known.name == user.name) {
            None => self.users.push(user),
            Some(known) if known.uid == user.uid => *known = user,
            Some(known) => {
                return Err(AccountError::NameTaken {
                    kind: AccountKind::User,
                    name: user.name,
                    id: known.uid,
                    holder_origin: known.origin.clone(),
                    wanted: user.uid,
                    origin: user.origin,
                });
            }
        }
        Ok(())
    }

    fn add_group(&mut self, group: Group) -> Result<(), AccountError> {
        let holder =
            self.groups.iter().find(|known| known.gid == group.gid && known.name != group.name);
        if let Some(holder) = holder {
            return Err(AccountError::IdTaken {
                kind: AccountKind::Group,
                id: group.gid,
                name: group.name,
                origin: group.origin,
                holder: holder.name.clone(),
                holder_origin: holder.origin.clone(),
            });
        }
        match self.groups.iter_mut().find(|known| known.name == group.name) {
            None => self.groups.push(group),
            Some(known) if known.gid == group.gid => {
                for member in &group.members {
                    known.add_member(member);
                }
            }
            Some(known) => {
                return Err(AccountError::NameTaken {
                    kind: AccountKind::Group,
                    name: group.name,
                    id: known.gid,
                    holder_origin: known.origin.clone(),
                    wanted: group.gid,
                    origin: group.origin,
                });
            }
        }
        Ok(())
    }

    fn add_shadow(&mut self, shadow: Shadow) {
        match self.shadows.iter_mut().find(|known| known.name == shadow.name) {
            Some(known) => *known = shadow,
            None => self.shadows.push(shadow),
        }
    }

    fn add_group_shadow(&mut self, shadow: GroupShadow) {
        match self.group_shadows.iter_mut().find(|known| known.name == shadow.name) {
            Some(known) => {
                for member in &shadow.members {
                    known.add_member(member);
                }
            }
            None => self.group_shadows.push(shadow),
        }
    }

    /// Gives a locked shadow line to everyone without one.
    fn complete(&mut self) {
        for user in &self.users {
            if !self.shadows.iter().any(|shadow| shadow.name == user.name) {
                self.shadows.push(Shadow::locked(&user.name, self.last_change));
            }
        }
        for group in &self.groups {
            if !self.group_shadows.iter().any(|shadow| shadow.name == group.name) {
                self.group_shadows.push(GroupShadow::new(&group.name, "!", &group.members));
            }
        }
    }

    /// The number of a user, for `[config] user`.
    pub fn user_id(&self, name: &str) -> Option<u32> {
        self.users.iter().find(|user| user.name == name).map(|user| user.uid)
    }

    /// The number of a user's own group, by the user's number.
    pub fn primary_group_id(&self, uid: u32) -> Option<u32> {
        self.users.iter().find(|user| user.uid == uid).map(|user| user.gid)
    }

    /// The number of a group.
    pub fn group_id(&self, name: &str) -> Option<u32> {
        self.groups.iter().find(|group| group.name == name).map(|group| group.gid)
    }

    /// Whether a group has this number.
    pub fn has_group_number(&self, gid: u32) -> bool {
        self.groups.iter().any(|group| group.gid == gid)
    }

    /// The texts of the four files.
    pub fn to_texts(&self) -> AccountTexts {
        AccountTexts {
            passwd: database::write(&self.users),
            group: database::write(&self.groups),
            shadow: database::write(&self.shadows),
            gshadow: database::write(&self.group_shadows),
        }
    }

    /// The four files with the modes and owners that Debian gives them, by path.
    pub fn to_files(&self) -> Vec<AccountFile> {
        let texts = self.to_texts();
        let file = |path: &str, mode, gid, content: String| AccountFile {
            path: TreePath::new(path).expect("the four names are fixed and valid"),
            mode,
            uid: 0,
            gid,
            content: content.into_bytes(),
        };
        vec![
            file("etc/group", 0o644, 0, texts.group),
            file("etc/gshadow", 0o640, SHADOW_GROUP, texts.gshadow),
            file("etc/passwd", 0o644, 0, texts.passwd),
            file("etc/shadow", 0o640, SHADOW_GROUP, texts.shadow),
        ]
    }
}

#[cfg(test)]
mod tests;
