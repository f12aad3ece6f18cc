//! Memory is bounded by what is in flight, and files go where they belong without a stop elsewhere.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Env, Random, Run, have, is_root, process_tree, program};

const SIZE: usize = 1 << 30;
const LIMIT_KIB: u64 = 150 << 10;

fn write_random(path: &std::path::Path) {
    let mut random = Random(1);
    // Incompressible as a whole: every block differs from the one before in its numbers.
    let mut block: Vec<u8> = (0..1 << 17).flat_map(|_| random.below(u64::MAX).to_le_bytes()).collect();
    let mut file = File::create(path).unwrap();
    for _ in 0..SIZE / block.len() {
        let shift = usize::try_from(random.below(block.len() as u64)).unwrap();
        block.rotate_left(shift);
        let key = u8::try_from(random.below(255) + 1).unwrap();
        block.iter_mut().for_each(|byte| *byte ^= key);
        file.write_all(&block).unwrap();
    }
}

/// Resident and peak memory of a process, in KiB. World-readable, unlike anything finer.
fn memory(process: u32) -> Option<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    Some((field("VmRSS:")?, field("VmHWM:")?))
}

#[test]
fn a_large_file_passes_through_in_little_memory_and_not_through_tmp() {
    if !have("a_large_file_passes_through_in_little_memory_and_not_through_tmp", &["unshare"]) {
        return;
    }
    let env = Env::new();
    env.file("Dockerfile", "FROM scratch\nCOPY large /large\n");
    write_random(&env.path("context/large"));
    // /tmp takes not a byte, and where TMPDIR leads there is nothing: whoever tries to write there fails.
    let script = "mount -t tmpfs -o ro,mode=1777 none /tmp && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(if is_root() { &["--mount"][..] } else { &["--mount", "--user", "--map-root-user", "--map-auto"] });
    command.args(["--", "sh", "-c", script, "sh"]).arg(program());
    command.args(["build", "-q", "--output", "type=oci,dest=image.tar", "context"]);
    command.current_dir(env.dir.path()).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("HOME", env.dir.path()).env("BUILDER_STATE_DIR", env.state()).env("TMPDIR", "/tmp/nowhere");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();

    let mut together = 0;
    let mut peaks: BTreeMap<u32, u64> = BTreeMap::new();
    while child.try_wait().unwrap().is_none() {
        let mut now = 0;
        for process in process_tree(child.id()).into_keys() {
            if let Some((resident, peak)) = memory(process) {
                now += resident;
                peaks.insert(process, peak);
            }
        }
        together = together.max(now);
        std::thread::sleep(Duration::from_millis(10));
    }
    Run::of(&child.wait_with_output().unwrap()).ok();
    assert!(env.path("image.tar").metadata().unwrap().len() > SIZE as u64, "random bytes do not get fewer");
    eprintln!("peak {} MiB at once, {peaks:?} KiB each", together >> 10);
    assert!(together < LIMIT_KIB, "{together} KiB at once");
    // What happened between two looks is in the kernel's own peaks.
    assert!(peaks.values().sum::<u64>() < LIMIT_KIB, "{peaks:?}");
}
