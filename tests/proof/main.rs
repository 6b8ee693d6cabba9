//! The harnesses. They try to break the real binary, and print a line each with the outcome.
//!
//! Each is one module with its oracle and its planted faults, which it has to detect. They run one at a time
//! (`proof::turn`), follow from a seed (`PROOF_SEED`), and run longer if the environment says so. CONTRIBUTING.md has
//! the commands.

#![expect(clippy::disallowed_methods, reason = "harnesses spawn their own tasks, and wait for them")]

mod abuse;
mod canary;
mod fuzz;
mod interference;
mod kill9;
mod refresh;

#[path = "../it/steps.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod steps;
