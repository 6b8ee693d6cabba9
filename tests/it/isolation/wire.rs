//! Calls by method path, with answers as JSON in which generated values are normalised.

use std::collections::{BTreeMap, HashMap};

use jackfield_testkit::Client;
use jackfield_testkit::raw::Raw;
use prost::Message;
use prost::bytes::Bytes;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use serde_json::{Value, json};
use tokio_stream::StreamExt;
use tonic::{Request, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

/// The methods of the contract.
pub(super) struct Wire {
    methods: HashMap<String, MethodDescriptor>,
}

/// An answer: the messages or the error.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outcome {
    pub(super) answered: bool,
    pub(super) value: Value,
}

/// Names for ids, given in the order of their first appearance; the same id always has the same name.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    known: BTreeMap<Uuid, String>,
}

// === impl Wire ===

impl Wire {
    pub(super) fn new() -> Self {
        let pool = DescriptorPool::decode(jackfield_api::FILE_DESCRIPTOR_SET).unwrap();
        let services: Vec<_> = pool.services().collect();
        let methods = services.iter().flat_map(|service| service.methods().collect::<Vec<_>>());
        Wire { methods: methods.map(|method| (method.name().to_owned(), method)).collect() }
    }

    /// All methods of tenants that take one message: those of every service except the operator's.
    pub(super) fn methods(&self) -> impl Iterator<Item = &MethodDescriptor> {
        let of_tenants = self.methods.values().filter(|method| method.parent_service().name() != "AdminService");
        of_tenants.filter(|method| !method.is_client_streaming())
    }

    pub(super) async fn call(&self, client: &Client, method: &str, request: &impl Message) -> Outcome {
        self.call_encoded(client, method, request.encode_to_vec()).await
    }

    pub(super) async fn call_encoded(&self, client: &Client, method: &str, request: Vec<u8>) -> Outcome {
        let method = &self.methods[method];
        match self.messages(client, method, request).await {
            Ok(messages) => {
                let decode = |bytes: Bytes| {
                    let message = DynamicMessage::decode(method.output(), bytes).unwrap();
                    serde_json::to_value(message).unwrap()
                };
                Outcome { answered: true, value: messages.into_iter().map(decode).collect() }
            }
            Err(status) => {
                let details = status.check_error_details().unwrap();
                // Its metadata may be in any order.
                let info = details.error_info().expect("every error has a reason");
                let mut metadata: BTreeMap<_, _> = info.metadata.clone().into_iter().collect();
                // It says how much of a window is left, in its metadata, too.
                let has_time = info.reason == "LOGIN_ATTEMPTS_EXCEEDED" && metadata.remove("retry_after_ms").is_some();
                let retry_info = details.retry_info();
                let retry_info = if has_time { "a time".to_owned() } else { format!("{retry_info:?}") };
                let value = json!({
                    "code": format!("{:?}", status.code()),
                    "message": status.message(),
                    "reason": info.reason,
                    "metadata": metadata,
                    "bad_request": format!("{:?}", details.bad_request()),
                    "resource": format!("{:?}", details.resource_info()),
                    "precondition": format!("{:?}", details.precondition_failure()),
                    "others": format!(
                        "{retry_info} {:?} {:?} {:?}",
                        details.quota_failure(),
                        details.help(),
                        details.debug_info()
                    ),
                    "size": if has_time { 0 } else { status.details().len() },
                });
                Outcome { answered: false, value }
            }
        }
    }

    async fn messages(
        &self,
        client: &Client,
        method: &MethodDescriptor,
        request: Vec<u8>,
    ) -> Result<Vec<Bytes>, Status> {
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let mut grpc = tonic::client::Grpc::new(client.channel());
        grpc.ready().await.expect("a connection");
        let answer = grpc.server_streaming(Request::new(request.into()), path.parse().unwrap(), Raw).await?;
        answer.into_inner().collect().await
    }
}

// === impl Names ===

impl Names {
    /// Gives an id a name, unless it has one.
    pub(super) fn name(&mut self, id: &str, name: String) {
        if let Ok(id) = id.parse() {
            self.known.entry(id).or_insert(name);
        }
    }

    /// Replaces generated values, and ids by their names; all unknown ids become "unknown".
    pub(super) fn even_out(&self, value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let even = |(key, value): (&String, &Value)| {
                    let value = match (key.as_str(), value) {
                        ("etag", Value::String(etag)) => etag.rsplit('-').next().unwrap_or_default().into(),
                        ("nextPageToken" | "sessionToken" | "authorizationUrl", Value::String(token)) => {
                            json!(!token.is_empty())
                        }
                        // Of a private key that was generated.
                        ("signingRequestPem", Value::String(pem)) => json!(!pem.is_empty()),
                        ("auditEvent", _) => "made up".into(),
                        (time, Value::String(_)) if time.ends_with("Time") => "a time".into(),
                        ("duration", _) => "a duration".into(),
                        (_, value) => self.even_out(value),
                    };
                    (self.text(key), value)
                };
                Value::Object(fields.iter().map(even).collect())
            }
            Value::Array(values) => values.iter().map(|value| self.even_out(value)).collect(),
            Value::String(text) => self.text(text).into(),
            other => other.clone(),
        }
    }

    /// A text with the ids in it replaced.
    fn text(&self, text: &str) -> String {
        const LENGTH: usize = 36;
        let mut even = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let id =
                rest.get(..LENGTH).filter(|id| id.matches('-').count() == 4).and_then(|id| id.parse::<Uuid>().ok());
            match id {
                Some(id) => {
                    even.push_str(self.known.get(&id).map_or("unknown", String::as_str));
                    rest = &rest[LENGTH..];
                }
                None => {
                    even.push(first);
                    rest = &rest[first.len_utf8()..];
                }
            }
        }
        even
    }
}
