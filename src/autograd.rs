//! Reverse-mode automatic differentiation: a [`Tape`] of recorded [`Op`]s that is replayed.
//!
//! A tape is recorded once and replayed for every batch: [`Tape::forward`] computes what the asked
//! values need, in recorded order; [`Tape::backward`] walks back from the losses and computes
//! gradients only where a parameter depends on them. Memory stays on the tape, so a replay of a known
//! shape allocates no tensor: values keep theirs until they are [released](Tape::release), gradients
//! of computed values pass theirs on as soon as they are used. A leaf may take another batch size at
//! any time: the shapes behind it follow.

mod op;
mod pool;
mod tape;

pub mod gradient_check;

pub use op::{Backward, Forward, Mode, Op, OutputRead, Replaced};
pub use pool::Pool;
pub use tape::{Learner, Tape, Var};
