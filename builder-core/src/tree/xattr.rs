//! Which extended attributes belong into a layer, and in what form.
//!
//! An attribute of the host (labels, integrity hashes, ACLs with host ids) would make the layer depend on where it was
//! built, so only two kinds pass: what programs store for themselves (`user.*`) and file capabilities. Attributes by
//! which overlayfs or this builder keep book are neither.

/// Name of the attribute that holds file capabilities.
pub(crate) const CAPABILITY: &[u8] = b"security.capability";

/// Prefix of the attributes by which this builder marks files that stand for something it may not create.
pub(crate) const BUILDER_PREFIX: &[u8] = b"user.builder.";

/// Whether an attribute of this name goes into layers.
pub(crate) fn belongs_in_layer(name: &[u8]) -> bool {
    name == CAPABILITY
        || name.starts_with(b"user.") && !name.starts_with(b"user.overlay.") && !name.starts_with(BUILDER_PREFIX)
}

/// Returns the value as layers hold it: capabilities of version 3 (which name the root of a user namespace by a host
/// id) become version 2, everything else stays.
///
/// Form: `struct vfs_cap_data` and `vfs_ns_cap_data` in `linux/capability.h`, little endian.
pub(crate) fn portable_value(name: &[u8], value: Vec<u8>) -> Vec<u8> {
    const V3_LEN: usize = 24;
    const V2_LEN: usize = 20;
    const REVISION_BYTE: usize = 3;
    if name == CAPABILITY && value.len() == V3_LEN && value[REVISION_BYTE] == 3 {
        let mut v2 = value;
        v2.truncate(V2_LEN);
        v2[REVISION_BYTE] = 2;
        return v2;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_user_attributes_and_capabilities_pass() {
        for name in ["user.x", "user.", "security.capability", "user.overlayx"] {
            assert!(belongs_in_layer(name.as_bytes()), "{name}");
        }
        for name in [
            "user.overlay.opaque",
            "user.overlay.overlay.opaque",
            "user.builder.node",
            "trusted.overlay.opaque",
            "trusted.x",
            "security.selinux",
            "security.ima",
            "security.evm",
            "system.posix_acl_access",
            "system.posix_acl_default",
            "security.capability2",
            "",
        ] {
            assert!(!belongs_in_layer(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn capabilities_lose_the_root_id() {
        let v2: Vec<u8> = [1, 0, 0, 2].into_iter().chain(4..20).collect();
        let v3: Vec<u8> = [1, 0, 0, 3].into_iter().chain(4..20).chain([0xa0, 0x86, 1, 0]).collect();
        assert_eq!(portable_value(CAPABILITY, v3.clone()), v2);
        assert_eq!(portable_value(CAPABILITY, v2.clone()), v2);
        assert_eq!(portable_value(b"user.x", v3.clone()), v3);
        assert_eq!(portable_value(CAPABILITY, vec![]), b"");
    }
}
