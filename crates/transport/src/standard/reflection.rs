//! Reflection v1 and v1alpha: some clients still know only the older one.

use tonic::codec::CompressionEncoding;
use tonic::service::RoutesBuilder;
use tonic_reflection::server::{Builder, Error};

/// Size of a request message in bytes: a name and an extension number.
pub(crate) const MAX_REQUEST_MESSAGE: usize = 16 * 1024;

/// Serves these descriptors, those of error details and those of reflection itself.
///
/// # Errors
/// A descriptor set is inconsistent.
pub(crate) fn add(routes: &mut RoutesBuilder, descriptor_sets: &[&[u8]]) -> Result<(), Error> {
    let builder = || {
        descriptor_sets
            .iter()
            .fold(Builder::configure(), |builder, set| builder.register_encoded_file_descriptor_set(set))
            // The details of errors, so that clients that decode by reflection can show them.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
            .include_reflection_service(false)
    };
    let (v1, v1alpha) = (builder().build_v1()?, builder().build_v1alpha()?);
    routes.add_service(v1.accept_compressed(CompressionEncoding::Gzip).max_decoding_message_size(MAX_REQUEST_MESSAGE));
    routes.add_service(
        v1alpha.accept_compressed(CompressionEncoding::Gzip).max_decoding_message_size(MAX_REQUEST_MESSAGE),
    );
    Ok(())
}
