//! Finite-difference check of an operation's gradients.
