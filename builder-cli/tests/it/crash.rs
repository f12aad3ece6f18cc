//! Killed at any moment: nothing goes on, nothing stays, nothing is lost.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Env, Random, Run, process_tree, processes, program};

const KILLS: u32 = 50;

/// A workplace whose processes can be told from those of all others.
struct Scene {
    env: Env,
    builder: PathBuf,
    /// Argument of a `sleep` in the commands, which nothing else on the machine sleeps for.
    marker: String,
}

impl Scene {
    fn new(marker: u32) -> Self {
        let env = Env::new();
        let builder = env.path("builder");
        fs::copy(program(), &builder).unwrap();
        env.import_busybox();
        Self {
            env,
            builder,
            marker: format!("{}", 1_000_000_000 + u64::from(std::process::id()) * 100 + u64::from(marker)),
        }
    }

    /// Live processes that belong to a build of this workplace: those of `tree`, and whatever can be seen to.
    fn survivors(&self, tree: &BTreeMap<u32, String>) -> Vec<String> {
        let of_tree = |number: &u32, started: &String| tree.get(number) == Some(started);
        let all = processes().into_iter();
        all.filter_map(|(number, (_, started))| {
            let place = PathBuf::from(format!("/proc/{number}"));
            self.ours(&place).or_else(|| of_tree(&number, &started).then(|| format!("{number} of the tree")))
        })
        .collect()
    }

    fn ours(&self, process: &Path) -> Option<String> {
        let cmdline = String::from_utf8_lossy(&fs::read(process.join("cmdline")).ok()?).replace('\0', " ");
        let place = self.env.dir.path();
        let link = |name: &str| fs::read_link(process.join(name)).is_ok_and(|target| target.starts_with(place));
        let is_ours = cmdline.contains(&self.marker)
            || cmdline.contains(&place.display().to_string())
            || ["exe", "cwd", "root"].iter().any(|name| link(name));
        is_ours.then(|| format!("{} {cmdline}", process.display()))
    }

    /// The kernel needs a moment to take a process tree apart, a loaded machine a long one.
    #[track_caller]
    fn assert_nothing_survives(&self, tree: &BTreeMap<u32, String>, when: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.survivors(tree).is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(self.survivors(tree), Vec::<String>::new(), "{when}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let place = self.env.dir.path().display().to_string();
        let ours: Vec<&str> = mounts.lines().filter(|line| line.contains(&place)).collect();
        assert!(ours.is_empty(), "{when}: {ours:?}");
    }

    #[track_caller]
    fn assert_swept(&self, when: &str) {
        let left: Vec<_> = fs::read_dir(self.env.state().join("tmp")).unwrap().flatten().map(|e| e.path()).collect();
        assert!(left.is_empty(), "{when}: {left:?}");
        let names = fs::read_dir(self.env.dir.path()).unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        assert_eq!(names, ["builder", "context", "image.tar", "state"], "{when}");
    }

    fn build(&self, more: &[&str]) -> std::process::Command {
        let output = format!("type=oci,dest={}", self.env.path("image.tar").display());
        let mut args = vec!["build", "-q", "-t", "app", "--output", &output];
        args.extend(more);
        args.push("context");
        let mut command = self.env.command_of(&self.builder, &args);
        command.env("SOURCE_DATE_EPOCH", "1700000000").stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

#[test]
fn killed_at_any_moment_nothing_survives_and_the_next_build_is_right() {
    let scene = Scene::new(0);
    let mut random = Random(5);
    let bytes: Vec<u8> = (0..1_000_000).flat_map(|_| random.below(u64::MAX).to_le_bytes()).collect();
    scene.env.file("big", &bytes);
    let sleep = format!("sleep {}", scene.marker);
    let dockerfile = format!(
        "FROM busybox\nCOPY big /big\n\
         RUN ({sleep} &) ; mkdir -p /d && for i in $(seq 200); do echo $i > /d/$i; done\n\
         RUN ({sleep} | cat &) ; rm -rf /d/1*; chown -R 5:5 /d; sha256sum /big > /sum; sleep 0.1\n\
         FROM busybox\nRUN {sleep} & cp /bin/busybox /copy && chmod 700 /copy\n\
         COPY --from=0 /d /d\nRUN rm -r /d && mkdir /d && touch /d/new\n"
    );
    scene.env.file("Dockerfile", dockerfile);
    let started = Instant::now();
    let digest = Run::of(&scene.build(&[]).output().unwrap()).ok();
    let duration = started.elapsed();
    let mut killed = 0;
    for round in 0..KILLS {
        if round % 10 == 0 {
            scene.env.run(&["prune", "--all"]).ok();
        }
        // Spread over the build and a little beyond, each moment somewhere in its share.
        let share = duration / KILLS;
        let moment = share * round + share * u32::try_from(random.below(1000)).unwrap() / 1000;
        let mut child = scene.build(&["--no-cache"]).spawn().unwrap();
        std::thread::sleep(moment);
        let tree = process_tree(child.id());
        child.kill().unwrap();
        killed += u32::from(child.wait().unwrap().code().is_none());
        let when = format!("killed after {moment:?} of {duration:?}, round {round}");
        scene.assert_nothing_survives(&tree, &when);
        let options: &[&str] = if round % 5 == 4 { &["--no-cache"] } else { &[] };
        let again = Run::of(&scene.build(options).output().unwrap());
        assert_eq!(again.ok(), digest, "{when}");
        scene.assert_swept(&when);
        if round % 5 == 0 {
            scene.env.assert_du();
        }
    }
    assert!(killed > KILLS / 2, "only {killed} builds were killed before they were done");
}

#[test]
fn a_signal_ends_the_build_and_leaves_nothing() {
    let scene = Scene::new(1);
    fs::create_dir_all(scene.env.path("context")).unwrap();
    fs::write(scene.env.path("image.tar"), "").unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let marker = &scene.marker;
        // The command does not hear: its shell ignores the signals, and half of it has a session of its own.
        let dockerfile = format!(
            "FROM busybox\nRUN trap '' TERM INT HUP; (sleep {marker} &); echo {signal} started; sleep {marker}\n"
        );
        scene.env.file("Dockerfile", dockerfile);
        let args = ["build", "--progress", "json", "context"];
        let mut child =
            scene.env.command_of(&scene.builder, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("step_output")), "the command starts");
        let tree = process_tree(child.id());
        let alive = scene.survivors(&tree);
        assert!(tree.len() >= 4, "the command line, the build process, a shell and a sleep at least: {alive:#?}");
        assert!(alive.len() >= tree.len() && alive.iter().any(|line| line.contains(marker)), "{alive:#?}");
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        for line in lines {
            line.unwrap();
        }
        let run = Run::of(&child.wait_with_output().unwrap());
        run.fails(130);
        // Not in a moment: when the command ends, everything has ended.
        assert_eq!(scene.survivors(&tree), Vec::<String>::new(), "{signal}");
        scene.assert_nothing_survives(&tree, signal.as_str());
        scene.assert_swept(signal.as_str());
    }
}
