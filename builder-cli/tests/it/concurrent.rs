//! Many builds on one state directory.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};

use crate::support::{Env, Run};

#[test]
fn builds_at_once_share_their_work() {
    let prepared = Env::new();
    prepared.import_busybox();
    prepared.build("FROM busybox\n", &[]).ok();
    let env = Env::new();
    env.file("data", "data".repeat(100_000));
    let same = "FROM base AS one\nRUN echo shared > /shared; sleep 0.3\nCOPY data /data\n\
        FROM base AS two\nRUN echo two > /two; sleep 0.2\n\
        FROM one\nCOPY --from=two /two /two\nRUN cat /two /shared > /both\n";
    let base = format!("base=oci-layout://{}", prepared.path("out").display());
    let children: Vec<Child> = (0..8)
        .map(|number| {
            let dockerfile = if number < 4 { same.to_owned() } else { format!("{same}RUN echo {number} > /own\n") };
            env.file(&format!("Dockerfile.{number}"), dockerfile);
            let file = env.path(&format!("context/Dockerfile.{number}")).display().to_string();
            let context = env.path("context").display().to_string();
            // All read one context: a build must not see the files of the others change.
            env.file(".dockerignore", "Dockerfile*\n");
            let tag = format!("app:{number}");
            let args = ["build", "--progress", "json", "-f", &file, "-t", &tag, "--build-context", &base, &context];
            let mut command = env.command(&args);
            command.env("SOURCE_DATE_EPOCH", "1700000000").stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    let waiting =
        children.into_iter().map(|child| std::thread::spawn(move || Run::of(&child.wait_with_output().unwrap())));
    let waiting: Vec<_> = waiting.collect();
    let runs: Vec<Run> = waiting.into_iter().map(|thread| thread.join().unwrap()).collect();
    let digests: Vec<String> = runs.iter().map(digest).collect();
    assert!(digests[..4].iter().all(|digest| *digest == digests[0]), "{digests:?}");
    assert!(digests[4..].iter().all(|digest| *digest != digests[0]), "{digests:?}");

    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for step in runs.iter().flat_map(Run::steps) {
        // What stands before the bracket is the place in the stage, or says that the step is the base.
        match step.strip_prefix("RAN ").and_then(|name| name.split_once("] ")) {
            Some((place, name)) if !place.starts_with("[context") => *times.entry(name.to_owned()).or_default() += 1,
            _ => {}
        }
    }
    assert_eq!(times.len(), 5 + 4, "{times:?}");
    assert!(times.values().all(|count| *count == 1), "every step is done once: {times:?}");
    assert_eq!(env.run(&["images", "-q"]).ok().lines().count(), 8);
    env.assert_du();
}

fn digest(run: &Run) -> String {
    run.ok();
    let event = run.stdout.lines().rfind(|line| line.contains("\"exported\"")).expect("an image is named");
    serde_json::from_str::<serde_json::Value>(event).unwrap()["digest"].as_str().unwrap().to_owned()
}
