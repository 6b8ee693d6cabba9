//! The harnesses that try to break Jackfield. CONTRIBUTING.md says what each catches and how it is run alone.

#![expect(clippy::disallowed_methods, reason = "a harness has tasks of its own, and waits for them")]

mod fuzz;
