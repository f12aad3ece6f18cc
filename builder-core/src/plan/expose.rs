//! Ports of `EXPOSE`: `[[IP:]HOST:]PORT[-PORT][/PROTO]`; what stands before the container's port is checked and
//! dropped, as an image cannot say it.

use std::net::IpAddr;

/// Returns every `port/proto` that `spec` names, in rising order.
///
/// # Errors
/// One phrase that says what is wrong with `spec`.
pub(super) fn parse(spec: &str) -> Result<Vec<String>, String> {
    let (host, container) = match spec.rsplit_once(':') {
        Some((host, container)) => (Some(host), container),
        None => (None, spec),
    };
    let (ports, proto) = split_proto(container)?;
    let (first, last) = range(ports).ok_or_else(|| format!("{ports:?} is not a port or a range of ports"))?;
    if let Some(host) = host {
        check_host(host, (first, last))?;
    }
    Ok((first..=last).map(|port| format!("{port}/{proto}")).collect())
}

fn split_proto(container: &str) -> Result<(&str, String), String> {
    let (ports, proto) = container.split_once('/').unwrap_or((container, "tcp"));
    let proto = if proto.is_empty() { "tcp".to_owned() } else { proto.to_lowercase() };
    match proto.as_str() {
        _ if ports.is_empty() => Err("there is no port".to_owned()),
        "tcp" | "udp" | "sctp" => Ok((ports, proto)),
        _ => Err(format!("{proto:?} is not a protocol")),
    }
}

fn check_host(host: &str, container: (u16, u16)) -> Result<(), String> {
    let (ip, ports) = match host.rsplit_once(':') {
        Some((ip, ports)) => (ip, ports),
        None => ("", host),
    };
    let ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    if !ip.is_empty() && ip.parse::<IpAddr>().is_err() {
        return Err(format!("{ip:?} is not an IP address"));
    }
    if ports.is_empty() {
        return Ok(());
    }
    let (first, last) = range(ports).ok_or_else(|| format!("{ports:?} is not a port or a range of ports"))?;
    // A range of host ports may stand for one container port: any of them.
    if last - first != container.1 - container.0 && container.0 != container.1 {
        return Err(format!(
            "the host has {} ports, the container {}",
            last - first + 1,
            container.1 - container.0 + 1
        ));
    }
    Ok(())
}

fn range(text: &str) -> Option<(u16, u16)> {
    let port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        for (spec, want) in [
            ("80", Ok("80/tcp")),
            ("80/", Ok("80/tcp")),
            ("53/UDP", Ok("53/udp")),
            ("1-3/sctp", Ok("1/sctp 2/sctp 3/sctp")),
            ("80:8080", Ok("8080/tcp")),
            ("127.0.0.1:80:8080/udp", Ok("8080/udp")),
            ("[::1]:80:8080", Ok("8080/tcp")),
            ("::1:80:8080", Ok("8080/tcp")),
            ("127.0.0.1::8080", Ok("8080/tcp")),
            ("8000-8010:80", Ok("80/tcp")),
            ("65535", Ok("65535/tcp")),
            ("http", Err("\"http\" is not a port or a range of ports")),
            ("65536", Err("\"65536\" is not a port or a range of ports")),
            ("3-1", Err("\"3-1\" is not a port or a range of ports")),
            ("1-2-3", Err("\"1-2-3\" is not a port or a range of ports")),
            ("+1", Err("\"+1\" is not a port or a range of ports")),
            ("80/foo", Err("\"foo\" is not a protocol")),
            ("/tcp", Err("there is no port")),
            ("", Err("there is no port")),
            ("host:80:80", Err("\"host\" is not an IP address")),
            ("1-3:1-2", Err("the host has 3 ports, the container 2")),
        ] {
            assert_eq!(
                parse(spec).map(|ports| ports.join(" ")),
                want.map(str::to_owned).map_err(str::to_owned),
                "{spec}"
            );
        }
    }
}
