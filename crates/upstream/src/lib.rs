//! Calls to other systems. No other crate opens a connection to the outside.
//!
//! [`egress`] says which URLs and addresses may be called.

pub mod egress;
