//! worker

mod copy;
mod users;
