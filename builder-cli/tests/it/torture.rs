//! Everything that a layer can say, said at once: the layers applied by others give the file system that the last command
//! of the build saw.

use std::fs;

use tar::EntryType::{Block, Char, Directory, Fifo, Link, Regular, Symlink};

use crate::applied::{self, Listing, as_tar_can, assert_same, gnu_tar, list_command, seen_by, umoci};
use crate::support::{Env, busybox_rootfs_with, have, is_root};

/// `cap_net_bind_service=ep` as the kernel stores it.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

type Tar = tar::Builder<Vec<u8>>;

fn add(tar: &mut Tar, path: &str, kind: tar::EntryType, mode: u32, (uid, gid): (u64, u64), data: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(uid);
    header.set_gid(gid);
    header.set_mtime(1_500_000_000);
    match kind {
        Link | Symlink => {
            header.set_size(0);
            tar.append_link(&mut header, path, std::str::from_utf8(data).unwrap()).unwrap();
        }
        Char | Block => {
            header.set_size(0);
            header.set_device_major(data[0].into()).unwrap();
            header.set_device_minor(data[1].into()).unwrap();
            tar.append_data(&mut header, path, &[][..]).unwrap();
        }
        _ => {
            header.set_size(data.len() as u64);
            tar.append_data(&mut header, path, data).unwrap();
        }
    }
}

fn base(manifest: &[u8]) -> Vec<u8> {
    busybox_rootfs_with(|tar| {
        let root = (0, 0);
        add(tar, "bin/manifest", Regular, 0o755, root, manifest);
        add(tar, "base", Directory, 0o755, root, &[]);
        tar.append_pax_extensions([("SCHILY.xattr.user.colour", b"blue\0green".as_slice())]).unwrap();
        add(tar, "base/coloured", Directory, 0o750, (60_000, 60_001), &[]);
        let records = [
            ("SCHILY.xattr.security.capability", CAPABILITY.as_slice()),
            ("SCHILY.xattr.user.beside", b"1".as_slice()),
        ];
        tar.append_pax_extensions(records).unwrap();
        add(tar, "base/capable", Regular, 0o755, root, b"#!/bin/sh\n");
        for dir in ["tree", "tree/below", "again", "linked"] {
            add(tar, &format!("base/{dir}"), Directory, 0o755, root, &[]);
            add(tar, &format!("base/{dir}/file"), Regular, 0o644, root, dir.as_bytes());
        }
        add(tar, "base/setuid", Regular, 0o4755, (12, 34), b"s");
        add(tar, "base/h1", Regular, 0o644, root, b"linked");
        for name in ["base/h2", "base/h3", "base/h4"] {
            add(tar, name, Link, 0o644, root, b"base/h1");
        }
        add(tar, "base/to-dir", Symlink, 0o777, root, b"linked");
        add(tar, "base/nowhere", Symlink, 0o777, (5, 5), b"/no/such/place");
        add(tar, "nodes", Directory, 0o755, root, &[]);
        add(tar, "nodes/null", Char, 0o666, root, &[1, 3]);
        add(tar, "nodes/loop", Block, 0o660, (0, 6), &[7, 0]);
        add(tar, "nodes/kept", Char, 0o600, root, &[10, 229]);
        add(tar, "nodes/pipe", Fifo, 0o640, root, &[]);
    })
}

const MAKE: &str = r#"RUN <<'EOF'
set -e
mkdir -p /t/del/a/b /t/swap/in /t/opaque/x /t/own/deep/er /t/names /t/long
for f in del/a/b/c del/keep swap/in/file opaque/x/y own/deep/er/f own/f; do echo $f > /t/$f; done
cd /t
echo one > l1; ln l1 l2; ln l1 own/l3; ln l1 own/l4
echo s > setuid; chmod 4711 setuid; echo g > setgid; chmod 2755 setgid; mkdir -m 3777 sticky; mkdir -m 000 closed
mkfifo -m 600 pipe; ln -s pipe sym; ln -s /t/names "$(printf 'to\nnames')"
echo x > attributed; manifest setxattr attributed user.one 00ff41; manifest setxattr del user.dir 31
echo c > capable; chmod 755 capable
manifest setxattr capable security.capability 0100000200040000000000000000000000000000
manifest setxattr capable user.beside 32
long=$(printf 'n%.0s' $(seq 255)); echo l > long/$long; mkdir -p long/d/$long/$long; echo l > long/d/$long/$long/$long
ln long/$long long/other; ln -s $long long/sym
for name in 'caf\351' 'new\nline' 'tab\ttab' 'back\\slash' ' spaces ' '-dash' '*' '\360\237\246\200' '\377\376' 'quote"' 'end\n'; do
    name=$(printf "$name."); name=${name%.}
    echo "$name" > "names/$name"
    mkdir "names/$name.d"; ln "names/$name" "names/$name.d/$name"
done
truncate -s 2G sparse; printf x | dd of=sparse bs=1 seek=1500000000 conv=notrunc 2>/dev/null
manifest touch own/f -5 250000000; manifest touch del/keep 5000000000 1; manifest touch sym 1000 7
EOF
"#;

const CHANGE: &str = r#"RUN <<'EOF'
set -e
cd /t
rm -r del/a /base/tree swap opaque/x
echo file > swap
echo two >> l1; rm /base/h2; ln /base/h3 h3-too; chmod 600 /base/h4
touch capable; touch /base/capable; chmod 700 closed; echo in > closed/in; chmod 000 closed
echo more >> attributed; manifest setxattr /base/coloured user.more 33
chown -R 12:34 own /base/linked /nodes
chown -h 7:8 sym; chmod u+s setgid
mv names moved; rm "moved/$(printf 'new\nline')"; rm -r "moved/$(printf 'caf\351').d"; mv "moved/$(printf '\377\376')" "$(printf '\376')"
rm nowhere 2>/dev/null || rm /base/nowhere; rm /nodes/null
EOF
"#;

const AGAIN: &str = r#"RUN <<'EOF'
set -e
cd /t
rm swap; mkdir -m 711 swap; echo new > swap/new; mkdir swap/in; echo back > swap/in/file
rm -r opaque; mkdir opaque; echo y > opaque/y
rm -r /base/again; mkdir /base/again; echo other > /base/again/other
rm /base/to-dir; mkdir /base/to-dir; echo real > /base/to-dir/file
rm -r /base/linked; ln -s to-dir /base/linked
mv own/deep own/deeper; ln own/l3 own/l5; rm l2; rm pipe; echo not-a-pipe > pipe; rm sym; mkfifo sym
chown 3:3 l1; chmod 4755 l1; manifest setxattr /base/capable user.late 34
mkdir /base/tree; echo t > /base/tree/file
EOF
RUN rm -r /t/opaque /base/again && mkdir -p /base/again/file && echo 1 > /base/again/file/deep
"#;

/// A user can have all but devices from the tools of others.
fn comparable(mut listing: Listing) -> Listing {
    if !is_root() {
        listing.retain(|path, _| !["nodes", "nodes/loop", "nodes/kept"].contains(&path.as_str()));
    }
    listing
}

#[test]
fn layers_applied_by_others_are_what_the_last_command_saw() {
    if !have("layers_applied_by_others_are_what_the_last_command_saw", &["gcc", "umoci", "tar", "unshare"]) {
        return;
    }
    let env = Env::new();
    let manifest = fs::read(applied::compile(&env)).unwrap();
    env.import(&base(&manifest), "base");
    let dockerfile = format!("FROM base\n{MAKE}{CHANGE}{AGAIN}{}", list_command());
    let seen = seen_by(&env.build(&dockerfile, &["-t", "torture:v1"]));
    check_what_was_seen(&seen);
    let layers = crate::image::layer_files(&env.path("out"));
    assert_eq!(layers.len(), 5, "the last command makes none");
    let size: u64 = layers.iter().map(|(_, path)| path.metadata().unwrap().len()).sum();
    assert!(size < 20 << 20, "holes must not weigh: {size}");

    let seen = comparable(seen);
    assert_same("umoci", &comparable(umoci(&env, "v1")), &seen);
    let leave_out: &[&str] = if is_root() { &[] } else { &["nodes/null", "nodes/loop", "nodes/kept"] };
    let tar = as_tar_can(&comparable(gnu_tar(&env, leave_out)));
    assert_same("GNU tar", &tar, &as_tar_can(&seen));

    // The layers were made just now and used as they were; once more, unpacked from their tars.
    let unpacked = env.as_image_root("sh").args(["-c", "rm -rf state/unpacked/*"]).status().unwrap();
    assert!(unpacked.success());
    let again = env.build(&dockerfile.replace("\"list\", \"/\"", "\"list\", \"/.\""), &[]);
    assert_eq!(again.steps().iter().filter(|step| step.starts_with("RAN")).count(), 1, "{:?}", again.steps());
    assert_same("unpacked by builder", &comparable(seen_by(&again)), &seen);
}

/// That the torture did what it is meant to do, so that equal nonsense does not pass.
fn check_what_was_seen(seen: &Listing) {
    let kind = |path: &str| seen.get(path).map(|seen| seen.kind);
    let capability =
        format!("security.capability={}", CAPABILITY.iter().map(|b| format!("{b:02x}")).collect::<String>());
    for path in ["base/capable", "t/capable"] {
        assert!(seen[path].xattrs.contains(&capability), "{path}: {:?}", seen[path]);
    }
    assert_eq!(seen["base/coloured"].xattrs, ["user.colour=626c756500677265656e", "user.more=33"]);
    assert_eq!((kind("t/swap"), kind("base/to-dir"), kind("base/linked")), (Some('d'), Some('d'), Some('l')));
    assert_eq!((kind("t/pipe"), kind("t/sym"), kind("nodes/pipe")), (Some('f'), Some('p'), Some('p')));
    assert_eq!((kind("t/opaque"), kind("t/del/a"), kind("nodes/null")), (None, None, None));
    assert_eq!((kind("nodes/loop"), seen["nodes/loop"].size.as_str()), (Some('b'), "7,0"));
    assert_eq!(seen["nodes/loop"].owner, (12, 34));
    assert_eq!((seen["t/l1"].mode, seen["t/setuid"].mode, seen["base/setuid"].mode), (0o4755, 0o4711, 0o4755));
    assert_eq!(seen["t/own/l5"].first_name, "t/own/l3");
    assert_eq!(seen["t/sparse"].size, (2_u64 << 30).to_string());
    assert_eq!((seen["t/own/f"].mtime, seen["t/del/keep"].mtime), ((-5, 250_000_000), (5_000_000_000, 1)));
    assert!(seen.contains_key("t/moved/caf\\xe9") && seen.contains_key("t/\\xfe"), "{:?}", seen.keys());
    assert!(seen.contains_key("t/moved/new\\x0aline.d/new\\x0aline"));
    assert!(seen.keys().any(|path| path.len() > 750), "a long path");
}
