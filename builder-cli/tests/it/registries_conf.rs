//! `registries.conf`: where images really come from, and where they do not.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ServerConfig;

use crate::registry::{add_base, count, server};
use crate::support::{Env, Run};
use server::Registry;

/// Writes the user's own file.
fn write(env: &Env, text: &str) {
    let dir = env.path(".config/containers");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("registries.conf"), text).unwrap();
}

fn build(env: &Env, from: &str, options: &[&str]) -> Run {
    env.file("Dockerfile", format!("FROM {from}\nCOPY Dockerfile /\n"));
    env.run(&[&["build", "--progress", "plain", "context"][..], options].concat())
}

#[test]
fn names_are_looked_for_where_the_file_says() {
    let env = Env::new();
    let (mirror, home) = (Registry::start(), Registry::start());
    add_base(&mirror, "copy/of/base", "1");
    add_base(&home, "real/other", "1");
    let conf = format!(
        "unqualified-search-registries = ['quay.io']\n\
         [[registry]]\nprefix = 'images.example.com/team'\nlocation = '{home}/real'\n\
         [[registry.mirror]]\nlocation = '{mirror}/copy/of'\n\
         [[registry]]\nprefix = '*.corp.example'\nmirror = [{{ location = '{mirror}/copy' }}]\n\
         [[registry]]\nprefix = 'images.example.com/team/secret'\nblocked = true\n",
        home = home.host(),
        mirror = mirror.host()
    );
    write(&env, &conf);
    build(&env, "images.example.com/team/base:1", &["-t", "app"]).ok();
    assert_eq!(home.take_log().len(), 0, "the mirror has it");
    // Known by the name it was asked by, wherever it came from.
    assert!(env.run(&["images"]).ok().contains("images.example.com/team/base:1"));
    let run = build(&env, "images.example.com/team/other:1", &[]);
    run.ok();
    assert_eq!(count(&home.take_lines(), "GET /v2/real/other/manifests/1"), 1, "the mirror has it not");
    build(&env, "deep.in.corp.example/of/base:1", &[]).ok();
    let run = build(&env, "images.example.com/team/secret/base:1", &[]);
    assert!(run.fails(75).contains("blocked"), "{}", run.stderr);
    assert!(run.stderr.contains("images.example.com/team/secret"), "{}", run.stderr);
    // Nothing is written to a mirror or another location: this host does not exist.
    let (before, push) = (home.take_log().len() + mirror.take_log().len(), "images.example.com/team/base:2");
    env.run(&["push", "app", push, "--retry", "0"]).fails(75);
    assert_eq!((home.take_log().len() + mirror.take_log().len()).min(before), 0);
    // The file that the environment names is the only one.
    let other = env.path("other.conf");
    fs::write(&other, "[[registry]]\nlocation = 'docker.io'\nblockd = true\n").unwrap();
    let mut command = env.command(&["pull", "busybox"]);
    let run = Run::of(&command.env("CONTAINERS_REGISTRIES_CONF", &other).output().unwrap());
    assert!(run.fails(2).contains("blockd") && run.stderr.contains("other.conf"), "{}", run.stderr);
}

#[test]
fn certificates_of_an_insecure_registry_need_not_hold_unless_they_must() {
    let env = Env::new();
    let read = |name: &str| fs::read(Path::new("../builder-core/tests/support/certs").join(name)).unwrap();
    let certificate = CertificateDer::from_pem_slice(&read("server.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&read("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let registry = Registry::start_tls(Arc::new(config));
    add_base(&registry, "base", "1");
    let name = format!("{}/base:1", registry.host());
    assert!(env.run(&["pull", &name, "--retry", "0"]).fails(75).contains("certificate"));
    write(&env, &format!("[[registry]]\nlocation = '{}'\ninsecure = true\n", registry.host()));
    env.run(&["pull", &name]).ok();
    env.run(&["pull", &name, "--tls-verify=true", "--retry", "0"]).fails(75);
    // What is said of some names is not said of the others at the same host, nor of the host.
    add_base(&registry, "lab/base", "1");
    let host = registry.host();
    write(&env, &format!("[[registry]]\nlocation = '{host}/lab'\ninsecure = true\n"));
    env.run(&["pull", &format!("{host}/lab/base:1")]).ok();
    registry.take_log();
    let refused = |args: &[&str]| {
        let run = env.run(&[args, &["--retry", "0"]].concat());
        assert!(run.fails(75).contains("certificate"), "{args:?}: {}", run.stderr);
    };
    refused(&["pull", &name]);
    refused(&["push", &name, &format!("{host}/laboratory/x:1")]);
    refused(&["login", &host, "-u", "me", "-p", "secret"]);
    assert!(registry.take_log().is_empty(), "nobody was asked anything");
    env.run(&["push", &name, &format!("{host}/lab/x:1")]).ok();
    // Its token server is at the same host.
    let realm = registry.realm().replace("http://", "https://");
    registry.set_auth(server::Auth::Bearer { realm, uses: 1000 });
    registry.set_token_for(server::TokenFor::User("me", "secret"), None);
    env.run(&["ls-tags", &format!("{host}/lab/x"), "--creds", "me:secret"]).ok();
    assert!(registry.take_lines().iter().any(|line| line.contains("/token?")));
    refused(&["ls-tags", &format!("{host}/base"), "--creds", "me:secret"]);
    assert!(registry.take_log().is_empty());
}
