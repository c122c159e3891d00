//! Networks: described as data ([`NetSpec`]), then recorded on a tape ([`Network`]).

mod counts;
mod init;
mod network;
mod parameters;
mod pixel_order;
mod shapes;
mod spec;

pub use init::Initializer;
pub use network::{Network, Recording, Weighted, WeightedOp};
pub use parameters::{ParameterKind, ParameterSpec, StateSpec};
pub use pixel_order::PixelOrder;
pub use shapes::NetError;
pub use spec::{ImageSize, LayerSpec, NetSpec};
