//! worker

mod copy;
mod images;
mod key;
mod root;
mod users;
