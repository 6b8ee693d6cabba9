//! Traits of messages that have the same fields. `build.rs` finds those messages in the descriptors and writes the
//! implementations.

use prost_types::FieldMask;

/// A request that changes something: it has `request_id` and `validate_only`.
pub trait ChangeMessage: prost::Message {
    /// The name of the method.
    const METHOD: &'static str;

    /// The caller's id of the request.
    fn request_id(&mut self) -> &mut String;

    /// True if everything is checked and nothing is changed.
    fn validate_only(&self) -> bool;
}

/// A request for a list (AIP-132, AIP-158, AIP-160).
pub trait ListMessage {
    fn page_size(&self) -> i32;
    fn page_token(&self) -> &str;
    fn limit(&self) -> i32;
    fn filter(&self) -> &str;
    fn order_by(&self) -> &str;
}

/// A request that updates a resource (AIP-134).
pub trait UpdateMessage: ChangeMessage {
    /// The message of the resource.
    type Resource: ResourceMessage;

    fn update_mask(&self) -> Option<&FieldMask>;
    fn etag(&self) -> &str;

    /// Takes the new values out of the request.
    fn take_resource(&mut self) -> Option<Self::Resource>;
}

/// A resource: it has a field with the behaviour IDENTIFIER.
pub trait ResourceMessage {
    /// The name of the resource, which is that of the field of requests that holds it.
    const NAME: &'static str;
    /// The paths that an update mask may name. Below a map, `*` means any key.
    const PATHS: &'static [&'static str];
    /// The paths that an update mask may name without effect (AIP-161): id, etag, and what only answers have.
    const OUTPUT_ONLY: &'static [&'static str];

    /// The paths of secrets, maps of secrets included.
    const SECRETS: &'static [&'static str];

    fn id(&self) -> &str;
    fn etag(&self) -> &str;
}
