//! layer

mod diff;

pub(crate) use diff::{Change, DiffError, diff};
