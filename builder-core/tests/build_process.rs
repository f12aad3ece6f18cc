//! Build processes for real: namespaces, death, cancellation, what is inherited and what is not.
//!
//! Has a `main` of its own, because a test binary of libtest cannot become a build process. Runs as root and as a user
//! with subordinate ids; where the host gives no user namespace, the tests that need one are skipped and counted.
#![expect(clippy::print_stdout, reason = "a test harness of its own")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use builder_core::host::{Cause, Feature, HostReport, Isolation, LaunchConfig, Outcome, Program, Rung};
use builder_core::testing::{BuildProcess, ChannelError, Ending, Engine, EngineEnvironment, Error, ProcView, probe};
use serde::{Deserialize, Serialize};

/// What a start prints that looks like one of a build process and is none.
const REGULAR: &str = "a regular start\n";

fn main() -> ExitCode {
    builder_core::testing::init_if_build_process(engine);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("--as-caller") => run_as_caller(),
        Some("--socket=stdin") => {
            print!("{REGULAR}");
            ExitCode::SUCCESS
        }
        _ => run_tests(&arguments),
    }
}

// ---- the engine of these tests ----

/// What the caller may ask of it.
#[derive(Debug, Serialize, Deserialize)]
enum Request {
    Describe,
    MakeFiles(PathBuf),
    Events(u32),
    Leave(i32),
    Panic,
    Abort,
    KillMyself,
    ReapOthers,
    /// Starts processes, tells their number, and hangs.
    Hang,
    /// Starts one process and hangs.
    HangWithHelper,
    /// Hangs until cancelled, then replies.
    HangPolitely,
    Blob(String),
}

#[derive(Debug, Serialize, Deserialize, PartialEq)]
struct Description {
    environment: EngineEnvironment,
    variables: Vec<(String, String)>,
    /// What `/proc` shows; a user cannot read even its own, because the process is not dumpable.
    initial_environ: Option<Vec<u8>>,
    umask: String,
    open_files: Vec<(u32, String)>,
    status: BTreeMap<String, String>,
    pid: u32,
    session: u32,
    working_directory: PathBuf,
    visible_pids: usize,
    limit_of_open_files: (Option<u64>, Option<u64>),
}

fn engine(engine: Engine) -> i32 {
    let environment = engine.environment().clone();
    let (cancel, cancelled) = std::sync::mpsc::channel();
    // The receiver is gone when nobody waits for a cancellation.
    let served = engine.serve::<Request>(move || cancel.send(()).unwrap_or_default());
    let Ok(Some((request, news))) = served else { return 3 };
    match request {
        Request::Describe => news.reply(&describe(environment)).expect("reply"),
        Request::MakeFiles(dir) => news.reply(&make_files(&dir)).expect("reply"),
        Request::Events(count) => {
            for number in 0..count {
                news.event(&number).expect("event");
            }
            news.reply(&count).expect("reply");
        }
        Request::Leave(code) => return code,
        Request::Panic => panic!("the engine of the test panics"),
        Request::Abort => std::process::abort(),
        Request::KillMyself => {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).expect("kill");
        }
        Request::ReapOthers => news.reply(&reap_others()).expect("reply"),
        Request::Hang => {
            let script = "sleep 1000 & sleep 1000 & (setsid sleep 1000 &) ; wait";
            let mut shell = Command::new("/bin/sh").args(["-c", script]).spawn().expect("sh");
            news.event(&4_u32).expect("event");
            shell.wait().expect("wait");
        }
        Request::HangWithHelper => {
            let mut helper = Command::new("/bin/sleep").arg("1000").spawn().expect("sleep");
            news.event(&0_u32).expect("event");
            helper.wait().expect("wait");
        }
        Request::HangPolitely => {
            news.event(&0_u32).expect("event");
            cancelled.recv().expect("cancelled");
            news.reply(&"stopped").expect("reply");
        }
        Request::Blob(text) => news.reply(&text.len()).expect("reply"),
    }
    0
}

fn describe(environment: EngineEnvironment) -> Description {
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let status: BTreeMap<String, String> = status
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let open_files = fs::read_dir("/proc/self/fd").expect("fd").map(|entry| {
        let entry = entry.expect("entry");
        let number = entry.file_name().to_str().expect("number").parse().expect("number");
        (number, fs::read_link(entry.path()).map_or("gone".to_owned(), |target| target.display().to_string()))
    });
    let mut open_files: Vec<(u32, String)> = open_files.filter(|(_, target)| !target.ends_with("/fd")).collect();
    open_files.sort();
    let visible = fs::read_dir("/proc").expect("proc");
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    Description {
        environment,
        variables: std::env::vars().collect(),
        initial_environ: fs::read("/proc/self/environ").ok(),
        umask: status["Umask"].clone(),
        open_files,
        status,
        pid: std::process::id(),
        session: session(),
        working_directory: std::env::current_dir().expect("cwd"),
        visible_pids: visible.filter(|entry| is_number(&entry.as_ref().expect("entry").file_name())).count(),
        limit_of_open_files: (limit.current, limit.maximum),
    }
}

/// Of this process; 0 when its leader is outside of the pid namespace.
fn session() -> u32 {
    let stat = fs::read_to_string("/proc/self/stat").expect("stat");
    let fields = stat.rsplit_once(')').expect("name").1;
    fields.split_whitespace().nth(3).expect("session").parse().expect("number")
}

fn is_number(name: &std::ffi::OsStr) -> bool {
    name.to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
}

fn make_files(dir: &Path) -> Vec<u32> {
    let ids = vec![0, 1, 1000];
    for id in &ids {
        let path = dir.join(id.to_string());
        fs::write(&path, "x").expect("write");
        std::os::unix::fs::chown(&path, Some(*id), Some(*id)).expect("chown");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
    }
    ids
}

/// Threads wait for children of their own while orphans die all the time: how many exit codes came right, and how many
/// zombies are left.
fn reap_others() -> (usize, usize) {
    let before = process_states().len();
    let right = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread: i32| {
                scope.spawn(move || {
                    (0..10)
                        .filter(|number| {
                            let code = thread * 10 + number;
                            // The subshell's child outlives it and becomes an orphan.
                            let script = format!("(sleep 0.01 &) ; exit {code}");
                            let status = Command::new("/bin/sh").args(["-c", &script]).status().expect("sh");
                            status.code() == Some(code)
                        })
                        .count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("thread")).sum()
    });
    // An orphan that still sleeps becomes a zombie later.
    wait_until(|| process_states().len() <= before, || ());
    (right, process_states().iter().filter(|state| **state == 'Z').count())
}

fn process_states() -> Vec<char> {
    let numbers = fs::read_dir("/proc").expect("proc").map(|entry| entry.expect("entry"));
    numbers
        .filter(|entry| is_number(&entry.file_name()))
        .filter_map(|entry| stat_of(entry.file_name().to_str()?.parse().ok()?))
        .map(|stat| stat.state)
        .collect()
}

// ---- a caller to be killed ----

fn run_as_caller() -> ExitCode {
    let process = BuildProcess::spawn(&config()).expect("spawn");
    let announce = |_: u32| {
        println!("ready");
        std::io::stdout().flush().expect("flush");
    };
    let ended: Result<(), Error> = process.run(&Request::Hang, announce);
    println!("{ended:?}");
    ExitCode::SUCCESS
}

// ---- tools ----

fn config() -> LaunchConfig {
    LaunchConfig::new(Program::SelfExe)
}

fn with(isolation: Isolation) -> LaunchConfig {
    let mut config = config();
    config.isolation = isolation;
    config
}

fn run<R: serde::de::DeserializeOwned>(request: &Request) -> Result<R, Error> {
    BuildProcess::spawn(&config()).expect("spawn").run(request, |_: u32| {})
}

/// Waits for something that other processes bring about, with a bound that only a fault reaches.
fn wait_until(is_done: impl Fn() -> bool, otherwise: impl FnOnce()) {
    let begin = Instant::now();
    while !is_done() {
        if begin.elapsed() > Duration::from_secs(30) {
            return otherwise();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Stat {
    pid: u32,
    state: char,
    parent: u32,
    start_time: u64,
}

fn stat_of(pid: u32) -> Option<Stat> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        pid,
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        start_time: fields.get(19)?.parse().ok()?,
    })
}

/// Every process below `pid`.
fn descendants(pid: u32) -> Vec<Stat> {
    let all: Vec<Stat> = fs::read_dir("/proc")
        .expect("proc")
        .filter_map(|entry| stat_of(entry.ok()?.file_name().to_str()?.parse().ok()?))
        .collect();
    let mut found: Vec<Stat> = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        for stat in all.iter().filter(|stat| stat.parent == parent) {
            parents.push(stat.pid);
            found.push(stat.clone());
        }
    }
    found
}

fn survivors(processes: &[Stat]) -> Vec<Stat> {
    let lives = |old: &&Stat| {
        stat_of(old.pid).is_some_and(|now| now.start_time == old.start_time && now.state != 'Z' && now.state != 'X')
    };
    processes.iter().filter(lives).cloned().collect()
}

fn own_children() -> Vec<Stat> {
    descendants(std::process::id())
}

fn open_file_count() -> usize {
    fs::read_dir("/proc/self/fd").expect("fd").count()
}

// ---- the tests ----

fn ids_inside_are_the_mapped_ones_outside() {
    let dir = tempfile::tempdir().expect("tempdir");
    let process = BuildProcess::spawn(&config()).expect("spawn");
    let environment = process.environment().clone();
    let made: Vec<u32> = process.run(&Request::MakeFiles(dir.path().to_owned()), |_: u32| {}).expect("run");
    for id in made {
        let metadata = fs::metadata(dir.path().join(id.to_string())).expect("stat");
        assert_eq!(Some(metadata.uid()), environment.uid_map.outside_of(id), "user {id}");
        assert_eq!(Some(metadata.gid()), environment.gid_map.outside_of(id), "group {id}");
    }
    let me = rustix::process::geteuid().as_raw();
    assert_eq!(environment.uid_map.outside_of(0), Some(me), "root inside is the caller outside");
}

fn the_engine_is_root_with_one_pid_namespace() {
    let description: Description = run(&Request::Describe).expect("run");
    assert_eq!(description.environment.rung, Rung::Userns);
    assert_eq!(description.environment.no_exec, None);
    assert_eq!(description.pid, 2, "pid 1 is the reaper");
    for name in ["Uid", "Gid"] {
        assert_eq!(description.status[name], "0\t0\t0\t0", "{name}");
    }
    assert_eq!(description.status["CapEff"], fs_capabilities(), "every capability the caller may have");
    if description.environment.proc == ProcView::Own {
        assert_eq!(description.visible_pids, 2, "only pid 1 and the engine");
    }
    assert_eq!(description.status["Groups"], "", "no supplementary groups");
}

/// What a new user namespace gives: all that the kernel knows.
fn fs_capabilities() -> String {
    let last: u32 = fs::read_to_string("/proc/sys/kernel/cap_last_cap").expect("cap").trim().parse().expect("number");
    format!("{:016x}", (1_u64 << (last + 1)) - 1)
}

fn nothing_is_inherited() {
    // What a careless caller leaves lying around: a variable, a descriptor that children inherit, a tight umask, an
    // ignored signal.
    let description = described_by_careless_caller(Isolation::Auto);
    assert_eq!(description.variables, []);
    assert_eq!(description.initial_environ.unwrap_or_default(), b"", "not even in what /proc shows");
    assert_eq!(description.umask, "0000");
    assert_eq!(description.status["Name"], "builder", "what ps shows, although the program may have no file");
    let numbers: Vec<u32> = description.open_files.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [0, 1, 2, 3], "three streams and the socket: {:?}", description.open_files);
    assert_eq!(description.open_files[0].1, "/dev/null", "no socket on standard input");
    assert_eq!(description.open_files[1].1, "/dev/null", "the library never prints");
    assert!(description.open_files[3].1.starts_with("socket:"), "{:?}", description.open_files);
    let ignored = u64::from_str_radix(&description.status["SigIgn"], 16).expect("mask");
    assert_eq!(ignored, 1 << (13 - 1), "SIGPIPE alone is ignored");
    assert_eq!(u64::from_str_radix(&description.status["SigBlk"], 16), Ok(0), "nothing is blocked");
    assert_eq!(description.limit_of_open_files.0, description.limit_of_open_files.1, "soft limit lifted");
    assert_eq!(description.working_directory, std::env::current_dir().expect("cwd"), "but the working directory is");
}

fn nothing_is_inherited_without_namespaces_either() {
    let description = described_by_careless_caller(Isolation::None);
    assert_eq!(description.variables, []);
    assert_eq!(description.umask, "0000");
    assert_eq!(description.open_files.len(), 4, "{:?}", description.open_files);
    assert_eq!(description.session, description.pid, "a session of its own");
}

fn described_by_careless_caller(isolation: Isolation) -> Description {
    let null = fs::File::open("/dev/null").expect("open");
    let inheritable = rustix::io::dup(&null).expect("dup");
    rustix::io::fcntl_setfd(&inheritable, rustix::io::FdFlags::empty()).expect("inheritable");
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    assert!(std::env::vars().next().is_some(), "this process has variables");
    let description =
        BuildProcess::spawn(&with(isolation)).expect("spawn").run(&Request::Describe, |_: u32| {}).expect("run");
    rustix::process::umask(before);
    description
}

fn without_namespaces_the_engine_knows_why_it_runs_no_commands() {
    let process = BuildProcess::spawn(&with(Isolation::None)).expect("spawn");
    assert_eq!(process.environment().rung, Rung::None);
    assert_eq!(process.environment().no_exec.as_ref().map(|why| why.cause), Some(Cause::NotAsked));
    let expected = process.environment().clone();
    let description: Description = process.run(&Request::Describe, |_: u32| {}).expect("run");
    assert_eq!(description.environment, expected, "both sides know the same");
    assert_eq!(description.status["NStgid"].split_whitespace().count(), fs_nesting(), "no pid namespace");
    assert_eq!(description.status["Uid"].split('\t').next(), Some(&*rustix::process::geteuid().as_raw().to_string()));
}

fn fs_nesting() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("NStgid:")).expect("NStgid");
    line.split_whitespace().count()
}

fn events_come_in_order_and_before_the_reply() {
    let process = BuildProcess::spawn(&config()).expect("spawn");
    let mut seen = Vec::new();
    let reply: u32 = process.run(&Request::Events(5000), |number: u32| seen.push(number)).expect("run");
    assert_eq!(reply, 5000);
    assert_eq!(seen, (0..5000).collect::<Vec<_>>());
}

fn the_thread_that_started_it_may_end() {
    let process = std::thread::spawn(|| BuildProcess::spawn(&config()).expect("spawn")).join().expect("thread");
    let reply: u32 = process.run(&Request::Events(1), |_: u32| {}).expect("still alive");
    assert_eq!(reply, 1);
}

fn many_threads_start_many_processes_and_leave_no_descriptor() {
    let before = open_file_count();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..3 {
                    let description: Description = run(&Request::Describe).expect("run");
                    assert_eq!(description.open_files.len(), 4, "none of a neighbour: {:?}", description.open_files);
                }
            });
        }
    });
    assert_eq!(open_file_count(), before);
    assert_eq!(own_children(), []);
}

fn a_death_is_told_with_its_cause() {
    let death = |request: &Request| match run::<()>(request) {
        Err(Error::Died(death)) => *death,
        other => panic!("{other:?}"),
    };
    assert_eq!(death(&Request::Abort).ending, Ending::Killed(6));
    let killed = death(&Request::KillMyself);
    assert_eq!(killed.ending, Ending::Killed(9));
    assert!(killed.to_string().contains("memory"), "{killed}");
    assert_eq!(death(&Request::Leave(42)).ending, Ending::Exited(42));
    assert_eq!(death(&Request::Leave(0)).ending, Ending::Exited(0), "without a reply, 0 is no success");
    assert_eq!(death(&Request::Leave(300)).ending, Ending::Exited(127), "codes end where signals begin");
    let panicked = death(&Request::Panic);
    assert_eq!(panicked.ending, Ending::Exited(101));
    assert!(panicked.output.contains("the engine of the test panics"), "{panicked}");
}

fn a_death_without_namespaces_too() {
    let process = BuildProcess::spawn(&with(Isolation::None)).expect("spawn");
    match process.run::<_, u32, ()>(&Request::Abort, |_| {}) {
        Err(Error::Died(death)) => assert_eq!(death.ending, Ending::Killed(6)),
        other => panic!("{other:?}"),
    }
}

fn waiting_threads_and_orphans_do_not_disturb_each_other() {
    let (right, zombies): (usize, usize) = run(&Request::ReapOthers).expect("run");
    assert_eq!(right, 40, "every exit code reaches who waits for it");
    assert_eq!(zombies, 0, "and pid 1 reaps the rest");
}

fn a_dropped_process_leaves_nothing() {
    for isolation in [Isolation::Auto, Isolation::None] {
        let process = BuildProcess::spawn(&with(isolation)).expect("spawn");
        let tree = own_children();
        assert!(!tree.is_empty());
        drop(process);
        assert_eq!(survivors(&tree), []);
        assert_eq!(own_children(), [], "no zombie either");
    }
}

fn killing_leaves_nothing_when_run_returns() {
    let process = BuildProcess::spawn(&config()).expect("spawn");
    let handle = process.cancel_handle();
    let mut tree = Vec::new();
    let ended: Result<(), Error> = process.run(&Request::Hang, |expected: u32| {
        let is_all_there = || own_children().len() >= 3 + usize::try_from(expected).expect("number");
        wait_until(is_all_there, || panic!("{:?}", own_children()));
        tree = own_children();
        handle.kill();
    });
    assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
    assert!(tree.len() >= 7, "intermediate, pid 1, engine, shell, three sleepers: {tree:?}");
    assert_eq!(survivors(&tree), [], "at once, without waiting");
    handle.kill();
}

fn without_namespaces_killing_reaches_the_engines_helpers() {
    let process = BuildProcess::spawn(&with(Isolation::None)).expect("spawn");
    let handle = process.cancel_handle();
    let mut tree = Vec::new();
    let ended: Result<(), Error> = process.run(&Request::HangWithHelper, |_: u32| {
        tree = own_children();
        handle.kill();
    });
    assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
    assert_eq!(tree.len(), 2, "engine and helper: {tree:?}");
    wait_until(|| survivors(&tree).is_empty(), || panic!("{:?}", survivors(&tree)));
}

fn a_polite_engine_may_answer_a_cancellation() {
    let process = BuildProcess::spawn(&config()).expect("spawn");
    let handle = process.cancel_handle();
    let reply: String = process
        .run(&Request::HangPolitely, |_: u32| handle.cancel(Duration::from_secs(60)).expect("cancel"))
        .expect("a reply in time counts");
    assert_eq!(reply, "stopped");
}

fn an_impolite_engine_is_killed_after_the_grace() {
    let process = BuildProcess::spawn(&config()).expect("spawn");
    let handle = process.cancel_handle();
    let ended: Result<(), Error> =
        process.run(&Request::Hang, |_: u32| handle.cancel(Duration::from_millis(50)).expect("cancel"));
    assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
    assert_eq!(own_children(), []);
}

fn death_of_the_caller_kills_everything() {
    let mut caller = Command::new("/proc/self/exe")
        .arg("--as-caller")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawn");
    let mut line = String::new();
    BufReader::new(caller.stdout.as_mut().expect("pipe")).read_line(&mut line).expect("read");
    assert_eq!(line, "ready\n");
    wait_until(|| descendants(caller.id()).len() >= 7, || panic!("{:?}", descendants(caller.id())));
    let tree = descendants(caller.id());
    caller.kill().expect("kill -9");
    assert_eq!(caller.wait().expect("wait").signal(), Some(9));
    wait_until(|| survivors(&tree).is_empty(), || panic!("still there: {:?}", survivors(&tree)));
}

fn death_of_the_caller_at_any_moment_of_a_launch_leaves_nothing() {
    // What the dead leave behind becomes a child of this process instead of one of the machine's first.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("subreaper");
    for milliseconds in 0..40 {
        let mut caller = Command::new("/proc/self/exe")
            .arg("--as-caller")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("spawn");
        std::thread::sleep(Duration::from_millis(milliseconds));
        caller.kill().expect("kill -9");
        caller.wait().expect("wait");
        let is_empty = || {
            while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
            own_children().is_empty()
        };
        wait_until(is_empty, || panic!("killed after {milliseconds} ms: {:?}", own_children()));
    }
    rustix::process::set_child_subreaper(None).expect("no subreaper");
}

fn death_of_any_process_in_between_kills_everything() {
    // The intermediate, pid 1, the engine.
    for victim in 0..3 {
        let process = BuildProcess::spawn(&config()).expect("spawn");
        let mut tree = Vec::new();
        let ended: Result<(), Error> = process.run(&Request::Hang, |_: u32| {
            wait_until(|| own_children().len() >= 7, || panic!("{:?}", own_children()));
            tree = own_children();
            // Depth first from the caller: each has one child on the way to the engine.
            let mut chain = tree.iter().take(3);
            let pid = chain.nth(victim).and_then(|stat| i32::try_from(stat.pid).ok()).expect("pid");
            let pid = rustix::process::Pid::from_raw(pid).expect("pid");
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
        });
        match ended {
            Err(Error::Died(death)) => assert_eq!(death.ending, Ending::Killed(9), "victim {victim}"),
            other => panic!("victim {victim}: {other:?}"),
        }
        wait_until(|| survivors(&tree).is_empty(), || panic!("victim {victim}: {:?}", survivors(&tree)));
    }
}

fn programs_that_are_no_build_process_are_told() {
    let binary = |path: &str| BuildProcess::spawn(&LaunchConfig::new(Program::Binary(PathBuf::from(path))));
    assert!(matches!(binary("/bin/true"), Err(Error::NotABuildProcess { .. })));
    assert!(matches!(binary("/no/such/program"), Err(Error::Start { .. })));
    assert!(matches!(binary("builder"), Err(Error::RelativeProgram { .. })));
    let own = std::env::current_exe().expect("exe");
    assert!(BuildProcess::spawn(&LaunchConfig::new(Program::Binary(own))).is_ok());
}

fn large_messages_come_through_and_wrong_ones_are_refused() {
    let process = BuildProcess::spawn(&with(Isolation::None)).expect("spawn");
    let request = Request::Blob("x".repeat(3 << 20));
    assert_eq!(process.run::<_, u32, usize>(&request, |_| {}).expect("3 MiB"), 3 << 20);
    let process = BuildProcess::spawn(&with(Isolation::None)).expect("spawn");
    let ended = process.run::<_, u32, String>(&Request::Blob(String::new()), |_| {});
    assert!(matches!(ended, Err(Error::Channel { source: ChannelError::Decode { .. } })), "{ended:?}");
    assert_eq!(own_children(), []);
}

fn a_regular_start_is_never_taken_for_a_build_process() {
    use std::os::unix::process::CommandExt as _;
    let start = |name: &str, arguments: &[&str], stdin: Stdio| {
        let started = Command::new("/proc/self/exe").arg0(name).args(arguments).stdin(stdin).output().expect("run");
        assert!(started.status.success(), "{started:?}");
        String::from_utf8(started.stdout).expect("text")
    };
    let socket = || Stdio::from(std::os::fd::OwnedFd::from(UnixStream::pair().expect("pair").0));
    let (name, argument) = ("builder-build-process", "--socket=stdin");
    assert_eq!(start(name, &[argument], Stdio::null()), REGULAR, "no socket");
    assert_eq!(start(name, &[argument, "more"], socket()), REGULAR, "another argument");
    assert_eq!(start("builder", &[argument], socket()), REGULAR, "another name");
    let variable =
        Command::new("/proc/self/exe").args([argument]).env("_", name).stdin(socket()).output().expect("run");
    assert_eq!(variable.stdout, REGULAR.as_bytes(), "no variable counts");
}

fn the_probe_agrees_with_what_builds_get() {
    let dir = tempfile::tempdir().expect("tempdir");
    let report = probe(&config(), dir.path()).expect("probe");
    let rung = BuildProcess::spawn(&config()).expect("spawn").environment().rung;
    assert_eq!(report.rung, rung);
    assert_eq!(report.checks.first().map(|check| check.feature), Some(Feature::UserNamespace));
    assert!(report.checks.iter().all(|check| !matches!(check.outcome, Outcome::NotTried)), "{report:#?}");
    assert_eq!(fs::read_dir(dir.path()).expect("dir").count(), 0, "nothing is left in the state directory");
    let json = serde_json::to_string(&report).expect("json");
    assert_eq!(serde_json::from_str::<HostReport>(&json).expect("json"), report);
    for line in report.summary_lines() {
        println!("    {line}");
    }
}

fn the_probe_without_namespaces_says_what_was_not_tried() {
    let dir = tempfile::tempdir().expect("tempdir");
    let report = probe(&with(Isolation::None), dir.path()).expect("probe");
    assert_eq!(report.rung, Rung::None);
    let tried: Vec<Feature> = report
        .checks
        .iter()
        .filter(|check| !matches!(check.outcome, Outcome::NotTried))
        .map(|check| check.feature)
        .collect();
    assert_eq!(tried, [Feature::Openat2]);
}

fn the_engine_is_hidden_from_its_own_user() {
    let process = BuildProcess::spawn(&config()).expect("spawn");
    // Root may look at everything.
    if !rustix::process::geteuid().is_root() {
        for stat in own_children() {
            let looked = fs::read(format!("/proc/{}/environ", stat.pid));
            assert_eq!(looked.expect_err("refused").kind(), std::io::ErrorKind::PermissionDenied);
            assert!(fs::read_link(format!("/proc/{}/exe", stat.pid)).is_err());
        }
    }
    drop(process);
}

// ---- the harness ----

/// Whether a test can do without user namespaces.
#[derive(Clone, Copy, PartialEq)]
enum Needs {
    Nothing,
    UserNamespace,
}

macro_rules! tests {
    ($($name:ident: $needs:ident),* $(,)?) => { &[$((stringify!($name), Needs::$needs, $name as fn())),*] };
}

const TESTS: &[(&str, Needs, fn())] = tests![
    ids_inside_are_the_mapped_ones_outside: UserNamespace,
    the_engine_is_root_with_one_pid_namespace: UserNamespace,
    nothing_is_inherited: Nothing,
    nothing_is_inherited_without_namespaces_either: Nothing,
    without_namespaces_the_engine_knows_why_it_runs_no_commands: Nothing,
    events_come_in_order_and_before_the_reply: Nothing,
    the_thread_that_started_it_may_end: Nothing,
    many_threads_start_many_processes_and_leave_no_descriptor: Nothing,
    a_death_is_told_with_its_cause: UserNamespace,
    a_death_without_namespaces_too: Nothing,
    waiting_threads_and_orphans_do_not_disturb_each_other: UserNamespace,
    a_dropped_process_leaves_nothing: Nothing,
    killing_leaves_nothing_when_run_returns: UserNamespace,
    without_namespaces_killing_reaches_the_engines_helpers: Nothing,
    a_polite_engine_may_answer_a_cancellation: Nothing,
    an_impolite_engine_is_killed_after_the_grace: UserNamespace,
    death_of_the_caller_kills_everything: UserNamespace,
    death_of_the_caller_at_any_moment_of_a_launch_leaves_nothing: UserNamespace,
    death_of_any_process_in_between_kills_everything: UserNamespace,
    programs_that_are_no_build_process_are_told: Nothing,
    large_messages_come_through_and_wrong_ones_are_refused: Nothing,
    a_regular_start_is_never_taken_for_a_build_process: Nothing,
    the_probe_agrees_with_what_builds_get: UserNamespace,
    the_probe_without_namespaces_says_what_was_not_tried: Nothing,
    the_engine_is_hidden_from_its_own_user: UserNamespace,
];

/// Runs the tests whose names contain an argument, or all; one after the other, because they look at this process'
/// children and descriptors. Understands what cargo and nextest say to a libtest harness.
fn run_tests(arguments: &[String]) -> ExitCode {
    let has = |option: &str| arguments.iter().any(|argument| argument == option);
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let matches = |name: &str, filter: &str| if has("--exact") { name == filter } else { name.contains(filter) };
    let wanted = TESTS
        .iter()
        .filter(|_| !has("--ignored"))
        .filter(|(name, ..)| filters.is_empty() || filters.iter().any(|filter| matches(name, filter)));
    if has("--list") {
        wanted.for_each(|(name, ..)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let no_namespace =
        BuildProcess::spawn(&config()).expect("a build process on any host").environment().no_exec.clone();
    let (mut passed, mut failed) = (0, 0);
    for (name, needs, test) in wanted {
        let outcome = match &no_namespace {
            Some(why) if *needs == Needs::UserNamespace => {
                // As with libtest, where a test that skips itself has passed: who counts reads the SKIP lines.
                passed += 1;
                println!("SKIP {name}: {why}");
                "skipped".to_owned()
            }
            _ if std::panic::catch_unwind(test).is_ok() => {
                passed += 1;
                "ok".to_owned()
            }
            _ => {
                failed += 1;
                "FAILED".to_owned()
            }
        };
        println!("test {name} ... {outcome}");
    }
    println!("\ntest result: {passed} passed; {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
