//! Options that say what every `RUN` gets: hosts, `/dev/shm`, limits; and those that only other builders have.

use std::net::{IpAddr, Ipv4Addr};

use builder_core::{ExtraHost, LimitedResource, Ulimit};

/// The address that `host-gateway` stands for. Commands have the network of this machine, so it is itself.
const HOST_GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// `NAME:ADDRESS` or `NAME=ADDRESS`, an IPv6 address also in brackets.
pub(crate) fn extra_host(text: &str) -> Result<ExtraHost, String> {
    let (name, address) =
        text.split_once('=').or_else(|| text.split_once(':')).ok_or("want NAME:ADDRESS or NAME=ADDRESS")?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_name) {
        return Err(format!("{name:?} is not the name of a host"));
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let address = match bare {
        "host-gateway" => HOST_GATEWAY,
        _ => bare.parse().map_err(|_| format!("{address:?} is not an IP address"))?,
    };
    Ok(ExtraHost { name: name.to_owned(), address })
}

/// A number of bytes with a binary unit, as `docker build` takes it here: `64m`, `1g`.
pub(crate) fn binary_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        unit => return Err(format!("unknown unit {unit:?}")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is not a size"))?;
    match number.checked_mul(1 << shift) {
        Some(0) => Err("nothing would fit".to_owned()),
        Some(bytes) => Ok(bytes),
        None => Err(format!("{text:?} is too large")),
    }
}

/// `NAME=SOFT[:HARD]`; without a hard limit it is the soft one, and -1 or `unlimited` is none.
pub(crate) fn ulimit(text: &str) -> Result<Ulimit, String> {
    let (name, limits) = text.split_once('=').ok_or("want NAME=SOFT[:HARD]")?;
    let known = LimitedResource::ALL.iter().find(|(known, _)| *known == name);
    let Some((_, resource)) = known else {
        let names = LimitedResource::ALL.map(|(name, _)| name).join(", ");
        return Err(format!("{name:?} cannot be limited, these can: {names}"));
    };
    let limit = |text: &str| match text {
        "-1" | "unlimited" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| format!("{text:?} is not a limit")),
    };
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard): (Option<u64>, Option<u64>) = (limit(soft)?, limit(hard)?);
    if hard.is_some_and(|hard| soft.is_none_or(|soft| soft > hard)) {
        return Err("the soft limit is above the hard one".to_owned());
    }
    Ok(Ulimit { resource: *resource, soft, hard })
}

/// `false`, which is what is done: attestations are not made.
pub(crate) fn no_attestation(text: &str) -> Result<(), String> {
    match text {
        "false" | "0" => Ok(()),
        _ => Err("no attestations are made: leave it out, or say false".to_owned()),
    }
}

/// There is none to load an image into.
pub(crate) fn no_daemon(_: &str) -> Result<(), String> {
    Err("there is no daemon here: builder build --output type=docker,dest=- … | docker load".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (text, name, address) in [
            ("a:10.0.0.1", "a", "10.0.0.1"),
            ("b.example=::1", "b.example", "::1"),
            ("c:[2001:db8::1]", "c", "2001:db8::1"),
            ("d:2001:db8::1", "d", "2001:db8::1"),
            ("gate:host-gateway", "gate", "127.0.0.1"),
        ] {
            let expected = ExtraHost { name: name.to_owned(), address: address.parse().unwrap() };
            assert_eq!(extra_host(text), Ok(expected), "{text}");
        }
        for bad in ["", "a", "a:", ":1.2.3.4", "a:b", "a b:1.2.3.4", "a\n1.2.3.4 b:1.2.3.4"] {
            assert!(extra_host(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("64m", 64 << 20), ("1g", 1 << 30), ("512", 512), ("3KiB", 3 << 10)] {
            assert_eq!(binary_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "0", "m", "1x", "99999999999g"] {
            assert!(binary_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits() {
        let limit = |soft, hard| Ok(Ulimit { resource: LimitedResource::Nofile, soft, hard });
        assert_eq!(ulimit("nofile=64"), limit(Some(64), Some(64)));
        assert_eq!(ulimit("nofile=64:128"), limit(Some(64), Some(128)));
        assert_eq!(ulimit("nofile=64:-1"), limit(Some(64), None));
        assert_eq!(ulimit("nofile=unlimited"), limit(None, None));
        for bad in ["nofile", "nofile=", "nofile=2:1", "nofile=-1:1", "files=1", "nofile=-2"] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
    }
}
