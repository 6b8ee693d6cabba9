//! No secret appears where it does not belong. A marked secret goes into every secret field of the contract, through
//! every method that takes it, on every path that such a call can take. Then everything that the server has answered,
//! logged, counted or written is searched.

mod attempts;
mod authorization;
mod plant;
mod raw;
mod revocation;
mod source;
mod sown;

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jackfield_api::v1;
use jackfield_testkit::canary::{Sweep, contains};
use jackfield_testkit::data::{SecretUrl, principal};
use jackfield_testkit::fixture::{a_connector, a_user, an_application};
use jackfield_testkit::{Backend, Canary, Reply, System, TestServer, logs, on_both};
use prost::Message as _;
use tonic::Code;

use self::plant::{SecretField, TAKEN, Targets, secret_fields};
use self::raw::call;
use self::sown::Sown;
use crate::{login, steps};

// === impl Sown ===

impl Sown {
    /// The searched bytes by origin.
    fn places(&self, server: &TestServer) -> Vec<(String, Vec<u8>)> {
        let mut places: Vec<_> =
            self.replies.iter().map(|(name, reply)| (format!("the reply to {name}"), reply.bytes.clone())).collect();
        places.push(("the log".to_owned(), logs::bytes()));
        places.push(("the metrics page".to_owned(), server.metrics_page().into_bytes()));
        places.push(("the database".to_owned(), tokio::task::block_in_place(|| server.stored_bytes())));
        files(server.data_dir(), &mut places);
        files(server.pki().path("ca.pem").parent().unwrap(), &mut places);
        places
    }
}

/// Adds all files of a directory, whatever they are.
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

/// Makes every write of a secret fail, as a defect would.
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
        // The detail of the error shows the whole row.
        Backend::Postgres => {
            drop(server.sql("ALTER TABLE secret ADD CONSTRAINT broken CHECK (length(sealed) < 0) NOT VALID").await);
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

/// The bytes and the text of the server's own keys.
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
        // The private scalar of an EC key in PKCS #8 follows these bytes (RFC 5915).
        let der = STANDARD.decode(lines.concat()).unwrap();
        let scalar = der.windows(4).position(|window| window == [0x02, 0x01, 0x01, 0x04]).unwrap() + 5;
        keys.push((name.to_owned(), der[scalar..scalar + 32].to_vec()));
    }
    assert_eq!(keys.len(), 2 + 2 * 3, "the keys of the keyring and of two PEM files");
    keys
}

/// The token of a session that is used once.
async fn session_token(server: &TestServer, targets: &Targets) -> String {
    let (username, password) = (TAKEN.to_owned(), a_user("").password);
    let application = targets.application.clone();
    let login = v1::AuthenticateApplicationUserRequest { application, username, password, event_info: None };
    let mut applications = server.client("alpha").applications();
    let opened = applications.authenticate_application_user(login).await.unwrap().into_inner();
    let (application, session_token) = (targets.application.clone(), opened.session_token.clone());
    applications.get_session_user(v1::GetSessionUserRequest { application, session_token }).await.unwrap();
    opened.session_token
}

/// Opens a session of a licence server and uses it. Its token, which the server gave, stays in the database.
async fn license_session(server: &TestServer, sown: &mut Sown) {
    let token = Canary::new("the token of a licence server");
    let body = serde_json::json!({ "token": token.secret, "permissions": [], "email": "ada@example.com" }).to_string();
    let system = System::start(move |_| Reply::new(200, body.clone())).await;
    let alpha = server.client("alpha");
    let license = v1::LicenseConnector { base_url: system.url("/v1"), application_id: "app".to_owned() };
    let kind = Some(v1::connector::Kind::License(license));
    let connector = v1::Connector { kind, ..login::connector(&alpha, &system, "license").await };
    let connector = Some(login::create(&alpha, connector).await.id);
    let application = steps::application(&alpha, v1::Application { connector, ..an_application("licensed") }).await.id;
    let (username, password) = ("ada".to_owned(), "right".to_owned());
    let request = v1::AuthenticateApplicationUserRequest {
        application: application.clone(),
        username,
        password,
        event_info: None,
    };
    let method = "jackfield.v1.ApplicationService/AuthenticateApplicationUser";
    let opened = call(&alpha, method, &request.encode_to_vec(), &[]).await;
    let message = v1::AuthenticateApplicationUserResponse::decode(&*opened.messages[0]).unwrap();
    assert_eq!(message.outcome(), v1::LoginOutcome::Accepted);
    sown.replies.push(("a log-in at a licence server".to_owned(), opened));
    let request = v1::GetSessionUserRequest { application, session_token: message.session_token }.encode_to_vec();
    for method in ["GetSessionUser", "GetSessionPermissions"] {
        let reply = call(&alpha, &format!("jackfield.v1.ApplicationService/{method}"), &request, &[]).await;
        assert_eq!(reply.code, Code::Ok, "{reply:?}");
        sown.replies.push((format!("{method} of a licence server"), reply));
    }
    let tokens = system.received().into_iter().filter_map(|request| request.headers.get("x-license-token").cloned());
    assert_eq!(tokens.collect::<Vec<_>>(), [&*token.secret; 3]);
    sown.canaries.push(token);
}

on_both! {
    async fn secrets_appear_only_where_they_are_returned(backend: Backend) {
        let everything = logs::everything();
        let password = Canary::new("database.url");
        let stranger = Canary::new("identity.principals");
        let server = TestServer::start_with(backend, |config| {
            let url = config.database.url.expose().replacen("jackfield@", &format!("jackfield:{}@", password.secret), 1);
            config.database.url = SecretUrl::new(url);
            config.identity.principals.push(principal(&stranger.secret, "alpha", &["*"]));
            authorization::listen(config);
        })
        .await;
        let mut server = server;
        let targets = Targets::create(&server).await;
        let mut sown = Sown { targets, canaries: vec![password, stranger], replies: Vec::new() };

        let fields = secret_fields();
        assert_eq!(fields.len(), 56, "a field was added or removed: {:?}", fields.iter().map(SecretField::name).collect::<Vec<_>>());
        for field in &fields {
            sown.attempts(&server, field).await;
        }
        break_secrets(&server).await;
        // A log-in stores nothing.
        let stored = fields.iter().filter(|field| !field.is_login());
        sown.with_failing_database(&server, stored.clone(), "with a defect", (Code::Internal, "INTERNAL")).await;
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
                sown.with_failing_database(&server, stored, "without a database", away).await;
                lock.rollback().await.unwrap();
            }
        }
        let session_token = session_token(&server, &sown.targets).await;
        license_session(&server, &mut sown).await;
        let of_authorizations = authorization::authorize(&server, &mut sown).await;
        revocation::revoke(&server, &mut sown).await;
        source::give(&server, &mut sown).await;
        sown.hand_out(&server, &fields).await;
        sown.read_everything(&server).await;
        let rewrap = v1::RewrapSecretsRequest { reseal: true, ..Default::default() };
        server.client("operator").admin().rewrap_secrets(rewrap).await.unwrap();

        let mut keys = own_keys(&server, &sown.targets);
        keys.extend(of_authorizations);
        keys.push(("the hash of a password".to_owned(), b"$argon2id$v=19$".to_vec()));
        keys.push(("the token of a session".to_owned(), session_token.into_bytes()));
        let mut places = sown.places(&server);
        server.stop().await;
        places.push(("the database at rest".to_owned(), tokio::task::block_in_place(|| server.stored_bytes())));
        places.push(("the log to its end".to_owned(), logs::bytes()));
        drop(everything);

        let (canaries, keys) = (Sweep::new(&sown.canaries, &[]), Sweep::new(&[], &keys));
        for (place, bytes) in &places {
            canaries.assert_not_in(place, bytes);
            if !place.ends_with("keyring.toml") && !place.ends_with("server-key.pem") {
                keys.assert_not_in(place, bytes);
            }
        }
        // Checks that the searched data is what it is meant to be.
        let place = |name: &str| &places.iter().find(|(place, _)| place == name).unwrap().1;
        assert!(contains(place("the log"), b"\"level\":\"TRACE\""));
        for name in ["the log", "the metrics page"] {
            for method in ["ConnectorService/CreateConnector", "KeyService/ImportKey", "CredentialsService/RevealCredential"] {
                assert!(contains(place(name), method.as_bytes()), "{name}: {method}");
            }
        }
        for name in ["the database", "the database at rest"] {
            assert!(contains(place(name), b"spiffe") || contains(place(name), TAKEN.as_bytes()), "{name}");
        }
        assert!(sown.canaries.len() > 400, "{}", sown.canaries.len());
    }

    /// A search that finds nothing must be able to find something.
    async fn the_search_finds_what_is_there(server) {
        let everything = logs::everything();
        let targets = Targets::create(&server).await;
        let (said, stored, kept) = (Canary::new("said"), Canary::new("stored"), Canary::new("kept"));
        let mut sown = Sown { targets, canaries: vec![said.clone(), stored.clone(), kept.clone()], replies: Vec::new() };

        // A path goes to the log and back to the caller, a description to the database and to its readers.
        let reply = call(&server.client("alpha"), &format!("jackfield.v1.Nothing/{}", said.secret), &[], &[]).await;
        sown.replies.push(("an unknown method".to_owned(), reply));
        let mut connector = a_connector("leaky");
        connector.description = Some(format!("plain {}", stored.secret));
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
        // It finds nothing elsewhere: text that was only said is not stored, and vice versa.
        let name = |what: &str| what.split(',').next().unwrap().to_owned();
        let expected: Vec<_> = expected.iter().map(|(place, what)| (*place, name(what))).collect();
        let others = found.iter().map(|(place, what)| (*place, name(what)));
        let others: Vec<_> = others.filter(|found| !expected.contains(found) && !found.0.contains(".sqlite3")).collect();
        assert_eq!(others, []);
    }
}
