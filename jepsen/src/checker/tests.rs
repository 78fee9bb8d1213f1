//! Small histories for the checkers' tests, and one test for every rule: what it rejects and the neighbour that it
//! accepts.

mod availability;
mod build;
mod coverage;
mod digests;
mod form;
mod register;
mod set;
mod verdict;
