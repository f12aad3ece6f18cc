//! What differs between two keys of the same step, in words.

use std::collections::{BTreeMap, BTreeSet};

use super::Change;

/// Parts that stand for the files of a `COPY`: which file differs is told by whoever has both trees.
pub(crate) const FILES_PARTS: [&str; 2] = ["entries", "content"];

/// What long values are kept as starts like this; it says nothing and is never shown.
const HIDDEN: &str = "blake3:";
/// Longer values are cut where they are shown in a sentence.
const SHOWN: usize = 60;

/// Values of each name in order; a name may come several times.
type Values<'a> = BTreeMap<&'a str, Vec<&'a str>>;

/// Returns what differs, in the order of the parts of the key now, followed by what is gone. Empty only for equal parts.
/// `build_args` are the names that the caller gave values to.
pub(crate) fn changed_parts(
    before: &[(String, String)],
    now: &[(String, String)],
    build_args: &BTreeSet<String>,
) -> Vec<Change> {
    let (old, new) = (values(before), values(now));
    let mut order: Vec<&str> = Vec::new();
    for (name, _) in now.iter().chain(before) {
        if !order.contains(&name.as_str()) {
            order.push(name);
        }
    }
    let empty = Vec::new();
    let differing = order.into_iter().filter_map(|name| {
        let (old, new) = (old.get(name).unwrap_or(&empty), new.get(name).unwrap_or(&empty));
        (old != new).then(|| change(name, old, new, build_args))
    });
    let mut changes: Vec<Change> = differing.collect();
    if changes.is_empty() && before != now {
        changes.push(Change::new("order", "the same inputs in another order"));
    }
    changes
}

fn values(parts: &[(String, String)]) -> Values<'_> {
    let mut values = Values::new();
    for (name, value) in parts {
        values.entry(name).or_default().push(value);
    }
    values
}

fn change(name: &str, old: &[&str], new: &[&str], build_args: &BTreeSet<String>) -> Change {
    let join = |values: &[&str]| (!values.is_empty()).then(|| values.join(" "));
    let (before, after) = match first_difference(old, new) {
        Some((old, new)) => (Some(old.to_owned()), Some(new.to_owned())),
        None => (join(old), join(new)),
    };
    if name.strip_prefix("env ").is_some_and(sounds_secret) {
        let text = sentence(name, Some(HIDDEN), Some(HIDDEN), build_args);
        return Change::new(name, text);
    }
    let text = sentence(name, before.as_deref(), after.as_deref(), build_args);
    Change { part: name.to_owned(), text, before, after }
}

/// Whether a variable has a name as secrets have. No secret belongs into one, but where one is, it is not shown.
fn sounds_secret(variable: &str) -> bool {
    const WORDS: [&str; 10] =
        ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
    let lower = variable.to_ascii_lowercase();
    lower.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| WORDS.contains(&word))
}

/// Of two lists of one length, the values that differ first.
fn first_difference<'a>(old: &[&'a str], new: &[&'a str]) -> Option<(&'a str, &'a str)> {
    if old.len() != new.len() {
        return None;
    }
    old.iter().zip(new).find(|(old, new)| old != new).map(|(old, new)| (*old, *new))
}

fn sentence(name: &str, before: Option<&str>, after: Option<&str>, build_args: &BTreeSet<String>) -> String {
    if let Some(variable) = name.strip_prefix("env ") {
        let kind = if build_args.contains(variable) { "build arg" } else { "variable" };
        return from_to(&format!("{kind} {variable}"), before, after);
    }
    if let Some(target) = name.strip_prefix("mounted at ") {
        return match (before, after) {
            (Some(_), None) => format!("nothing is mounted at {target} any more"),
            (None, _) => format!("something is mounted at {target} now"),
            _ => format!("what is mounted at {target} changed"),
        };
    }
    if let Some(target) = name.strip_prefix("mount ") {
        return from_to(&format!("the mount at {target}"), before, after);
    }
    match name {
        "file system" => "the file system that it starts from changed".to_owned(),
        "script" => "the script changed".to_owned(),
        "entries" | "content" => "the files that it writes changed".to_owned(),
        "form" => from_to("form of the command", before, after),
        "done before" => "the same command with the same cache mount stands before it more or less often".to_owned(),
        "SOURCE_DATE_EPOCH" => from_to(name, before.filter(|v| !v.is_empty()), after.filter(|v| !v.is_empty())),
        _ => from_to(name, before, after),
    }
}

/// `subject: "a" → "b"`; hashes of long values say nothing and are left out.
fn from_to(subject: &str, before: Option<&str>, after: Option<&str>) -> String {
    let is_hash = |value: Option<&str>| value.is_some_and(|value| value.starts_with(HIDDEN));
    match (before, after) {
        _ if is_hash(before) || is_hash(after) => format!("{subject} changed"),
        (Some(before), Some(after)) if is_plain(before) && is_plain(after) => format!("{subject}: {before} → {after}"),
        (Some(before), Some(after)) => {
            let (before, after) = cut_alike(before, after);
            format!("{subject}: {before} → {after}")
        }
        (None, Some(after)) => format!("{subject}: not set → {}", one(after)),
        (Some(before), None) => format!("{subject}: {} → not set", one(before)),
        (None, None) => format!("{subject} changed"),
    }
}

/// Whether a value can stand in a sentence without quotes.
fn is_plain(value: &str) -> bool {
    (1..=SHOWN).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic() && b != b'"')
}

fn one(value: &str) -> String {
    if is_plain(value) { value.to_owned() } else { cut(value, 0) }
}

/// Quotes two values; of long ones what is around the first difference.
fn cut_alike(before: &str, after: &str) -> (String, String) {
    let alike = before.chars().zip(after.chars()).take_while(|(a, b)| a == b).count();
    let is_long = before.chars().count().max(after.chars().count()) > SHOWN;
    let from = if is_long { alike.saturating_sub(SHOWN / 3) } else { 0 };
    (cut(before, from), cut(after, from))
}

/// Quotes `text` from character `from` on, with dots where something is left out.
fn cut(text: &str, from: usize) -> String {
    let kept: String = text.chars().skip(from).take(SHOWN).collect();
    let head = if from > 0 { "…" } else { "" };
    let tail = if text.chars().count() > from + SHOWN { "…" } else { "" };
    format!("{:?}", format!("{head}{kept}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(before: &[(&str, &str)], now: &[(&str, &str)]) -> Vec<String> {
        let own = |parts: &[(&str, &str)]| -> Vec<_> {
            parts.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let args = BTreeSet::from(["VERSION".to_owned()]);
        changed_parts(&own(before), &own(now), &args).into_iter().map(|change| change.text).collect()
    }

    #[test]
    fn equal_keys_differ_in_nothing() {
        assert!(texts(&[("a", "1"), ("a", "2")], &[("a", "1"), ("a", "2")]).is_empty());
    }

    #[test]
    fn each_part_has_its_words() {
        for (before, now, expected) in [
            (&[("env VERSION", "1")][..], &[("env VERSION", "2")][..], "build arg VERSION: 1 → 2"),
            (&[("env CC", "gcc")], &[("env CC", "clang")], "variable CC: gcc → clang"),
            (&[], &[("env CC", "clang")], "variable CC: not set → clang"),
            (&[("env CC", "gcc")], &[], "variable CC: gcc → not set"),
            (&[("SOURCE_DATE_EPOCH", "")], &[("SOURCE_DATE_EPOCH", "5")], "SOURCE_DATE_EPOCH: not set → 5"),
            (&[("script", "blake3:00")], &[("script", "x")], "the script changed"),
            (&[("env A", "blake3:00")], &[("env A", "x")], "variable A changed"),
            (&[("mounted at /src", "1")], &[("mounted at /src", "2")], "what is mounted at /src changed"),
            (&[("env NPM_TOKEN", "abc")], &[("env NPM_TOKEN", "def")], "variable NPM_TOKEN changed"),
            (&[("user", "")], &[("user", "app")], "user: \"\" → \"app\""),
            (&[("a", "1"), ("b", "2")], &[("b", "2"), ("a", "1")], "the same inputs in another order"),
        ] {
            assert_eq!(texts(before, now), [expected]);
        }
    }

    #[test]
    fn of_a_command_the_argument_that_differs_is_shown() {
        let command = |text| [("command", "/bin/sh"), ("command", "-c"), ("command", text)];
        assert_eq!(texts(&command("make"), &command("make -j")), ["command: \"make\" → \"make -j\""]);
        let (long, longer) = (format!("{} && a", "x".repeat(500)), format!("{} && b", "x".repeat(500)));
        let text = &texts(&command(&long), &command(&longer))[0];
        assert!(text.contains("&& a\" → ") && text.ends_with("&& b\"") && text.len() < 120, "{text}");
        assert_eq!(texts(&command("x")[..1], &command("x")[..2]), ["command: \"/bin/sh\" → \"/bin/sh -c\""]);
    }

    #[test]
    fn the_first_part_of_the_key_comes_first_and_what_is_gone_last() {
        let before = [("file system", "a"), ("env GONE", "1"), ("env B", "1")];
        let now = [("file system", "b"), ("env B", "2")];
        let texts = texts(&before, &now);
        assert_eq!(texts.len(), 3);
        assert!(texts[0].starts_with("the file system") && texts[2].contains("GONE"), "{texts:?}");
    }
}
