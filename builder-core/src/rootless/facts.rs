//! What this host and this process say about themselves, gathered before anything is tried.
//!
//! Facts decide nothing: whether namespaces work is found out by making them. They tell *why* it did not work
//! ([`super::diagnosis`]), and which ids a map may use. A fact that cannot be read is absent, never an error, because
//! half of the files do not exist on half of the kernels.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::id_map::{IdMap, SubordinateRange, free_subordinate_start, listed_ranges, subordinate_ranges};

/// Where `newuidmap` and `newgidmap` are looked for after the directories that the caller names.
const HELPER_DIRS: [&str; 6] = ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin", "/run/wrappers/bin"];

const SUBUID: &str = "/etc/subuid";
const SUBGID: &str = "/etc/subgid";

/// What a process needs to map ids itself; bits of `CapEff`, see `capabilities(7)`.
const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;
const CAP_SETFCAP: u32 = 31;

/// Facts about the host and the calling process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HostFacts {
    /// `uname -r`.
    pub kernel: String,
    /// The program that becomes the build process.
    pub program: PathBuf,
    /// Whether the kernel has user namespaces (`/proc/self/ns/user` exists).
    pub has_user_namespaces: bool,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Name of the user, where the user database has one.
    pub user_name: Option<String>,
    /// Effective capabilities, as in `/proc/self/status`.
    pub capabilities: u64,
    /// Set-user-id programs give no rights any more.
    pub no_new_privileges: bool,
    /// A seccomp filter is on, as in most containers.
    pub seccomp_filter: bool,
    /// Name and mode of the AppArmor profile, as in `/proc/self/attr/current`.
    pub apparmor_profile: Option<String>,
    /// `kernel.apparmor_restrict_unprivileged_userns`.
    pub apparmor_restricts_userns: Option<u64>,
    /// `kernel.unprivileged_userns_clone` (Debian's kernels, Arch's hardened one).
    pub unprivileged_userns_clone: Option<u64>,
    /// `user.max_user_namespaces`.
    pub max_user_namespaces: Option<u64>,
    /// `user.max_mnt_namespaces`.
    pub max_mount_namespaces: Option<u64>,
    /// `user.max_pid_namespaces`.
    pub max_pid_namespaces: Option<u64>,
    /// Users that this process' namespace has.
    pub uid_map: IdMap,
    /// Groups that this process' namespace has.
    pub gid_map: IdMap,
    /// The process runs in a `chroot`: its root is no mount point.
    pub chrooted: bool,
    /// Mount points below `/proc`: a container hides parts of it, and the kernel then gives no fresh one.
    pub proc_overmounts: Vec<String>,
    /// `newuidmap`.
    pub newuidmap: IdMapHelper,
    /// `newgidmap`.
    pub newgidmap: IdMapHelper,
    /// The user's ranges in `/etc/subuid`, or wherever `/etc/nsswitch.conf` says.
    pub subuids: Vec<SubordinateRange>,
    /// The user's ranges in `/etc/subgid`, or wherever `/etc/nsswitch.conf` says.
    pub subgids: Vec<SubordinateRange>,
    /// First id of a range for the user that no line of the two files uses.
    pub free_subordinate_start: u32,
    /// What `/etc/nsswitch.conf` says of `subid`, when that is not the files.
    pub subid_source: Option<String>,
}

/// One of shadow's two programs that write id maps with root's rights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct IdMapHelper {
    /// Where it is.
    pub path: Option<PathBuf>,
    /// What lets it write maps.
    pub privilege: HelperPrivilege,
}

/// What gives a program more rights than its caller has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum HelperPrivilege {
    /// Owned by root with the set-user-id bit.
    SetUserId,
    /// File capabilities.
    FileCapabilities,
    /// One of the two, on a file system mounted `nosuid`, where they do not count.
    IgnoredByNosuid,
    /// Nothing.
    None,
}

impl HostFacts {
    /// Looks around. `helper_dirs` come before the usual places of `newuidmap`.
    pub(crate) fn gather(program: &Path, helper_dirs: &[PathBuf]) -> Self {
        let status = text("/proc/self/status");
        let mountinfo = text("/proc/self/mountinfo");
        let uid = rustix::process::geteuid().as_raw();
        let user_name = user_name(uid);
        let (subuid, subgid) = (text(SUBUID), text(SUBGID));
        let subid_source = subid_source(&text("/etc/nsswitch.conf"));
        let ranges_in = |file: &str, options: &[&str]| match (&subid_source, &user_name) {
            // shadow asks that source alone then, and refuses ranges that are only in the files.
            (Some(_), Some(name)) => ranges_of_service(name, options, helper_dirs),
            _ => subordinate_ranges(file, user_name.as_deref(), uid),
        };
        Self {
            program: fs::canonicalize(program).unwrap_or_else(|_| program.to_owned()),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            has_user_namespaces: Path::new("/proc/self/ns/user").exists(),
            uid,
            gid: rustix::process::getegid().as_raw(),
            capabilities: status_field(&status, "CapEff")
                .and_then(|hex| u64::from_str_radix(hex, 16).ok())
                .unwrap_or(0),
            no_new_privileges: status_field(&status, "NoNewPrivs") == Some("1"),
            seccomp_filter: status_field(&status, "Seccomp") == Some("2"),
            apparmor_profile: apparmor_profile(),
            apparmor_restricts_userns: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            unprivileged_userns_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
            max_user_namespaces: number("/proc/sys/user/max_user_namespaces"),
            max_mount_namespaces: number("/proc/sys/user/max_mnt_namespaces"),
            max_pid_namespaces: number("/proc/sys/user/max_pid_namespaces"),
            uid_map: IdMap::parse(&text("/proc/self/uid_map")).unwrap_or_default(),
            gid_map: IdMap::parse(&text("/proc/self/gid_map")).unwrap_or_default(),
            chrooted: !mountinfo.is_empty() && mount_points(&mountinfo).all(|point| point != "/"),
            proc_overmounts: proc_overmounts(&mountinfo),
            newuidmap: IdMapHelper::find("newuidmap", helper_dirs),
            newgidmap: IdMapHelper::find("newgidmap", helper_dirs),
            subuids: ranges_in(&subuid, &[]),
            subgids: ranges_in(&subgid, &["-g"]),
            free_subordinate_start: free_subordinate_start(&[&subuid, &subgid]),
            subid_source,
            user_name,
        }
    }

    /// Whether this process may map every id it has itself: root with the two capabilities for it.
    pub(crate) fn can_map_ids_alone(&self) -> bool {
        self.uid == 0 && self.has_capability(CAP_SETUID) && self.has_capability(CAP_SETGID)
    }

    /// Whether `CAP_SETFCAP` is effective; since Linux 5.12 a map that has the parent's 0 needs it.
    pub(crate) fn has_setfcap(&self) -> bool {
        self.has_capability(CAP_SETFCAP)
    }

    fn has_capability(&self, bit: u32) -> bool {
        self.capabilities >> bit & 1 == 1
    }

    /// The user's name, or number where it has none.
    pub(crate) fn user(&self) -> String {
        self.user_name.clone().unwrap_or_else(|| self.uid.to_string())
    }

    /// The map that a new user namespace shall have for users.
    pub(crate) fn planned_uid_map(&self) -> IdMap {
        match self.can_map_ids_alone() {
            true => self.uid_map.identity(),
            false => self.uid_map.with_subordinate(self.uid, &self.subuids),
        }
    }

    /// The map that a new user namespace shall have for groups.
    pub(crate) fn planned_gid_map(&self) -> IdMap {
        match self.can_map_ids_alone() {
            true => self.gid_map.identity(),
            false => self.gid_map.with_subordinate(self.gid, &self.subgids),
        }
    }
}

impl IdMapHelper {
    fn find(name: &str, dirs: &[PathBuf]) -> Self {
        let path = find_program(name, dirs);
        let privilege = path.as_deref().map_or(HelperPrivilege::None, privilege_of);
        Self { path, privilege }
    }
}

/// Asks shadow's `getsubids`, which knows how to ask directory services.
fn ranges_of_service(name: &str, options: &[&str], dirs: &[PathBuf]) -> Vec<SubordinateRange> {
    let ask = |program: PathBuf| {
        Command::new(program).args(options).arg(name).env_clear().stdin(Stdio::null()).stderr(Stdio::null()).output()
    };
    match find_program("getsubids", dirs).map(ask) {
        Some(Ok(output)) => listed_ranges(&String::from_utf8_lossy(&output.stdout)),
        Some(Err(_)) | None => Vec::new(),
    }
}

fn find_program(name: &str, dirs: &[PathBuf]) -> Option<PathBuf> {
    let usual = HELPER_DIRS.iter().map(Path::new);
    dirs.iter().map(PathBuf::as_path).chain(usual).map(|dir| dir.join(name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn privilege_of(path: &Path) -> HelperPrivilege {
    const SET_USER_ID: u32 = 0o4000;
    let is_set_user_id =
        fs::metadata(path).is_ok_and(|metadata| metadata.uid() == 0 && metadata.mode() & SET_USER_ID != 0);
    let has_capabilities =
        rustix::fs::getxattr(path, "security.capability", &mut [0_u8; 64]).is_ok_and(|size| size > 0);
    let is_ignored =
        rustix::fs::statvfs(path).is_ok_and(|fs| fs.f_flag.contains(rustix::fs::StatVfsMountFlags::NOSUID));
    match (is_set_user_id, has_capabilities, is_ignored) {
        (false, false, _) => HelperPrivilege::None,
        (_, _, true) => HelperPrivilege::IgnoredByNosuid,
        (true, _, false) => HelperPrivilege::SetUserId,
        (false, true, false) => HelperPrivilege::FileCapabilities,
    }
}

fn text(path: &str) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn number(path: &str) -> Option<u64> {
    text(path).trim().parse().ok()
}

fn status_field<'t>(status: &'t str, name: &str) -> Option<&'t str> {
    status.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

/// Asks the user database, which may be more than `/etc/passwd`.
fn user_name(uid: u32) -> Option<String> {
    nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten().map(|user| user.name)
}

fn apparmor_profile() -> Option<String> {
    // The second file belongs to whichever LSM comes first, so it counts only where AppArmor is on. The first is
    // AppArmor's own, since Linux 5.8.
    let is_on = text("/sys/module/apparmor/parameters/enabled").trim() == "Y";
    let profile = match text("/proc/self/attr/apparmor/current") {
        own if own.is_empty() && is_on => text("/proc/self/attr/current"),
        own => own,
    };
    let profile = profile.trim_matches(['\0', '\n', ' ']);
    (!profile.is_empty()).then(|| profile.to_owned())
}

/// Fifth field of each line, see `proc_pid_mountinfo(5)`; octal escapes are left as they are.
fn mount_points(mountinfo: &str) -> impl Iterator<Item = &str> {
    mountinfo.lines().filter_map(|line| line.split(' ').nth(4))
}

fn proc_overmounts(mountinfo: &str) -> Vec<String> {
    // binfmt_misc sits on an empty directory that every proc has: the kernel does not mind it.
    let hides = |point: &&str| point.starts_with("/proc/") && *point != "/proc/sys/fs/binfmt_misc";
    mount_points(mountinfo).filter(hides).map(str::to_owned).collect()
}

fn subid_source(nsswitch: &str) -> Option<String> {
    let source = nsswitch.lines().find_map(|line| line.trim().strip_prefix("subid:"))?.trim();
    (source != "files").then(|| source.to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A host on which everything works for user `ann`, 1000: where fault injection starts.
    pub(in crate::rootless) fn healthy() -> HostFacts {
        let whole = IdMap::parse("0 0 4294967295").expect("map");
        let helper = |name: &str| IdMapHelper {
            path: Some(Path::new("/usr/bin").join(name)),
            privilege: HelperPrivilege::SetUserId,
        };
        let ranges = vec![SubordinateRange { first: 100_000, count: 65536 }];
        HostFacts {
            kernel: "6.8.0".to_owned(),
            program: PathBuf::from("/opt/tools/builder"),
            has_user_namespaces: true,
            uid: 1000,
            gid: 1000,
            user_name: Some("ann".to_owned()),
            capabilities: 0,
            no_new_privileges: false,
            seccomp_filter: false,
            apparmor_profile: None,
            apparmor_restricts_userns: None,
            unprivileged_userns_clone: None,
            max_user_namespaces: Some(96_000),
            max_mount_namespaces: Some(96_000),
            max_pid_namespaces: Some(96_000),
            uid_map: whole.clone(),
            gid_map: whole,
            chrooted: false,
            proc_overmounts: Vec::new(),
            newuidmap: helper("newuidmap"),
            newgidmap: helper("newgidmap"),
            subuids: ranges.clone(),
            subgids: ranges,
            free_subordinate_start: 165_536,
            subid_source: None,
        }
    }

    #[test]
    fn facts_of_this_process_agree_with_the_kernel() {
        let facts = HostFacts::gather(Path::new("/proc/self/exe"), &[]);
        assert_eq!(facts.uid, rustix::process::geteuid().as_raw());
        assert!(facts.uid_map.id_count() > 0, "every process has at least its own id");
        assert_eq!(facts.has_capability(CAP_SETUID), facts.capabilities & 1 << 7 != 0);
        assert!(facts.has_user_namespaces);
    }

    #[test]
    fn who_maps_how() {
        let mut facts = healthy();
        assert_eq!(facts.planned_uid_map().to_string(), "0 1000 1\n1 100000 65536\n");
        facts.uid = 0;
        assert!(!facts.can_map_ids_alone(), "root without capabilities is a user like others");
        facts.capabilities = 1 << CAP_SETUID | 1 << CAP_SETGID;
        assert_eq!(facts.planned_uid_map().to_string(), "0 0 4294967295\n");
        assert_eq!(facts.planned_gid_map().to_string(), "0 0 4294967295\n");
    }

    #[test]
    fn a_jail_shows_in_mountinfo() {
        let host = "22 27 0:21 / /proc rw - proc proc rw\n23 22 0:30 / /proc/sys/fs/binfmt_misc rw - autofs x rw\n27 1 8:1 / / rw - ext4 /dev/sda rw\n";
        assert!(mount_points(host).any(|point| point == "/"));
        assert_eq!(proc_overmounts(host), Vec::<String>::new());
        let container = "1 2 0:1 / / rw - overlay o rw\n3 1 0:2 / /proc rw - proc proc rw\n4 3 0:2 /sys /proc/sys ro - proc proc rw\n";
        assert_eq!(proc_overmounts(container), ["/proc/sys"]);
    }

    #[test]
    fn other_sources_of_subordinate_ids_are_named() {
        assert_eq!(subid_source("passwd: files\nsubid: sss\n").as_deref(), Some("sss"));
        assert_eq!(subid_source("subid:  files\n"), None);
        assert_eq!(subid_source("passwd: files sss\n"), None);
    }

    #[test]
    fn helpers_are_found_with_what_makes_them_work() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("newuidmap");
        fs::write(&path, "#!/bin/sh\n").expect("write");
        let find = || IdMapHelper::find("newuidmap", &[dir.path().to_owned()]);
        assert_ne!(find().path.as_deref(), Some(path.as_path()), "not executable: not it");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
        assert_eq!(find(), IdMapHelper { path: Some(path.clone()), privilege: HelperPrivilege::None });
        assert_eq!(IdMapHelper::find("no-such-helper", &[]).path, None);
    }
}
