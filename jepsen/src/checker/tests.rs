//! Small histories for the checkers' tests, and one test for every rule: what it rejects and the neighbour that it
//! accepts.

mod build;
mod digests;
mod form;
mod set;
mod verdict;
