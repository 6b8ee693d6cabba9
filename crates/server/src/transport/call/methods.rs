//! The methods of this server, from the descriptors that reflection serves.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message as _;
use prost_types::FileDescriptorSet;
use prost_types::method_options::IdempotencyLevel;

use super::attributes::CallAttributes;

/// Every method, by path.
#[derive(Debug, Default)]
pub struct Methods(HashMap<String, Arc<Method>>);

/// A method.
#[derive(Debug)]
pub struct Method {
    /// `package.Service/Method`.
    pub name: Arc<str>,
    /// What it belongs to.
    pub kind: Kind,
    /// Whether it answers with a stream.
    pub streaming: bool,
    /// Whether it takes exactly one request message.
    pub takes_one: bool,
    /// Whether it may change something: all that do not state otherwise (`idempotency_level`).
    pub changes: bool,
    /// Of its calls in metrics.
    pub attributes: Arc<CallAttributes>,
}

/// What a method belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A contract of this product.
    Api,
    /// `grpc.health.v1`: for probes, which are nobody and must not be shed for the load of others.
    Health,
    /// `grpc.reflection.*`.
    Reflection,
}

// === impl Methods ===

impl Methods {
    /// From encoded descriptor sets.
    ///
    /// # Errors
    /// A set does not decode.
    pub fn new<'a>(descriptor_sets: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, prost::DecodeError> {
        let mut methods = HashMap::new();
        for encoded in descriptor_sets {
            for file in FileDescriptorSet::decode(encoded)?.file {
                let kind = match file.package() {
                    "grpc.health.v1" => Kind::Health,
                    package if package.starts_with("grpc.reflection.") => Kind::Reflection,
                    _ => Kind::Api,
                };
                for service in &file.service {
                    for method in &service.method {
                        let name = format!("{}.{}/{}", file.package(), service.name(), method.name());
                        let (streaming, takes_one) = (method.server_streaming(), !method.client_streaming());
                        let level = method.options.as_ref().and_then(|options| options.idempotency_level);
                        let changes = level != Some(IdempotencyLevel::NoSideEffects.into());
                        let path = format!("/{name}");
                        let name: Arc<str> = name.into();
                        let attributes = Arc::new(CallAttributes::new(&name));
                        methods
                            .insert(path, Arc::new(Method { name, kind, streaming, takes_one, changes, attributes }));
                    }
                }
            }
        }
        Ok(Methods(methods))
    }

    /// The method at a path.
    pub fn get(&self, path: &str) -> Option<&Arc<Method>> {
        self.0.get(path)
    }

    /// Full names of all services, sorted.
    pub fn services(&self) -> Vec<String> {
        let service = |method: &Arc<Method>| method.name.split('/').next().unwrap_or_default().to_owned();
        let mut services: Vec<_> = self.0.values().map(service).collect();
        services.sort();
        services.dedup();
        services
    }
}
