//! An attacker who can write to the database but has no keys moves and alters sealed values: the affected values do not
//! open, with a clear error, and everything else works.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jackfield_api::v1;
use jackfield_testkit::fixture::{a_connector, strings};
use jackfield_testkit::{Backend, Refusal, TestServer, on_both};
use tonic::Code;

use super::{
    bytes_literal, counts, create_connector, create_connector_by, create_credential, issue, literal,
    names_of_connectors,
};

/// Two credentials of alpha and one of beta.
struct Setup {
    server: TestServer,
    one: String,
    two: String,
    of_beta: String,
}

impl Setup {
    /// Uses a server without a token cache, so that every opened secret comes from the database.
    async fn on(backend: Backend) -> Self {
        let server = TestServer::start_with(backend, |config| config.token_cache.max_tokens = 0).await;
        for tenant in ["alpha", "beta"] {
            create_connector(&server, tenant, "main").await.unwrap();
        }
        Self {
            one: create_credential(&server, "alpha", "u1", "name:main", "key one").await,
            two: create_credential(&server, "alpha", "u2", "name:main", "key two").await,
            of_beta: create_credential(&server, "beta", "u1", "name:main", "key of beta").await,
            server,
        }
    }

    async fn sealed(&self, credential: &str) -> Vec<u8> {
        let (hex, owner) = (hex_of_sealed(&self.server), literal(&self.server, credential));
        let rows = self.server.sql(&format!("SELECT {hex} AS sealed FROM secret WHERE owner_id = {owner}")).await;
        unhex(&rows[0])
    }

    async fn put(&self, credential: &str, sealed: &[u8]) {
        let (owner, sealed) = (literal(&self.server, credential), bytes_literal(&self.server, sealed));
        self.server.sql(&format!("UPDATE secret SET sealed = {sealed} WHERE owner_id = {owner}")).await;
    }

    /// Checks that the secret of this credential does not open in any way, and that those of the others do.
    async fn expect_lost(&self, tenant: &str, credential: &str, how: &str) {
        let mut client = self.server.client(tenant).credentials();
        let issued = issue(&self.server, tenant, credential).await.expect_err(how);
        let reveal =
            v1::RevealCredentialRequest { reference: credential.to_owned(), purpose: "proof of loss".to_owned() };
        let revealed = client.reveal_credential(reveal).await.expect_err(how);
        for status in [issued, revealed] {
            let refusal = Refusal::check(status, Code::DataLoss, "DECRYPT_FAILED");
            assert!(!refusal.metadata("request_id").is_empty(), "{how}: the operator finds the call in the log");
            assert!(refusal.details.retry_info().is_none(), "{how}: a retry does not help");
        }
        for (tenant, other, key) in
            [("alpha", &self.one, "key one"), ("alpha", &self.two, "key two"), ("beta", &self.of_beta, "key of beta")]
        {
            if other != credential {
                assert_eq!(issue(&self.server, tenant, other).await.unwrap(), key, "{how}");
            }
        }
        // Its other fields are all there.
        let request = v1::GetCredentialRequest { reference: credential.to_owned() };
        client.get_credential(request).await.unwrap();
    }
}

/// Swaps the two secrets of the connector.
async fn swap_secrets_of_connector(server: &TestServer) {
    let hex = hex_of_sealed(server);
    let rows = server.sql(&format!("SELECT name, {hex} AS sealed FROM secret WHERE owner = 'connector'")).await;
    let rows: Vec<_> = rows.iter().map(|row| row.split_once('|').unwrap()).collect();
    let [(one, sealed_one), (two, sealed_two)] = rows[..] else { panic!("{rows:?}") };
    for (name, sealed) in [(one, sealed_two), (two, sealed_one)] {
        let sealed = bytes_literal(server, &unhex(sealed));
        server.sql(&format!("UPDATE secret SET sealed = {sealed} WHERE owner = 'connector' AND name = '{name}'")).await;
    }
}

/// Reseals everything, and returns the finished re-wrap.
async fn resealed(server: &TestServer) -> v1::Rewrap {
    let mut admin = server.client("operator").admin();
    admin.rewrap_secrets(v1::RewrapSecretsRequest { reseal: true, ..Default::default() }).await.unwrap();
    loop {
        let answer = admin.get_rewrap(v1::GetRewrapRequest {}).await.unwrap().into_inner();
        let rewrap = answer.rewrap.unwrap();
        if rewrap.state() != v1::RewrapState::Running {
            return rewrap;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn hex_of_sealed(server: &TestServer) -> &'static str {
    match server.backend() {
        Backend::Sqlite => "hex(sealed)",
        Backend::Postgres => "encode(sealed, 'hex')",
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

on_both! {
    async fn a_sealed_value_opens_only_where_it_was_sealed(backend: Backend) {
        let setup = Setup::on(backend).await;
        let [one, two, of_beta] =
            [setup.sealed(&setup.one).await, setup.sealed(&setup.two).await, setup.sealed(&setup.of_beta).await];
        setup.put(&setup.one, &two).await;
        setup.expect_lost("alpha", &setup.one, "from another row").await;
        setup.put(&setup.one, &one).await;
        setup.put(&setup.of_beta, &one).await;
        setup.expect_lost("beta", &setup.of_beta, "from another tenant").await;

        // The attacker copies the data key as well.
        let tenant = |name| format!("(SELECT id FROM tenant WHERE name_key = '{name}')");
        let (alpha, beta) = (tenant("alpha"), tenant("beta"));
        setup
            .server
            .sql(&format!(
                "INSERT INTO data_key (tenant_id, id, kek_id, wrapped, create_time) \
                 SELECT {beta}, id, kek_id, wrapped, 0 FROM data_key WHERE tenant_id = {alpha}"
            ))
            .await;
        setup.expect_lost("beta", &setup.of_beta, "from another tenant, with its data key").await;
        setup.put(&setup.of_beta, &of_beta).await;
        assert_eq!(issue(&setup.server, "beta", &setup.of_beta).await.unwrap(), "key of beta");
        setup.put(&setup.one, &of_beta).await;
        setup.expect_lost("alpha", &setup.one, "from another tenant that is created later").await;
    }

    async fn an_altered_value_does_not_open(backend: Backend) {
        let setup = Setup::on(backend).await;
        let sealed = setup.sealed(&setup.one).await;
        let mut altered = Vec::new();
        for position in 0..sealed.len() {
            let mut value = sealed.clone();
            value[position] ^= 1;
            altered.push((format!("byte {position} altered"), value));
        }
        // Every byte matters; a few are tried through the whole server.
        let last = altered.len() - 1;
        let mut some: Vec<_> = [0, 1, 17, last / 2, last].map(|index| altered[index].clone()).into();
        some.push(("the last byte missing".to_owned(), sealed[..last].to_vec()));
        some.push(("a byte too many".to_owned(), [&*sealed, b"x"].concat()));
        some.push(("empty".to_owned(), Vec::new()));
        some.push(("plaintext in its place".to_owned(), b"{\"api_key\":\"mine\"}".to_vec()));
        for (how, value) in some {
            setup.put(&setup.one, &value).await;
            setup.expect_lost("alpha", &setup.one, &how).await;
        }
        setup.put(&setup.one, &sealed).await;
        assert_eq!(issue(&setup.server, "alpha", &setup.one).await.unwrap(), "key one");
    }

    /// A lost secret can be replaced, which is the operator's remedy.
    async fn a_lost_secret_can_be_replaced(backend: Backend) {
        let setup = Setup::on(backend).await;
        setup.put(&setup.one, b"rubbish").await;
        setup.expect_lost("alpha", &setup.one, "rubbish").await;
        let request = v1::UpdateCredentialRequest {
            reference: setup.one.clone(),
            credential: Some(v1::Credential::default()),
            material: Some(jackfield_testkit::fixture::api_key_material("a new key")),
            ..Default::default()
        };
        setup.server.client("alpha").credentials().update_credential(request).await.unwrap();
        assert_eq!(issue(&setup.server, "alpha", &setup.one).await.unwrap(), "a new key");
    }

    /// No call returns the secrets of connectors, but resealing has to open them.
    async fn values_of_two_columns_of_one_row_cannot_be_swapped(server) {
        let mut connector = a_connector("main");
        connector.secret_headers = strings([("x-secret", "the header")]);
        if let Some(v1::connector::Kind::Generic(generic)) = &mut connector.kind {
            generic.http_authentication_username = Some("user".to_owned());
            generic.http_authentication_password = "the password".to_owned();
        }
        let request = v1::CreateConnectorRequest { connector: Some(connector), ..Default::default() };
        create_connector_by(&server, "alpha", request).await.unwrap();
        let credential = create_credential(&server, "alpha", "u", "name:main", "the api key").await;
        swap_secrets_of_connector(&server).await;

        let rewrap = resealed(&server).await;
        assert_eq!((rewrap.state(), rewrap.failed), (v1::RewrapState::Failed, 2), "{rewrap:?}");
        // The others are resealed, and values that do not open are kept.
        assert_eq!(issue(&server, "alpha", &credential).await.unwrap(), "the api key");
        assert_eq!(server.sql("SELECT name FROM secret WHERE owner = 'connector'").await.len(), 2);
        assert_eq!(names_of_connectors(&server, "alpha").await, ["main"]);
        swap_secrets_of_connector(&server).await;
        let rewrap = resealed(&server).await;
        assert_eq!((rewrap.state(), rewrap.failed), (v1::RewrapState::Done, 0), "{rewrap:?}");
    }

    /// Every call is answered while everything is resealed repeatedly and the previous data keys are destroyed.
    async fn resealing_fails_no_call(server) {
        create_connector(&server, "alpha", "main").await.unwrap();
        let mut credentials = Vec::new();
        for number in 0..10 {
            let key = format!("key {number}");
            let id = create_credential(&server, "alpha", &format!("u{number}"), "name:main", &key).await;
            credentials.push((id, key));
        }
        let (server, done) = (&server, &AtomicBool::new(false));
        let calling = credentials.iter().map(|(id, key)| async move {
            let mut calls = 0;
            while !done.load(Ordering::Relaxed) {
                assert_eq!(issue(server, "alpha", id).await.unwrap(), *key);
                calls += 1;
            }
            calls
        });
        let resealing = async {
            for _ in 0..20 {
                assert_eq!(resealed(server).await.failed, 0);
            }
            done.store(true, Ordering::Relaxed);
        };
        let (calls, ()) = tokio::join!(futures::future::join_all(calling), resealing);
        assert!(calls.iter().sum::<u32>() > 100, "{calls:?}");
        assert_eq!(counts(server).await["data_key"], 4, "the previous ones are destroyed");
    }
}
