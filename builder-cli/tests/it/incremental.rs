//! A build after an edit gives what a build from nothing gives: the digest after each of fifty edits, of context and
//! Dockerfile, in a state directory that has seen them all and in one that has seen only the base image.
//!
//! The edits are the same on every run, or those of the number in `BUILDER_TEST_SEED`.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, UNIX_EPOCH};

use crate::support::{Env, Random, Run};

const EDITS: usize = 50;
const SEED: u64 = 6;
const EPOCH: u64 = 1_700_000_000;

/// One stage: the instructions after its `FROM`.
#[derive(Debug, Clone)]
struct Stage {
    name: &'static str,
    lines: Vec<String>,
}

/// A Dockerfile and its context, and the numbers that they are edited by.
struct Project<'e> {
    env: &'e Env,
    random: Random,
    stages: Vec<Stage>,
    last: Vec<String>,
    ignore: Vec<&'static str>,
    serial: u64,
}

impl<'e> Project<'e> {
    fn new(env: &'e Env, seed: u64) -> Self {
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        let stages = vec![
            Stage {
                name: "one",
                lines: lines(&[
                    "COPY a /w/a",
                    "RUN find a -type f | sort | xargs cat > sum",
                    "RUN mkdir -p out && echo 1 > out/x",
                ]),
            },
            Stage {
                name: "two",
                lines: lines(&["ARG V=1", "RUN mkdir -p /w/out && echo $V > /w/out/v", "COPY b/ /w/b/"]),
            },
            Stage {
                name: "three",
                lines: lines(&[
                    "WORKDIR /w/out",
                    "RUN --mount=source=c,target=/c find /c -type f | xargs cat > c",
                    "LABEL a=b",
                ]),
            },
        ];
        let last = lines(&["WORKDIR /w", "ENV A=1", "RUN echo $A > a"]);
        let project = Self { env, random: Random(seed), stages, last, ignore: vec!["**/*.tmp"], serial: 0 };
        for dir in ["a", "b", "c"] {
            env.file(&format!("{dir}/keep"), dir);
            env.file(&format!("{dir}/x"), "x");
            env.file(&format!("{dir}/d/y"), "y");
        }
        project.write();
        project
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.random.below(limit as u64)).unwrap()
    }

    fn one_of<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    /// A number that no edit had before.
    fn fresh(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Writes Dockerfile and ignore file.
    fn write(&self) {
        let mut text = "ARG BASE=busybox\n".to_owned();
        for Stage { name, lines } in &self.stages {
            text += &format!("FROM $BASE AS {name}\nWORKDIR /w\n{}\n", lines.join("\n"));
        }
        text += "FROM busybox\n";
        text.extend(self.stages.iter().map(|stage| format!("COPY --from={0} /w /from/{0}\n", stage.name)));
        text += &self.last.join("\n");
        text += "\nCOPY . /all/\nRUN find /all -type f | sort | xargs cat | md5sum > /sum\n";
        fs::write(self.env.path("Dockerfile"), text).unwrap();
        self.env.file(".dockerignore", self.ignore.join("\n"));
    }

    /// One change; says what it was.
    fn edit(&mut self) -> String {
        let what = if self.random.below(2) == 0 { self.edit_context() } else { self.edit_dockerfile() };
        self.write();
        what
    }

    /// The instructions of one of the stages, and which it is.
    fn some_stage(&mut self) -> (&mut Vec<String>, &'static str) {
        match self.below(self.stages.len() + 1) {
            at if at == self.stages.len() => (&mut self.last, "last"),
            at => {
                let stage = &mut self.stages[at];
                (&mut stage.lines, stage.name)
            }
        }
    }

    fn edit_dockerfile(&mut self) -> String {
        let (new, kind, place) = (self.instruction(), self.below(6), self.below(100));
        if kind == 5 && place < 30 {
            let at = self.below(self.stages.len() - 1);
            self.stages.swap(at, at + 1);
            return format!("swap stages {at} and the next");
        }
        let (lines, stage) = self.some_stage();
        match kind {
            0 | 1 => {
                lines.insert(place % (lines.len() + 1), new.clone());
                format!("{stage}: add {new:?}")
            }
            2 if lines.len() > 3 => format!("{stage}: remove {:?}", lines.remove(place % lines.len())),
            3 if lines.len() > 3 => {
                let at = place % (lines.len() - 1);
                lines.swap(at, at + 1);
                format!("{stage}: swap {:?} and {:?}", lines[at + 1], lines[at])
            }
            _ => {
                let at = place % lines.len();
                let old = std::mem::replace(&mut lines[at], new.clone());
                format!("{stage}: {new:?} for {old:?}")
            }
        }
    }

    /// An instruction that works anywhere.
    fn instruction(&mut self) -> String {
        let (n, dir) = (self.fresh(), self.one_of(&["a", "b", "c"]));
        let mode = self.one_of(&["600", "u=rwX,go=rX", "4755"]);
        match self.below(19) {
            0 => format!("RUN mkdir -p /w/out && echo {n} > /w/out/f{}", n % 4),
            1 => "RUN find / -xdev -type f -name 'x*' -not -path '/proc/*' | sort | xargs cat | md5sum > /w-sum".into(),
            2 => format!("RUN rm -rf /w/out/f{} /w/{dir}/x*", n % 4),
            3 => format!(
                "RUN --mount=type=bind,source={dir},target=/m mkdir -p /w && cat /m/* > /w/all 2>/dev/null; true"
            ),
            4 => {
                format!("RUN --mount=type=cache,target=/cache echo {n} > /cache/f; mkdir -p /w; echo {} > /w/c", n % 3)
            }
            5 => format!("RUN <<EOF\nmkdir -p /w/out\necho {n} > /w/out/doc\nEOF"),
            6 => format!("ENV A={}\nRUN mkdir -p /w && echo $A > /w/env", n % 3),
            7 => format!("ARG V={}\nRUN mkdir -p /w && echo $V > /w/arg", n % 3),
            8 => format!("ARG UNUSED={n}"),
            9 => format!("LABEL n={n}"),
            10 => format!("WORKDIR /w/{dir}"),
            11 => format!("COPY --chown={}:5 --chmod={mode} {dir} /w/owned", n % 3),
            12 => format!("COPY --parents --exclude=**/x* {dir}/ /w/parents/"),
            13 => format!("COPY --link {dir} /w/link"),
            14 => format!("COPY <<EOF /w/copied\n{}\nEOF", n % 3),
            15 => format!("ADD {dir}/keep /w/added{}", n % 2),
            16 => "RUN chown -R 3:4 /w 2>/dev/null; true".into(),
            17 => format!("USER {}", self.one_of(&["0", "root"])),
            _ => format!("EXPOSE {}\nVOLUME /vol{}", 80 + n % 3, n % 2),
        }
    }

    fn edit_context(&mut self) -> String {
        match self.below(13) {
            0..=5 => self.edit_file(),
            6 => {
                let rule = self.one_of(&["**/x1", "a/d", "!a/d/y", "b/x*", "c/d/*", "!**/*.tmp"]);
                if !self.ignore.contains(&rule) {
                    self.ignore.push(rule);
                }
                format!("ignore {rule}")
            }
            7 if self.ignore.len() > 1 => format!("no longer ignore {}", self.ignore.remove(0)),
            _ => self.edit_names(),
        }
    }

    /// A file that comes and goes.
    fn some_file(&mut self) -> Option<PathBuf> {
        let files = files(&self.env.path("context"));
        let at = self.below(files.len().max(1));
        files.into_iter().nth(at)
    }

    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(self.env.path("context")).unwrap().display().to_string()
    }

    /// Changes a file in its place.
    fn edit_file(&mut self) -> String {
        let Some(file) = self.some_file() else { return "nothing".into() };
        let (n, shown) = (self.fresh(), self.shown(&file));
        match self.below(5) {
            0 => {
                fs::write(&file, format!("{n}")).unwrap();
                format!("write {shown}")
            }
            1 => {
                let old = fs::read(&file).unwrap();
                fs::write(&file, [&old, format!("{n}").as_bytes()].concat()).unwrap();
                format!("append to {shown}")
            }
            2 => {
                // What tells changes by size and time of modification does not see this one.
                let before = fs::metadata(&file).unwrap();
                fs::write(&file, vec![b'0' + u8::try_from(n % 10).unwrap(); fs::read(&file).unwrap().len()]).unwrap();
                touch(&file, before.modified().unwrap().duration_since(UNIX_EPOCH).unwrap());
                format!("other bytes, same size and time: {shown}")
            }
            3 => {
                // Before and after the epoch.
                touch(&file, Duration::from_secs(EPOCH - 10 + n % 20));
                format!("touch {shown}")
            }
            _ => {
                let mode = [0o644, 0o600, 0o755, 0o4755][self.below(4)];
                fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
                format!("chmod {mode:o} {shown}")
            }
        }
    }

    /// Changes what has which name.
    fn edit_names(&mut self) -> String {
        let (n, dir) = (self.fresh(), self.one_of(&["a", "b", "c"]));
        let new = self.env.path("context").join(dir).join(self.one_of(&["x", "x1", "d/y", "d/z", "t.tmp"]));
        let shown = self.shown(&new);
        match (self.below(6), self.some_file()) {
            (0 | 1, Some(file)) if file != new => {
                remove(&new);
                fs::rename(&file, &new).unwrap();
                format!("rename {} to {shown}", self.shown(&file))
            }
            (2, Some(file)) => {
                fs::remove_file(&file).unwrap();
                format!("remove {}", self.shown(&file))
            }
            (3, _) => {
                remove(&new);
                fs::create_dir_all(&new).unwrap();
                format!("empty directory {shown}")
            }
            (4, _) => {
                remove(&new);
                symlink(self.one_of(&["keep", "../a", "nowhere", "/w"]), &new).unwrap();
                format!("symlink {shown}")
            }
            _ => {
                remove(&new);
                fs::write(&new, format!("{}", n % 5)).unwrap();
                format!("add {shown}")
            }
        }
    }
}

/// Regular files of the context that come and go.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() && entry.file_name() != "keep" && entry.file_name() != ".dockerignore" {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

fn touch(file: &Path, since_1970: Duration) {
    // Files of any mode are opened: for their owner alone the mode counts.
    let mode = fs::metadata(file).unwrap().permissions();
    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::File::options().write(true).open(file).unwrap().set_modified(UNIX_EPOCH + since_1970).unwrap();
    fs::set_permissions(file, mode).unwrap();
}

/// Makes room for something of any kind.
fn remove(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

/// Builds the project of `env` in the state directory of `place`.
fn build(place: &Env, env: &Env, options: &[&str]) -> Output {
    let mut command = place.command(&["build", "-f"]);
    command.arg(env.path("Dockerfile")).args(options).arg(env.path("context"));
    command.env("SOURCE_DATE_EPOCH", EPOCH.to_string()).output().unwrap()
}

/// Builds in a state directory that has only the base image.
fn build_clean(pristine: &Env, env: &Env) -> Run {
    let place = Env::new();
    let mut copy = place.as_image_root("cp");
    Run::of(&copy.arg("-a").arg(pristine.state()).arg(place.state()).output().unwrap()).ok();
    Run::of(&build(&place, env, &["-q"]))
}

#[test]
fn a_build_after_an_edit_gives_what_a_clean_build_gives() {
    let seed = std::env::var("BUILDER_TEST_SEED").map_or(SEED, |seed| seed.parse().expect("a number"));
    println!("BUILDER_TEST_SEED={seed}");
    let (pristine, env) = (Env::new(), Env::new());
    pristine.import_busybox();
    env.import_busybox();
    let mut project = Project::new(&env, seed);
    let (mut built, mut cached, mut done, mut history) = (0, 0, 0, Vec::new());
    for number in 0..=EDITS {
        let (warm, clean) = std::thread::scope(|scope| {
            let clean = scope.spawn(|| build_clean(&pristine, &env));
            let warm = Run::of(&build(&env, &env, &["--progress", "json", "--metadata-file", "meta"]));
            (warm, clean.join().unwrap())
        });
        let why =
            || format!("seed {seed}, after edit {number}:\n{}\n{}\n{}", history.join("\n"), warm.stderr, clean.stderr);
        assert_eq!(warm.code, clean.code, "{}", why());
        if warm.code == 0 {
            let meta: serde_json::Value = serde_json::from_slice(&fs::read(env.path("meta")).unwrap()).unwrap();
            assert_eq!(meta["containerimage.digest"], clean.stdout.trim_end(), "{}", why());
            built += 1;
            cached += warm.steps().iter().filter(|step| step.starts_with("CACHED")).count();
            done += warm.steps().len();
        }
        if warm.code != 0 {
            println!("{}", warm.stderr);
        }
        let edit = project.edit();
        history.push(format!("{number}: {edit}"));
        println!("{number}: {} {cached}/{done} {edit}", warm.code);
    }
    assert!(built > EDITS * 4 / 5, "only {built} builds succeeded");
    assert!(cached * 3 > done && cached < done, "{cached} of {done} steps came from the cache");
}
