//! Did-you-mean: the candidate with the smallest edit distance, if that is small enough to be a slip of the finger.

/// Returns the candidate that `word` is most likely a misspelling of, ignoring case: at most one edit away for words of
/// up to two characters, two for words of up to eight, three for longer ones, and at least half of it right. An edit is
/// an insertion, a deletion, a substitution or a swap of neighbours. Of several equally near, the first wins; `None` if
/// all are too far.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = fold(word);
    let limit = match word.len() {
        0..=2 => 1,
        3..=8 => 2,
        _ => 3,
    };
    let near = candidates.into_iter().map(|candidate| (distance(&word, &fold(candidate)), candidate));
    // Replacing most characters is a guess, not a correction.
    let near =
        near.filter(|&(edits, candidate)| edits <= limit && edits * 2 <= candidate.chars().count().max(word.len()));
    near.min_by_key(|&(edits, _)| edits).map(|(_, candidate)| candidate)
}

fn fold(word: &str) -> Vec<char> {
    word.chars().flat_map(char::to_lowercase).collect()
}

/// Optimal string alignment distance.
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before_last: Vec<usize> = vec![];
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (row, &a) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, &b) in right.iter().enumerate() {
            let substituted = last[column] + usize::from(a != b);
            let mut best = substituted.min(last[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && a == right[column - 1] && left[row - 1] == b {
                best = best.min(before_last[column - 1] + 1);
            }
            current.push(best);
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last[right.len()]
}
