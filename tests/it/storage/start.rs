//! Starts: several at once, with schemas of other versions, without the right keys.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use jackfield_api::v1;
use jackfield_testkit::fixture::{self, object};
use jackfield_testkit::store::{Database, PoolSettings, Store};
use jackfield_testkit::{Backend, Program, Refusal, Site, TestServer, collect, on_both};
use tonic::Code;
use uuid::Uuid;

use super::{
    content, counts, create_connector, create_connector_by, create_credential, get_connector, has_table, issue,
    names_of_connectors,
};

/// The names and contents of all files of a stopped server, except those of the database.
fn files(server: &TestServer) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(server.data_dir()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|path| path.is_file() && !path.to_string_lossy().contains(".sqlite3"))
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Tries to start a server, which has to fail, and checks that nothing has changed. Returns the reason.
async fn refused(server: &mut TestServer) -> String {
    let before = (content(server).await, files(server));
    let error = server.try_restart().await.expect_err("it starts");
    assert!((content(server).await, files(server)) == before, "the refused start has changed something: {error}");
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_by_command_names_the_rows_that_it_leaves() {
    let site = Site::new(Backend::Sqlite, Program::Jackfield);
    site.prepare().await;
    let process = site.start();
    let request = v1::CreateConnectorRequest { connector: Some(fixture::a_connector("damaged")), ..Default::default() };
    let made = process.client("alpha").connectors().create_connector(request).await.unwrap().into_inner();
    tokio::task::spawn_blocking(move || process.stop()).await.unwrap();
    let settings = PoolSettings { max_connections: 1, acquire_timeout: Duration::from_secs(5) };
    let store = Store::connect(&Database::Sqlite(site.sqlite_file()), settings).await.unwrap();
    store.raw_write("UPDATE connector SET doc = CAST(x'ff' AS TEXT)").await.unwrap();
    store.raw_write("DELETE FROM seaql_migrations WHERE version = 'm0006_composed_names'").await.unwrap();
    store.close().await;
    let output = site.run(&["migrate"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "schema is at m0023_attempt_status\n");
    let log = String::from_utf8_lossy(&output.stderr);
    let line =
        log.lines().find(|line| line.contains("a damaged row is left as it is")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("\"WARN\"") && line.contains(&made.connector.unwrap().id), "{line}");
}

mod an_account_that_may_not_create_extensions_gets_instructions {
    use std::time::Duration;

    use jackfield_testkit::postgres::fresh_database;
    use jackfield_testkit::store::{Database, PoolSettings, Store, StoreError};
    use uuid::Uuid;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn postgres() {
        let database = fresh_database();
        let role = format!("plain_{}", Uuid::now_v7().simple());
        database.run(&format!("create role {role} login password 'plain'"));
        database.run(&format!("grant create on schema public to {role}"));
        let url = database.url();
        let (_, address) = url.split_once('@').unwrap();
        let url = Database::Postgres(format!("postgres://{role}:plain@{address}"));
        let settings = PoolSettings { max_connections: 2, acquire_timeout: Duration::from_secs(10) };

        let store = Store::connect(&url, settings).await.unwrap();
        for extension in ["pg_trgm", "btree_gin"] {
            let Err(StoreError::Migration(reason)) = store.migrate().await else {
                panic!("it does not need {extension}")
            };
            for part in [format!("the extension {extension} "), format!("`CREATE EXTENSION {extension}`")] {
                assert!(reason.contains(&part), "{reason}");
            }
            database.run(&format!("create extension {extension}"));
        }
        store.migrate().await.unwrap();
        store.close().await;
        database.run(&format!("drop owned by {role} cascade"));
        database.run(&format!("drop role {role}"));
    }
}

mod several_servers_start_at_once_on_an_empty_database {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn postgres() {
        let servers = TestServer::start_at_once(4).await;
        let counts = counts(&servers[0]).await;
        assert_eq!((counts["tenant"], counts["seaql_migrations"]), (3, 22), "default, alpha, beta");
        assert_eq!(counts["data_key"], 4, "of the system and of each tenant");

        let mut expected = Vec::new();
        for (number, server) in servers.iter().enumerate() {
            for round in 0..5 {
                expected.push(format!("c{number}{round}"));
                create_connector(server, "alpha", expected.last().unwrap()).await.unwrap();
            }
        }
        for server in &servers {
            assert_eq!(names_of_connectors(server, "alpha").await, expected);
        }
    }
}

on_both! {
    /// Many callers, on PostgreSQL on two replicas.
    async fn concurrent_writes_are_not_lost(server) {
        let replica = server.replica().await;
        let servers = &[&server, replica.as_ref().unwrap_or(&server)];
        let writes = (0..20).flat_map(|round| {
            servers.iter().enumerate().map(move |(number, server)| async move {
                create_connector(server, "alpha", &format!("c{number}-{round}")).await.unwrap().id
            })
        });
        let mut ids = futures::future::join_all(writes).await;
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 40);
        assert_eq!(names_of_connectors(&server, "alpha").await.len(), 40);
        if server.backend() == Backend::Sqlite {
            assert_eq!(server.sql("PRAGMA integrity_check").await, ["ok"]);
        }
    }

    async fn a_newer_schema_is_refused_and_left_alone(server) {
        let mut server = server;
        server.stop().await;
        server.sql("INSERT INTO seaql_migrations (version, applied_at) VALUES ('m9999_future', 0)").await;
        for migrate in [true, false] {
            server.config_mut().database.migrate = migrate;
            let reason = refused(&mut server).await;
            let expected =
                "the schema is newer than this program: it has the migration m9999_future, which is unknown here";
            assert_eq!(reason, expected);
        }
        server.sql("DELETE FROM seaql_migrations WHERE version = 'm9999_future'").await;
        server.try_restart().await.unwrap();
    }

    async fn an_older_schema_is_refused_unless_it_may_be_migrated(server) {
        let mut server = server;
        create_connector(&server, "alpha", "kept").await.unwrap();
        server.stop().await;
        for table in ["idempotency", "audit_event", "rewrap"] {
            server.sql(&format!("DROP TABLE {table}")).await;
        }
        server.sql("DELETE FROM seaql_migrations WHERE version = 'm0003_operations'").await;

        server.config_mut().database.migrate = false;
        let reason = refused(&mut server).await;
        let expected =
            "the schema is older than this program: the migration m0003_operations is missing; run `jackfield migrate`";
        assert_eq!(reason, expected);

        server.config_mut().database.migrate = true;
        server.try_restart().await.unwrap();
        assert!(has_table(&server, "audit_event").await);
        get_connector(&server, "alpha", "kept").await.unwrap();

        server.config_mut().database.migrate = false;
        server.try_restart().await.unwrap();
    }

    async fn a_database_from_before_the_state_of_credentials_was_renamed_reads_the_same(server) {
        let mut server = server;
        create_connector(&server, "alpha", "main").await.unwrap();
        let link = v1::AddUserConnectorRequest {
            user_id: "u".to_owned(),
            connector: "name:main".to_owned(),
            ..Default::default()
        };
        server.client("alpha").user_connectors().add_user_connector(link).await.unwrap();
        let create = v1::CreateCredentialRequest {
            credential: Some(fixture::a_credential("u", "name:main")),
            material: Some(fixture::api_key_material("the api key")),
            request_id: Uuid::now_v7().to_string(),
            ..Default::default()
        };
        let created = server.client("alpha").credentials().create_credential(create.clone()).await.unwrap().into_inner();
        let credential = created.credential.as_ref().unwrap().id.clone();
        // Members with the same name elsewhere belong to the caller and stay, as does the form of numbers and texts.
        let facts = v1::Credential {
            provider_data: Some(object([("status", "ACTIVE"), ("state", "\"status\":\u{0}"), ("n", "1e2")])),
            ..Default::default()
        };
        let request = v1::UpdateCredentialRequest {
            reference: credential.clone(),
            credential: Some(facts),
            request_id: Uuid::now_v7().to_string(),
            ..Default::default()
        };
        let answer = server.client("alpha").credentials().update_credential(request.clone()).await.unwrap().into_inner();
        server.stop().await;
        let written = server.sql("SELECT doc FROM credential").await;
        server.sql("ALTER TABLE credential RENAME COLUMN state TO status").await;
        for (table, column) in [("credential", "doc"), ("idempotency", "answer")] {
            let renamed_back = format!("replace({column}, '\"state\":\"VALID\"', '\"status\":\"VALID\"')");
            server.sql(&format!("UPDATE {table} SET {column} = {renamed_back}")).await;
        }
        server.sql("DELETE FROM seaql_migrations WHERE version = 'm0005_credential_state'").await;
        let docs = server.sql("SELECT doc FROM credential").await;
        assert!(docs[0].contains("\"status\":\"VALID\"") && docs != written, "{docs:?}");

        server.restart().await;
        let client = server.client("alpha");
        for filter in ["state = VALID", "NOT state = REVOKED"] {
            let request = v1::ListCredentialsRequest { filter: filter.to_owned(), ..Default::default() };
            let listed = collect::items(client.credentials().list_credentials(request).await).await.unwrap();
            let listed: Vec<_> = listed.iter().map(|it| (it.id.as_str(), it.state())).collect();
            assert_eq!(listed, [(credential.as_str(), v1::CredentialState::Valid)], "{filter}");
        }
        assert_eq!(issue(&server, "alpha", &credential).await.unwrap(), "the api key");
        // Backups compare rows with the canonical form of their documents.
        assert_eq!(server.sql("SELECT doc FROM credential").await, written);
        let repeated = client.credentials().update_credential(request).await.unwrap().into_inner();
        assert_eq!(repeated, answer);
        let repeated = client.credentials().create_credential(create).await.unwrap().into_inner();
        assert_eq!(repeated, created);
    }

    async fn names_from_before_composition_was_ignored_are_found(server) {
        let mut server = server;
        // Older programs folded only letter case.
        let (composed, decomposed) = ("Caf\u{e9}", "Cafe\u{301}");
        let kept = create_connector(&server, "alpha", decomposed).await.unwrap().id;
        let mut others = Vec::new();
        for name in ["other", "first", "second"] {
            others.push(create_connector(&server, "alpha", name).await.unwrap().id);
        }
        create_connector(&server, "alpha", "damaged").await.unwrap();
        // Two tenants may use the same id.
        let same = v1::CreateConnectorRequest {
            connector: Some(fixture::a_connector(decomposed)),
            id: kept.clone(),
            ..Default::default()
        };
        create_connector_by(&server, "beta", same).await.unwrap();
        let mut keys = Vec::new();
        for name in ["one", "another"] {
            let key = crate::key::import(&server.client("alpha"), crate::key::a_bundle(&server, name)).await;
            keys.push(key.id);
        }
        server.stop().await;
        let no_text = match server.backend() {
            Backend::Sqlite => "CAST(x'ff' AS TEXT)",
            Backend::Postgres => "'{}'",
        };
        server.sql(&format!("UPDATE connector SET doc = {no_text} WHERE name_key = 'damaged'")).await;
        let derived = "SELECT name_key || ' ' || search_text || ' ' || coalesce(folded, '') FROM connector \
                       ORDER BY tenant_id, id";
        let written = server.sql(derived).await;
        let before = "UPDATE connector SET name_key = 'cafe\u{301}', search_text = 'cafe\u{301}', folded = NULL";
        server.sql(&format!("{before} WHERE name_key NOT IN ('other', 'first', 'second', 'damaged')")).await;
        let rename = |from: &str, to: &str| {
            format!("UPDATE connector SET name_key = lower('{to}'), doc = replace(doc, '\"{from}\"', '\"{to}\"') ")
        };
        let composed_lower = "caf\u{e9}";
        let renames = [("other", composed_lower), ("first", "zoe\u{308}"), ("second", "zo\u{eb}")];
        for (from, to) in renames {
            server.sql(&format!("{} WHERE name_key = '{from}'", rename(from, to))).await;
        }
        for (from, to) in [("one", "cafe\u{301}"), ("another", composed_lower)] {
            let to = format!("name_key = '{to}', doc = replace(doc, '\"{from}\"', '\"{to}\"')");
            server.sql(&format!("UPDATE \"key\" SET {to} WHERE name_key = '{from}'")).await;
        }
        server.sql("DELETE FROM seaql_migrations WHERE version = 'm0006_composed_names'").await;
        let previous = server.sql(derived).await;
        assert_ne!(previous, written);

        // None of them is renamed, dropped or hidden.
        let reason = refused(&mut server).await;
        for part in [decomposed, &kept, &others[0], &others[1], &others[2], "rename one of each with the previous version"] {
            assert!(reason.contains(part), "{part}: {reason}");
        }
        assert_eq!(reason.matches("the connectors ").count(), 2, "{reason}");
        // The younger key was renamed, and that was undone.
        let is_reported = || {
            let log = jackfield_testkit::logs::text();
            log.lines().any(|line| line.contains("so it is renamed") && line.contains(&keys[1]))
        };
        assert!(!is_reported());

        for (to, from) in renames {
            server.sql(&format!("{} WHERE name_key = '{from}'", rename(from, to))).await;
        }
        server.restart().await;
        assert_eq!(server.sql(derived).await, written);
        assert!(is_reported());
        for tenant in ["alpha", "beta"] {
            for name in [composed, decomposed, "CAF\u{c9}"] {
                let got = get_connector(&server, tenant, name).await.unwrap();
                assert_eq!((got.id.as_str(), got.name.as_str()), (kept.as_str(), decomposed));
            }
        }
        // An unreadable row does not prevent the start, and is found by its name as before.
        let found = get_connector(&server, "alpha", "damaged").await.unwrap_err();
        Refusal::check(found, Code::DataLoss, "DATA_DAMAGED");
    }

    /// Callers could not rename a key then, so the migration does.
    async fn of_two_keys_with_the_same_name_the_younger_gets_a_number(server) {
        let mut server = server;
        // Four ways to write "ệ"; older programs held the first three for different names.
        let names = ["e\u{323}\u{302}", "\u{1ec7}", "\u{1eb9}\u{302}", "\u{1ec7} 2"];
        let mut before = Vec::new();
        for number in 0..names.len() {
            let request = crate::key::a_bundle(&server, &format!("key{number}"));
            before.push(crate::key::import(&server.client("alpha"), request).await);
        }
        server.stop().await;
        for (number, name) in names.iter().enumerate() {
            let rename = format!("name_key = '{name}', doc = replace(doc, '\"key{number}\"', '\"{name}\"')");
            server.sql(&format!("UPDATE \"key\" SET {rename} WHERE name_key = 'key{number}'")).await;
        }
        server.sql("DELETE FROM seaql_migrations WHERE version = 'm0006_composed_names'").await;

        server.restart().await;
        let client = server.client("alpha");
        let expected = [names[0], "\u{1ec7} 3", "\u{1eb9}\u{302} 4", names[3]];
        for (number, (before, expected)) in before.iter().zip(expected).enumerate() {
            for reference in [before.id.clone(), format!("name:{expected}")] {
                let request = v1::GetKeyRequest { reference };
                let key = client.keys().get_key(request).await.unwrap().into_inner().key.unwrap();
                assert_eq!((&*key.id, &*key.name), (&*before.id, expected));
                assert_eq!(key.certificate_pem, before.certificate_pem);
                let is_renamed = expected != names[number];
                assert_eq!(key.etag != before.etag, is_renamed, "{expected}");
            }
        }
        let log = jackfield_testkit::logs::text();
        let lines: Vec<_> = log.lines().filter(|line| line.contains("so it is renamed")).collect();
        for (number, to) in [(1, expected[1]), (2, expected[2])] {
            let parts = [&*before[number].id, names[number], to, "WARN"];
            assert!(lines.iter().any(|line| parts.iter().all(|part| line.contains(part))), "{parts:?} {lines:?}");
        }
        let (_, faults) = server.store().await.row_faults().await.unwrap();
        assert_eq!(faults, [] as [&str; 0]);
    }

    async fn without_the_right_keyring_nothing_starts_and_nothing_changes(server) {
        let mut server = server;
        create_connector(&server, "alpha", "main").await.unwrap();
        let credential = create_credential(&server, "alpha", "u", "name:main", "the api key").await;
        server.stop().await;
        let path = server.data_dir().join("keyring.toml");
        let right = fs::read_to_string(&path).unwrap();
        let secret_of = |text: &str| text.rsplit_once("secret = \"").unwrap().1.split('"').next().unwrap().to_owned();
        let id = right.split("active = \"").nth(1).unwrap().split('"').next().unwrap().to_owned();

        // Another keyring, such as that of another deployment.
        let other = TestServer::start(Backend::Sqlite).await;
        let other = fs::read_to_string(other.data_dir().join("keyring.toml")).unwrap();
        let wrong_secret = right.replace(&secret_of(&right), &secret_of(&other));
        let half = &right[..right.len() / 2];
        let cases: [(&str, &str); 5] = [
            (&other, "data keys are wrapped with key-encryption keys that are not available: "),
            (&wrong_secret, "does not open the data keys that were wrapped with it"),
            (half, "keyring"),
            ("", "keyring"),
            (&right.replace("secret = ", "sekret = "), "keyring"),
        ];
        for (text, expected) in cases {
            fs::write(&path, text).unwrap();
            let reason = refused(&mut server).await;
            assert!(reason.contains(expected), "{reason}");
            for secret in [secret_of(&right), secret_of(&other)] {
                assert!(!reason.contains(&secret), "{reason}");
            }
            let names_key = text == other.as_str() || text == wrong_secret.as_str();
            assert_eq!(reason.contains(&id), names_key, "{reason}");
        }

        fs::write(&path, &right).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let reason = refused(&mut server).await;
        assert!(reason.contains("has mode 0640"), "{reason}");

        fs::remove_file(&path).unwrap();
        let reason = refused(&mut server).await;
        let expected = match server.backend() {
            // The database is next to it, so no new key is created.
            Backend::Sqlite => format!("there is no keyring {}", path.display()),
            Backend::Postgres => format!("not available: {id}"),
        };
        assert!(reason.contains(&expected), "{reason}");
        assert!(!path.exists(), "a useless key was created");

        fs::write(&path, &right).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        server.try_restart().await.unwrap();
        assert_eq!(issue(&server, "alpha", &credential).await.unwrap(), "the api key");
    }
}

/// The error of a start names the fault but never the password.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_password_of_an_unavailable_database_is_not_shown() {
    let mut server = TestServer::start(Backend::Sqlite).await;
    // The time limit for connecting to an address without a listener.
    server.config_mut().database.acquire_timeout = Duration::from_secs(2);
    let canary = jackfield_testkit::Canary::new("database.url");
    let port = {
        // A port that was just released has no listener.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let urls = [
        format!("postgres://jackfield:{}@127.0.0.1:{port}/jackfield", canary.secret),
        format!("postgres://jackfield:{}@127.0.0.1:notaport/jackfield", canary.secret),
        format!("postgres://jackfield:{}@127.0.0.1/jackfield?sslmode=strange", canary.secret),
        format!("mysql://jackfield:{}@127.0.0.1/jackfield", canary.secret),
    ];
    for url in urls {
        server.config_mut().database.url.clone_from(&secret_url(&url));
        let reason = server.try_restart().await.unwrap_err();
        assert!(reason.contains("database"), "{reason}");
        canary.assert_not_in("the reason", reason.as_bytes());
    }
    canary.assert_not_in("the log", &jackfield_testkit::logs::bytes());
}

fn secret_url(url: &str) -> jackfield_testkit::data::SecretUrl {
    jackfield_testkit::data::SecretUrl::new(url)
}
