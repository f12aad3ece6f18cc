//! A stage while it is lowered: what the instructions so far have made of it.

use super::config;
use super::expand::Scope;
use super::graph::{FileInput, PlannedHistory, RootInput};
use super::path;
use super::scope::{DeclaredArg, Env};
use super::steps::Place;
use crate::event::StepId;
use crate::image::{ImageConfig, Platform};

/// What wrote the history, as BuildKit says it.
const COMMENT: &str = "buildkit.dockerfile.v0";

/// A stage at one of its instructions.
#[derive(Debug, Clone)]
pub(super) struct StageState {
    /// Number of the stage.
    pub(super) stage: usize,
    /// Instructions done, triggers included.
    pub(super) position: usize,
    /// Its files for those who take some of them; the same as `root` unless a directory stands for the stage.
    pub(super) files: FileInput,
    /// Its file system.
    pub(super) root: RootInput,
    /// The image it builds on.
    pub(super) base: Option<StepId>,
    /// Its config so far.
    pub(super) config: ImageConfig,
    /// History behind that of `base`.
    pub(super) history: Vec<PlannedHistory>,
    /// Variables for expansion and for commands.
    pub(super) env: Env,
    /// What `ARG` declared, here and in the stages below.
    pub(super) declared: Vec<DeclaredArg>,
    /// Platform of its file system.
    pub(super) platform: Platform,
    /// Whether this very stage has a `CMD`.
    pub(super) has_cmd: bool,
}

impl StageState {
    /// Starts stage `stage` on `root`, which has `config`.
    pub(super) fn new(stage: usize, root: RootInput, config: ImageConfig, platform: Platform) -> Self {
        Self {
            stage,
            position: 0,
            files: FileInput::Root(root),
            root,
            base: None,
            config,
            history: vec![],
            env: Env::default(),
            declared: vec![],
            platform,
            has_cmd: false,
        }
    }

    /// Starts stage `stage` on this one.
    pub(super) fn child(&self, stage: usize) -> Self {
        let mut child = self.clone();
        child.stage = stage;
        child.position = 0;
        child.files = FileInput::Root(self.root);
        child.has_cmd = false;
        // Triggers are for the direct child only, which has taken them already.
        config::take_triggers(&mut child.config);
        child
    }

    /// Makes the variables of the config variables of the stage.
    pub(super) fn load_env(&mut self) {
        config::ensure_path(&mut self.config);
        for (name, value) in config::env(&self.config) {
            self.env.set(name, value);
        }
    }

    /// Returns the place of the instruction being done.
    pub(super) fn place(&self) -> Place {
        (self.stage, self.position)
    }

    /// Returns the variables for expansion.
    pub(super) fn scope(&self) -> Scope<'_> {
        Scope { env: &self.env }
    }

    /// Returns the working directory, absolute and clean.
    pub(super) fn workdir(&self) -> String {
        path::absolute("/", config::workdir(&self.config))
    }

    /// Makes `step` the file system.
    pub(super) fn set_root(&mut self, step: StepId) {
        self.root = RootInput::Step(step);
        self.files = FileInput::Root(self.root);
    }

    /// Adds to the history an instruction that changed the config alone.
    pub(super) fn record(&mut self, created_by: String) {
        self.history.push(PlannedHistory { created_by, comment: COMMENT, layer: None });
    }

    /// Adds to the history an instruction whose layer is that of `step`, the new file system.
    pub(super) fn record_layer(&mut self, created_by: String, step: StepId) {
        self.set_root(step);
        self.history.push(PlannedHistory { created_by, comment: COMMENT, layer: Some(step) });
    }
}
