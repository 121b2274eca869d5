//! Stateful testing: a model of what each actor may send next, and random walks through it.

pub mod long_walk;
pub mod model;
pub mod random_walk;
