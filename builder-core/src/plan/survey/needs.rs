//! Names of stages, wherever they stand.

use super::scene::Scene;
use super::{Place, Surveyor};
use crate::diagnostic::{Diagnostic, Span, nearest};
use crate::lint::STAGE_NAME_TYPO;
use crate::plan::graph::ImageName;
use crate::plan::stages::FromName;

impl<'a> Surveyor<'a> {
    /// Takes note of what files come from.
    pub(super) fn needs(&mut self, scene: &mut Scene<'a>, place: Place<'a>, name: &str, span: Span) {
        let current = self.done.len();
        match self.stages.means(name, span, current) {
            Ok(FromName::Stage(stage)) if !scene.needs.contains(&stage) => scene.needs.push(stage),
            Ok(FromName::External(name)) => {
                let image = ImageName::Reference(name.clone());
                if self.subject.bases.config(&image, self.platform()).is_none() {
                    self.stage_typo(current, place, span, &name);
                }
            }
            // What is wrong with it is told by the plan.
            Ok(FromName::Stage(_)) | Err(_) => {}
        }
    }

    /// Reports a name of an image that nobody knows, if it is nearly that of a stage before `before`. That a stage adds
    /// something to the name of an image, or leaves something out, is usual: `FROM python AS python3`.
    pub(super) fn stage_typo(&mut self, before: usize, place: Place<'a>, span: Span, name: &str) {
        let is_image = name.contains(['/', ':', '@', '.']) || name == "scratch" || self.contexts.is_known(name);
        let names = self.stages.all[..before].iter().filter_map(|stage| stage.name);
        let near = nearest(name, names.map(|name| name.text.as_str()));
        let Some(near) = near.filter(|near| !is_image && !near.starts_with(name) && !name.starts_with(near)) else {
            return;
        };
        let message = format!("no stage is called {name:?}: it is taken for an image");
        let warning = Diagnostic::warning("", message).at(place.at(span));
        let warning = warning.with_hint(format!("did you mean the stage {near:?}?"));
        self.linter.report_as(&STAGE_NAME_TYPO, place.instruction, warning);
    }
}
