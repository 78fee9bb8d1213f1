//! Before a node is part of a cluster: who it is, and which cluster it founds or joins.

mod agreement;
mod identity;
pub(crate) mod promise;

#[cfg(test)]
mod simulation;

pub use agreement::{Agreement, BootstrapSettings, Founding, Report, Standing, Step};
pub use identity::Identity;
