//! The contract of Jackfield in Rust: messages, clients and servers of package `jackfield.v1`, compiled from the `.proto`
//! files in this directory.
//!
//! `Debug` of a message prints `[redacted]` in place of every field with the option `debug_redact`; the build writes those
//! implementations, so that a new secret field cannot be forgotten. Maps are ordered, so that equal messages encode to
//! equal bytes.
#![forbid(unsafe_code)]

pub mod codec;
pub mod message;
mod wire_scan;

/// Package `jackfield.v1`.
#[expect(clippy::all, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("jackfield.v1");
    include!(concat!(env!("OUT_DIR"), "/debug.rs"));
    include!(concat!(env!("OUT_DIR"), "/message.rs"));
}

/// The contract that credential sources serve.
pub mod source {
    /// Package `jackfield.source.v1`.
    pub mod v1 {
        tonic::include_proto!("jackfield.source.v1");
        include!(concat!(env!("OUT_DIR"), "/source_debug.rs"));
    }
}

/// All files of the contract and what they import, as an encoded `google.protobuf.FileDescriptorSet` with comments and
/// options.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor_set.bin"));

/// The same with the contract of credential sources.
pub const SOURCE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/source_descriptor_set.bin"));

/// Domain of every `google.rpc.ErrorInfo` that Jackfield sends.
pub const ERROR_DOMAIN: &str = "jackfield";

/// Replaces a secret in the generated `Debug` implementations.
struct Redacted;

// === impl Redacted ===

impl std::fmt::Debug for Redacted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}
