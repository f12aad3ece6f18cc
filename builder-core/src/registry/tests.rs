//! The client against a registry in this process, against TLS as people set it up, and against a real registry.

mod auth;
mod peer;
mod pull;
mod push;
mod tls;

#[path = "../../tests/support/registry.rs"]
#[allow(dead_code, reason = "the tests of the command use the rest")]
mod server;

use std::io::{self, Read};
use std::time::Duration;

use server::Registry;

use super::{Client, ClientConfig, Error, Reference, RetryPolicy, Timeouts};

/// Retries at once, and never waits long for anything.
fn config() -> ClientConfig {
    let retry = RetryPolicy {
        attempts: 4,
        first_delay: Duration::from_millis(1),
        max_delay: Duration::from_millis(2),
        max_retry_after: Duration::from_millis(10),
    };
    let timeouts = Timeouts { connect: Duration::from_secs(20), silence: Duration::from_secs(20) };
    ClientConfig { retry, timeouts, ..ClientConfig::default() }
}

fn client() -> Client {
    Client::new(config())
}

/// Names something at `registry`.
fn at(registry: &Registry, name: &str) -> Reference {
    format!("{}/{name}", registry.host()).parse().unwrap()
}

/// Reads a blob of `bytes` to its end.
fn fetch(client: &Client, reference: &Reference, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let digest = server::sha256(bytes).parse().unwrap();
    let mut reader = client.blob(reference, digest, bytes.len() as u64)?;
    let mut found = Vec::new();
    read_all(&mut reader, &mut found).map_err(|error| super::BlobReader::unwrap_error(error, "test"))?;
    Ok(found)
}

/// In small pieces, so that faults come in the middle.
fn read_all(reader: &mut impl Read, out: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 1000];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(()),
            n => out.extend_from_slice(&buffer[..n]),
        }
    }
}

/// Bytes that do not repeat.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
