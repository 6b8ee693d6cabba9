//! No secret where it does not belong: a marked secret goes into every secret field of the contract, through every method
//! that takes it, on every path that such a call can go, and then everything is searched that the server has said, logged,
//! counted or written.

mod plant;
mod raw;

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jackfield_api::v1;
use jackfield_testkit::canary::{Sweep, contains};
use jackfield_testkit::fixture::a_connector;
use jackfield_testkit::server::{SecretUrl, principal};
use jackfield_testkit::{Backend, Canary, Client, TestServer, logs, on_both};
use prost::Message;
use prost_reflect::{DynamicMessage, Kind, ReflectMessage as _, Value};
use tonic::Code;
use uuid::Uuid;

use self::plant::{SecretField, TAKEN, Targets, methods, path, secret_fields};
use self::raw::{Reply, call};

/// What is planted and what came back.
struct Sown {
    targets: Targets,
    canaries: Vec<Canary>,
    /// Replies by what they answer.
    replies: Vec<(String, Reply)>,
}

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

// === impl Sown ===

impl Sown {
    /// A good request with a fresh secret.
    fn request(&mut self, field: &SecretField, what: &str) -> DynamicMessage {
        self.request_with(field, what, "")
    }

    /// As [`Sown::request`]; something follows the secret.
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
        assert_eq!((reply.code, reply.reason.as_str()), expected, "{}, {what}", field.name());
        self.replies.push((format!("{}, {what}", field.name()), reply));
    }

    /// Every path that a call with this secret can go while all is well with the server.
    async fn attempts(&mut self, server: &TestServer, field: &SecretField) {
        let alpha = server.client("alpha");
        for attempt in [
            self.simple(field, "accepted", ACCEPTED, |_| {}),
            self.simple(field, "for show", ACCEPTED, |request| {
                request.set_field_by_name("validate_only", Value::Bool(true));
            }),
            self.simple(field, "a malformed request id", INVALID, |request| set(request, "request_id", "x".to_owned())),
            self.simple(field, "a bad neighbour", INVALID, |request| rename(request, "\u{7}")),
            self.simple(field, "taken", taken(field), |request| rename(request, TAKEN)),
            Attempt { headers: &[("grpc-timeout", "1n")], ..self.simple(field, "too late", LATE, |_| {}) },
            Attempt { headers: &[("grpc-timeout", "soon")], ..self.simple(field, "a bad header", MALFORMED, |_| {}) },
        ] {
            self.attempt(&alpha, field, attempt).await;
        }
        for attempt in self.damaged(field) {
            self.attempt(&alpha, field, attempt).await;
        }
        for attempt in self.referring(field) {
            self.attempt(&alpha, field, attempt).await;
        }
        self.repeated(&alpha, field).await;
        self.strangers(server, field).await;
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

    /// Requests that do not decode, or whose secret is no good.
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

        // The secret stands where a message is to be.
        let canary = Canary::new(format!("{}, of the wrong type", field.name()));
        let message = field.method.input().fields().find(|field| matches!(field.kind(), Kind::Message(_))).unwrap();
        let tag = u8::try_from(message.number() << 3 | 2).unwrap();
        let request = [&[tag, canary.secret.len() as u8], canary.secret.as_bytes()].concat();
        self.canaries.push(canary);
        add("of the wrong type", request, MALFORMED);
        attempts
    }

    /// Requests that are about something that is not there, or is not as they say.
    fn referring(&mut self, field: &SecretField) -> Vec<Attempt> {
        let name = field.method.name();
        let nobody = || Uuid::now_v7().to_string();
        if let Some(resource) = name.strip_prefix("Update") {
            let missing = match resource {
                "Connector" => "CONNECTOR_NOT_FOUND",
                "Connection" => "CONNECTION_NOT_FOUND",
                "Credential" => "CREDENTIAL_NOT_FOUND",
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
                    set(request, "reference", nobody())
                }),
                self.simple(field, "a bad mask", INVALID, mask),
            ];
        }
        match name {
            "CreateConnector" => vec![self.simple(field, "no key", (Code::NotFound, "KEY_NOT_FOUND"), |request| {
                set_inner(request, "client_identity_key", nobody());
            })],
            "CreateConnection" | "CreateCredential" => {
                vec![self.simple(field, "no connector", (Code::NotFound, "CONNECTOR_NOT_FOUND"), |request| {
                    set_inner(request, "connector", nobody());
                })]
            }
            // A key refers to nothing.
            "ImportKey" => Vec::new(),
            other => panic!("{other} is new here"),
        }
    }

    /// The same request id again: with the same body, and with another secret.
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
    async fn strangers(&mut self, server: &TestServer, field: &SecretField) {
        let reader = self.simple(field, "without the right", (Code::PermissionDenied, "SCOPE_DENIED"), |_| {});
        self.attempt(&server.client("reader"), field, reader).await;
        let expected = (Code::Unauthenticated, "CALLER_UNAUTHENTICATED");
        let unknown = self.simple(field, "by nobody known", expected, |_| {});
        let nobody = server.client_with(&server.pki().client(jackfield_testkit::Identity::of("nobody")));
        self.attempt(&nobody, field, unknown).await;

        let request = self.request(field, "to no method").encode_to_vec();
        let reply = call(&server.client("alpha"), &format!("{}s", path(&field.method)), &request, &[]).await;
        assert_eq!((reply.code, reply.reason.as_str()), (Code::Unimplemented, "METHOD_UNKNOWN"));
        self.replies.push((format!("{}, to no method", field.name()), reply));
    }

    /// All fields at once, while something is wrong with the database.
    async fn with_failing_database(
        &mut self,
        server: &TestServer,
        fields: &[SecretField],
        what: &'static str,
        expected: (Code, &'static str),
    ) {
        let alpha = &server.client("alpha");
        let requests: Vec<_> = fields.iter().map(|field| self.request(field, what).encode_to_vec()).collect();
        let calls = fields.iter().zip(&requests).map(|(field, request)| async move {
            (format!("{}, {what}", field.name()), call(alpha, &path(&field.method), request, &[]).await)
        });
        for (name, reply) in futures::future::join_all(calls).await {
            assert_eq!((reply.code, reply.reason.as_str()), expected, "{name}");
            self.replies.push((name, reply));
        }
    }

    /// Everything that can be read, as whoever may read most.
    async fn read_everything(&mut self, server: &TestServer) {
        let mut items = 0;
        for (caller, list) in ["alpha", "operator"]
            .into_iter()
            .flat_map(|caller| methods().into_iter().map(move |method| (caller, method)))
            .filter(|(_, method)| method.is_server_streaming())
        {
            let client = server.client(caller);
            let reply = call(&client, &path(&list), &[], &[]).await;
            let item = list.output().get_field(1).unwrap();
            let get = methods().into_iter().find(|method| {
                method.name().starts_with("Get")
                    && method.output().get_field(1).map(|field| field.kind()) == Some(item.kind())
            });
            let get = get.unwrap_or_else(|| panic!("{} has no Get", list.name()));
            for message in &reply.messages {
                let page = DynamicMessage::decode(list.output(), message.as_slice()).unwrap();
                for item in page.get_field(&item).as_list().unwrap() {
                    let id = item.as_message().unwrap().get_field_by_name("id").unwrap().into_owned();
                    let mut request = DynamicMessage::new(get.input());
                    request.set_field_by_name("reference", id);
                    let reply = call(&client, &path(&get), &request.encode_to_vec(), &[]).await;
                    assert_eq!(reply.code, Code::Ok, "{}", get.name());
                    self.replies.push((get.name().to_owned(), reply));
                    items += 1;
                }
            }
            self.replies.push((format!("{caller}: {}", list.name()), reply));
        }
        assert!(items > 100, "{items} items");
        for method in methods().into_iter().filter(|method| method.input().fields().len() == 0) {
            let reply = call(&server.client("operator"), &path(&method), &[], &[]).await;
            self.replies.push((method.name().to_owned(), reply));
        }
    }

    /// The only two methods that hand secrets out do so, and nothing is left of it elsewhere. Refused, they say nothing.
    async fn hand_out(&mut self, server: &TestServer, fields: &[SecretField]) {
        let alpha = server.client("alpha");
        let list = alpha.credentials().list_credentials(v1::ListCredentialsRequest::default()).await;
        let credentials = jackfield_testkit::collect::items(list).await.unwrap();
        let mut handed_out = Vec::new();
        for credential in &credentials {
            let reveal = v1::RevealCredentialRequest {
                reference: credential.id.clone(),
                purpose: "to see that it is there".to_owned(),
            };
            let issue = v1::IssueAccessTokenRequest { reference: credential.id.clone(), ..Default::default() };
            let reveal = reveal.encode_to_vec();
            let revealed = call(&alpha, "jackfield.v1.CredentialsService/RevealCredential", &reveal, &[]).await;
            assert_eq!(revealed.code, Code::Ok);
            handed_out.extend(revealed.bytes);
            let issued =
                call(&alpha, "jackfield.v1.CredentialsService/IssueAccessToken", &issue.encode_to_vec(), &[]).await;
            match issued.code {
                Code::Ok => handed_out.extend(issued.bytes),
                _ => self.replies.push(("IssueAccessToken, refused".to_owned(), issued)),
            }
            let reader = server.client("reader");
            for method in ["RevealCredential", "IssueAccessToken"] {
                let reply = call(&reader, &format!("jackfield.v1.CredentialsService/{method}"), &reveal, &[]).await;
                assert_eq!(reply.code, Code::PermissionDenied, "{method}");
                self.replies.push((format!("{method}, without the right"), reply));
            }
        }
        let mut found = 0;
        for field in fields.iter().filter(|field| field.is_material() && field.method.name() == "CreateCredential") {
            let planted_as = format!("{}, accepted", field.name());
            let canary = self.canaries.iter().find(|canary| canary.planted_as == planted_as).unwrap();
            assert!(contains(&handed_out, canary.secret.as_bytes()), "{planted_as} was not stored");
            found += 1;
        }
        assert_eq!(found, 9, "secrets of material");
    }

    /// The searched bytes by where they are from.
    fn places(&self, server: &TestServer) -> Vec<(String, Vec<u8>)> {
        let mut places: Vec<_> =
            self.replies.iter().map(|(name, reply)| (format!("the reply to {name}"), reply.bytes.clone())).collect();
        places.push(("the log".to_owned(), logs::bytes()));
        places.push(("the page of metrics".to_owned(), server.metrics_page().into_bytes()));
        places.push(("the database".to_owned(), tokio::task::block_in_place(|| server.stored_bytes())));
        files(server.data_dir(), &mut places);
        files(server.pki().path("ca.pem").parent().unwrap(), &mut places);
        places
    }
}

const LATE: (Code, &str) = (Code::DeadlineExceeded, "DEADLINE_EXCEEDED");

fn taken(field: &SecretField) -> (Code, &'static str) {
    let by_external_id = field.method.name().ends_with("Credential");
    (Code::AlreadyExists, if by_external_id { "EXTERNAL_ID_TAKEN" } else { "NAME_TAKEN" })
}

fn set(request: &mut DynamicMessage, field: &str, value: String) {
    request.try_set_field_by_name(field, Value::String(value)).unwrap_or_else(|error| panic!("{field}: {error}"));
}

/// Sets a text of the resource in a request.
fn set_inner(request: &mut DynamicMessage, field: &str, value: String) {
    let resources = ["connector", "connection", "credential", "key"];
    let outer = request.descriptor().fields().find(|field| resources.contains(&field.name())).expect("a resource");
    let mut resource = request.get_field(&outer).into_owned();
    set(resource.as_message_mut().expect("a message"), field, value);
    request.set_field(&outer, resource);
}

/// Gives the resource in a request another name, or what goes for one.
fn rename(request: &mut DynamicMessage, name: &str) {
    let of_credential = request.descriptor().get_field_by_name("credential").is_some();
    set_inner(request, if of_credential { "external_id" } else { "name" }, name.to_owned());
}

/// All files of a directory, whatever they are.
fn files(directory: &Path, places: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, places);
        } else {
            places.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
}

/// Lets every write of a secret fail as a defect does.
async fn break_secrets(server: &TestServer) {
    match server.backend() {
        Backend::Sqlite => {
            for operation in ["INSERT", "UPDATE"] {
                let trigger = format!(
                    "CREATE TRIGGER broken_{operation} BEFORE {operation} ON secret \
                     BEGIN SELECT RAISE(ABORT, 'broken on purpose'); END"
                );
                server.sql(&trigger).await;
            }
        }
        // The error shows the whole row in its detail.
        Backend::Postgres => {
            drop(server.sql("ALTER TABLE secret ADD CONSTRAINT broken CHECK (version < 0) NOT VALID").await);
        }
    }
}

async fn mend_secrets(server: &TestServer) {
    let statements: &[&str] = match server.backend() {
        Backend::Sqlite => &["DROP TRIGGER broken_INSERT", "DROP TRIGGER broken_UPDATE"],
        Backend::Postgres => &["ALTER TABLE secret DROP CONSTRAINT broken"],
    };
    for statement in statements {
        server.sql(statement).await;
    }
}

/// The bytes and the text of the keys that the server itself has.
fn own_keys(server: &TestServer, targets: &Targets) -> Vec<(String, Vec<u8>)> {
    let mut keys = Vec::new();
    let keyring = std::fs::read_to_string(server.data_dir().join("keyring.toml")).unwrap();
    for secret in keyring.lines().filter_map(|line| line.strip_prefix("secret = \"")) {
        let secret = secret.trim_end_matches('"');
        keys.push(("keyring.toml".to_owned(), secret.as_bytes().to_vec()));
        keys.push(("keyring.toml".to_owned(), STANDARD.decode(secret).unwrap()));
    }
    let server_key = std::fs::read_to_string(server.pki().path("server-key.pem")).unwrap();
    for (name, pem) in [("server-key.pem", server_key.as_str()), ("ImportKey: private_key_pem", &targets.key_pem)] {
        let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with("-----") && !line.is_empty()).collect();
        keys.extend(
            lines.iter().filter(|line| line.len() == 64).map(|line| (name.to_owned(), line.as_bytes().to_vec())),
        );
        // The private scalar of an EC key in PKCS #8 stands after these bytes (RFC 5915).
        let der = STANDARD.decode(lines.concat()).unwrap();
        let scalar = der.windows(4).position(|window| window == [0x02, 0x01, 0x01, 0x04]).unwrap() + 5;
        keys.push((name.to_owned(), der[scalar..scalar + 32].to_vec()));
    }
    assert_eq!(keys.len(), 2 + 2 * 3, "keys of the keyring and of two PEM files");
    keys
}

on_both! {
    async fn secrets_are_nowhere_but_where_they_are_handed_out(backend: Backend) {
        let everything = logs::everything();
        let password = Canary::new("database.url");
        let stranger = Canary::new("identity.principals");
        let server = TestServer::start_with(backend, |config| {
            let url = config.database.url.expose().replacen("jackfield@", &format!("jackfield:{}@", password.secret), 1);
            config.database.url = SecretUrl::new(url);
            config.identity.principals.push(principal(&stranger.secret, "alpha", &["*"]));
        })
        .await;
        let mut server = server;
        let targets = Targets::create(&server).await;
        let mut sown = Sown { targets, canaries: vec![password, stranger], replies: Vec::new() };

        let fields = secret_fields();
        assert_eq!(fields.len(), 25, "a field is new or gone: {:?}", fields.iter().map(SecretField::name).collect::<Vec<_>>());
        for field in &fields {
            sown.attempts(&server, field).await;
        }
        break_secrets(&server).await;
        sown.with_failing_database(&server, &fields, "with a defect", (Code::Internal, "INTERNAL")).await;
        mend_secrets(&server).await;
        let away = (Code::Unavailable, "STORE_UNAVAILABLE");
        match backend {
            Backend::Postgres => {
                server.postgres().set_reachable(false);
                sown.with_failing_database(&server, &fields, "without a database", away).await;
                server.postgres().set_reachable(true);
            }
            Backend::Sqlite => {
                let store = server.store().await;
                let lock = store.write().await.unwrap();
                sown.with_failing_database(&server, &fields, "without a database", away).await;
                lock.rollback().await.unwrap();
            }
        }
        sown.hand_out(&server, &fields).await;
        sown.read_everything(&server).await;
        let rewrap = v1::RewrapSecretsRequest { reseal: true, ..Default::default() };
        server.client("operator").admin().rewrap_secrets(rewrap).await.unwrap();

        let keys = own_keys(&server, &sown.targets);
        let mut places = sown.places(&server);
        server.stop().await;
        drop(everything);
        places.push(("the database at rest".to_owned(), tokio::task::block_in_place(|| server.stored_bytes())));
        places.push(("the log to its end".to_owned(), logs::bytes()));

        let (canaries, keys) = (Sweep::new(&sown.canaries, &[]), Sweep::new(&[], &keys));
        for (place, bytes) in &places {
            canaries.assert_not_in(place, bytes);
            if !place.ends_with("keyring.toml") && !place.ends_with("server-key.pem") {
                keys.assert_not_in(place, bytes);
            }
        }
        // What was searched is what it is meant to be.
        let place = |name: &str| &places.iter().find(|(place, _)| place == name).unwrap().1;
        assert!(contains(place("the log"), b"\"level\":\"TRACE\""));
        for name in ["the log", "the page of metrics"] {
            for method in ["ConnectorService/CreateConnector", "KeyService/ImportKey", "CredentialsService/RevealCredential"] {
                assert!(contains(place(name), method.as_bytes()), "{name}: {method}");
            }
        }
        for name in ["the database", "the database at rest"] {
            assert!(contains(place(name), b"spiffe") || contains(place(name), TAKEN.as_bytes()), "{name}");
        }
        assert!(sown.canaries.len() > 400, "{}", sown.canaries.len());
    }

    /// A search that finds nothing has to be able to find something.
    async fn the_search_finds_what_is_there(server) {
        let everything = logs::everything();
        let targets = Targets::create(&server).await;
        let (said, stored, kept) = (Canary::new("said"), Canary::new("stored"), Canary::new("kept"));
        let mut sown = Sown { targets, canaries: vec![said.clone(), stored.clone(), kept.clone()], replies: Vec::new() };

        // A path goes to the log and back to the caller, a description to the database and to whoever reads it.
        let reply = call(&server.client("alpha"), &format!("jackfield.v1.Nothing/{}", said.secret), &[], &[]).await;
        sown.replies.push(("an unknown method".to_owned(), reply));
        let mut connector = a_connector("leaky");
        connector.description = format!("plain {}", stored.secret);
        connector.headers.insert("x-note".to_owned(), STANDARD.encode(format!("a{}", stored.secret)));
        let request = v1::CreateConnectorRequest { connector: Some(connector), ..Default::default() };
        let method = "jackfield.v1.ConnectorService/CreateConnector";
        let reply = call(&server.client("alpha"), method, &request.encode_to_vec(), &[]).await;
        assert_eq!(reply.code, Code::Ok);
        sown.replies.push(("a leaky connector".to_owned(), reply));
        std::fs::write(server.data_dir().join("backup"), kept.secret.to_uppercase().to_lowercase()).unwrap();

        let places = sown.places(&server);
        drop(everything);
        let sweep = Sweep::new(&sown.canaries, &[]);
        let found: Vec<_> = places
            .iter()
            .flat_map(|(place, bytes)| sweep.found_in(bytes).into_iter().map(move |what| (place.as_str(), what)))
            .collect();
        let backup = server.data_dir().join("backup").display().to_string();
        let expected = [
            ("the reply to an unknown method", "said, as text"),
            ("the reply to a leaky connector", "stored, as base64 at offset 1"),
            ("the reply to a leaky connector", "stored, as text"),
            ("the log", "said, as text"),
            ("the database", "stored, as base64 at offset 1"),
            ("the database", "stored, as text"),
            (&backup, "kept, as text"),
        ];
        let missing: Vec<_> = expected.iter().filter(|expected| !found.contains(expected)).collect();
        assert!(missing.is_empty(), "{missing:?} were not found, only {found:?}");
        let others = found.iter().filter(|found| !expected.contains(found) && !found.0.contains("sqlite3"));
        assert_eq!(others.count(), 0, "{found:?}");
    }
}
