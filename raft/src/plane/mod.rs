//! The facade: everything that the rest of the program sees of the metadata plane.

mod options;

pub use options::{PeerView, PlaneOptions, Role, Status};
