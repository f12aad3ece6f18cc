//! Names of signals for `STOPSIGNAL`; Linux ones, since that is where the image will run.

const NAMES: [&str; 34] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
    "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1",
    "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// Returns whether `text` is a signal: a number above 0, or a name in any case with or without `SIG`, real-time ones
/// as `RTMIN`, `RTMIN+1`…`RTMIN+15`, `RTMAX-14`…`RTMAX-1`, `RTMAX`.
pub(super) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<u32>() {
        return number > 0;
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |prefix: &str, most: u32| {
        let rest = name.strip_prefix(prefix)?;
        (!rest.starts_with(['0', '+'])).then(|| rest.parse::<u32>().is_ok_and(|n| (1..=most).contains(&n)))
    };
    NAMES.contains(&name)
        || matches!(name, "RTMIN" | "RTMAX")
        || offset("RTMIN+", 15) == Some(true)
        || offset("RTMAX-", 14) == Some(true)
}

/// Returns the names without `SIG`, for suggestions.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    NAMES.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for text in ["SIGTERM", "term", "9", "SIGRTMIN+3", "RTMAX-14", "rtmin", "SIGCLD"] {
            assert!(is_signal(text), "{text}");
        }
        for text in ["0", "-1", "SIGFOO", "", "SIG", "RTMIN+16", "RTMAX-15", "RTMIN+0", "RTMIN++1", "SIGSIGTERM"] {
            assert!(!is_signal(text), "{text}");
        }
    }
}
