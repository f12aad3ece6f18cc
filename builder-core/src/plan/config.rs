//! The image's config as instructions change it. The only place of this module that knows the fields.

use super::gofmt;
use crate::dockerfile::{Command, Healthcheck};
use crate::image::{self, ImageConfig, Platform, RootFs};

/// `PATH` where a config has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Returns the config of an image with nothing in it.
pub(super) fn empty(platform: &Platform) -> ImageConfig {
    let mut config = ImageConfig::new(platform);
    ensure_path(&mut config);
    config.config.working_dir = "/".to_owned();
    config
}

/// Sets `PATH` if it is missing.
pub(super) fn ensure_path(config: &mut ImageConfig) {
    if config.config.env("PATH").is_none() {
        set_env(config, "PATH", DEFAULT_PATH);
    }
}

/// Returns the environment in order.
pub(super) fn env(config: &ImageConfig) -> Vec<(String, String)> {
    let split = |entry: &String| {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        (name.to_owned(), value.to_owned())
    };
    config.config.env.iter().map(split).collect()
}

/// Sets a variable, in its old place if it was there.
pub(super) fn set_env(config: &mut ImageConfig, name: &str, value: &str) {
    config.config.set_env(name, value);
}

/// Takes the `ONBUILD` triggers out.
pub(super) fn take_triggers(config: &mut ImageConfig) -> Vec<String> {
    std::mem::take(&mut config.config.on_build)
}

/// Adds an `ONBUILD` trigger.
pub(super) fn add_trigger(config: &mut ImageConfig, trigger: &str) {
    config.config.on_build.push(trigger.to_owned());
}

/// Returns the working directory as the config has it, perhaps empty or not clean.
pub(super) fn workdir(config: &ImageConfig) -> &str {
    &config.config.working_dir
}

/// Sets the working directory.
pub(super) fn set_workdir(config: &mut ImageConfig, path: &str) {
    config.config.working_dir = path.to_owned();
}

/// Returns the user, empty for root.
pub(super) fn user(config: &ImageConfig) -> &str {
    &config.config.user
}

/// Sets the user.
pub(super) fn set_user(config: &mut ImageConfig, user: &str) {
    config.config.user = user.to_owned();
}

/// Sets a label.
pub(super) fn set_label(config: &mut ImageConfig, key: &str, value: &str) {
    config.config.labels.insert(key.to_owned(), value.to_owned());
}

/// Sets `Cmd`.
pub(super) fn set_cmd(config: &mut ImageConfig, argv: Vec<String>) {
    config.config.cmd = argv;
    config.config.args_escaped = true;
}

/// Forgets `Cmd`.
pub(super) fn clear_cmd(config: &mut ImageConfig) {
    config.config.cmd.clear();
}

/// Sets `Entrypoint`.
pub(super) fn set_entrypoint(config: &mut ImageConfig, argv: Vec<String>) {
    config.config.entrypoint = argv;
}

/// Returns the shell of the shell form.
pub(super) fn shell(config: &ImageConfig) -> Vec<String> {
    if config.config.shell.is_empty() {
        return vec!["/bin/sh".to_owned(), "-c".to_owned()];
    }
    config.config.shell.clone()
}

/// Sets the shell.
pub(super) fn set_shell(config: &mut ImageConfig, shell: &[String]) {
    config.config.shell = shell.to_vec();
}

/// Returns the arguments that `command` means with the config's shell.
pub(super) fn argv(config: &ImageConfig, command: &Command) -> Vec<String> {
    match command {
        Command::Exec(argv) => argv.clone(),
        Command::Shell(text) => {
            let mut argv = shell(config);
            argv.push(text.clone());
            argv
        }
    }
}

/// Adds a `port/proto`.
pub(super) fn add_port(config: &mut ImageConfig, port: String) {
    config.config.exposed_ports.insert(port);
}

/// Adds a volume.
pub(super) fn add_volume(config: &mut ImageConfig, path: &str) {
    config.config.volumes.insert(path.to_owned());
}

/// Sets the signal that stops the container.
pub(super) fn set_stop_signal(config: &mut ImageConfig, signal: &str) {
    config.config.stop_signal = Some(signal.to_owned());
}

/// Sets the author.
pub(super) fn set_author(config: &mut ImageConfig, author: &str) {
    config.author = Some(author.to_owned());
}

/// Sets the health check and returns it as the history says it.
pub(super) fn set_healthcheck(config: &mut ImageConfig, healthcheck: &Healthcheck) -> String {
    let health = match healthcheck {
        Healthcheck::None => image::Healthcheck { test: vec!["NONE".to_owned()], ..image::Healthcheck::default() },
        Healthcheck::Cmd { command, interval, timeout, start_period, start_interval, retries } => {
            let test = match command {
                Command::Shell(text) => vec!["CMD-SHELL".to_owned(), text.clone()],
                Command::Exec(argv) => std::iter::once("CMD".to_owned()).chain(argv.iter().cloned()).collect(),
            };
            // Durations come from signed nanoseconds, so they fit.
            let nanoseconds = |flag: &Option<u64>| i64::try_from(flag.unwrap_or(0)).unwrap_or(i64::MAX);
            image::Healthcheck {
                test,
                interval: nanoseconds(interval),
                timeout: nanoseconds(timeout),
                start_period: nanoseconds(start_period),
                start_interval: nanoseconds(start_interval),
                retries: retries.map_or(0, i64::from),
                ..image::Healthcheck::default()
            }
        }
    };
    let duration = |nanoseconds: i64| gofmt::duration(nanoseconds.unsigned_abs());
    let said = format!(
        "{{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        gofmt::list(&health.test),
        duration(health.interval),
        duration(health.timeout),
        duration(health.start_period),
        duration(health.start_interval),
        health.retries,
    );
    config.config.healthcheck = Some(health);
    said
}

/// Returns the config of a new image that builds on `base`: without what belongs to that one image.
pub(super) fn inherit(base: &ImageConfig) -> ImageConfig {
    ImageConfig { created: None, rootfs: RootFs::default(), history: vec![], ..base.clone() }
}

/// Returns the platform that the config says, if it says one.
pub(super) fn platform(config: &ImageConfig) -> Option<Platform> {
    (!config.os.is_empty() && !config.architecture.is_empty()).then(|| config.platform())
}

/// Makes the config say `platform`. What `platform` leaves open stays if it is the same system.
pub(super) fn set_platform(config: &mut ImageConfig, platform: &Platform) {
    let same = config.os == platform.os && config.architecture == platform.architecture;
    config.os.clone_from(&platform.os);
    config.architecture.clone_from(&platform.architecture);
    if platform.variant.is_some() || !same {
        config.variant.clone_from(&platform.variant);
    }
    if platform.os_version.is_some() || !same {
        config.os_version.clone_from(&platform.os_version);
    }
    if !platform.os_features.is_empty() {
        config.os_features.clone_from(&platform.os_features);
    }
}

/// Writes the platform in normal form: `arm64`, not `arm64/v8`.
pub(super) fn normalize_platform(config: &mut ImageConfig) {
    if let Some(platform) = platform(config) {
        let normal = platform.normalized();
        config.os = normal.os;
        config.architecture = normal.architecture;
        config.variant = normal.variant;
    }
}
