//! Which step of an earlier build is the same as one of this build.

use std::collections::BTreeMap;

use crate::event::StepInfo;

/// Returns for each step of `now` the number of the same step in `earlier`, if there was one.
///
/// Steps are the same when they have the same text in the same stage; the second of two with one text is the second
/// again. What is left over is the same as what is left over right behind the same step, if it is the same kind of
/// instruction: that one was edited. Then the stage no longer counts: it may have got another name or number.
pub(crate) fn pair(earlier: &[&StepInfo], now: &[&StepInfo]) -> Vec<Option<usize>> {
    let mut pairs = vec![None; now.len()];
    let mut by_text: BTreeMap<(Option<&str>, &str), Vec<usize>> = BTreeMap::new();
    for (at, info) in earlier.iter().enumerate().rev() {
        by_text.entry((info.stage.as_deref(), text(info))).or_default().push(at);
    }
    for (at, info) in now.iter().enumerate() {
        pairs[at] = by_text.get_mut(&(info.stage.as_deref(), text(info))).and_then(Vec::pop);
    }
    for stage in stages(now) {
        pair_edited(&of_stage(earlier, stage), &of_stage(now, stage), earlier, now, &mut pairs);
    }
    for at in 0..now.len() {
        let free = |candidate: &usize| !pairs.contains(&Some(*candidate));
        let same = |candidate: &usize| text(earlier[*candidate]) == text(now[at]) && free(candidate);
        if pairs[at].is_none() {
            pairs[at] = (0..earlier.len()).find(same);
        }
    }
    pairs
}

/// Pairs what no text paired. `old` and `new` are the steps of one stage in both.
fn pair_edited(old: &[usize], new: &[usize], earlier: &[&StepInfo], now: &[&StepInfo], pairs: &mut [Option<usize>]) {
    let mut next = 0;
    for at in new {
        if let Some(found) = pairs[*at] {
            next = old.iter().position(|candidate| *candidate == found).map_or(next, |place| place + 1);
            continue;
        }
        let Some(candidate) = old.get(next).copied() else { continue };
        let is_free = !pairs.contains(&Some(candidate));
        if is_free && keyword(text(earlier[candidate])) == keyword(text(now[*at])) {
            pairs[*at] = Some(candidate);
            next += 1;
        }
    }
}

/// The stages of `steps`, each once; steps outside of all stages are one of them.
fn stages<'a>(steps: &[&'a StepInfo]) -> Vec<Option<&'a str>> {
    let mut found: Vec<Option<&str>> = steps.iter().map(|info| info.stage.as_deref()).collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn of_stage(steps: &[&StepInfo], stage: Option<&str>) -> Vec<usize> {
    let is_in = |(_, info): &(usize, &&StepInfo)| info.stage.as_deref() == stage;
    steps.iter().enumerate().filter(is_in).map(|(at, _)| at).collect()
}

/// The instruction behind `[build 2/5] `.
fn text(info: &StepInfo) -> &str {
    match info.stage {
        Some(_) => info.name.split_once("] ").map_or(info.name.as_str(), |(_, text)| text),
        None => &info.name,
    }
}

fn keyword(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::StepId;

    fn infos(texts: &[&str]) -> Vec<StepInfo> {
        let total = texts.len();
        let info = |(at, text): (usize, &&str)| {
            let (stage, text) = text.split_once(": ").unwrap_or(("0", text));
            let name = format!("[{stage} {}/{total}] {text}", at + 1);
            StepInfo { step: StepId(at), name, stage: Some(stage.to_owned()), line: None }
        };
        texts.iter().enumerate().map(info).collect()
    }

    fn paired(earlier: &[&str], now: &[&str]) -> Vec<Option<usize>> {
        let (earlier, now) = (infos(earlier), infos(now));
        pair(&earlier.iter().collect::<Vec<_>>(), &now.iter().collect::<Vec<_>>())
    }

    #[test]
    fn the_same_text_is_the_same_step_wherever_it_moved() {
        assert_eq!(paired(&["FROM a", "RUN x"], &["FROM a", "COPY y /", "RUN x"]), [Some(0), None, Some(1)]);
        assert_eq!(paired(&["RUN x", "RUN x"], &["RUN x", "RUN x", "RUN x"]), [Some(0), Some(1), None]);
        assert_eq!(paired(&["RUN a", "RUN b"], &["RUN b", "RUN a"]), [Some(1), Some(0)]);
    }

    #[test]
    fn an_edited_instruction_is_the_one_at_its_place() {
        assert_eq!(paired(&["FROM a", "RUN x", "RUN z"], &["FROM a", "RUN y", "RUN z"]), [Some(0), Some(1), Some(2)]);
        assert_eq!(paired(&["FROM a@1", "RUN x"], &["FROM a@2", "RUN x"]), [Some(0), Some(1)]);
        assert_eq!(paired(&["RUN a", "RUN b"], &["RUN c", "RUN d"]), [Some(0), Some(1)]);
        assert_eq!(paired(&["FROM a", "COPY x /"], &["FROM a", "RUN x"]), [Some(0), None], "another instruction");
        assert_eq!(paired(&["FROM a", "RUN z"], &["FROM a", "RUN y", "RUN z"]), [Some(0), None, Some(1)], "a new one");
    }

    #[test]
    fn stages_are_apart() {
        assert_eq!(paired(&["a: RUN x", "b: RUN y"], &["b: RUN x", "a: RUN y"]), [Some(1), Some(0)], "edited, both");
        assert_eq!(paired(&["a: RUN x"], &["a: RUN x", "b: RUN x"]), [Some(0), None], "a copy is new");
        assert_eq!(paired(&["a: RUN x", "a: RUN y"], &["b: RUN x", "b: RUN y"]), [Some(0), Some(1)], "renamed");
        assert_eq!(paired(&["a: RUN x"], &["b: RUN z"]), [None]);
    }
}
