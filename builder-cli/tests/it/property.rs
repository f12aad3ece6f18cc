//! Whatever commands do to files, the layers say it: random operations, the same on every run.

use std::collections::BTreeMap;
use std::fs;

use crate::applied::{self, Listing, MOUNTED, Seen, as_tar_can, assert_same, gnu_tar, list_command, seen_by};
use crate::image::Image;
use crate::support::{Env, Random, busybox_rootfs_with, have};

const CASES: u64 = 12;
const COMMANDS: usize = 4;
const OPERATIONS: usize = 30;

impl Random {
    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }

    /// Few names, so that operations meet.
    fn path(&mut self) -> String {
        let names: Vec<&str> = (0..=self.below(3)).map(|_| self.pick(&["a", "b", "c"])).collect();
        names.join("/")
    }

    fn operation(&mut self) -> String {
        let (p, q, n) = (self.path(), self.path(), self.below(100_000));
        // Opening a pipe for writing would wait for a reader.
        let unless_pipe = |command: String| format!("[ -p {p} ] || {command}");
        match self.below(20) {
            0..3 => unless_pipe(format!("echo {n} > {p}")),
            3 => unless_pipe(format!("echo {n} >> {p}")),
            4 => format!("mkdir -p {p}"),
            5 => format!("mkdir -p $(dirname {p}); [ -p {p} ] || echo {n} > {p}"),
            6 => format!("mv {p} {q}"),
            7 => format!("mv {p} tmp-{n} && rm -rf {q} && mv tmp-{n} {q}"),
            8 => format!("rm -f {p}"),
            9 => format!("rm -r {p}"),
            10 => format!("rm -r {p} && mkdir {p}"),
            11 => format!("rm -r {p} && echo {n} > {p}"),
            12 => format!("ln {p} {q}"),
            13 => format!("ln -s {} {p}", self.path()),
            14 => format!("chmod {} {p}", self.pick(&["600", "4755", "2711", "1777", "000", "644"])),
            15 => format!("chown -h {}:{} {p}", n % 3, n % 5),
            16 => format!("chown -R {}:{} {p}", n % 4, n % 2),
            17 => unless_pipe(format!("echo {n} | dd of={p} bs=1 seek={} conv=notrunc", n % 9000)),
            18 => unless_pipe(format!("truncate -s {} {p}", n % 12000)),
            19 if n % 2 == 0 => format!("mkfifo {p}"),
            _ => format!("manifest setxattr {p} user.{} {:02x}", self.pick(&["k", "l"]), n % 256),
        }
    }
}

fn dockerfile(seed: u64) -> String {
    let mut random = Random(seed);
    let mut text = String::from("FROM base\nWORKDIR /w\n");
    for _ in 0..COMMANDS {
        let operations: String =
            (0..OPERATIONS).map(|_| format!("{{ {}; }} 2>/dev/null\n", random.operation())).collect();
        text += &format!("RUN <<'EOF'\n# case {seed}\n{operations}true\nEOF\n");
    }
    text + &list_command()
}

/// The flattened image as a listing, times in whole seconds.
fn flattened(image: &Image) -> Listing {
    let mut listing = Listing::new();
    let mut first_names: BTreeMap<usize, String> = BTreeMap::new();
    let hidden = |path: &String| MOUNTED.iter().any(|m| path == m || path.starts_with(&format!("{m}/")));
    for (path, node) in image.flatten().into_iter().filter(|(path, _)| !path.is_empty() && !hidden(path)) {
        let (kind, size, content) = match node.kind {
            "dir" => ('d', 0, "-".to_owned()),
            "file" => ('f', node.content.len(), checksum(&node.content)),
            "symlink" => ('l', node.content.len(), String::from_utf8(node.content).unwrap()),
            "fifo" => ('p', 0, "-".to_owned()),
            other => panic!("{path}: {other}"),
        };
        let first_name = first_names.entry(node.inode).or_insert_with(|| path.clone()).clone();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let seen = Seen {
            kind,
            mode: node.mode,
            owner: (u32::try_from(node.uid).unwrap(), u32::try_from(node.gid).unwrap()),
            size: size.to_string(),
            mtime: (i64::try_from(node.mtime).unwrap(), 0),
            content,
            first_name,
            xattrs: node.xattrs.iter().map(|(name, value)| format!("{name}={}", hex(value))).collect(),
        };
        listing.insert(path, seen);
    }
    listing
}

/// As `tests/manifest.c` does it.
fn checksum(bytes: &[u8]) -> String {
    let mix =
        |hash: u64, bytes: &[u8]| bytes.iter().fold(hash, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    let blocks = bytes.chunks(4096).enumerate().filter(|(_, block)| block.iter().any(|byte| *byte != 0));
    let hash = blocks.fold(0xcbf2_9ce4_8422_2325, |hash, (index, block)| {
        mix(mix(hash, &(4096 * index as u64).to_le_bytes()), block)
    });
    format!("{hash:016x}")
}

#[test]
fn random_operations_come_out_as_they_were_seen() {
    if !have("random_operations_come_out_as_they_were_seen", &["gcc", "tar", "unshare"]) {
        return;
    }
    let env = Env::new();
    let manifest = fs::read(applied::compile(&env)).unwrap();
    let base = busybox_rootfs_with(|tar| {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(manifest.len() as u64);
        tar.append_data(&mut header, "bin/manifest", manifest.as_slice()).unwrap();
    });
    env.import(&base, "base");
    for seed in 0..CASES {
        let text = dockerfile(seed);
        let seen = seen_by(&env.build(&text, &[]));
        assert!(seen.keys().filter(|path| path.starts_with("w/")).count() > 2, "case {seed} leaves nothing");
        let mut whole_seconds = seen.clone();
        whole_seconds.values_mut().for_each(|seen| seen.mtime.1 = 0);
        let image = Image::open(&env.path("out"), None);
        let what = |by: &str| format!("case {seed} by {by} of\n{text}");
        assert_same(&what("tests/it/image.rs"), &flattened(&image), &whole_seconds);
        assert_same(&what("GNU tar"), &as_tar_can(&gnu_tar(&env, &[])), &as_tar_can(&seen));
    }
}
