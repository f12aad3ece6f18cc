//! Runs a test in a user and mount namespace of its own, as the build process would be: root with all capabilities, threaded.
//!
//! A namespace can only be entered by a process with one thread, so the test executes its own binary again, for itself
//! alone, and enters in between. As root the ids map to themselves; other users need subordinate ids and `newuidmap`.
#![allow(unsafe_code, reason = "unshare between fork and exec")]

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

const INSIDE: &str = "BUILDER_TEST_INSIDE_NAMESPACES";
/// Set it to make a test fail where it would be skipped.
const REQUIRED: &str = "BUILDER_TEST_REQUIRE_NAMESPACES";

/// Declares tests that run inside of new namespaces.
macro_rules! in_namespaces {
    ($($(#[$attribute:meta])* fn $name:ident() $body:block)*) => {$(
        #[test]
        $(#[$attribute])*
        fn $name() {
            if $crate::sys::testing::inside(concat!(module_path!(), "::", stringify!($name))) $body
        }
    )*};
}
pub(crate) use in_namespaces;

/// Whether this process is already inside; otherwise runs the test of that path inside and returns false, or panics with its
/// output if it fails.
pub(crate) fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let test = test.split_once("::").map_or(test, |(_, path)| path);
    match run_inside(test) {
        Ok(output) if output.status.success() => {
            print!("{}", String::from_utf8_lossy(&output.stdout));
        }
        Ok(output) => panic!(
            "inside of namespaces:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) if std::env::var_os(REQUIRED).is_none() => println!("SKIP {test}: {error}"),
        Err(error) => panic!("namespaces are required: {error}"),
    }
    false
}

fn run_inside(test: &str) -> std::io::Result<std::process::Output> {
    let (mut pid_reader, pid_writer) = std::io::pipe()?;
    let (ack_reader, mut ack_writer) = std::io::pipe()?;
    let (pid_writer, ack_reader) = (OwnedFd::from(pid_writer), OwnedFd::from(ack_reader));
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["--exact", test, "--nocapture", "--include-ignored", "--test-threads=2"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let (to_parent, from_parent) = (pid_writer.as_raw_fd(), ack_reader.as_raw_fd());
    // SAFETY: the closure makes system calls only and uses two descriptors that live until `spawn` returns.
    unsafe {
        command.pre_exec(move || {
            let pid = libc::getpid().to_ne_bytes();
            if libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) != 0
                || libc::write(to_parent, pid.as_ptr().cast(), pid.len()) != 4
            {
                return Err(std::io::Error::last_os_error());
            }
            let mut ack = 0_u8;
            if libc::read(from_parent, std::ptr::from_mut(&mut ack).cast(), 1) != 1 {
                return Err(std::io::Error::from_raw_os_error(libc::EPERM));
            }
            Ok(())
        });
    }
    // `spawn` returns after exec, which waits for the maps: another thread writes them.
    let mapper = std::thread::spawn(move || -> std::io::Result<()> {
        let mut pid = [0; 4];
        pid_reader.read_exact(&mut pid)?;
        write_maps(i32::from_ne_bytes(pid))?;
        ack_writer.write_all(b"+")
    });
    let child = command.spawn();
    drop((pid_writer, ack_reader));
    let mapped = mapper.join().expect("the mapper does not panic");
    match child {
        Ok(child) => child.wait_with_output(),
        Err(error) => Err(mapped.err().unwrap_or(error)),
    }
}

fn write_maps(pid: i32) -> std::io::Result<()> {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    if uid == 0 {
        std::fs::write(format!("/proc/{pid}/uid_map"), "0 0 65536")?;
        return std::fs::write(format!("/proc/{pid}/gid_map"), "0 0 65536");
    }
    map_with("newuidmap", pid, uid, "/etc/subuid")?;
    map_with("newgidmap", pid, gid, "/etc/subgid")
}

fn map_with(program: &str, pid: i32, id: u32, ranges: &str) -> std::io::Result<()> {
    let user = String::from_utf8_lossy(&Command::new("id").arg("-un").output()?.stdout).trim().to_owned();
    let ranges = std::fs::read_to_string(ranges)?;
    let range = ranges.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|line| line[0] == user);
    let Some([_, first, count]) = range.as_deref() else {
        return Err(std::io::Error::other(format!("{user} has no subordinate ids")));
    };
    let (pid, id) = (pid.to_string(), id.to_string());
    let status = Command::new(program).args([&pid, "0", &id, "1", "1", first, count]).status()?;
    if status.success() { Ok(()) } else { Err(std::io::Error::other(format!("{program}: {status}"))) }
}
