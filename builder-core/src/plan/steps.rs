//! The growing graph: steps by what they do, so that equal work is one step, and their final order and names.

use super::graph::{
    BuildGraph, CacheMount, ContextName, CopySourceOp, FileInput, MountKind, Op, RootInput, Step, TargetImage,
};
use crate::diagnostic::{Diagnostic, Span};
use crate::event::{StepId, StepInfo};

/// Where in the Dockerfile something stands: number of the stage, then of the instruction in it.
pub(super) type Place = (usize, usize);

/// How a step is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Label {
    /// As it is.
    Plain(String),
    /// `[STAGE i/n] TEXT`, counted over its stage.
    Counted(String),
}

/// Where a step comes from.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// Orders the steps.
    pub(super) place: Place,
    /// Its instruction.
    pub(super) span: Option<Span>,
    /// First line of its instruction.
    pub(super) line: Option<usize>,
}

#[derive(Debug)]
struct Draft {
    op: Op,
    source: Source,
    label: Label,
}

/// Steps found so far.
#[derive(Debug, Default)]
pub(super) struct Steps(Vec<Draft>);

impl Steps {
    /// Returns the step that does `op`, made if there is none yet; it belongs to the earliest place that wants it.
    pub(super) fn add(&mut self, op: Op, source: Source, label: Label) -> StepId {
        if let Some(index) = self.0.iter().position(|draft| does_the_same(&draft.op, &op)) {
            let draft = &mut self.0[index];
            if source.place < draft.source.place {
                draft.source = source;
                draft.label = label;
            }
            return StepId(index);
        }
        self.0.push(Draft { op, source, label });
        StepId(self.0.len() - 1)
    }

    /// Puts the steps into the order of the Dockerfile and names them.
    ///
    /// Inputs stay before their users: stages take only from earlier ones, and who adds a step at a place has added its
    /// inputs at that place or before.
    pub(super) fn finish(
        self,
        mut target: TargetImage,
        warnings: Vec<Diagnostic>,
        stages: &super::stages::Stages<'_>,
    ) -> BuildGraph {
        let mut order: Vec<usize> = (0..self.0.len()).collect();
        order.sort_by_key(|&index| (self.0[index].source.place, index));
        let mut numbers = vec![StepId(0); order.len()];
        for (number, &index) in order.iter().enumerate() {
            numbers[index] = StepId(number);
        }
        let namer = Namer::new(&self.0, stages);
        let mut counts = vec![0; stages.all.len()];
        let mut drafts: Vec<Option<Draft>> = self.0.into_iter().map(Some).collect();
        let mut steps = vec![];
        for index in order {
            let mut draft = drafts[index].take().expect("each index is in the order once");
            for_each_input(&mut draft.op, &mut |id| *id = numbers[id.0]);
            let info = namer.info(numbers[index], &draft, &mut counts);
            steps.push(Step { info, span: draft.source.span, op: draft.op });
        }
        target.renumber(&numbers);
        BuildGraph { steps, target, others: Vec::new(), warnings, unused_stages: vec![] }
    }
}

impl TargetImage {
    /// Gives each step its number in `numbers`.
    pub(super) fn renumber(&mut self, numbers: &[StepId]) {
        let layers = self.history.iter_mut().filter_map(|entry| entry.layer.as_mut());
        for id in layers.chain(self.base.as_mut()).chain(root_step(&mut self.root)) {
            *id = numbers[id.0];
        }
    }
}

struct Namer {
    shown: Vec<String>,
    numbers: Vec<String>,
    totals: Vec<usize>,
}

impl Namer {
    fn new(drafts: &[Draft], stages: &super::stages::Stages<'_>) -> Self {
        let mut totals = vec![0; stages.all.len()];
        for draft in drafts.iter().filter(|draft| matches!(draft.label, Label::Counted(_))) {
            totals[draft.source.place.0] += 1;
        }
        // A lone stage needs no name unless something else could be meant.
        let lone = stages.all.len() == 1 && !drafts.iter().any(is_outside);
        let shown = stages.all.iter().map(|stage| if lone { String::new() } else { stage.shown() + " " });
        Self {
            shown: shown.collect(),
            numbers: stages.all.iter().map(|stage| stage.name_or_number()).collect(),
            totals,
        }
    }

    fn info(&self, step: StepId, draft: &Draft, counts: &mut [usize]) -> StepInfo {
        let stage = draft.source.place.0;
        match &draft.label {
            Label::Plain(name) => StepInfo { step, name: name.clone(), stage: None, line: draft.source.line },
            Label::Counted(text) => {
                counts[stage] += 1;
                let total = self.totals[stage];
                let width = total.to_string().len();
                let name = format!("[{}{:width$}/{total}] {text}", self.shown[stage], counts[stage]);
                StepInfo { step, name, stage: Some(self.numbers[stage].clone()), line: draft.source.line }
            }
        }
    }
}

/// Whether two steps do the same. An image is what it holds, whatever it is called.
pub(super) fn does_the_same(left: &Op, right: &Op) -> bool {
    match (left, right) {
        (Op::Image(left), Op::Image(right)) => left.image.digest == right.image.digest,
        _ => left == right,
    }
}

/// Whether a step brings in something that is neither a stage's base nor the main context.
fn is_outside(draft: &Draft) -> bool {
    matches!(draft.label, Label::Plain(_)) && !matches!(draft.op, Op::Context(ContextName::Main))
}

/// Calls `change` with each input of `op`.
pub(super) fn for_each_input(op: &mut Op, change: &mut dyn FnMut(&mut StepId)) {
    match op {
        Op::Image(_) | Op::Context(_) => {}
        Op::Workdir(op) => root_step(&mut op.parent).into_iter().for_each(change),
        Op::Run(op) => {
            root_step(&mut op.parent).into_iter().for_each(&mut *change);
            for mount in &mut op.mounts {
                if let MountKind::Bind { from, .. } | MountKind::Cache(CacheMount { from, .. }) = &mut mount.kind {
                    file_step(from).into_iter().for_each(&mut *change);
                }
            }
        }
        Op::Copy(op) => {
            root_step(&mut op.parent).into_iter().for_each(&mut *change);
            for source in &mut op.sources {
                if let CopySourceOp::Path { from, .. } = source {
                    file_step(from).into_iter().for_each(&mut *change);
                }
            }
        }
    }
}

fn root_step(root: &mut RootInput) -> Option<&mut StepId> {
    match root {
        RootInput::Scratch => None,
        RootInput::Step(id) => Some(id),
    }
}

fn file_step(input: &mut FileInput) -> Option<&mut StepId> {
    match input {
        FileInput::Context(id) => Some(id),
        FileInput::Root(root) => root_step(root),
    }
}
