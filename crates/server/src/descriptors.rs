//! All descriptors that a client without the sources needs: the contract, what it imports, what errors carry, and health.

use std::collections::BTreeSet;

use prost::{DecodeError, Message};
use prost_types::{FileDescriptorProto, FileDescriptorSet};

/// The files of crates have names of their own; everybody else imports them by these.
const CANONICAL: [(&str, &str); 3] = [
    ("error_details.proto", "google/rpc/error_details.proto"),
    ("health.proto", "grpc/health/v1/health.proto"),
    ("status.proto", "google/rpc/status.proto"),
];

/// A `google.protobuf.FileDescriptorSet` whose files are not decoded, so that options survive that this program does not know.
#[derive(Clone, PartialEq, Message)]
struct EncodedFiles {
    #[prost(bytes = "vec", repeated, tag = "1")]
    file: Vec<Vec<u8>>,
}

/// An encoded `google.protobuf.FileDescriptorSet` that imports nothing that it does not hold. Each file stands behind those that
/// it imports, as protoc has it.
///
/// # Errors
/// The descriptors that were compiled in do not decode.
pub fn complete() -> Result<Vec<u8>, DecodeError> {
    let mut complete = EncodedFiles::decode(jackfield_api::FILE_DESCRIPTOR_SET)?;
    let mut names = BTreeSet::new();
    for file in &complete.file {
        names.insert(FileDescriptorProto::decode(&file[..])?.name().to_owned());
    }
    for set in [tonic_types::pb::FILE_DESCRIPTOR_SET, &crate::health::descriptor_set()?] {
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
