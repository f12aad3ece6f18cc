//! Faults injected into the facts of a healthy host, one or two at a time.

use std::collections::BTreeSet;

use super::*;
use crate::rootless::facts::tests::healthy;
use crate::rootless::id_map::IdMap;

fn refused(feature: Feature, errno: i32) -> Failure {
    Failure { feature, errno: Some(errno), detail: None }
}

fn foreseen() -> Failure {
    Failure::foreseen(Feature::UidMap)
}

fn refused_by_helper(said: &str) -> Failure {
    Failure { feature: Feature::UidMap, errno: None, detail: Some(said.to_owned()) }
}

fn find(fault: impl FnOnce(&mut HostFacts), failure: &Failure) -> Diagnosis {
    let mut facts = healthy();
    fault(&mut facts);
    Diagnosis::find(&facts, failure)
}

fn as_root(facts: &mut HostFacts) {
    facts.uid = 0;
    facts.gid = 0;
    facts.user_name = Some("root".to_owned());
    facts.capabilities = u64::MAX;
}

type Fault = fn(&mut HostFacts);

#[test]
fn faults_of_making_a_user_namespace() {
    let cases: [(Fault, i32, Cause); 13] = [
        (|facts| facts.has_user_namespaces = false, libc::EINVAL, Cause::KernelWithoutUserNamespaces),
        (|_| {}, libc::EINVAL, Cause::ThreadsBeforeInit),
        (|facts| facts.max_user_namespaces = Some(0), libc::ENOSPC, Cause::UserNamespacesForbidden),
        (|_| {}, libc::ENOSPC, Cause::NamespaceLimit),
        (|_| {}, libc::EUSERS, Cause::NamespaceLimit),
        (|facts| facts.unprivileged_userns_clone = Some(0), libc::EPERM, Cause::UserNamespacesOnlyForRoot),
        (|facts| facts.chrooted = true, libc::EPERM, Cause::Chroot),
        (|facts| facts.uid_map = IdMap::parse("0 0 1000").expect("map"), libc::EPERM, Cause::OwnIdUnmapped),
        (|facts| facts.seccomp_filter = true, libc::EPERM, Cause::SeccompFilter),
        (|facts| facts.seccomp_filter = true, libc::ENOSYS, Cause::SeccompFilter),
        (|facts| facts.apparmor_restricts_userns = Some(1), libc::EACCES, Cause::ApparmorRestriction),
        (
            |facts| {
                facts.seccomp_filter = true;
                facts.apparmor_restricts_userns = Some(1);
            },
            libc::EPERM,
            Cause::SeccompFilter,
        ),
        (|_| {}, libc::EPERM, Cause::Unknown),
    ];
    for (index, (fault, errno, expected)) in cases.into_iter().enumerate() {
        assert_eq!(find(fault, &refused(Feature::UserNamespace, errno)).cause, expected, "case {index}");
    }
}

#[test]
fn faults_of_mapping_ids_as_a_user() {
    let cases: [(Fault, Cause); 11] = [
        (|facts| facts.subuids.clear(), Cause::NoSubordinateIds),
        (|facts| facts.subgids.clear(), Cause::NoSubordinateIds),
        (
            |facts| {
                facts.subuids.clear();
                facts.subid_source = Some("sss".to_owned());
            },
            Cause::SubordinateIdsElsewhere,
        ),
        (|facts| facts.uid_map = IdMap::parse("0 0 65536").expect("map"), Cause::SubordinateIdsUnmapped),
        (|facts| facts.newuidmap.path = None, Cause::IdMapHelperMissing),
        (|facts| facts.newgidmap.path = None, Cause::IdMapHelperMissing),
        (|facts| facts.no_new_privileges = true, Cause::NoNewPrivileges),
        (|facts| facts.newuidmap.privilege = HelperPrivilege::None, Cause::IdMapHelperUnprivileged),
        (|facts| facts.newgidmap.privilege = HelperPrivilege::IgnoredByNosuid, Cause::IdMapHelperNosuid),
        (|facts| facts.newgidmap.privilege = HelperPrivilege::FileCapabilities, Cause::IdMapRefused),
        (|_| {}, Cause::IdMapRefused),
    ];
    for (index, (fault, expected)) in cases.into_iter().enumerate() {
        let diagnosis = find(fault, &refused_by_helper("newuidmap: write to uid_map failed: Operation not permitted"));
        assert_eq!(diagnosis.cause, expected, "case {index}");
    }
}

#[test]
fn faults_of_mapping_ids_as_root() {
    let failure = refused(Feature::UidMap, libc::EPERM);
    let without_setfcap = |facts: &mut HostFacts| {
        as_root(facts);
        facts.capabilities &= !(1 << 31);
    };
    assert_eq!(find(without_setfcap, &failure).cause, Cause::SetfcapMissing);
    let without_setuid = |facts: &mut HostFacts| {
        as_root(facts);
        facts.capabilities = 0;
        facts.subuids.clear();
    };
    assert_eq!(find(without_setuid, &foreseen()).cause, Cause::SetuidMissing);
    let single = |facts: &mut HostFacts| {
        as_root(facts);
        facts.uid_map = IdMap::parse("0 1000 1").expect("map");
    };
    assert_eq!(find(single, &failure).cause, Cause::SingleId);
    let confined = |facts: &mut HostFacts| {
        as_root(facts);
        facts.apparmor_profile = Some("docker-default (enforce)".to_owned());
    };
    assert_eq!(find(confined, &failure).cause, Cause::ApparmorProfile);
}

#[test]
fn faults_after_the_map_is_written_are_someone_who_confines() {
    for feature in [Feature::BecomeRoot, Feature::MountNamespace, Feature::PrivateMounts, Feature::MountTmpfs] {
        let cases: [(Fault, i32, Cause); 6] = [
            (|facts| facts.apparmor_restricts_userns = Some(1), libc::EPERM, Cause::ApparmorRestriction),
            (
                |facts| facts.apparmor_profile = Some("docker-default (enforce)".to_owned()),
                libc::EACCES,
                Cause::ApparmorProfile,
            ),
            (
                |facts| {
                    facts.apparmor_profile = Some("unconfined".to_owned());
                    facts.seccomp_filter = true;
                },
                libc::EPERM,
                Cause::SeccompFilter,
            ),
            (|_| {}, libc::ENOSPC, Cause::NamespaceLimit),
            (|_| {}, libc::EPERM, Cause::Unknown),
            (|facts| facts.seccomp_filter = true, libc::EIO, Cause::Unknown),
        ];
        for (index, (fault, errno, expected)) in cases.into_iter().enumerate() {
            assert_eq!(find(fault, &refused(feature, errno)).cause, expected, "{feature}, case {index}");
        }
    }
}

#[test]
fn faults_of_what_steps_need_besides() {
    let old = |facts: &mut HostFacts| facts.kernel = "5.4.0-150-generic".to_owned();
    let covered = |facts: &mut HostFacts| facts.proc_overmounts = vec!["/proc/kcore".to_owned()];
    assert_eq!(find(covered, &refused(Feature::MountProc, libc::EPERM)).cause, Cause::ProcCovered);
    assert_eq!(find(|_| {}, &refused(Feature::MountProc, libc::EPERM)).cause, Cause::Unknown);
    assert_eq!(find(old, &refused(Feature::MountOverlay, libc::EPERM)).cause, Cause::KernelTooOld);
    assert_eq!(find(|_| {}, &refused(Feature::MountOverlay, libc::ENODEV)).cause, Cause::OverlayMissing);
    assert_eq!(find(|_| {}, &refused(Feature::MountOverlay, libc::EINVAL)).cause, Cause::OverlayUnfitDirectory);
    assert_eq!(find(old, &refused(Feature::Openat2, libc::ENOSYS)).cause, Cause::KernelTooOld);
    let filtered = |facts: &mut HostFacts| facts.seccomp_filter = true;
    assert_eq!(find(filtered, &refused(Feature::Openat2, libc::ENOSYS)).cause, Cause::SeccompFilter);
}

#[test]
fn commands_can_be_pasted() {
    let diagnosis = find(|facts| facts.subuids.clear(), &foreseen());
    assert_eq!(
        diagnosis.problem,
        "cannot write the user namespace's map of users: ann has no line in /etc/subuid and a line in /etc/subgid"
    );
    assert_eq!(
        diagnosis.remedies,
        ["sudo usermod --add-subuids 165536-231071 ann", "echo ann:165536:65536 | sudo tee -a /etc/subuid"]
    );
    let both = |facts: &mut HostFacts| {
        facts.subuids.clear();
        facts.subgids.clear();
        facts.user_name = None;
    };
    assert_eq!(
        find(both, &foreseen()).remedies[0],
        "sudo usermod --add-subuids 165536-231071 --add-subgids 165536-231071 1000"
    );
    let lost = |facts: &mut HostFacts| facts.newgidmap.privilege = HelperPrivilege::None;
    assert_eq!(find(lost, &foreseen()).remedies[0], "sudo chmod u+s /usr/bin/newgidmap");
    let restricted = |facts: &mut HostFacts| facts.apparmor_restricts_userns = Some(1);
    let profile = &find(restricted, &refused(Feature::BecomeRoot, libc::EPERM)).remedies[0];
    assert!(profile.contains("profile builder \"/opt/tools/builder\""), "{profile}");
}

/// Every cause that the functions above can find, so that a new one is not forgotten in the table of words.
#[test]
fn every_cause_has_a_stable_name_a_reason_and_a_remedy() {
    let causes = [
        (Cause::KernelWithoutUserNamespaces, "kernel-without-user-namespaces"),
        (Cause::UserNamespacesForbidden, "user-namespaces-forbidden"),
        (Cause::NamespaceLimit, "namespace-limit"),
        (Cause::UserNamespacesOnlyForRoot, "user-namespaces-only-for-root"),
        (Cause::ApparmorRestriction, "apparmor-restriction"),
        (Cause::ApparmorProfile, "apparmor-profile"),
        (Cause::SeccompFilter, "seccomp-filter"),
        (Cause::Chroot, "chroot"),
        (Cause::OwnIdUnmapped, "own-id-unmapped"),
        (Cause::ThreadsBeforeInit, "threads-before-init"),
        (Cause::NoSubordinateIds, "no-subordinate-ids"),
        (Cause::SubordinateIdsUnmapped, "subordinate-ids-unmapped"),
        (Cause::SubordinateIdsElsewhere, "subordinate-ids-elsewhere"),
        (Cause::SingleId, "single-id"),
        (Cause::IdMapHelperMissing, "id-map-helper-missing"),
        (Cause::IdMapHelperUnprivileged, "id-map-helper-unprivileged"),
        (Cause::IdMapHelperNosuid, "id-map-helper-nosuid"),
        (Cause::NoNewPrivileges, "no-new-privileges"),
        (Cause::IdMapRefused, "id-map-refused"),
        (Cause::SetuidMissing, "setuid-missing"),
        (Cause::SetfcapMissing, "setfcap-missing"),
        (Cause::ProcCovered, "proc-covered"),
        (Cause::OverlayMissing, "overlay-missing"),
        (Cause::OverlayUnfitDirectory, "overlay-unfit-directory"),
        (Cause::KernelTooOld, "kernel-too-old"),
        (Cause::NotAsked, "not-asked"),
        (Cause::Unknown, "unknown"),
    ];
    let facts = healthy();
    let mut reasons = BTreeSet::new();
    for (cause, name) in causes {
        assert_eq!(cause.to_string(), name);
        assert!(reasons.insert(words::because(cause, &facts)), "{name}: its reason is another's");
        assert!(!words::remedies(cause, &facts).is_empty(), "{name}: what shall one do?");
    }
}

#[test]
fn kernel_releases_are_compared_by_number() {
    let mut facts = healthy();
    for (release, is_5_11) in
        [("5.4.0-150-generic", false), ("5.11.0", true), ("5.9", false), ("6.1.0-rc1+", true), ("4.18.0", false)]
    {
        facts.kernel = release.to_owned();
        assert_eq!(is_kernel_at_least(&facts, 5, 11), is_5_11, "{release}");
    }
}
