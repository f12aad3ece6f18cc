//! What the command may not do, and how it is ended.

use super::*;

in_namespaces! {
    fn forbidden_system_calls() {
        let image = Image::new();
        for applet in ["unshare", "mount", "umount", "chroot", "nsenter"] {
            symlink("busybox", image.lower("bin").join(applet)).unwrap();
        }
        for command in ["unshare -m true", "unshare -U true", "mount -t tmpfs none /tmp", "umount /proc"] {
            let ran = ran(&image.sh(command));
            assert_ne!(ran.exit, Exit::Code(0), "{command}");
            assert!(ran.stderr.contains("ermitted") || ran.stderr.contains("denied"), "{command}: {}", ran.stderr);
        }
        stdout_of(&image.sh("chroot / true"));
        let free = Spec { security: Security::Insecure, ..image.sh("mount -t tmpfs none /tmp && unshare -m true") };
        stdout_of(&free);
    }

    /// The test binary itself runs in the sandbox to make calls for which there is no command.
    fn system_calls_as_the_profile_says() {
        let image = Image::new();
        let Some(calls) = static_caller(&image) else {
            println!("SKIP system_calls_as_the_profile_says: no C compiler for a static program");
            return;
        };
        let expected = "clone3 38\nkeyctl 1\nmount 1\nbpf 1\nsocket_vsock 1\nsocket_unix 0\nunshare 1\ngetpid 0\n";
        assert_eq!(stdout_of(&image.spec(&[&calls])), expected);
    }

    fn no_network_but_loopback() {
        let image = Image::new();
        for applet in ["ip", "ping", "nc"] {
            symlink("busybox", image.lower("bin").join(applet)).unwrap();
        }
        let spec = Spec { network: Network::None, ..image.sh("ip -o link; ip -o addr; ip route") };
        let output = stdout_of(&spec);
        assert!(output.contains("lo:") && output.contains("UP") && output.contains("127.0.0.1/8"), "{output}");
        assert!(output.lines().all(|line| line.contains("lo")), "{output}");
        let host = stdout_of(&image.sh("cat /proc/net/dev"));
        assert_eq!(host.lines().count(), std::fs::read_to_string("/proc/net/dev").unwrap().lines().count());
    }

    fn a_kill_switch_ends_running_steps_and_forbids_new_ones() {
        let image = Image::new();
        let switch = KillSwitch::default();
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let switch = &switch;
            scope.spawn(move || {
                receiver.recv().unwrap();
                switch.throw();
            });
            let spec = image.sh("trap '' TERM INT; sleep 1000 & echo started; sleep 1000");
            let result = run(&spec, switch, &mut |_, _| sender.send(()).unwrap());
            assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
        });
        let again = run(&Image::new().spec(&["true"]), &switch, &mut |_, _| ());
        assert!(matches!(again, Err(Error::Cancelled)), "{again:?}");
    }

    fn steps_run_side_by_side_with_busy_threads() {
        let images: Vec<_> = (0..8).map(|_| Image::new()).collect();
        let done = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            // Holds the locks of the allocator and of files while children are made.
            scope.spawn(|| {
                while done.load(std::sync::atomic::Ordering::Relaxed) < 8 {
                    let text: Vec<_> = (0..1000).map(|number| number.to_string()).collect();
                    assert!(std::fs::read_to_string(format!("/absent/{}", text.len())).is_err());
                }
            });
            for (number, image) in images.iter().enumerate() {
                let done = &done;
                scope.spawn(move || {
                    for _ in 0..5 {
                        assert_eq!(stdout_of(&image.sh(&format!("echo {number}"))), format!("{number}\n"));
                        assert!(matches!(try_run(&image.spec(&["/absent"])), Err(Error::Execute { .. })));
                    }
                    done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                });
            }
        });
    }

    fn nothing_is_left_behind() {
        let image = Image::new();
        let count = || {
            (entries(Path::new("/proc/self/fd")).len(), std::fs::read_to_string("/proc/self/mounts").unwrap().lines().count())
        };
        stdout_of(&image.spec(&["true"]));
        let before = count();
        for argv in [vec!["true"], vec!["/absent"], vec![]] {
            try_run(&image.spec(&argv)).ok();
        }
        assert_eq!(count(), before);
        let children = std::fs::read_to_string(format!("/proc/self/task/{}/children", rustix::thread::gettid().as_raw_nonzero()));
        assert_eq!(children.unwrap_or_default(), "", "no zombie");
    }
}

/// Compiles a static program that prints the error of each of some calls.
fn static_caller(image: &Image) -> Option<String> {
    let source = r#"
        #include <errno.h>
        #include <stdio.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        #define TRY(name, ...) do { errno = 0; syscall(__VA_ARGS__); printf(name " %d\n", errno); } while (0)
        int main(void) {
            TRY("clone3", 435, 0, 0);
            TRY("keyctl", SYS_keyctl, 0, 0);
            TRY("mount", SYS_mount, 0, 0, 0, 0, 0);
            TRY("bpf", SYS_bpf, 0, 0, 0);
            TRY("socket_vsock", SYS_socket, 40, 1, 0);
            TRY("socket_unix", SYS_socket, 1, 1, 0);
            TRY("unshare", SYS_unshare, 0x10000000);
            TRY("getpid", SYS_getpid);
            return 0;
        }
    "#;
    let (file, program) = (image.dir.path().join("calls.c"), image.lower("calls"));
    std::fs::write(&file, source).unwrap();
    let compiled = std::process::Command::new("cc").arg("-static").arg("-o").arg(program).arg(file).output().ok()?;
    compiled.status.success().then(|| "/calls".to_owned())
}
