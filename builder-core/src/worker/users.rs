//! Users and groups of an image, read from the bytes of its `/etc/passwd` and `/etc/group` (passwd(5), group(5)).
//!
//! Nothing of the image is executed or loaded for it, and the host's users play no part. Lines that do not parse are
//! passed over, as every libc does.

/// More of a passwd or group file is not read: nobody has more users than this has room for.
pub(crate) const FILE_LIMIT: u64 = 16 << 20;

/// The two files; empty where the image has none.
#[derive(Debug, Clone, Default)]
pub(crate) struct UserFiles {
    /// `/etc/passwd`
    pub(crate) passwd: Vec<u8>,
    /// `/etc/group`
    pub(crate) group: Vec<u8>,
}

/// Who runs a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// User id.
    pub(crate) uid: u32,
    /// Group id.
    pub(crate) gid: u32,
    /// Supplementary groups, sorted; the group itself is one of them.
    pub(crate) groups: Vec<u32>,
    /// Home directory.
    pub(crate) home: Vec<u8>,
}

/// A user or group cannot be found.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum UserError {
    /// No such user.
    #[error("the image has no user {name:?} in /etc/passwd")]
    User { name: String, nearest: Option<String> },
    /// No such group.
    #[error("the image has no group {name:?} in /etc/group")]
    Group { name: String, nearest: Option<String> },
    /// A number that is no id.
    #[error("{0:?} is not a user or group id")]
    Id(String),
}

impl UserError {
    /// Returns the name that was probably meant.
    pub(crate) fn nearest(&self) -> Option<&str> {
        match self {
            Self::User { nearest, .. } | Self::Group { nearest, .. } => nearest.as_deref(),
            Self::Id(_) => None,
        }
    }
}

struct PasswdEntry<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

struct GroupEntry<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

impl UserFiles {
    fn users(&self) -> impl Iterator<Item = PasswdEntry<'_>> {
        self.passwd.split(|b| *b == b'\n').filter_map(|line| {
            let mut fields = line.split(|b| *b == b':');
            let (name, _password) = (fields.next()?, fields.next()?);
            let (uid, gid) = (number(fields.next()?)?, number(fields.next()?)?);
            let (_comment, home) = (fields.next()?, fields.next()?);
            Some(PasswdEntry { name, uid, gid, home })
        })
    }

    fn groups(&self) -> impl Iterator<Item = GroupEntry<'_>> {
        self.group.split(|b| *b == b'\n').filter_map(|line| {
            let mut fields = line.split(|b| *b == b':');
            let (name, _password) = (fields.next()?, fields.next()?);
            let gid = number(fields.next()?)?;
            Some(GroupEntry { name, gid, members: fields.next().unwrap_or_default() })
        })
    }

    fn user(&self, text: &str) -> Result<(u32, Option<PasswdEntry<'_>>), UserError> {
        if let Some(id) = id(text)? {
            return Ok((id, self.users().find(|user| user.uid == id)));
        }
        let found = self.users().find(|user| user.name == text.as_bytes());
        // Root is root, also in an image without any user.
        if found.is_none() && text == "root" {
            return Ok((0, None));
        }
        found.map(|user| (user.uid, Some(user))).ok_or_else(|| UserError::User {
            name: text.to_owned(),
            nearest: nearest(text, self.users().map(|user| user.name)),
        })
    }

    fn group(&self, text: &str) -> Result<u32, UserError> {
        if let Some(id) = id(text)? {
            return Ok(id);
        }
        let found = self.groups().find(|group| group.name == text.as_bytes());
        found.map(|group| group.gid).ok_or_else(|| UserError::Group {
            name: text.to_owned(),
            nearest: nearest(text, self.groups().map(|group| group.name)),
        })
    }

    /// Returns the owner that `--chown=TEXT` means: `user[:group]`, a name without group takes its primary group, a
    /// number alone is both, and no user is root.
    pub(crate) fn owner(&self, text: &str) -> Result<(u32, u32), UserError> {
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        let (uid, entry) = if user.is_empty() { (0, None) } else { self.user(user)? };
        let gid = match group {
            Some(group) if !group.is_empty() => self.group(group)?,
            _ if user.is_empty() => 0,
            _ if id(user)?.is_some() => uid,
            _ => entry.map_or(uid, |user| user.gid),
        };
        Ok((uid, gid))
    }

    /// Returns who `USER TEXT` is. With a group given, it is the only one; else the user's own and those that list it.
    /// The supplementary groups always have the group itself: without it, giving up the group with setgid(2) would get
    /// past a mode that denies that group something.
    pub(crate) fn identity(&self, text: &str) -> Result<Identity, UserError> {
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        let (uid, entry) = self.user(if user.is_empty() { "0" } else { user })?;
        let home = match &entry {
            Some(user) if !user.home.is_empty() => user.home.to_vec(),
            Some(_) => b"/".to_vec(),
            None if uid == 0 => b"/root".to_vec(),
            None => b"/".to_vec(),
        };
        if let Some(group) = group.filter(|group| !group.is_empty()) {
            let gid = self.group(group)?;
            return Ok(Identity { uid, gid, groups: vec![gid], home });
        }
        let Some(user) = entry else { return Ok(Identity { uid, gid: 0, groups: vec![0], home }) };
        let lists = |group: &GroupEntry<'_>| group.members.split(|b| *b == b',').any(|member| member == user.name);
        let mut groups: Vec<u32> = self.groups().filter(lists).map(|group| group.gid).collect();
        groups.push(user.gid);
        groups.sort_unstable();
        groups.dedup();
        Ok(Identity { uid, gid: user.gid, groups, home })
    }
}

/// Whether looking up `text` needs the files at all.
pub(crate) fn is_numeric_owner(text: &str) -> bool {
    text.split(':').all(|part| part.is_empty() || part.bytes().all(|b| b.is_ascii_digit()))
}

/// A text of digits is an id and never a name.
fn id(text: &str) -> Result<Option<u32>, UserError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    // The last value is "no change" to chown(2).
    text.parse().ok().filter(|id| *id != u32::MAX).map(Some).ok_or_else(|| UserError::Id(text.to_owned()))
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn nearest<'a>(text: &str, names: impl Iterator<Item = &'a [u8]>) -> Option<String> {
    let names: Vec<&str> = names.filter_map(|name| std::str::from_utf8(name).ok()).collect();
    crate::diagnostic::nearest(text, names.iter().copied()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> UserFiles {
        UserFiles {
            passwd: b"root:x:0:0:root:/root:/bin/sh\nbroken\nguest:x:405:100:guest:/dev/null:/sbin/nologin\n\
                www-data:x:33:33::/var/www:\nnohome:x:50:50:::\n"
                .to_vec(),
            group: b"root:x:0:root\nlp:x:7:lp,guest\nusers:x:100:games\naudio:x:5:guest\n".to_vec(),
        }
    }

    #[test]
    fn owners() {
        let files = files();
        for (text, owner) in [
            ("guest", (405, 100)),
            ("guest:users", (405, 100)),
            (":lp", (0, 7)),
            ("55", (55, 55)),
            ("405", (405, 405)),
            ("55:66", (55, 66)),
            ("root:0", (0, 0)),
            ("guest:", (405, 100)),
        ] {
            assert_eq!(files.owner(text), Ok(owner), "{text}");
        }
        assert_eq!(files.owner("gest").unwrap_err().nearest(), Some("guest"));
        assert_eq!(files.owner("0:user").unwrap_err().nearest(), Some("users"));
        assert_eq!(files.owner("4294967295"), Err(UserError::Id("4294967295".to_owned())));
        assert_eq!(files.owner("99999999999"), Err(UserError::Id("99999999999".to_owned())));
    }

    #[test]
    fn identities() {
        let files = files();
        let identity = |text: &str| {
            let id = files.identity(text).unwrap();
            (id.uid, id.gid, id.groups, String::from_utf8(id.home).unwrap())
        };
        assert_eq!(identity(""), (0, 0, vec![0], "/root".to_owned()));
        assert_eq!(identity("guest"), (405, 100, vec![5, 7, 100], "/dev/null".to_owned()));
        assert_eq!(identity("405"), (405, 100, vec![5, 7, 100], "/dev/null".to_owned()));
        assert_eq!(identity("guest:root"), (405, 0, vec![0], "/dev/null".to_owned()));
        assert_eq!(identity("4321"), (4321, 0, vec![0], "/".to_owned()));
        assert_eq!(identity("nohome"), (50, 50, vec![50], "/".to_owned()));
        assert!(files.identity("nobody").is_err());
        assert_eq!(UserFiles::default().identity("root").unwrap().uid, 0);
        assert_eq!(UserFiles::default().identity("0").unwrap().home, b"/root");
    }

    #[test]
    fn names_need_the_files_and_numbers_do_not() {
        assert!(is_numeric_owner("1:2") && is_numeric_owner("1") && is_numeric_owner(""));
        assert!(!is_numeric_owner("a:2") && !is_numeric_owner("1:b"));
    }
}
