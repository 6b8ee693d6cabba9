//! Scratch.
mod filter;
mod isolation;
mod pagination;
mod plans;
