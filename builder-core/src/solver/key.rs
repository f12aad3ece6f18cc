//! Cache keys: one typed, length-framed, domain-separated hash over the resolved inputs of a step.
//!
//! What is in and what is not, for every kind of step, stands in the table of `worker/key.rs`, beside the code that
//! fills it. Framing: each part is `len(name) name len(value) value` with 64-bit lengths, so no two lists of parts
//! have one encoding; the domain names the kind of step and the version of its semantics.

use crate::digest::{CacheKey, hex};

/// The named inputs of a step, in a fixed order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyParts {
    domain: &'static str,
    parts: Vec<(String, Vec<u8>)>,
}

impl KeyParts {
    /// Starts the key of a kind of step; `domain` changes whenever the meaning of its parts does.
    pub(crate) fn new(domain: &'static str) -> Self {
        Self { domain, parts: Vec::new() }
    }

    /// Adds an input. The order of calls is part of the key.
    pub(crate) fn add(&mut self, name: impl Into<String>, value: impl AsRef<[u8]>) {
        self.parts.push((name.into(), value.as_ref().to_vec()));
    }

    /// Returns the key.
    pub(crate) fn key(&self) -> CacheKey {
        let mut hasher = KeyHasher::new(self.domain);
        for (name, value) in &self.parts {
            hasher.field(name.as_bytes());
            hasher.field(value);
        }
        hasher.finish()
    }

    /// Returns the parts for a record: readable values as they are, long or binary ones as their hash.
    pub(crate) fn readable(&self) -> Vec<(String, String)> {
        let show = |value: &[u8]| match std::str::from_utf8(value) {
            Ok(text) if text.len() <= 4096 && !text.contains('\0') => text.to_owned(),
            _ => format!("blake3:{}", hex(blake3::hash(value).as_bytes())),
        };
        self.parts.iter().map(|(name, value)| (name.clone(), show(value))).collect()
    }
}

/// Hashes length-framed fields under a domain.
#[derive(Debug)]
pub(crate) struct KeyHasher(blake3::Hasher);

impl KeyHasher {
    /// Starts a hash that can never equal one of another domain.
    pub(crate) fn new(domain: &str) -> Self {
        let mut hasher = Self(blake3::Hasher::new());
        hasher.field(domain.as_bytes());
        hasher
    }

    /// Adds one field, framed by its length.
    pub(crate) fn field(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Adds a number.
    pub(crate) fn number(&mut self, value: u64) {
        self.0.update(&value.to_le_bytes());
    }

    /// Returns the hash.
    pub(crate) fn finish(&self) -> CacheKey {
        CacheKey(*self.0.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(parts: &[(String, Vec<u8>)]) -> CacheKey {
        let mut all = KeyParts::new("test");
        for (name, value) in parts {
            all.add(name.clone(), value);
        }
        all.key()
    }

    proptest! {
        #[test]
        fn equal_keys_mean_equal_parts(
            a in prop::collection::vec(("[ab]{0,2}", prop::collection::vec(0u8..3, 0..3)), 0..4),
            b in prop::collection::vec(("[ab]{0,2}", prop::collection::vec(0u8..3, 0..3)), 0..4),
        ) {
            prop_assert_eq!(key(&a) == key(&b), a == b, "shifting bytes between fields must change the key");
        }
    }

    #[test]
    fn domains_separate() {
        assert_ne!(KeyParts::new("a").key(), KeyParts::new("b").key());
    }

    #[test]
    fn long_and_binary_values_are_recorded_as_hashes() {
        let mut parts = KeyParts::new("x");
        parts.add("short", "make");
        parts.add("binary", [0xff, 0]);
        let readable = parts.readable();
        assert_eq!(readable[0].1, "make");
        assert!(readable[1].1.starts_with("blake3:"));
    }
}
