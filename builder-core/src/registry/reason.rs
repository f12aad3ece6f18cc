//! Why an exchange failed, in words that are said once.
//!
//! The HTTP library wraps the cause in layers that say "error sending request" each in its own way; what a user can act on
//! is the innermost.

use std::error::Error as StdError;
use std::io;

use hickory_resolver::net::NetError;

/// What lies at the bottom of a failed exchange.
#[derive(Debug)]
pub(super) enum Reason {
    /// The resolver answered that there is no such name. It will say so again.
    NoSuchName,
    /// The other side is not believed, or does not speak TLS.
    Tls(rustls::Error),
    /// Anything else, which may pass.
    Words(String),
}

/// Finds the reason among the causes of `error`.
pub(super) fn find(error: &(dyn StdError + 'static)) -> Reason {
    let mut innermost = error;
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<NetError>() {
            return unresolved(found);
        }
        match error.downcast_ref::<rustls::Error>() {
            // Bytes that changed on the way.
            None | Some(rustls::Error::DecryptError) => {}
            Some(found) => return Reason::Tls(found.clone()),
        }
        innermost = error;
        next = cause(error);
    }
    Reason::Words(innermost.to_string())
}

/// The next cause. An io::Error passes its payload's source on as its own and so hides the payload itself.
pub(super) fn cause<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e (dyn StdError + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(payload) => Some(payload),
        None => error.source(),
    }
}

fn unresolved(error: &NetError) -> Reason {
    if error.is_no_records_found() {
        return Reason::NoSuchName;
    }
    let why = match error {
        NetError::Timeout => "the DNS server does not answer".to_owned(),
        NetError::NoConnections => "no DNS server can be reached".to_owned(),
        NetError::Io(source) => format!("the DNS server cannot be asked: {source}"),
        NetError::Dns(source) => format!("the DNS server answers: {source}"),
        other => other.to_string(),
    };
    Reason::Words(format!("its name cannot be resolved: {why}"))
}

#[cfg(test)]
mod tests {
    use hickory_resolver::net::{DnsError, NoRecords};
    use hickory_resolver::proto::op::{Query, ResponseCode};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("error sending request")]
    struct Wrapped(#[source] Box<dyn StdError + Send + Sync>);

    fn words(reason: Reason) -> String {
        match reason {
            Reason::Words(words) => words,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_innermost_cause_is_said_and_nothing_of_the_wrapping() {
        let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        let error = Wrapped(Box::new(io::Error::other(Wrapped(Box::new(refused)))));
        assert_eq!(words(find(&error)), "Connection refused (os error 111)");
        let tls = io::Error::other(rustls::Error::HandshakeNotComplete);
        assert!(matches!(find(&Wrapped(tls.into())), Reason::Tls(rustls::Error::HandshakeNotComplete)));
        assert!(matches!(find(&rustls::Error::DecryptError), Reason::Words(_)), "a bad line, not a bad server");
    }

    #[test]
    fn a_name_that_does_not_exist_is_told_from_a_resolver_that_fails() {
        for code in [ResponseCode::NXDomain, ResponseCode::NoError] {
            let none = NoRecords::new(Query::default(), code);
            let error = Wrapped(Box::new(NetError::from(none)));
            assert!(matches!(find(&error), Reason::NoSuchName), "{code}");
        }
        let failed = NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail));
        for error in [NetError::Timeout, NetError::NoConnections, failed] {
            let words = words(find(&Wrapped(Box::new(error))));
            assert!(words.starts_with("its name cannot be resolved: "), "{words}");
        }
    }
}
