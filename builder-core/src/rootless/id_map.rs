//! Id maps of user namespaces and the subordinate ids of a user: parsing, and which map a build process gets.
//!
//! Pure: text in, maps out. Two plans exist. Root (with the capabilities) maps every id its own namespace has onto
//! itself. A user maps 0 onto its own id and 1, 2, … onto its subordinate ids, in the order of the file.
//! Formats: `user_namespaces(7)`, `subuid(5)`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kernel takes no more lines in one map (Linux 4.15; 5 before that).
const MAX_RANGES: usize = 340;

/// Ids `inside..inside + count` of a user namespace are `outside..outside + count` of its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// First id in the namespace.
    pub inside: u32,
    /// First id in the parent.
    pub outside: u32,
    /// How many; at least 1.
    pub count: u32,
}

/// An id map as in `/proc/PID/uid_map`. Ranges do not overlap on either side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdMap(Vec<IdRange>);

impl IdMap {
    /// Reads the kernel's text; `None` when it is not three numbers a line.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        text.lines().map(parse_range).collect::<Option<Vec<_>>>().map(Self)
    }

    /// Every id of the namespace that this map describes, onto itself: the map for a child of that namespace. Line by
    /// line, because a range of the child must lie in one range of the parent.
    pub(crate) fn identity(&self) -> Self {
        Self(self.0.iter().map(|range| IdRange { outside: range.inside, ..*range }).collect())
    }

    /// 0 onto `own`, and 1, 2, … onto `subordinate`, as far as `self`, the map of the current namespace, has them.
    /// Ids that come twice, and `own` itself, are used once.
    pub(crate) fn with_subordinate(&self, own: u32, subordinate: &[SubordinateRange]) -> Self {
        let mut ranges = vec![IdRange { inside: 0, outside: own, count: 1 }];
        let mut next: u32 = 1;
        for span in subordinate.iter().flat_map(|range| self.parts_inside(Span::of(*range))) {
            for free in without_taken(span, &ranges) {
                let count = free.len().min(u32::MAX - next);
                if count > 0 && ranges.len() < MAX_RANGES {
                    ranges.push(IdRange { inside: next, outside: free.first, count });
                    next += count;
                }
            }
        }
        Self(ranges)
    }

    /// The ranges, in the order of their ids inside.
    pub fn ranges(&self) -> &[IdRange] {
        &self.0
    }

    /// How many ids the namespace has.
    pub fn id_count(&self) -> u64 {
        self.0.iter().map(|range| u64::from(range.count)).sum()
    }

    /// What id of the namespace is called in its parent.
    pub fn outside_of(&self, inside: u32) -> Option<u32> {
        self.0.iter().find_map(|range| {
            let offset = inside.checked_sub(range.inside)?;
            (offset < range.count).then(|| range.outside + offset)
        })
    }

    /// The pieces of `span` that the namespace has ids for, each in one range.
    fn parts_inside(&self, span: Span) -> impl Iterator<Item = Span> {
        self.0.iter().filter_map(move |range| Span::new(range.inside, range.count).intersection(span))
    }
}

impl fmt::Display for IdMap {
    /// The text that the kernel takes: one range a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|range| writeln!(f, "{} {} {}", range.inside, range.outside, range.count))
    }
}

fn parse_range(line: &str) -> Option<IdRange> {
    let mut numbers = line.split_ascii_whitespace().map(|word| word.parse().ok());
    let range = IdRange { inside: numbers.next()??, outside: numbers.next()??, count: numbers.next()?? };
    numbers.next().is_none().then_some(range)
}

/// A line of `/etc/subuid` or `/etc/subgid` that is the user's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubordinateRange {
    /// First id.
    pub first: u32,
    /// How many; at least 1.
    pub count: u32,
}

/// The ranges that a file gives to a user, by name or by number, in the order of the file. Lines that are not
/// `owner:first:count` are passed over, as shadow does.
pub(crate) fn subordinate_ranges(text: &str, name: Option<&str>, uid: u32) -> Vec<SubordinateRange> {
    let is_owner = |owner: &str| Some(owner) == name || owner.parse() == Ok(uid);
    parse_lines(text).filter(|(owner, _)| is_owner(owner)).map(|(_, range)| range).collect()
}

/// The ranges in what `getsubids` prints: `0: ann 100000 65536`, one a line.
pub(crate) fn listed_ranges(text: &str) -> Vec<SubordinateRange> {
    let range = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(2);
        let (first, count) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        subordinate_range(first, count)
    };
    text.lines().filter_map(range).collect()
}

/// First id of 65,536 that no line of the files uses, from 100,000 on: what a new line may say.
pub(crate) fn free_subordinate_start(texts: &[&str]) -> u32 {
    const FIRST: u32 = 100_000;
    let end = |range: SubordinateRange| range.first.saturating_add(range.count);
    let ends = texts.iter().flat_map(|text| parse_lines(text)).map(|(_, range)| end(range));
    ends.max().unwrap_or(FIRST).max(FIRST)
}

fn parse_lines(text: &str) -> impl Iterator<Item = (&str, SubordinateRange)> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let first: u32 = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        let is_whole = fields.next().is_none();
        subordinate_range(first, count).filter(|_| is_whole).map(|range| (owner, range))
    })
}

/// A range, cut at the largest id there is; `None` when nothing of it is left.
fn subordinate_range(first: u32, count: u32) -> Option<SubordinateRange> {
    let count = count.min(u32::MAX - first);
    (count > 0).then_some(SubordinateRange { first, count })
}

/// Ids `first..=last`; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    first: u32,
    last: u32,
}

impl Span {
    fn new(first: u32, count: u32) -> Self {
        Self { first, last: first.saturating_add(count.saturating_sub(1)) }
    }

    fn of(range: SubordinateRange) -> Self {
        Self::new(range.first, range.count)
    }

    fn len(self) -> u32 {
        (self.last - self.first).saturating_add(1)
    }

    fn intersection(self, other: Self) -> Option<Self> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (first <= last).then_some(Self { first, last })
    }

    /// What is left without `taken`: nothing, one or two spans.
    fn minus(self, taken: Self) -> impl Iterator<Item = Self> {
        let below = taken.first.checked_sub(1).map(|last| Self { first: self.first, last: self.last.min(last) });
        let above = taken.last.checked_add(1).map(|first| Self { first: self.first.max(first), last: self.last });
        below.into_iter().chain(above).filter(|span| span.first <= span.last)
    }
}

/// The pieces of `span` that no range uses outside.
fn without_taken(span: Span, ranges: &[IdRange]) -> Vec<Span> {
    let mut free = vec![span];
    for range in ranges {
        let taken = Span::new(range.outside, range.count);
        free = free.into_iter().flat_map(|part| part.minus(taken)).collect();
    }
    free
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WHOLE: &str = "         0          0 4294967295\n";

    fn map(text: &str) -> IdMap {
        IdMap::parse(text).expect("valid map")
    }

    fn subordinate(first: u32, count: u32) -> SubordinateRange {
        SubordinateRange { first, count }
    }

    #[test]
    fn kernel_text_is_read_and_written() {
        let parsed = map("         0       1000          1\n         1     100000      65536\n");
        assert_eq!(parsed.to_string(), "0 1000 1\n1 100000 65536\n");
        assert_eq!(parsed.id_count(), 65537);
        assert_eq!(
            [0, 1, 65536, 65537].map(|id| parsed.outside_of(id)),
            [Some(1000), Some(100_000), Some(165_535), None]
        );
        assert_eq!(map(""), IdMap::default(), "a namespace without a map has no ids");
        for bad in ["0 0", "0 0 1 2", "a b c", "0 0 -1"] {
            assert_eq!(IdMap::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn root_maps_every_id_it_has_onto_itself() {
        assert_eq!(map(WHOLE).identity().to_string(), "0 0 4294967295\n");
        let container = map("0 1000 1\n1 100000 65536\n");
        assert_eq!(container.identity().to_string(), "0 0 1\n1 1 65536\n", "one line a line: never merged");
    }

    #[test]
    fn a_user_maps_0_onto_itself_and_the_rest_onto_subordinate_ids() {
        let cases: [(&str, &[SubordinateRange], &str); 7] = [
            (WHOLE, &[subordinate(100_000, 65536)], "0 1000 1\n1 100000 65536\n"),
            (WHOLE, &[], "0 1000 1\n"),
            (WHOLE, &[subordinate(100_000, 10), subordinate(200_000, 5)], "0 1000 1\n1 100000 10\n11 200000 5\n"),
            (WHOLE, &[subordinate(100_000, 10), subordinate(100_000, 10)], "0 1000 1\n1 100000 10\n"),
            (
                WHOLE,
                &[subordinate(100_000, 10), subordinate(99_995, 20)],
                "0 1000 1\n1 100000 10\n11 99995 5\n16 100010 5\n",
            ),
            (WHOLE, &[subordinate(998, 5)], "0 1000 1\n1 998 2\n3 1001 2\n"),
            ("0 0 1000\n1000 5000 1\n2000 6000 10\n", &[subordinate(995, 1010)], "0 1000 1\n1 995 5\n6 2000 5\n"),
        ];
        for (current, ranges, expected) in cases {
            assert_eq!(map(current).with_subordinate(1000, ranges).to_string(), expected, "{current:?} {ranges:?}");
        }
    }

    #[test]
    fn files_are_searched_by_name_and_number() {
        let text = "root:100000:65536\nann:165536:65536\n# ann:1:1\nann:x:1\nann:1\n\n1000:300000:1000\nann:400000:0\nann:4294967290:100\n";
        let found = subordinate_ranges(text, Some("ann"), 1000);
        assert_eq!(
            found,
            [subordinate(165_536, 65536), subordinate(300_000, 1000), subordinate(4_294_967_290, 5)],
            "the last is cut at the largest id there is"
        );
        assert_eq!(subordinate_ranges(text, None, 1000), [subordinate(300_000, 1000)]);
        assert_eq!(subordinate_ranges(text, Some("bob"), 7), []);
    }

    #[test]
    fn ranges_of_a_directory_service_are_read() {
        let text = "0: ann 100000 65536\n1: ann 2147483648 65536\n";
        assert_eq!(listed_ranges(text), [subordinate(100_000, 65536), subordinate(2_147_483_648, 65536)]);
        assert_eq!(listed_ranges("Error fetching ranges\n"), []);
    }

    #[test]
    fn a_proposed_range_is_nobody_elses() {
        assert_eq!(free_subordinate_start(&["", ""]), 100_000);
        assert_eq!(free_subordinate_start(&["a:100000:65536\n", "b:200000:65536\n"]), 265_536);
        assert_eq!(free_subordinate_start(&["a:1:5\n"]), 100_000);
    }

    proptest! {
        #[test]
        fn planned_maps_never_overlap_and_stay_in_the_namespace(
            own in 0_u32..3000,
            ranges in prop::collection::vec((0_u32..3000, 1_u32..500), 0..8),
            parent in prop::collection::vec((0_u32..200, 1_u32..200), 1..6),
        ) {
            let mut text = String::new();
            let mut inside = 0;
            for (gap, count) in parent {
                inside += gap;
                text += &format!("{inside} {} {count}\n", inside + 10_000);
                inside += count;
            }
            let current = map(&text);
            let ranges: Vec<_> = ranges.into_iter().map(|(first, count)| subordinate(first, count)).collect();
            let planned = current.with_subordinate(own, &ranges);

            let mut outside = Vec::new();
            let mut next = 0;
            for range in planned.ranges() {
                prop_assert_eq!(range.inside, next, "ids inside have no gap");
                next += range.count;
                outside.extend(range.outside..range.outside + range.count);
            }
            for id in &outside[1..] {
                prop_assert!(current.outside_of(*id).is_some(), "{} is not in the namespace", id);
                prop_assert!(ranges.iter().any(|range| (range.first..range.first + range.count).contains(id)));
            }
            let all = outside.len();
            outside.sort_unstable();
            outside.dedup();
            prop_assert_eq!(outside.len(), all, "no id is used twice");
        }
    }
}
