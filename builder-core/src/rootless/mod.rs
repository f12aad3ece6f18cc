//! rootless
