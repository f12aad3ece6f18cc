//! A Dockerfile and a request become a graph of steps. Pure: images are found through [`ImageResolver`].

mod graph;

pub(crate) use graph::*;
