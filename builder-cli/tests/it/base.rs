//! What of a base image is fetched, and when.

use std::collections::BTreeSet;

use crate::registry::add_base;
use crate::registry::server::Registry;
use crate::shared_cache::{fetched, layers, put};
use crate::support::Env;

#[test]
fn layers_of_a_base_are_fetched_when_somebody_reads_them() {
    let registry = Registry::start();
    add_base(&registry, "base", "1");
    let host = registry.host();
    let cases = [
        ("LABEL a=b", false),
        ("ENV A=b\nUSER 5\nCMD [\"/x\"]", false),
        ("COPY --link one /x", false),
        ("COPY --link --chown=1:2 one /x/\nLABEL a=b", false),
        ("COPY one /x", true),
        ("WORKDIR /new", true),
        ("RUN echo > /x", true),
        ("COPY --link --chown=root one /x", true),
        ("COPY --link --from=base /bin/sh /x\nLABEL a=b", true),
    ];
    for (instructions, read) in cases {
        let env = Env::new();
        env.file("one", "1\n");
        env.file("Dockerfile", format!("FROM {host}/base:1 AS base\nFROM base\n{instructions}\n"));
        let output = format!("type=registry,name={host}/app:1");
        env.run(&["build", "--output", &output, "context"]).ok();
        let log = registry.take_log();
        let image = put(&log, "app/manifests/1");
        let base = layers(&image).remove(0);
        assert_eq!(
            fetched(&log).contains(&base),
            read,
            "{instructions}: {:#?}",
            log.iter().map(|logged| &logged.line).collect::<Vec<_>>()
        );
        assert!(!log.iter().any(|logged| logged.line.starts_with("PATCH /v2/app") && logged.line.contains(&base)));
        // Who reads it has all of it, and the store knows the image by its name.
        env.file("Dockerfile", format!("FROM {host}/base:1\nCOPY one /y\n"));
        let offline = env.run(&["build", "--pull=never", "--output", "type=cacheonly", "context"]);
        assert_eq!(offline.code == 0, read, "{instructions}: {}", offline.stderr);
    }
}

#[test]
fn an_output_of_this_machine_has_all_layers() {
    let registry = Registry::start();
    add_base(&registry, "base", "1");
    let host = registry.host();
    let env = Env::new();
    env.file("Dockerfile", format!("FROM {host}/base:1\nLABEL a=b\n"));
    env.run(&["build", "-t", "named", "--output", "type=oci,tar=false,dest=out", "context"]).ok();
    let image = crate::image::Image::open(&env.path("out"), None);
    let wanted: BTreeSet<String> = layers(&image.manifest).into_iter().collect();
    assert_eq!(wanted.len(), 1);
    assert!(fetched(&registry.take_log()).is_superset(&wanted));
}
