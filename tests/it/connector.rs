//! ConnectorService: the stored and returned fields of connectors. Limits, naming, updates and deletion are in the
//! modules below.

mod delete;
mod egress;
mod identity;
mod limits;
mod own_headers;
mod patch;
mod repeat;
mod secrets;
mod update;

use jackfield_api::v1;
use jackfield_api::v1::connector::Kind;
use jackfield_domain::Resource;
use jackfield_testkit::store::{Database, PoolSettings, Store};
use jackfield_testkit::{Backend, Client, TestServer, collect, fixture, on_both};
use prost_types::{ListValue, Struct, Value, value};
use tonic::{Response, Status};

use crate::key;

pub(crate) use delete::link;
pub(crate) use identity::facts;

/// The id that the connector has in the example of the FusionAuth Generic Connector.
const FUSIONAUTH_CONNECTOR_ID: &str = "1188edfc-cef3-4555-910e-181ddf6153c0";

on_both! {
    async fn the_fusionauth_example_comes_back_field_for_field(server) {
        let alpha = server.client("alpha");
        let id = fixture::FUSIONAUTH_KEY_ID.to_owned();
        key::import(&alpha, v1::ImportKeyRequest { id, ..key::an_identity(&server, "of the example") }).await;
        let before = fixture::seconds_from_now(0);
        let request = v1::CreateConnectorRequest {
            connector: Some(fixture::the_fusionauth_connector()),
            id: FUSIONAUTH_CONNECTOR_ID.to_owned(),
            ..Default::default()
        };
        let created = alpha.connectors().create_connector(request).await.unwrap().into_inner().connector.unwrap();
        let generic = v1::GenericConnector {
            authentication_url: "http://localhost:3000/api/authenticate".to_owned(),
            http_authentication_username: Some("basicUsername".to_owned()),
            http_authentication_password: String::new(),
            http_authentication_password_set: true,
            migrate_users: Some(false),
        };
        let expected = v1::Connector {
            id: FUSIONAUTH_CONNECTOR_ID.to_owned(),
            name: "My Generic Connector".to_owned(),
            enabled: Some(true),
            kind: Some(Kind::Generic(generic)),
            headers: fixture::strings([("header1", "value1"), ("header2", "value2")]),
            connect_timeout: Some(fixture::milliseconds(100)),
            read_timeout: Some(fixture::milliseconds(100)),
            total_timeout: Some(fixture::milliseconds(30_000)),
            client_identity_key: Some(fixture::FUSIONAUTH_KEY_ID.to_owned()),
            data: Some(fixture::object([("modifiedBy", "richard")])),
            debug: Some(true),
            propagate_trace_context: Some(false),
            create_time: created.create_time,
            update_time: created.create_time,
            etag: created.etag.clone(),
            ..Default::default()
        };
        assert_eq!(created, expected);
        let (time, after) = (created.create_time.unwrap(), fixture::seconds_from_now(0));
        assert!((before.seconds, before.nanos) <= (time.seconds, time.nanos), "{before:?} {time:?}");
        assert!((time.seconds, time.nanos) <= (after.seconds, after.nanos), "{time:?} {after:?}");
        assert!(!created.etag.is_empty());
        assert_eq!(get(&alpha, FUSIONAUTH_CONNECTOR_ID).await.unwrap(), expected);
        assert_eq!(get(&alpha, "name:My Generic Connector").await.unwrap(), expected);
        assert_eq!(list(&alpha).await, [expected]);
    }

    async fn every_kind_comes_back_with_all_its_settings(server) {
        let alpha = server.client("alpha");
        let identity = key::import(&alpha, key::an_identity(&server, "identity")).await.id;
        let bundle = key::import(&alpha, key::a_bundle(&server, "bundle")).await.id;
        let url = |path: &str| format!("https://api.example.com/{path}?a=b%20c");
        let kinds = [
            Kind::License(v1::LicenseConnector {
                base_url: "https://api.example.com/v%201/".to_owned(),
                application_id: "app 1".to_owned(),
            }),
            Kind::Oauth2(v1::OAuth2Connector {
                issuer_url: Some("https://login.example.com/".to_owned()),
                authorization_url: Some(url("authorize")),
                token_url: Some(url("token")),
                profile_url: Some(url("profile")),
                revocation_url: Some(url("revoke")),
                jwks_url: Some(url("jwks")),
                device_authorization_url: Some(url("device")),
            }),
            Kind::ApiKey(v1::ApiKeyConnector {
                base_url: Some(url("key")),
                header_name: Some("X-Api-Key".to_owned()),
                value_prefix: Some("Bearer ".to_owned()),
                query_parameter: None,
            }),
            Kind::ApiKey(v1::ApiKeyConnector { query_parameter: Some("api_key".to_owned()), ..Default::default() }),
            Kind::HttpBasic(v1::HttpBasicConnector { base_url: Some(url("basic")) }),
            Kind::ClientCertificate(v1::ClientCertificateConnector { base_url: Some(url("certificate")) }),
        ];
        for (index, kind) in kinds.into_iter().enumerate() {
            let given = v1::Connector {
                name: format!("connector {index}"),
                description: Some("first line\nsecond line".to_owned()),
                enabled: Some(false),
                kind: Some(kind),
                headers: fixture::strings([("Accept-Language", "de, *"), ("X-Empty", "")]),
                secret_headers: fixture::strings([("X-Token", "s3cret"), ("A-Token", "s3cret")]),
                connect_timeout: Some(fixture::milliseconds(1)),
                read_timeout: Some(prost_types::Duration { seconds: 2, nanos: 3 }),
                total_timeout: Some(fixture::milliseconds(1)),
                client_identity_key: Some("name:Identity".to_owned()),
                trust_bundle_key: Some("name:BUNDLE".to_owned()),
                debug: Some(true),
                debug_until: Some(prost_types::Timestamp { seconds: 2_000_000_000, nanos: 0 }),
                egress_proxy: Some("http://proxy.example:3128".to_owned()),
                egress_proxy_username: Some("user".to_owned()),
                egress_proxy_password: "s3cret".to_owned(),
                max_concurrent_requests: Some(8),
                max_response_bytes: Some(4_096),
                propagate_trace_context: Some(true),
                labels: fixture::strings([("env", "prod"), ("app.kubernetes.io/name", "Jackfield 1")]),
                ..Default::default()
            };
            let created = create(&alpha, given.clone()).await;
            let expected = v1::Connector {
                id: created.id.clone(),
                secret_headers: Default::default(),
                egress_proxy_password: String::new(),
                egress_proxy_password_set: true,
                secret_header_names: vec!["A-Token".to_owned(), "X-Token".to_owned()],
                client_identity_key: Some(identity.clone()),
                trust_bundle_key: Some(bundle.clone()),
                create_time: created.create_time,
                update_time: created.create_time,
                etag: created.etag.clone(),
                ..given
            };
            assert_eq!(created, expected);
            assert_eq!(get(&alpha, &created.id).await.unwrap(), expected);
        }
    }

    async fn absent_values_become_the_documented_defaults(server) {
        let alpha = server.client("alpha");
        let created = create(&alpha, fixture::a_connector("small")).await;
        let seconds = |seconds: i64| Some(fixture::milliseconds(1_000 * seconds));
        let expected = v1::Connector {
            id: created.id.clone(),
            enabled: Some(true),
            connect_timeout: seconds(5),
            read_timeout: seconds(10),
            total_timeout: seconds(30),
            debug: Some(false),
            propagate_trace_context: Some(false),
            create_time: created.create_time,
            update_time: created.create_time,
            etag: created.etag.clone(),
            ..fixture::a_connector("small")
        };
        assert_eq!(created, expected);
        let id: uuid::Uuid = created.id.parse().unwrap();
        assert_eq!(id.get_version_num(), 7);
        for (connect, read, total) in [(20, 10, 30), (20, 11, 31), (60, 300, 360)] {
            let (connect_timeout, read_timeout) = (seconds(connect), seconds(read));
            let connector = fixture::a_connector(&format!("{connect} {read}"));
            let connector = create(&alpha, v1::Connector { connect_timeout, read_timeout, ..connector }).await;
            assert_eq!(connector.total_timeout, seconds(total), "{connect} s and {read} s");
        }
    }

    async fn output_only_fields_are_ignored_on_create(server) {
        let alpha = server.client("alpha");
        let mut given = fixture::a_connector("mine");
        given.id = FUSIONAUTH_CONNECTOR_ID.to_owned();
        given.secret_header_names = vec!["X-Token".to_owned()];
        given.create_time = Some(fixture::seconds_from_now(-9_999));
        given.update_time = Some(fixture::seconds_from_now(9_999));
        given.etag = "mine".to_owned();
        if let Some(Kind::Generic(generic)) = &mut given.kind {
            generic.http_authentication_password_set = true;
        }
        let created = create(&alpha, given.clone()).await;
        assert_ne!(created.id, given.id);
        assert_eq!(created.secret_header_names, Vec::<String>::new());
        assert_ne!(created.create_time, given.create_time);
        assert_ne!(created.update_time, given.update_time);
        assert_ne!(created.etag, given.etag);
        assert!(!password_set(&created));
    }

    async fn data_comes_back_unchanged(server) {
        let alpha = server.client("alpha");
        let number = |number: f64| Value { kind: Some(value::Kind::NumberValue(number)) };
        let list = |values: Vec<Value>| Value { kind: Some(value::Kind::ListValue(ListValue { values })) };
        let whole = [0.0, 1.0, -1.0, 100.0, 1e15, 9_007_199_254_740_991.0, 9_007_199_254_740_992.0, -1e18, 1e300];
        let broken = [0.1, 0.1 + 0.2, -0.5, 1.0 / 3.0, f64::MIN_POSITIVE, f64::MAX, f64::EPSILON, 5e-324, 1e-7];
        // Bits from a fixed sequence (Knuth's MMIX), so that the numbers have many digits and the test is reproducible.
        let mut state = 1_u64;
        let any = (0..1_000).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f64::from_bits(state)
        });
        let inner = Struct {
            fields: [
                ("null".to_owned(), Value { kind: Some(value::Kind::NullValue(0)) }),
                ("yes".to_owned(), Value { kind: Some(value::Kind::BoolValue(true)) }),
                (String::new(), Value { kind: Some(value::Kind::StringValue("\u{1}\"\\\u{1F600} ä".to_owned())) }),
                ("empty".to_owned(), Value { kind: Some(value::Kind::StructValue(Struct::default())) }),
                ("ключ.`a`".to_owned(), list(vec![list(vec![]), number(2.0)])),
            ]
            .into(),
        };
        let data = Struct {
            fields: [
                ("whole".to_owned(), list(whole.map(number).to_vec())),
                ("broken".to_owned(), list(broken.map(number).to_vec())),
                ("any".to_owned(), list(any.filter(|number| number.is_finite()).map(number).collect())),
                ("inner".to_owned(), Value { kind: Some(value::Kind::StructValue(inner)) }),
            ]
            .into(),
        };
        let connector = v1::Connector { data: Some(data.clone()), ..fixture::a_connector("with data") };
        let created = create(&alpha, connector).await;
        assert_eq!(created.data, Some(data.clone()));
        assert_eq!(get(&alpha, &created.id).await.unwrap().data, Some(data));
    }
}

/// Creates a connector.
pub(crate) async fn create(client: &Client, connector: v1::Connector) -> v1::Connector {
    let created = try_create(client, connector).await.unwrap();
    created.into_inner().connector.unwrap()
}

pub(crate) async fn try_create(
    client: &Client,
    connector: v1::Connector,
) -> Result<Response<v1::CreateConnectorResponse>, Status> {
    let request = v1::CreateConnectorRequest { connector: Some(connector), ..Default::default() };
    client.connectors().create_connector(request).await
}

/// Reads a connector.
pub(crate) async fn get(client: &Client, reference: &str) -> Result<v1::Connector, Status> {
    let request = v1::GetConnectorRequest { reference: reference.to_owned() };
    let found = client.connectors().get_connector(request).await?;
    Ok(found.into_inner().connector.unwrap())
}

/// All connectors of the caller's tenant.
async fn list(client: &Client) -> Vec<v1::Connector> {
    collect::items(client.connectors().list_connectors(v1::ListConnectorsRequest::default()).await).await.unwrap()
}

/// Changes the fields that a mask names.
async fn update<const N: usize>(
    client: &Client,
    reference: &str,
    paths: [&str; N],
    connector: v1::Connector,
) -> Result<v1::Connector, Status> {
    let request = v1::UpdateConnectorRequest {
        reference: reference.to_owned(),
        connector: Some(connector),
        update_mask: fixture::mask(paths),
        ..Default::default()
    };
    let updated = client.connectors().update_connector(request).await?;
    Ok(updated.into_inner().connector.unwrap())
}

fn password_set(connector: &v1::Connector) -> bool {
    let Some(Kind::Generic(generic)) = &connector.kind else { panic!("not a generic connector: {connector:?}") };
    generic.http_authentication_password_set
}

/// The sealed form of a secret of the tenant `alpha` in the database. Equal bytes mean that the value was not sealed
/// again.
pub(crate) async fn sealed(server: &TestServer, owner: Resource, owner_id: &str, name: &str) -> Option<Vec<u8>> {
    let database = match server.backend() {
        Backend::Sqlite => Database::Sqlite(server.sqlite_file()),
        Backend::Postgres => Database::Postgres(server.postgres().url()),
    };
    let settings = PoolSettings { max_connections: 1, acquire_timeout: std::time::Duration::from_secs(30) };
    let store = Store::connect(&database, settings).await.unwrap();
    let request = v1::GetTenantRequest { reference: "name:alpha".to_owned() };
    let tenant = server.client("operator").admin().get_tenant(request).await.unwrap().into_inner().tenant.unwrap();
    let tenant = jackfield_domain::TenantId(tenant.id.parse().unwrap());
    let address = jackfield_domain::SecretAddress { tenant, owner, owner_id: owner_id.parse().unwrap(), name };
    store.read().secret_fetch(address).await.unwrap()
}
