//! Trains image classifiers on an ordinary CPU, and shows whether one network can do the work of several.
//!
//! The rooms, each importing only from those before it: [`tensor`] → [`autograd`] → [`ops`] →
//! [`nn`] → [`optim`], [`multitask`] → [`train`] → [`experiment`] → [`cli`]; [`data`] uses
//! [`tensor`] and [`random`] only and [`metrics`] nothing of ours.

pub mod autograd;
pub mod cli;
pub mod data;
pub mod experiment;
pub mod files;
pub mod metrics;
pub mod multitask;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod random;
pub mod tensor;
pub mod train;
