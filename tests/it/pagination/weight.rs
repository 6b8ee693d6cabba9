//! The weight of rows, which bounds pages and their memory, is never less than their size in a message.

use std::time::Duration;

use jackfield_api::v1;
use jackfield_api::v1::connector::Kind;
use jackfield_domain::application::{Application, PermissionGrant, Session};
use jackfield_domain::configuration::Configuration;
use jackfield_domain::connection::Connection;
use jackfield_domain::connector::{Cause, Connector, ConnectorEvent, EventOperation, EventOutcome};
use jackfield_domain::credential::Credential;
use jackfield_domain::key::Key;
use jackfield_domain::request::order::{Order, OrderBy};
use jackfield_domain::request::page::{MAX_PAGE_BYTES, RowKey};
use jackfield_domain::tenant::Tenant;
use jackfield_domain::user::User;
use jackfield_domain::user_connector::UserConnector;
use jackfield_domain::{TenantId, Timestamp};
use jackfield_testkit::store::{Hints, Page, PageQuery, Scope, Store};
use jackfield_testkit::{Ask, List, fixture, on_both};
use prost_types::{ListValue, Struct, Value, value};

use super::tenant_id;
use crate::{connection, connector, key, steps};

/// All lists of a tenant.
const LISTS: [List; 11] = [
    List::Applications,
    List::Configurations,
    List::Connections,
    List::ConnectorEvents,
    List::Connectors,
    List::Credentials,
    List::Keys,
    List::Permissions,
    List::Sessions,
    List::UserConnectors,
    List::Users,
];

on_both! {
    async fn a_row_weighs_at_least_its_size_in_a_message(server) {
        let client = server.client("alpha");
        key::import(&client, key::an_identity(&server, "identity")).await;
        key::import(&client, key::a_bundle(&server, "bundle")).await;
        for (index, kind) in kinds().into_iter().enumerate() {
            let small = v1::Connector { client_identity_key: Some("name:identity".to_owned()), ..fixture::a_connector(&format!("small {index}")) };
            connector::create(&client, v1::Connector { kind: Some(kind.clone()), ..small }).await;
            connector::create(&client, a_full_connector(&format!("full {index}"), kind)).await;
        }
        let gmail = connector::create(&client, fixture::a_connector("Gmail")).await;
        let small = v1::Connection { name: "small".to_owned(), connector: gmail.id.clone(), ..Default::default() };
        connection::create(&client, small).await;
        let full = connection::create(&client, connection::everything()).await;

        steps::event(&server, "alpha", steps::an_event(&gmail.id)).await;
        steps::event(&server, "alpha", a_full_event(&gmail.id)).await;

        steps::link(&client, "ada", &gmail.id).await;
        let facts = fixture::a_credential("ada", &gmail.id);
        let credential = steps::credential(&client, facts.clone(), fixture::api_key_material("key")).await;
        let facts = v1::Credential {
            external_id: Some("a credential".to_owned()),
            connection: full.id,
            provider_account_id: Some("ada@example.com".to_owned()),
            provider_data: Some(data()),
            labels: fixture::strings([("a", ""), ("b", "c")]),
            is_default: Some(true),
            ..facts
        };
        steps::credential(&client, facts, fixture::oauth2_material("access", "refresh")).await;
        let small = v1::Configuration { credential: credential.id.clone(), ..Default::default() };
        steps::configuration(&client, small).await;
        let full = fixture::a_configuration(&credential.id, "a configuration");
        let full = v1::Configuration { shared_settings: Some(data()), meta: Some(data()), ..full };
        steps::configuration(&client, full).await;

        let small = v1::User { username: Some("a".to_owned()), ..Default::default() };
        steps::user(&client, small).await;
        let registration = |application: usize| v1::UserRegistration { application_id: application.to_string(), roles: vec!["r".to_owned(); 1] };
        let full = v1::User {
            user_id: "platform-1".to_owned(),
            email: Some("ann@example.com".to_owned()),
            phone_number: Some("+491701234567".to_owned()),
            first_name: Some("Ann".to_owned()),
            last_name: Some("\u{1D50A}".repeat(100)),
            data: Some(data()),
            registrations: (0..64).map(registration).collect(),
            labels: fixture::strings([("a", ""), ("b", "c")]),
            ..fixture::a_user("ann")
        };
        steps::user(&client, full).await;
        let small = v1::Application { name: "small".to_owned(), ..Default::default() };
        steps::application(&client, small).await;
        let gallery = steps::application(&client, a_full_application()).await.id;
        steps::permit(&client, &gallery, "a", "ada", &["use_app"]).await;
        let slugs: Vec<String> = (0..100).map(slug).collect();
        let slugs: Vec<&str> = slugs.iter().map(String::as_str).collect();
        steps::permit(&client, &gallery, &"\u{1D50A}".repeat(128), "ada", &slugs).await;
        steps::session(&server, "alpha", &gallery, "ada").await;

        // The document of the link contains the connector's earlier name.
        let name = "\u{1D50A}".repeat(191);
        let request = v1::UpdateConnectorRequest {
            reference: gmail.id,
            connector: Some(v1::Connector { name: name.clone(), ..Default::default() }),
            update_mask: fixture::mask(["name"]),
            ..Default::default()
        };
        client.connectors().update_connector(request).await.unwrap();

        let (store, tenant) = (server.store().await, tenant_id(&server).await);
        for list in LISTS {
            let ask = Ask { order_by: "id".to_owned(), ..Ask::pages_of(1) };
            let pages = list.pages(&client, &ask).await.unwrap();
            let weights = weights(&store, tenant, list).await;
            assert_eq!(pages.len(), weights.len(), "{list:?}");
            assert!(!pages.is_empty());
            for (page, weight) in pages.iter().zip(weights) {
                let takes = page.bytes - page.next_page_token.len();
                assert!(weight >= takes, "{list:?}: {weight} for {takes} bytes of {}", page.rows[0].name);
            }
        }
        let link = List::UserConnectors.rows(&client, &Ask::default()).await.unwrap().remove(0);
        assert!(link.message.windows(name.len()).any(|part| part == name.as_bytes()));
    }
}

/// The weight of each row of a list, by id.
async fn weights(store: &Store, tenant: TenantId, list: List) -> Vec<usize> {
    let read = store.read();
    let (mut after, mut weights) = (None, Vec::new());
    loop {
        let order = Order { by: OrderBy::Id, descending: false };
        let (scope, hints, now) = (&Scope::default(), Hints::default(), Timestamp(0));
        let query =
            PageQuery { tenant, filter: None, scope, order, after, size: 1, max_bytes: MAX_PAGE_BYTES, now, hints };
        let (bytes, next) = match list {
            List::Applications => found(read.page::<Application>(&query).await.unwrap()),
            List::Permissions => found(read.page::<PermissionGrant>(&query).await.unwrap()),
            List::Sessions => found(read.page::<Session>(&query).await.unwrap()),
            List::Configurations => found(read.page::<Configuration>(&query).await.unwrap()),
            List::Connections => found(read.page::<Connection>(&query).await.unwrap()),
            List::ConnectorEvents => found(read.page::<ConnectorEvent>(&query).await.unwrap()),
            List::Connectors => found(read.page::<Connector>(&query).await.unwrap()),
            List::Credentials => found(read.page::<Credential>(&query).await.unwrap()),
            List::Keys => found(read.page::<Key>(&query).await.unwrap()),
            List::Tenants => found(read.page::<Tenant>(&query).await.unwrap()),
            List::UserConnectors => found(read.page::<UserConnector>(&query).await.unwrap()),
            List::Users => found(read.page::<User>(&query).await.unwrap()),
        };
        weights.push(bytes);
        after = next;
        if after.is_none() {
            return weights;
        }
    }
}

fn found<T>(page: Page<T>) -> (usize, Option<RowKey>) {
    assert_eq!(page.rows.count(), 1);
    (page.rows.bytes(), page.next)
}

fn kinds() -> [Kind; 6] {
    let url = || "https://api.example.com/a?b=c".to_owned();
    let oauth2 = v1::OAuth2Connector {
        issuer_url: Some("https://login.example.com/".to_owned()),
        authorization_url: Some(url()),
        token_url: Some(url()),
        profile_url: Some(url()),
        revocation_url: Some(url()),
        jwks_url: Some(url()),
        device_authorization_url: Some(url()),
    };
    let generic = v1::GenericConnector {
        authentication_url: url(),
        http_authentication_username: Some("name".to_owned()),
        http_authentication_password: "password".to_owned(),
        ..Default::default()
    };
    [
        Kind::Generic(generic),
        Kind::License(v1::LicenseConnector {
            base_url: "https://api.example.com/a".to_owned(),
            application_id: "app 1".to_owned(),
        }),
        Kind::Oauth2(oauth2),
        Kind::ApiKey(v1::ApiKeyConnector::default()),
        Kind::HttpBasic(v1::HttpBasicConnector::default()),
        Kind::ClientCertificate(v1::ClientCertificateConnector { base_url: Some(url()) }),
    ]
}

fn a_full_connector(name: &str, kind: Kind) -> v1::Connector {
    v1::Connector {
        name: name.to_owned(),
        description: Some("first line\nsecond line".to_owned()),
        enabled: Some(true),
        kind: Some(kind),
        headers: fixture::strings([("Accept-Language", "de, *"), ("X-Empty", "")]),
        secret_headers: fixture::strings([("X-Token", "s3cret"), ("A-Token", "s3cret")]),
        connect_timeout: Some(fixture::milliseconds(1_001)),
        read_timeout: Some(fixture::milliseconds(1_001)),
        total_timeout: Some(fixture::milliseconds(10_001)),
        client_identity_key: Some("name:identity".to_owned()),
        trust_bundle_key: Some("name:bundle".to_owned()),
        data: Some(data()),
        debug: Some(true),
        labels: fixture::strings([("a", ""), ("b", "c")]),
        ..Default::default()
    }
}

fn a_full_application() -> v1::Application {
    let permission = |n| v1::Permission { slug: slug(n), description: "\u{1D50A}".repeat(256) };
    v1::Application {
        external_id: Some("an application".to_owned()),
        permissions: (0..100).map(permission).collect(),
        connector: Some("name:Gmail".to_owned()),
        labels: fixture::strings([("a", ""), ("b", "c")]),
        ..fixture::an_application("full")
    }
}

fn a_full_event(connector: &str) -> ConnectorEvent {
    ConnectorEvent {
        operation: EventOperation::AuthenticateApplicationUser,
        outcome: EventOutcome::UpstreamFault,
        cause: Cause::of(&std::io::Error::other("\u{1D50A}\n".repeat(1_000))),
        http_status: Some(599),
        duration: Duration::new(3_600, 999_999_999),
        login_id: "\u{1D50A}".repeat(256),
        application_id: "\u{1D50A}".repeat(128),
        ..steps::an_event(connector)
    }
}

/// A short permission, of which a message has most overhead.
fn slug(n: usize) -> String {
    n.to_string()
}

/// Data that is short as JSON and long in a message.
fn data() -> Struct {
    let value = |kind| Value { kind: Some(kind) };
    let list = |kind: value::Kind| value::Kind::ListValue(ListValue { values: vec![value(kind); 300] });
    let object = |kind: value::Kind| {
        let fields = (0..60).map(|key| (key.to_string(), value(kind.clone()))).collect();
        value::Kind::StructValue(Struct { fields })
    };
    let fields = [
        ("a", list(value::Kind::NumberValue(1.0))),
        ("b", list(value::Kind::NullValue(0))),
        ("c", list(value::Kind::StringValue(String::new()))),
        ("d", list(value::Kind::StructValue(Struct::default()))),
        ("e", list(value::Kind::ListValue(ListValue::default()))),
        ("f", object(value::Kind::NumberValue(2.0))),
        ("g", object(value::Kind::StringValue(String::new()))),
        ("", value::Kind::StringValue("\u{1D50A}".repeat(100))),
    ];
    Struct { fields: fields.into_iter().map(|(key, kind)| (key.to_owned(), value(kind))).collect() }
}
