//! What the command line gives to every `RUN`.

use crate::support::{Env, Run};

const DOCKERFILE: &str = "FROM busybox
RUN cat /etc/hosts > /hosts; grep ' /dev/shm ' /proc/mounts > /shm; ulimit -n > /files; ulimit -Hn >> /files
";

fn busybox() -> Env {
    let env = Env::new();
    env.import_busybox();
    env
}

fn is_cached(run: &Run) -> bool {
    run.ok();
    run.steps().iter().any(|step| step.starts_with("CACHED"))
}

#[test]
fn hosts_limits_and_shared_memory_are_those_of_the_command_line() {
    let env = busybox();
    let options = [
        "--add-host=one:10.0.0.1",
        "--add-host=two.example=[2001:db8::2]",
        "--add-host=gate:host-gateway",
        "--shm-size=8m",
        "--ulimit=nofile=100:200",
    ];
    let image = env.image(DOCKERFILE, &options);
    let hosts = image.text("hosts");
    assert!(hosts.starts_with("127.0.0.1\tlocalhost\n"), "{hosts}");
    assert!(hosts.ends_with("10.0.0.1\tone\n2001:db8::2\ttwo.example\n127.0.0.1\tgate\n"), "{hosts}");
    assert!(image.text("shm").contains("size=8192k"), "{}", image.text("shm"));
    assert_eq!(image.text("files"), "100\n200\n");
    assert!(!image.flatten().contains_key("etc/hosts"), "not in the image");
}

#[test]
fn names_and_limits_decide_what_is_done_again_and_addresses_do_not() {
    let env = busybox();
    let build = |options: &[&str]| is_cached(&env.build(DOCKERFILE, options));
    assert!(!build(&[]));
    assert!(build(&[]));
    assert!(!build(&["--add-host=one:10.0.0.1"]));
    assert!(build(&["--add-host=one:10.0.0.9"]));
    assert!(!build(&["--add-host=other:10.0.0.1"]));
    assert!(!build(&["--shm-size=8m"]));
    assert!(!build(&["--ulimit=nofile=100"]));
    assert!(!build(&["--ulimit=nofile=101"]));
    assert!(build(&["--ulimit=nofile=101"]));
}

#[test]
fn what_cannot_be_given_is_refused() {
    let env = busybox();
    let text = env.build(DOCKERFILE, &["--ulimit=nofile=100000000"]);
    assert!(text.fails(69).contains("hard limit"), "{}", text.stderr);
    for bad in ["--add-host=one", "--ulimit=files=1", "--shm-size=0", "--provenance=mode=max", "--sbom", "--load"] {
        env.build(DOCKERFILE, &[bad]).fails(2);
    }
    assert!(env.build(DOCKERFILE, &["--load"]).stderr.contains("docker load"));
    env.build(DOCKERFILE, &["--provenance=false", "--sbom=false"]).ok();
}
