//! Networks: described as data ([`NetSpec`]), then recorded on a tape ([`Network`]).

mod init;
mod network;
mod spec;

pub use init::Initializer;
pub use network::Network;
pub use spec::{LayerSpec, NetSpec, ParameterKind, ParameterSpec};
