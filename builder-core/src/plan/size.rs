//! `size` of a tmpfs mount: `64`, `64k`, `1.5GiB`; all units are powers of 1024.

/// Parses `text` into bytes; `None` if it is not a size or does not fit.
pub(super) fn parse(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let shift = match unit.as_str() {
        "" | "b" | "i" | "ib" => 0,
        _ => {
            let letter = unit.chars().next()?;
            if !matches!(&unit[letter.len_utf8()..], "" | "b" | "i" | "ib") {
                return None;
            }
            10 * (1 + "kmgtp".find(letter)?)
        }
    };
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || decimals.contains('.') || number.ends_with('.') || decimals.len() > 18 {
        return None;
    }
    let unit = 1u128 << shift;
    let part = if decimals.is_empty() { 0 } else { decimals.parse::<u128>().ok()? };
    let scale = 10u128.pow(u32::try_from(decimals.len()).ok()?);
    let bytes = whole.parse::<u64>().ok().map(u128::from)?.checked_mul(unit)? + part * unit / scale;
    i64::try_from(bytes).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, want) in [
            ("0", Some(0)),
            ("64", Some(64)),
            ("64b", Some(64)),
            ("1k", Some(1024)),
            ("1KB", Some(1024)),
            ("1.5 GiB", Some(1_610_612_736)),
            ("0.1k", Some(102)),
            ("8191p", Some(8191 << 50)),
            ("9000p", None),
            ("", None),
            ("k", None),
            ("1x", None),
            ("1kk", None),
            ("1..5k", None),
            ("1.", None),
            ("-1", None),
            ("1é", None),
        ] {
            assert_eq!(parse(text), want, "{text}");
        }
    }
}
