//! Queries across the cluster: who evaluates which shards, and what is done when one of them cannot.
//!
//! The coordinator plans parts over the owners of the shards, asks them, plans what was refused again
//! without those who refused, and merges. An answer contains every shard, or it is an error: never less.

pub(crate) mod allowance;
pub(crate) mod answering;
pub(crate) mod attended;
pub(crate) mod counts;
pub(crate) mod evaluator;
mod parallel;
pub(crate) mod pins;
pub(crate) mod question;
pub(crate) mod reuse;
pub(crate) mod select;
pub(crate) mod source;
pub(crate) mod standalone;
pub(crate) mod storage;
