//! TestConnection: what a connection lacks, and what its provider says to it, without a token or a code of a user.

use futures::StreamExt as _;
use jackfield_api::v1;
use jackfield_api::v1::{
    ConnectionTestEndpoint as Endpoint, ConnectorTestReason as Reason, ConnectorTestResult as Outcome,
    ConnectorTestStep as Step,
};
use jackfield_testkit::provider::Endpoint as At;
use jackfield_testkit::{
    Client, OAuthProvider, Provider, ProviderFault, ProviderOptions, TestServer, expect_status, fixture, on_both,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tonic::Code;

use super::create;
use crate::authorization::World;
use crate::steps;

/// The client secret that the strict provider accepts.
const SECRET: &str = "client-secret-1";

/// The verdicts about a connection.
pub(crate) async fn verdicts(client: &Client, reference: &str) -> Vec<v1::TestConnectionResponse> {
    let request = v1::TestConnectionRequest { reference: reference.to_owned() };
    let stream = client.connections().test_connection(request).await.unwrap().into_inner();
    stream.map(Result::unwrap).collect().await
}

/// The verdict about a step of an endpoint, all of which have one, in order.
fn of(verdicts: &[v1::TestConnectionResponse], endpoint: Endpoint, step: Step) -> &v1::TestConnectionResponse {
    let about: Vec<_> = verdicts.iter().filter(|verdict| verdict.endpoint() == endpoint).collect();
    assert_eq!(about.iter().map(|verdict| verdict.step).collect::<Vec<_>>(), (1..=11).collect::<Vec<i32>>());
    about.into_iter().find(|verdict| verdict.step() == step).unwrap()
}

pub(crate) fn found(verdicts: &[v1::TestConnectionResponse], endpoint: Endpoint, step: Step) -> (Outcome, Reason) {
    let verdict = of(verdicts, endpoint, step);
    (verdict.result(), verdict.reason())
}

/// The endpoints that verdicts are about, in their order.
fn endpoints(verdicts: &[v1::TestConnectionResponse]) -> Vec<Endpoint> {
    let mut endpoints: Vec<_> = verdicts.iter().map(v1::TestConnectionResponse::endpoint).collect();
    endpoints.dedup();
    endpoints
}

/// The reasons of what is wrong with the definition of a connection.
pub(crate) fn lacking(verdicts: &[v1::TestConnectionResponse]) -> Vec<Reason> {
    let about = verdicts.iter().filter(|verdict| verdict.endpoint() == Endpoint::Connection);
    let about = about.inspect(|verdict| assert_eq!(verdict.step(), Step::Definition));
    about.map(v1::TestConnectionResponse::reason).collect()
}

/// A connection to the strict provider, with these secrets.
async fn on_strict(client: &Client, provider: &Provider, secrets: &[&str]) -> v1::Connection {
    let client_secrets = secrets.iter().enumerate().map(|(number, secret)| v1::ClientSecret {
        secret_id: number.to_string(),
        value: (*secret).to_owned(),
        create_time: None,
    });
    let connection = v1::Connection {
        token_url: Some(provider.token_url()),
        revocation_url: Some(provider.revocation_url()),
        client_id: Some("client-1".to_owned()),
        client_secrets: client_secrets.collect(),
        // Nothing outside of this machine is called.
        issuer_url: None,
        scope: Some("read write".to_owned()),
        ..fixture::a_connection("Strict", &a_connector(client, "strict").await)
    };
    create(client, connection).await
}

/// A connector without endpoints.
async fn a_connector(client: &Client, name: &str) -> String {
    let kind = Some(v1::connector::Kind::Oauth2(v1::OAuth2Connector::default()));
    steps::connector(client, v1::Connector { kind, ..fixture::an_oauth2_connector(name) }).await.id
}

/// The discovery document of a provider, which is its own issuer here.
fn document(provider: &OAuthProvider) -> Value {
    let url = |path: &str| provider.system.url(path);
    json!({
        "issuer": url(""),
        "authorization_endpoint": "https://as.example.com/authorize",
        "token_endpoint": url("/token"),
        "jwks_uri": url("/jwks"),
        "device_authorization_endpoint": url("/device_authorization"),
    })
}

/// A world whose provider publishes a document, and is the issuer.
async fn published(server: &TestServer, change: impl FnOnce(&OAuthProvider, &mut v1::Connection)) -> World {
    let endpoints = |provider: &OAuthProvider| v1::OAuth2Connector {
        jwks_url: Some(provider.system.url("/jwks")),
        ..Default::default()
    };
    let world = World::on(server, endpoints, |provider, connection| {
        connection.issuer_url = Some(provider.system.url(""));
        change(provider, connection);
    })
    .await;
    world.provider.openid.publish("/.well-known/openid-configuration", 200, &document(&world.provider));
    world
}

on_both! {
    async fn a_connection_that_lacks_nothing_has_good_verdicts(server) {
        let world = published(&server, |_, _| {}).await;
        let verdicts = verdicts(&world.client, "name:login").await;
        let called = [Endpoint::Token, Endpoint::Discovery, Endpoint::Keys, Endpoint::DeviceAuthorization];
        let all = [&[Endpoint::Connection][..], &called].concat();
        assert_eq!(endpoints(&verdicts), all);
        assert_eq!(lacking(&verdicts), [Reason::Passed]);
        let failed: Vec<_> = verdicts.iter().filter(|verdict| verdict.result() == Outcome::Failed).collect();
        assert!(failed.is_empty(), "{failed:#?}");
        assert_eq!(found(&verdicts, Endpoint::Token, Step::Tls), (Outcome::Ok, Reason::Passed));
        assert_eq!(found(&verdicts, Endpoint::Token, Step::Authentication), (Outcome::Ok, Reason::ClientAccepted));
        assert_eq!(found(&verdicts, Endpoint::Token, Step::Status), (Outcome::Ok, Reason::Passed));
        assert_eq!(found(&verdicts, Endpoint::Discovery, Step::Body), (Outcome::Ok, Reason::Passed));
        let keys = of(&verdicts, Endpoint::Keys, Step::Body);
        assert_eq!((keys.reason(), &*keys.facts[1].name, &*keys.facts[1].value), (Reason::Passed, "usable_keys", "1"));
    }

    async fn no_token_of_a_user_is_sent_or_spent(server) {
        let provider = Provider::start(ProviderOptions::default()).await;
        let alpha = server.client("alpha");
        let connection = on_strict(&alpha, &provider, &[SECRET]).await;
        let issued = provider.grant("ada", &["read", "write"]);
        let verdicts = verdicts(&alpha, &connection.id).await;
        assert_eq!(endpoints(&verdicts), [Endpoint::Connection, Endpoint::Token, Endpoint::Revocation]);
        assert_eq!(found(&verdicts, Endpoint::Token, Step::Authentication), (Outcome::Ok, Reason::ClientAccepted));
        assert_eq!(found(&verdicts, Endpoint::Revocation, Step::Status), (Outcome::Ok, Reason::Passed));
        let totals = provider.totals();
        assert_eq!((totals.exchanges, totals.reuses, totals.ended), (0, 0, 0));
        assert_eq!(provider.live(issued.family).unwrap().access_token, issued.access_token);
        let requests = provider.requests();
        assert_eq!(requests.iter().filter(|request| request.endpoint == At::Token).count(), 1);
        assert!(requests.iter().all(|request| request.parameter("refresh_token").is_none()), "{requests:?}");
        assert_eq!(requests[0].parameter("grant_type"), Some("authorization_code"));
    }

    /// The client may be permitted to use nothing else.
    async fn a_connection_whose_users_have_another_device_is_tested_with_a_device_code(server) {
        let world = published(&server, |_, connection| connection.authentication_url = None).await;
        let verdicts = verdicts(&world.client, &world.connection.id).await;
        assert_eq!(lacking(&verdicts), [Reason::Passed]);
        assert_eq!(found(&verdicts, Endpoint::Token, Step::Authentication), (Outcome::Ok, Reason::ClientAccepted));
        assert_eq!(found(&verdicts, Endpoint::Token, Step::Status), (Outcome::Ok, Reason::Passed));
        assert_eq!(world.provider.polls().len(), 1);
    }

    async fn a_client_secret_that_is_refused_is_named_by_its_number(server) {
        let provider = Provider::start(ProviderOptions::default()).await;
        let alpha = server.client("alpha");
        let connection = on_strict(&alpha, &provider, &["old secret", SECRET]).await;
        let some = verdicts(&alpha, &connection.id).await;
        let verdict = of(&some, Endpoint::Token, Step::Authentication);
        assert_eq!((verdict.result(), verdict.reason()), (Outcome::Warning, Reason::ClientSecretRefused));
        assert!(verdict.message.contains("number 1") && !verdict.hint.is_empty(), "{verdict:?}");
        let facts: Vec<_> = verdict.facts.iter().map(|fact| (&*fact.name, &*fact.value)).collect();
        assert!(facts.contains(&("client_secret.1", "refused")) && facts.contains(&("client_secret.2", "accepted")));
        assert_eq!(found(&some, Endpoint::Token, Step::Status), (Outcome::Ok, Reason::Passed));

        let wrong = v1::Connection {
            client_secrets: vec![v1::ClientSecret { value: "old secret".to_owned(), ..Default::default() }],
            ..Default::default()
        };
        let (reference, wrong) = (connection.id.clone(), Some(wrong));
        let request = v1::UpdateConnectionRequest { reference, connection: wrong, ..Default::default() };
        alpha.connections().update_connection(request).await.unwrap();
        let none = verdicts(&alpha, &connection.id).await;
        assert_eq!(found(&none, Endpoint::Token, Step::Authentication), (Outcome::Failed, Reason::ClientRefused));
        assert_eq!(found(&none, Endpoint::Token, Step::Body), (Outcome::Skipped, Reason::PreviousStepFailed));
        assert_eq!(found(&none, Endpoint::Revocation, Step::Status), (Outcome::Ok, Reason::Passed));
        let shown = format!("{some:?} {none:?}");
        assert!(!shown.contains("old secret") && !shown.contains(SECRET), "{shown}");
    }

    async fn what_is_missing_is_a_verdict_and_not_an_error(server) {
        let alpha = server.client("alpha");
        let connection = v1::Connection {
            authentication_url: None,
            token_url: None,
            issuer_url: None,
            client_id: None,
            client_secrets: Vec::new(),
            active: Some(false),
            ..fixture::a_connection("Empty", &a_connector(&alpha, "empty").await)
        };
        let empty = verdicts(&alpha, &create(&alpha, connection.clone()).await.id).await;
        let expected = [
            Reason::ConnectionInactive,
            Reason::ClientIdMissing,
            Reason::ClientSecretMissing,
            Reason::UrlMissing,
            Reason::UrlMissing,
            Reason::IssuerMissing,
        ];
        assert_eq!(lacking(&empty), expected);
        assert!(empty.last().unwrap().message.contains("if it was created without a scope"), "{empty:?}");
        assert_eq!(endpoints(&empty), [Endpoint::Connection], "nothing is called");
        let saml = v1::Connection { name: "SAML".to_owned(), r#type: v1::ConnectionType::Saml2.into(), ..connection };
        let saml = verdicts(&alpha, &create(&alpha, saml).await.id).await;
        assert_eq!(lacking(&saml), [Reason::ConnectionInactive, Reason::ConnectionTypeUnsupported]);
    }

    async fn a_wrong_url_fails_where_it_is_wrong(server) {
        let world = published(&server, |provider, connection| {
            connection.token_url = Some(provider.system.url("/nothing"));
            connection.device_authorization_url = Some("https://10.0.0.1/device".to_owned());
        })
        .await;
        let verdicts = verdicts(&world.client, &world.connection.id).await;
        assert_eq!(found(&verdicts, Endpoint::Token, Step::Status), (Outcome::Failed, Reason::StatusUnexpected));
        let body = of(&verdicts, Endpoint::Discovery, Step::Body);
        assert_eq!((body.result(), body.reason()), (Outcome::Warning, Reason::EndpointDiffers));
        assert!(body.message.contains("token_endpoint, device_authorization_endpoint"), "{}", body.message);
        let policy = found(&verdicts, Endpoint::DeviceAuthorization, Step::EgressPolicy);
        assert_eq!(policy, (Outcome::Failed, Reason::EgressRefused));
        assert_eq!(found(&verdicts, Endpoint::Keys, Step::Body), (Outcome::Ok, Reason::Passed));
    }

    async fn another_issuer_and_keys_that_are_not_good_are_noticed(server) {
        let world = published(&server, |_, _| {}).await;
        let mut other = document(&world.provider);
        other["issuer"] = "https://other.example".into();
        world.provider.openid.publish("/.well-known/openid-configuration", 200, &other);
        world.provider.openid.publish("/jwks", 200, &json!({ "keys": [] }));
        let verdicts = verdicts(&world.client, &world.connection.id).await;
        assert_eq!(found(&verdicts, Endpoint::Discovery, Step::Body), (Outcome::Failed, Reason::IssuerMismatch));
        assert_eq!(found(&verdicts, Endpoint::Keys, Step::Body), (Outcome::Failed, Reason::KeysMissing));
    }

    async fn a_test_of_a_connection_does_not_open_the_circuit(server) {
        let provider = Provider::start(ProviderOptions::default()).await;
        let alpha = server.client("alpha");
        let connection = on_strict(&alpha, &provider, &[SECRET]).await;
        provider.fail_by(|_, _| ProviderFault::status(503));
        for _ in 0..6 {
            let verdicts = verdicts(&alpha, &connection.id).await;
            assert_eq!(found(&verdicts, Endpoint::Token, Step::Authentication), (Outcome::Skipped, Reason::Undecided));
            assert_eq!(found(&verdicts, Endpoint::Token, Step::Status), (Outcome::Failed, Reason::StatusUnexpected));
        }
        provider.fail_by(|_, _| ProviderFault::none());
        steps::link(&alpha, "ada", &connection.connector).await;
        let issued = provider.grant("ada", &["read", "write"]);
        let material = v1::OAuth2Material {
            access_token: issued.access_token,
            refresh_token: issued.refresh_token,
            expire_time: Some(fixture::seconds_from_now(-60)),
            ..Default::default()
        };
        let material = v1::credential_material::Material::Oauth2(material);
        let material = v1::CredentialMaterial { material: Some(material) };
        let facts =
            v1::Credential { connection: connection.id.clone(), ..fixture::a_credential("ada", &connection.connector) };
        let credential = steps::credential(&alpha, facts, material).await.id;
        let request = v1::RefreshCredentialRequest { reference: credential };
        let refreshed = alpha.credentials().refresh_credential(request).await.unwrap().into_inner();
        assert_eq!(refreshed.credential.unwrap().version, 2, "the refresh is sent");
    }

    async fn a_test_of_a_connection_takes_a_place_of_its_requests(server) {
        let alpha = server.client("alpha");
        // The provider accepts connections and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://localhost:{}/token", silent.local_addr().unwrap().port());
        let [connect_timeout, read_timeout] = [200, 2_000].map(|time| Some(fixture::milliseconds(time)));
        let connector = v1::Connector {
            kind: Some(v1::connector::Kind::Oauth2(v1::OAuth2Connector::default())),
            connect_timeout,
            read_timeout,
            max_concurrent_requests: Some(1),
            ..fixture::an_oauth2_connector("narrow")
        };
        let connector = steps::connector(&alpha, connector).await.id;
        let connection = v1::Connection {
            token_url: Some(url),
            issuer_url: None,
            scope: Some("read".to_owned()),
            ..fixture::a_connection("Narrow", &connector)
        };
        let connection = create(&alpha, connection).await.id;
        let (one, other) = tokio::join!(verdicts(&alpha, &connection), verdicts(&alpha, &connection));
        let mut steps = [&one, &other].map(|verdicts| found(verdicts, Endpoint::Token, Step::Dns));
        steps.sort_by_key(|(_, reason)| *reason as i32);
        assert_eq!(steps, [(Outcome::Ok, Reason::Passed), (Outcome::Failed, Reason::Busy)]);
    }

    async fn connections_of_others_are_not_found(server) {
        let beta = server.client("beta");
        let connection = fixture::a_connection("of beta", &a_connector(&beta, "of beta").await);
        let of_beta = create(&beta, connection).await;
        let test = async |reference: &str| {
            let request = v1::TestConnectionRequest { reference: reference.to_owned() };
            let response = server.client("alpha").connections().test_connection(request).await;
            response.map(|response| response.map(drop))
        };
        expect_status(test(&of_beta.id).await, Code::NotFound, "CONNECTION_NOT_FOUND");
        let refused = expect_status(test("").await, Code::InvalidArgument, "REFERENCE_INVALID");
        refused.expect_fields(&["reference"]);
    }
}
