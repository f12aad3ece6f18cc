//! The words of each cause: why, and what helps. Commands are complete, with the user's name, a range that nobody has
//! and the program's path filled in.

use super::Cause;
use crate::rootless::facts::{HelperPrivilege, HostFacts, IdMapHelper};

/// Why, to follow "cannot do this: errno: ".
pub(super) fn because(cause: Cause, facts: &HostFacts) -> String {
    let user = facts.user();
    let profile = facts.apparmor_profile.as_deref().unwrap_or("unknown");
    let none = |ranges: &[_]| if ranges.is_empty() { "no line" } else { "a line" };
    match cause {
        Cause::KernelWithoutUserNamespaces => "this kernel has no user namespaces".to_owned(),
        Cause::UserNamespacesForbidden => "the sysctl user.max_user_namespaces is 0".to_owned(),
        Cause::NamespaceLimit => "there are too many namespaces of this kind, or too many inside each other".to_owned(),
        Cause::UserNamespacesOnlyForRoot => "the sysctl kernel.unprivileged_userns_clone is 0".to_owned(),
        Cause::ApparmorRestriction => "the sysctl kernel.apparmor_restrict_unprivileged_userns is 1".to_owned(),
        Cause::ApparmorProfile => format!("the AppArmor profile {profile:?} forbids it"),
        Cause::SeccompFilter => "a seccomp filter is on, and the default ones of containers forbid this".to_owned(),
        Cause::Chroot => "this process runs in a chroot, where the kernel allows no user namespaces".to_owned(),
        Cause::OwnIdUnmapped => format!("user {} or group {} has no id in this namespace", facts.uid, facts.gid),
        Cause::ThreadsBeforeInit => "the program had several threads when it called `builder_core::init()`".to_owned(),
        Cause::NoSubordinateIds => {
            format!("{user} has {} in /etc/subuid and {} in /etc/subgid", none(&facts.subuids), none(&facts.subgids))
        }
        Cause::SubordinateIdsUnmapped => {
            format!("the subordinate ids of {user} do not exist in the user namespace that this process runs in")
        }
        Cause::SubordinateIdsElsewhere => format!(
            "/etc/nsswitch.conf takes subordinate ids from {:?}, and `getsubids` tells of none for {user}",
            facts.subid_source.as_deref().unwrap_or("elsewhere")
        ),
        Cause::SingleId => "the user namespace that this process runs in has a single id".to_owned(),
        Cause::IdMapHelperMissing => format!("{} is not installed", lacking(facts, |helper| helper.path.is_none())),
        Cause::IdMapHelperUnprivileged => format!(
            "{} has neither the set-user-id bit nor file capabilities",
            lacking(facts, |helper| helper.privilege == HelperPrivilege::None)
        ),
        Cause::IdMapHelperNosuid => "newuidmap is on a file system mounted nosuid".to_owned(),
        Cause::NoNewPrivileges => "no_new_privs is set, so newuidmap gets no rights".to_owned(),
        Cause::IdMapRefused => "newuidmap or newgidmap refused the map".to_owned(),
        Cause::SetuidMissing => "root lacks CAP_SETUID or CAP_SETGID, and has no subordinate ids".to_owned(),
        Cause::SetfcapMissing => "root lacks CAP_SETFCAP, which a map with the id 0 needs".to_owned(),
        Cause::ProcCovered => format!("parts of /proc are covered ({})", facts.proc_overmounts.join(" ")),
        Cause::OverlayMissing => "the kernel has no overlay file system, or its module is not loaded".to_owned(),
        Cause::OverlayUnfitDirectory => {
            "the file system of the state directory cannot be written through an overlay".to_owned()
        }
        Cause::KernelTooOld => format!("Linux {} does not have this yet", facts.kernel),
        Cause::NotAsked => "no isolation was asked for".to_owned(),
        Cause::Unknown => "the cause is not known".to_owned(),
    }
}

fn lacking(facts: &HostFacts, lacks: impl Fn(&IdMapHelper) -> bool) -> &'static str {
    if lacks(&facts.newuidmap) { "newuidmap" } else { "newgidmap" }
}

const DOCKER_UNCONFINED: &str = "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined …";
const POD_UNCONFINED: &str =
    "in the pod's securityContext: seccompProfile: {type: Unconfined} and appArmorProfile: {type: Unconfined}";

/// Changes that help, the smallest first. Every cause has at least one, or needs none.
pub(super) fn remedies(cause: Cause, facts: &HostFacts) -> Vec<String> {
    let user = facts.user();
    let list = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    match cause {
        Cause::KernelWithoutUserNamespaces => list(&["boot a kernel with CONFIG_USER_NS=y"]),
        Cause::UserNamespacesForbidden => list(&["sudo sysctl -w user.max_user_namespaces=15000"]),
        Cause::NamespaceLimit => list(&[
            "end programs that hold namespaces (lsns lists them)",
            "sudo sysctl -w user.max_user_namespaces=63000 user.max_mnt_namespaces=63000 user.max_pid_namespaces=63000",
        ]),
        Cause::UserNamespacesOnlyForRoot => list(&["sudo sysctl -w kernel.unprivileged_userns_clone=1"]),
        Cause::ApparmorRestriction => apparmor_remedies(facts),
        Cause::ApparmorProfile | Cause::SeccompFilter => list(&[
            DOCKER_UNCONFINED,
            POD_UNCONFINED,
            "in a systemd service: RestrictNamespaces=no and a SystemCallFilter= that has @mount",
        ]),
        Cause::Chroot => list(&["run outside of the chroot, or make it with pivot_root (systemd-nspawn, bwrap)"]),
        Cause::OwnIdUnmapped => list(&["run as a user that the container's user namespace maps"]),
        Cause::ThreadsBeforeInit => list(&["call `builder_core::init()` first in `main`, before any thread starts"]),
        Cause::NoSubordinateIds => subordinate_id_remedies(facts, &user),
        Cause::SubordinateIdsElsewhere => list(&[
            "have the directory service give the user ranges (check with getsubids USER; getsubids -g USER)",
            "set `subid: files` in /etc/nsswitch.conf and add the user to /etc/subuid and /etc/subgid",
        ]),
        Cause::SubordinateIdsUnmapped | Cause::SingleId => list(&[
            "run the container with a larger user namespace, or outside of it",
            "give the user a range in /etc/subuid and /etc/subgid that `cat /proc/self/uid_map` covers",
        ]),
        Cause::IdMapHelperMissing => {
            list(&["sudo apt-get install uidmap", "sudo dnf install shadow-utils", "sudo apk add shadow-subids"])
        }
        Cause::IdMapHelperUnprivileged => setuid_remedies(facts),
        Cause::IdMapHelperNosuid => {
            list(&["mount that file system without nosuid, or install the package uidmap elsewhere"])
        }
        Cause::NoNewPrivileges => list(&[
            "start without no_new_privs (docker: drop --security-opt no-new-privileges; Kubernetes: allowPrivilegeEscalation: true; systemd: NoNewPrivileges=no)",
        ]),
        Cause::IdMapRefused => subordinate_id_remedies(facts, &user),
        Cause::SetuidMissing => list(&[
            "docker run --cap-add SETUID --cap-add SETGID --cap-add SETFCAP …",
            "in the container's securityContext: capabilities: {add: [SETUID, SETGID, SETFCAP]}",
        ]),
        Cause::SetfcapMissing => {
            list(&["docker run --cap-add SETFCAP …", "run as a user with subordinate ids instead of root"])
        }
        Cause::ProcCovered => list(&[
            "docker run --security-opt systempaths=unconfined …",
            "in the container's securityContext: procMount: Unmasked, with hostUsers: false in the pod",
        ]),
        Cause::OverlayMissing => list(&["sudo modprobe overlay"]),
        Cause::OverlayUnfitDirectory => {
            list(&["put the state directory on ext4, xfs, btrfs or tmpfs (in a container: on a volume)"])
        }
        Cause::KernelTooOld => list(&["run on Linux 5.12 or later"]),
        Cause::NotAsked => list(&["choose the isolation \"auto\""]),
        Cause::Unknown => list(&[
            "look into the kernel log for a refusal (sudo dmesg; SELinux: sudo ausearch -m avc)",
            "run outside of a chroot",
        ]),
    }
}

fn apparmor_remedies(facts: &HostFacts) -> Vec<String> {
    let program = facts.program.display();
    vec![
        format!(
            "printf 'abi <abi/4.0>,\\nprofile builder \"{program}\" flags=(unconfined) {{\\n  userns,\\n}}\\n' | sudo tee /etc/apparmor.d/builder && sudo apparmor_parser -r /etc/apparmor.d/builder"
        ),
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0".to_owned(),
    ]
}

fn subordinate_id_remedies(facts: &HostFacts, user: &str) -> Vec<String> {
    const COUNT: u32 = 65536;
    let first = facts.free_subordinate_start;
    let last = first.saturating_add(COUNT - 1);
    let mut command = "sudo usermod".to_owned();
    let mut lines = Vec::new();
    for (ranges, option, file) in
        [(&facts.subuids, "--add-subuids", "/etc/subuid"), (&facts.subgids, "--add-subgids", "/etc/subgid")]
    {
        if ranges.is_empty() {
            command += &format!(" {option} {first}-{last}");
            lines.push(format!("echo {user}:{first}:{COUNT} | sudo tee -a {file}"));
        }
    }
    match lines.is_empty() {
        true => vec!["compare /etc/subuid and /etc/subgid with the ranges in the message above".to_owned()],
        false => vec![format!("{command} {user}"), lines.join(" && ")],
    }
}

fn setuid_remedies(facts: &HostFacts) -> Vec<String> {
    let paths: Vec<String> = [&facts.newuidmap, &facts.newgidmap]
        .iter()
        .filter(|helper| helper.privilege == HelperPrivilege::None)
        .filter_map(|helper| Some(helper.path.as_ref()?.display().to_string()))
        .collect();
    vec![format!("sudo chmod u+s {}", paths.join(" ")), "sudo apt-get install --reinstall uidmap".to_owned()]
}
