//! The methods of this server, from the descriptors that reflection serves.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use prost::Message as _;
use prost_types::method_options::IdempotencyLevel;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto};

use super::attributes::CallAttributes;

/// Every method, by path.
#[derive(Debug, Default)]
pub struct Methods(HashMap<String, Arc<Method>>);

/// A method.
#[derive(Debug)]
pub struct Method {
    /// `package.Service/Method`.
    pub name: Arc<str>,
    /// The contract that it belongs to.
    pub kind: Kind,
    /// The numbers of its messages in each direction.
    pub shape: Shape,
    /// True if it may change something: all that do not state otherwise (`idempotency_level`).
    pub changes: bool,
    /// The attributes of its calls in metrics.
    pub attributes: Arc<CallAttributes>,
}

/// The contract that a method belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A contract of this product.
    Api,
    /// `grpc.health.v1`: for probes, which are unauthenticated and must not be shed because of the load of others.
    Health,
    /// `grpc.reflection.*`.
    Reflection,
}

/// The numbers of messages of a method in each direction. Limits, deadlines and stalls depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One message each way.
    Unary,
    /// A list: one request, and a stream of pages, each with the token of the next. It can be continued from its last
    /// token.
    Pages,
    /// One request, and messages for as long as the client watches. The name of the method begins with "Watch".
    Watch,
    /// One request, and the results of one piece of work, each as soon as it is there. It ends by itself and cannot be
    /// continued, so it is limited as a call of one response is.
    Report,
    /// Any number of messages from the client.
    Conversation,
}

/// The field that makes a message a page (AIP-158).
const NEXT_PAGE_TOKEN: &str = "next_page_token";
/// The verb of methods that go on as long as their client does, as in `grpc.health.v1`.
const WATCH: &str = "Watch";

// === impl Methods ===

impl Methods {
    /// Reads encoded descriptor sets.
    ///
    /// # Errors
    /// A set does not decode.
    pub fn new<'a>(descriptor_sets: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, prost::DecodeError> {
        let sets = descriptor_sets.into_iter().map(FileDescriptorSet::decode).collect::<Result<Vec<_>, _>>()?;
        let files = || sets.iter().flat_map(|set| &set.file);
        let pages: HashSet<String> = files().flat_map(pages).collect();
        let mut methods = HashMap::new();
        for file in files() {
            let kind = Kind::of_package(file.package());
            for service in &file.service {
                for method in &service.method {
                    let name = format!("{}.{}/{}", file.package(), service.name(), method.name());
                    let path = format!("/{name}");
                    let name: Arc<str> = name.into();
                    let level = method.options.as_ref().and_then(|options| options.idempotency_level);
                    let method = Method {
                        kind,
                        shape: Shape::of_method(method, &pages),
                        changes: level != Some(IdempotencyLevel::NoSideEffects.into()),
                        attributes: Arc::new(CallAttributes::new(&name)),
                        name,
                    };
                    methods.insert(path, Arc::new(method));
                }
            }
        }
        Ok(Methods(methods))
    }

    /// Returns the method at a path.
    pub fn get(&self, path: &str) -> Option<&Arc<Method>> {
        self.0.get(path)
    }

    /// Returns the full names of all services, sorted.
    pub fn services(&self) -> Vec<String> {
        let service = |method: &Arc<Method>| method.name.split('/').next().unwrap_or_default().to_owned();
        let mut services: Vec<_> = self.0.values().map(service).collect();
        services.sort();
        services.dedup();
        services
    }
}

/// Returns the full names of the messages of a file that are pages of a list.
fn pages(file: &FileDescriptorProto) -> impl Iterator<Item = String> {
    let is_page = |message: &&DescriptorProto| message.field.iter().any(|field| field.name() == NEXT_PAGE_TOKEN);
    file.message_type.iter().filter(is_page).map(|message| format!(".{}.{}", file.package(), message.name()))
}

// === impl Kind ===

impl Kind {
    fn of_package(package: &str) -> Self {
        match package {
            "grpc.health.v1" => Kind::Health,
            package if package.starts_with("grpc.reflection.") => Kind::Reflection,
            _ => Kind::Api,
        }
    }
}

// === impl Shape ===

impl Shape {
    fn of_method(method: &MethodDescriptorProto, pages: &HashSet<String>) -> Self {
        match (method.client_streaming(), method.server_streaming()) {
            (true, _) => Shape::Conversation,
            (false, true) if pages.contains(method.output_type()) => Shape::Pages,
            (false, true) if method.name().starts_with(WATCH) => Shape::Watch,
            (false, true) => Shape::Report,
            (false, false) => Shape::Unary,
        }
    }
}

#[cfg(test)]
mod tests {
    use prost_types::{FieldDescriptorProto, ServiceDescriptorProto};

    use super::*;

    /// A service whose messages are notes, or pages of them.
    fn notes() -> Vec<u8> {
        let message = |name: &str, field: &str| {
            let field = FieldDescriptorProto { name: Some(field.into()), ..Default::default() };
            DescriptorProto { name: Some(name.into()), field: vec![field], ..Default::default() }
        };
        let method = |name: &str, output: &str, streams| MethodDescriptorProto {
            name: Some(name.into()),
            output_type: Some(output.into()),
            server_streaming: Some(streams),
            ..Default::default()
        };
        let methods = vec![
            method("Get", ".notes.v1.Note", false),
            method("List", ".notes.v1.Page", true),
            method("WatchNotes", ".notes.v1.Note", true),
            method("Proofread", ".notes.v1.Note", true),
        ];
        let file = FileDescriptorProto {
            package: Some("notes.v1".into()),
            message_type: vec![message("Note", "text"), message("Page", NEXT_PAGE_TOKEN)],
            service: vec![ServiceDescriptorProto { name: Some("Notes".into()), method: methods, ..Default::default() }],
            ..Default::default()
        };
        FileDescriptorSet { file: vec![file] }.encode_to_vec()
    }

    #[test]
    fn shapes_are_read_from_descriptors() {
        let notes = notes();
        let sets = [&notes, tonic_health::pb::FILE_DESCRIPTOR_SET, tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET];
        let methods = Methods::new(sets).unwrap();
        for (path, kind, shape) in [
            ("/notes.v1.Notes/Get", Kind::Api, Shape::Unary),
            ("/notes.v1.Notes/List", Kind::Api, Shape::Pages),
            ("/notes.v1.Notes/WatchNotes", Kind::Api, Shape::Watch),
            ("/notes.v1.Notes/Proofread", Kind::Api, Shape::Report),
            ("/grpc.health.v1.Health/Check", Kind::Health, Shape::Unary),
            ("/grpc.health.v1.Health/Watch", Kind::Health, Shape::Watch),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Kind::Reflection, Shape::Conversation),
        ] {
            let method = methods.get(path).unwrap();
            assert_eq!((method.kind, method.shape), (kind, shape), "{path}");
        }
    }
}
