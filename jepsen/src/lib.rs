//! Attacks on the whole product: real `trefoil` processes, numbered samples, faults, and checkers that
//! look for every acknowledged sample in every answer.
//!
//! Nothing here knows the inside of the product: only its command line, its HTTP interfaces and its
//! files. Whatever is started is ended with its owner, also at a failure; logs are kept in
//! memory of nobody but files, whose tails are printed at a failure.
//!
//! Runs that start clusters go one at a time (see [`Exclusive`]), because they measure times.

mod binary;
pub mod checker;
mod cluster;
mod exclusive;
pub mod history;
mod http;
mod ledger;
mod load;
pub mod nemesis;
pub mod net;
mod process;
mod quota;
pub mod report;
pub mod run;
mod samples;
mod service;
pub mod site;
mod verify;
mod wait;
mod windows;
pub mod workload;

pub use binary::trefoil_binary;
pub use cluster::{Cluster, Node, ready_seconds_max};
pub use exclusive::Exclusive;
pub use http::{Answer, HttpClient, percent_encode};
pub use ledger::{Fate, Ledger, Request};
pub use load::{Load, LoadPlan, measure_capacity};
pub use process::{FreePort, Process};
pub use quota::CpuQuota;
pub use service::{Service, ServiceFigures};
pub use verify::{check_answers, check_answers_of, wait_until_equal};
pub use wait::{Clock, wait_until};
pub use windows::{Attempt, error_windows, longest_error_window};
