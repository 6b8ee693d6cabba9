//! The harnesses: they try to break the real binary, and print what came of it, a line each.
//!
//! Each is one module with its oracle and its planted faults, which it has to notice. They take their turn
//! (`proof::turn`), follow from a seed (`PROOF_SEED`), and run longer when the environment says so; CONTRIBUTING.md has the
//! commands.

#![expect(clippy::disallowed_methods, reason = "a harness has tasks of its own, and waits for them")]

mod abuse;
mod canary;
mod fuzz;
mod interference;
mod kill9;
