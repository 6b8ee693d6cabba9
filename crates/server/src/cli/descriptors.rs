//! `jackfield descriptors`: all descriptors that a client without the sources needs, which are the contract, its imports, the
//! details of errors, and health.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::Args;
use prost::{DecodeError, Message};
use prost_types::{FileDescriptorProto, FileDescriptorSet};

use super::CommandError;
use jackfield_transport::health;

/// The crates give these files other names; these are the names by which all others import them.
const CANONICAL: [(&str, &str); 3] = [
    ("error_details.proto", "google/rpc/error_details.proto"),
    ("health.proto", "grpc/health/v1/health.proto"),
    ("status.proto", "google/rpc/status.proto"),
];

/// A `google.protobuf.FileDescriptorSet` whose files are not decoded, so that options that this program does not know are
/// kept.
#[derive(Clone, PartialEq, Message)]
struct EncodedFiles {
    #[prost(bytes = "vec", repeated, tag = "1")]
    file: Vec<Vec<u8>>,
}

#[derive(Debug, Args)]
pub(super) struct Descriptors {
    /// The file to write [default: standard output].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(command: &Descriptors) -> Result<(), CommandError> {
    let set = complete()?;
    if let Some(path) = &command.out {
        return std::fs::write(path, set).map_err(|error| format!("{}: {error}", path.display()).into());
    }
    let mut out = std::io::stdout().lock();
    if out.is_terminal() {
        return Err("descriptors are binary: name a file with --out, or send standard output to one".into());
    }
    out.write_all(&set)?;
    Ok(out.flush()?)
}

/// An encoded `google.protobuf.FileDescriptorSet` that imports nothing that it does not hold. Each file follows those that
/// it imports, as protoc writes them.
///
/// # Errors
/// The descriptors that were compiled in do not decode.
fn complete() -> Result<Vec<u8>, DecodeError> {
    let mut complete = EncodedFiles::decode(jackfield_api::FILE_DESCRIPTOR_SET)?;
    let mut names = BTreeSet::new();
    for file in &complete.file {
        names.insert(FileDescriptorProto::decode(&file[..])?.name().to_owned());
    }
    for set in [tonic_types::pb::FILE_DESCRIPTOR_SET, &health::descriptor_set()?] {
        for mut file in FileDescriptorSet::decode(set)?.file {
            if let Some((_, name)) = CANONICAL.iter().find(|(name, _)| file.name() == *name) {
                file.name = Some((*name).to_owned());
            }
            if names.insert(file.name().to_owned()) {
                complete.file.push(file.encode_to_vec());
            }
        }
    }
    Ok(complete.encode_to_vec())
}
