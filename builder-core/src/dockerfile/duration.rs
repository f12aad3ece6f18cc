//! Durations as Go writes them: `1h30m`, `1.5s`, `100ms`.

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("{0:?} is not a duration")]
    Malformed(String),
    #[error("the duration {0:?} has no unit")]
    MissingUnit(String),
    #[error("{unit:?} is no unit of time")]
    UnknownUnit { unit: String },
    #[error("{0:?} is longer than 292 years")]
    TooLong(String),
}

const UNITS: &[(&str, u128)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Returns the nanoseconds, negative ones included.
pub(super) fn parse(text: &str) -> Result<i64, Error> {
    let malformed = || Error::Malformed(text.to_owned());
    let (rest, negative) = match text.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (text.strip_prefix('+').unwrap_or(text), false),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(malformed());
    }
    let mut total: u128 = 0;
    let mut rest = rest;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(malformed());
        }
        let length = after.find(|char: char| char == '.' || char.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(length);
        if unit.is_empty() {
            return Err(Error::MissingUnit(text.to_owned()));
        }
        let known = UNITS.iter().find(|(name, _)| *name == unit);
        let (_, scale) = known.ok_or_else(|| Error::UnknownUnit { unit: unit.to_owned() })?;
        total = part(whole, fraction, *scale)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(|| Error::TooLong(text.to_owned()))?;
        rest = after;
    }
    let nanoseconds = i64::try_from(total).map_err(|_| Error::TooLong(text.to_owned()))?;
    Ok(if negative { -nanoseconds } else { nanoseconds })
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len()))
}

/// `whole.fraction` of a unit; `None` if it is out of any range.
fn part(whole: &str, fraction: &str, scale: u128) -> Option<u128> {
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Digits below a nanosecond of the largest unit change nothing.
    let fraction = &fraction[..fraction.len().min(18)];
    let below = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    whole.checked_mul(scale)?.checked_add(part * scale / below)
}
