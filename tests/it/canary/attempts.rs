//! The paths that a call with a secret can take.

use jackfield_testkit::{Callers, Canary, Client, Identity};
use prost::Message as _;
use prost_reflect::{DynamicMessage, Kind, ReflectMessage as _, Value};
use tonic::Code;
use uuid::Uuid;

use super::plant::{SecretField, TAKEN, path};
use super::raw::call;
use super::sown::Sown;

/// One call with a secret in it.
struct Attempt {
    what: &'static str,
    request: Vec<u8>,
    headers: &'static [(&'static str, &'static str)],
    expected: (Code, &'static str),
}

const ACCEPTED: (Code, &str) = (Code::Ok, "");
const INVALID: (Code, &str) = (Code::InvalidArgument, "FIELD_INVALID");
const MALFORMED: (Code, &str) = (Code::InvalidArgument, "MESSAGE_MALFORMED");
const LATE: (Code, &str) = (Code::DeadlineExceeded, "DEADLINE_EXCEEDED");

// === impl Sown ===

impl Sown {
    /// A good request with a fresh secret.
    fn request(&mut self, field: &SecretField, what: &str) -> DynamicMessage {
        self.request_with(field, what, "")
    }

    /// As [`Sown::request`], with a suffix after the secret.
    fn request_with(&mut self, field: &SecretField, what: &str, suffix: &str) -> DynamicMessage {
        let canary = Canary::new(format!("{}, {what}", field.name()));
        let unique = format!("n{}", self.canaries.len());
        let request = field.request(&self.targets, &unique, &format!("{}{suffix}", canary.secret));
        self.canaries.push(canary);
        request
    }

    async fn attempt(&mut self, client: &Client, field: &SecretField, attempt: Attempt) {
        let Attempt { what, request, headers, expected } = attempt;
        let reply = call(client, &path(&field.method), &request, headers).await;
        // Client and server have the same deadline, so either can be first.
        let given_up = expected == LATE && reply.code == Code::Unknown;
        assert!(given_up || (reply.code, reply.reason.as_str()) == expected, "{}, {what}: {reply:?}", field.name());
        self.replies.push((format!("{}, {what}", field.name()), reply));
    }

    /// Every path that a call with this secret can take on a healthy server.
    pub(super) async fn attempts(&mut self, server: &impl Callers, field: &SecretField) {
        let alpha = server.client("alpha");
        for attempt in [
            self.simple(field, "accepted", field.outcome(), |_| {}),
            Attempt { headers: &[("grpc-timeout", "1n")], ..self.simple(field, "too late", LATE, |_| {}) },
            Attempt { headers: &[("grpc-timeout", "soon")], ..self.simple(field, "a bad header", MALFORMED, |_| {}) },
        ] {
            self.attempt(&alpha, field, attempt).await;
        }
        self.cut_short(&alpha, field).await;
        for attempt in self.damaged(field) {
            self.attempt(&alpha, field, attempt).await;
        }
        for attempt in self.referring(field) {
            self.attempt(&alpha, field, attempt).await;
        }
        self.strangers(server, field).await;
        if field.is_login() {
            return;
        }
        for attempt in [
            self.simple(field, "for show", ACCEPTED, |request| {
                request.set_field_by_name("validate_only", Value::Bool(true));
            }),
            self.simple(field, "a malformed request id", INVALID, |request| set(request, "request_id", "x".to_owned())),
            self.simple(field, "a bad neighbour", INVALID, |request| rename(request, "\u{7}")),
            self.simple(field, "taken", taken(field), |request| rename(request, TAKEN)),
        ] {
            self.attempt(&alpha, field, attempt).await;
        }
        self.repeated(&alpha, field).await;
    }

    fn simple(
        &mut self,
        field: &SecretField,
        what: &'static str,
        expected: (Code, &'static str),
        change: impl FnOnce(&mut DynamicMessage),
    ) -> Attempt {
        let mut request = self.request(field, what);
        change(&mut request);
        Attempt { what, request: request.encode_to_vec(), headers: &[], expected }
    }

    /// A call whose deadline passes while it is worked on, or just before or after.
    async fn cut_short(&mut self, client: &Client, field: &SecretField) {
        let request = self.request(field, "cut short").encode_to_vec();
        let reply = call(client, &path(&field.method), &request, &[("grpc-timeout", "700u")]).await;
        let reason = reply.reason.as_str();
        let is_cut = reply.code == Code::Unknown || reason == "OUTCOME_UNKNOWN" || (reply.code, reason) == LATE;
        assert!(is_cut || (reply.code, reason) == field.outcome(), "{}, cut short: {reply:?}", field.name());
        self.replies.push((format!("{}, cut short", field.name()), reply));
    }

    /// Requests that do not decode, or whose secret is invalid.
    fn damaged(&mut self, field: &SecretField) -> Vec<Attempt> {
        let mut attempts = Vec::new();
        let mut add = |what, request, expected| attempts.push(Attempt { what, request, headers: &[], expected });

        let request = self.request_with(field, "too long", &"x".repeat(70_000));
        add("too long", request.encode_to_vec(), INVALID);

        let mut request = self.request(field, "too large").encode_to_vec();
        // An unknown field, number 1000, of 300 KiB.
        request.extend([0xc2, 0x3e, 0x80, 0xe0, 0x12]);
        request.extend(vec![b'x'; 300 * 1024]);
        add("too large", request, (Code::ResourceExhausted, "QUOTA_EXCEEDED"));

        let request = self.request(field, "cut off").encode_to_vec();
        add("cut off", request[..request.len() - 1].to_vec(), MALFORMED);

        let mut request = self.request_with(field, "not UTF-8", "\u{1}").encode_to_vec();
        let secret = self.canaries.last().unwrap().secret.clone();
        let end = request.windows(secret.len()).position(|window| window == secret.as_bytes()).unwrap() + secret.len();
        request[end] = 0xff;
        add("not UTF-8", request, MALFORMED);

        // The secret is in the place of a message.
        let canary = Canary::new(format!("{}, of the wrong type", field.name()));
        let message = field.method.input().fields().find(|field| matches!(field.kind(), Kind::Message(_)));
        let Some(message) = message else { return attempts };
        let tag = u8::try_from(message.number() << 3 | 2).unwrap();
        let request = [&[tag, canary.secret.len() as u8], canary.secret.as_bytes()].concat();
        self.canaries.push(canary);
        add("of the wrong type", request, MALFORMED);
        attempts
    }

    /// Requests about something that does not exist or differs from the request.
    fn referring(&mut self, field: &SecretField) -> Vec<Attempt> {
        let name = field.method.name();
        let unknown = || Uuid::now_v7().to_string();
        if let Some(resource) = name.strip_prefix("Update") {
            let missing = match resource {
                "Connector" => "CONNECTOR_NOT_FOUND",
                "Connection" => "CONNECTION_NOT_FOUND",
                "Credential" => "CREDENTIAL_NOT_FOUND",
                "User" => "USER_NOT_FOUND",
                other => panic!("UpdateX of {other} is new here"),
            };
            let mask = |request: &mut DynamicMessage| {
                let descriptor = request.descriptor().get_field_by_name("update_mask").unwrap();
                let mut mask = request.get_field(&descriptor).into_owned();
                let paths = Value::List(vec![Value::String("nothing.there".to_owned())]);
                mask.as_message_mut().unwrap().set_field_by_name("paths", paths);
                request.set_field(&descriptor, mask);
            };
            return vec![
                self.simple(field, "stale", (Code::Aborted, "ETAG_MISMATCH"), |request| {
                    set(request, "etag", "W/\"0-0\"".to_owned());
                }),
                self.simple(field, "not there", (Code::NotFound, missing), |request| {
                    set(request, "reference", unknown())
                }),
                self.simple(field, "a bad mask", INVALID, mask),
            ];
        }
        match name {
            "CreateConnector" => vec![self.simple(field, "no key", (Code::NotFound, "KEY_NOT_FOUND"), |request| {
                set_inner(request, "client_identity_key", unknown());
            })],
            "CreateConnection" | "CreateCredential" => {
                vec![self.simple(field, "no connector", (Code::NotFound, "CONNECTOR_NOT_FOUND"), |request| {
                    set_inner(request, "connector", unknown());
                })]
            }
            "AuthenticateUserConnector" => {
                vec![self.simple(field, "no connector", (Code::NotFound, "CONNECTOR_NOT_FOUND"), |request| {
                    set(request, "connector", unknown());
                })]
            }
            "AuthenticateUser" => vec![
                self.simple(field, "no connector", (Code::NotFound, "CONNECTOR_NOT_FOUND"), |request| {
                    set(request, "connector", unknown());
                }),
                self.simple(field, "a bad neighbour", INVALID, |request| set(request, "login_id", "\u{7}".to_owned())),
            ],
            "TestConnector" if field.is_of_resource() => {
                vec![
                    self.simple(field, "no key", (Code::NotFound, "KEY_NOT_FOUND"), |request| {
                        set_inner(request, "client_identity_key", unknown());
                    }),
                    self.simple(field, "a bad neighbour", INVALID, |request| rename(request, "\u{7}")),
                ]
            }
            "TestConnector" => vec![
                self.simple(field, "no connector", (Code::NotFound, "CONNECTOR_NOT_FOUND"), |request| {
                    set(request, "reference", unknown());
                }),
                self.simple(field, "a bad neighbour", INVALID, |request| set(request, "login_id", "\u{7}".to_owned())),
            ],
            "AuthenticateApplicationUser" | "GetSessionUser" | "GetSessionPermissions" | "EndSession" => {
                let missing = (Code::NotFound, "APPLICATION_NOT_FOUND");
                vec![
                    self.simple(field, "no application", missing, |request| set(request, "application", unknown())),
                    self.simple(field, "a bad neighbour", (Code::InvalidArgument, "REFERENCE_INVALID"), |request| {
                        set(request, "application", "\u{7}".to_owned());
                    }),
                ]
            }
            "CompleteAuthorization" => {
                vec![
                    self.simple(field, "a bad neighbour", INVALID, |request| {
                        set(request, "user_id", "\u{7}".to_owned())
                    }),
                ]
            }
            // Keys and users have no references, and those of sources are no required ones.
            "ImportKey" | "CreateUser" | "SetCredentialSource" => Vec::new(),
            "PatchConnector" => vec![
                self.simple(field, "stale", (Code::Aborted, "ETAG_MISMATCH"), |request| {
                    set(request, "etag", "W/\"0-0\"".to_owned());
                }),
                self.simple(field, "no connector", (Code::NotFound, "CONNECTOR_NOT_FOUND"), |request| {
                    set(request, "reference", unknown());
                }),
            ],
            "RotateConnectionSecret" => {
                vec![self.simple(field, "not there", (Code::NotFound, "CONNECTION_NOT_FOUND"), |request| {
                    set(request, "reference", unknown());
                })]
            }
            "RotateKey" => vec![self.simple(field, "no key", (Code::NotFound, "KEY_NOT_FOUND"), |request| {
                set(request, "reference", unknown());
            })],
            other => panic!("{other} is new here"),
        }
    }

    /// Repeats with the same request id: with the same body, and with another secret.
    async fn repeated(&mut self, client: &Client, field: &SecretField) {
        let id = Uuid::now_v7().to_string();
        let with_id = |request: &mut DynamicMessage| set(request, "request_id", id.clone());
        let first = self.simple(field, "with a request id", ACCEPTED, with_id);
        let request = first.request.clone();
        self.attempt(client, field, first).await;
        let conflict = (Code::FailedPrecondition, "REQUEST_ID_CONFLICT");
        let other = self.simple(field, "with a used request id", conflict, with_id);
        self.attempt(client, field, other).await;
        let again = Attempt { what: "repeated", request, headers: &[], expected: ACCEPTED };
        self.attempt(client, field, again).await;
    }

    /// Callers without a right, without an identity, and with a wrong path.
    async fn strangers(&mut self, server: &impl Callers, field: &SecretField) {
        let reader = self.simple(field, "without the right", (Code::PermissionDenied, "SCOPE_DENIED"), |_| {});
        self.attempt(&server.client("reader"), field, reader).await;
        let expected = (Code::Unauthenticated, "CALLER_UNAUTHENTICATED");
        let request = self.simple(field, "by an unknown principal", expected, |_| {});
        let unknown = server.client_with(&server.pki().client(Identity::of("unknown")));
        self.attempt(&unknown, field, request).await;

        let request = self.request(field, "to no method").encode_to_vec();
        let reply = call(&server.client("alpha"), &format!("{}s", path(&field.method)), &request, &[]).await;
        assert_eq!((reply.code, reply.reason.as_str()), (Code::Unimplemented, "METHOD_UNKNOWN"));
        self.replies.push((format!("{}, to no method", field.name()), reply));
    }

    /// All fields at once, while something is wrong with the database.
    pub(super) async fn with_failing_database<'a>(
        &mut self,
        server: &impl Callers,
        fields: impl IntoIterator<Item = &'a SecretField>,
        what: &'static str,
        expected: (Code, &'static str),
    ) {
        let alpha = &server.client("alpha");
        let fields: Vec<_> = fields.into_iter().collect();
        let requests: Vec<_> = fields.iter().map(|field| self.request(field, what).encode_to_vec()).collect();
        let calls = fields.iter().zip(&requests).map(|(field, request)| async move {
            (format!("{}, {what}", field.name()), call(alpha, &path(&field.method), request, &[]).await)
        });
        for (name, reply) in futures::future::join_all(calls).await {
            assert_eq!((reply.code, reply.reason.as_str()), expected, "{name}");
            self.replies.push((name, reply));
        }
    }
}

fn taken(field: &SecretField) -> (Code, &'static str) {
    if ["RotateKey", "RotateConnectionSecret"].contains(&field.method.name()) {
        return (Code::Aborted, "ETAG_MISMATCH");
    }
    // There is no name that could be taken: it replaces the source of another user.
    if field.method.name() == "SetCredentialSource" {
        return ACCEPTED;
    }
    if field.method.name() == "AuthenticateUserConnector" {
        return (Code::NotFound, "USER_CONNECTOR_NOT_FOUND");
    }
    let reason = match field.method.name() {
        "CreateCredential" | "UpdateCredential" => "EXTERNAL_ID_TAKEN",
        "CreateUser" | "UpdateUser" => "LOGIN_ID_TAKEN",
        _ => "NAME_TAKEN",
    };
    (Code::AlreadyExists, reason)
}

fn set(request: &mut DynamicMessage, field: &str, value: String) {
    request.try_set_field_by_name(field, Value::String(value)).unwrap_or_else(|error| panic!("{field}: {error}"));
}

/// Sets a text of the resource in a request.
fn set_inner(request: &mut DynamicMessage, field: &str, value: String) {
    let resources = ["connector", "connection", "credential", "key", "source", "user"];
    let outer = request.descriptor().fields().find(|field| resources.contains(&field.name())).expect("a resource");
    let mut resource = request.get_field(&outer).into_owned();
    set(resource.as_message_mut().expect("a message"), field, value);
    request.set_field(&outer, resource);
}

/// Gives the resource in a request another name or external id. A link and a source have neither: they are those of another
/// user. A rotation has neither: it gets a stale etag in place of a name that is taken, and a time that does not exist in place of one that is invalid.
fn rename(request: &mut DynamicMessage, name: &str) {
    if ["json_patch", "merge_patch"].iter().any(|field| request.has_field_by_name(field)) {
        return patch_name(request, name);
    }
    if let Some(field) = request.descriptor().get_field_by_name("activate_time") {
        if name == TAKEN {
            return set(request, "etag", "W/\"0-0\"".to_owned());
        }
        let mut time = DynamicMessage::new(field.kind().as_message().expect("a time").clone());
        time.set_field_by_name("nanos", Value::I32(-1));
        return request.set_field(&field, Value::Message(time));
    }
    let has = |field| request.descriptor().get_field_by_name(field).is_some();
    if has("secret_id") {
        return match name {
            TAKEN => set(request, "etag", "W/\"0-0\"".to_owned()),
            name => set(request, "secret_id", name.to_owned()),
        };
    }
    if has("source") {
        return set_inner(request, "user_id", name.to_owned());
    }
    if has("user_id") && has("material") {
        return set(request, "user_id", name.to_owned());
    }
    let field = if has("credential") { "external_id" } else { "name" };
    set_inner(request, if has("user") { "username" } else { field }, name.to_owned());
}

/// Adds a name to a patch.
fn patch_name(request: &mut DynamicMessage, name: &str) {
    for field in ["json_patch", "merge_patch"] {
        if !request.has_field_by_name(field) {
            continue;
        }
        let mut patch = request.get_field_by_name(field).unwrap().into_owned();
        let message = patch.as_message_mut().unwrap();
        let text = message.get_field_by_name("json").unwrap().as_str().unwrap().to_owned();
        let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
        match json.as_array_mut() {
            Some(operations) => operations.push(serde_json::json!({ "op": "replace", "path": "/name", "value": name })),
            None => json["name"] = name.into(),
        }
        message.set_field_by_name("json", Value::String(json.to_string()));
        request.set_field_by_name(field, patch);
    }
}
