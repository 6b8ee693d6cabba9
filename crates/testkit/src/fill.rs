//! Thousands of rows, written to the tables without the services.

use std::time::Duration;

use jackfield_domain::application::{
    Application, ApplicationPatch, PermissionGrant, Session, SessionHolder, TokenDigest,
};
use jackfield_domain::configuration::Configuration;
use jackfield_domain::connection::{Connection, ConnectionPatch};
use jackfield_domain::connector::{
    Cause, Connector, ConnectorEvent, ConnectorKeys, ConnectorPatch, EventOperation, EventOutcome, KindPatch,
};
use jackfield_domain::credential::{Credential, CredentialKind, CredentialState};
use jackfield_domain::key::{Key, KeyKind, KeyMaterial};
use jackfield_domain::request::map_patch::MapPatch;
use jackfield_domain::tenant::Tenant;
use jackfield_domain::user::{User, UserPatch, Username};
use jackfield_domain::user_connector::{UserConnector, UserConnectorState};
use jackfield_domain::value::json::JsonObject;
use jackfield_domain::value::maps::Labels;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::value::text::{CompanyId, ExternalId, Name, PermissionSlug, Slug, TenantName, UserId};
use jackfield_domain::{
    ApplicationId, ConfigurationId, ConnectionId, ConnectorEventId, ConnectorId, CredentialId, KeyId,
    PermissionGrantId, SessionId, TenantId, Timestamp, UserConnectorId, UserUuid,
};

use uuid::Uuid;

use crate::store::{Store, Writer};

/// The inserted rows. Item `i` of each kind belongs to item `i` of the others, except in the first half:
/// - connections, links and credentials `0..half()` belong to connector 0, the others to one each;
/// - credentials `0..half()` come from connection 0, the others from one each;
/// - links and credentials `0..half()` belong to one user each, the others all to user 0;
/// - configurations `0..half()` belong to credential 0, the others to one each;
/// - applications `0..half()` use connector 0, the others one each; permissions and sessions `0..half()` belong to application
///   0, the others to one each, and their users are those of links;
/// - events `0..half()` are of connector 0, the others of one each, with the users of links as login ids;
/// - permissions `0..half()` are those of company 0, the others of one each.
///
/// So every scope has one value shared by half of the rows, and values with one row each.
#[derive(Clone, Debug)]
pub struct Filled {
    /// The connectors.
    pub connectors: Vec<ConnectorId>,
    /// The connections.
    pub connections: Vec<ConnectionId>,
    /// The links.
    pub links: Vec<UserConnectorId>,
    /// The credentials.
    pub credentials: Vec<CredentialId>,
    /// The applications.
    pub applications: Vec<ApplicationId>,
}

/// Beginnings of names: both letter cases, and characters whose order differs between bytes and languages.
const NAMES: [&str; 5] = ["Zulu", "alpha", "Éclair", "ångström", "Beta"];

/// The creation time of the first items.
const EPOCH: i64 = 1_700_000_000_000_000;
/// The time from the rest to the events, which then are in the future: a server deletes old events.
const EVENTS: i64 = 2_300_000_000_000_000;

// === impl Filled ===

impl Filled {
    /// The number of items of each kind that share a parent or user.
    pub fn half(&self) -> usize {
        self.connectors.len() / 2
    }

    /// The company of permission `i` of the second half; all of the first half are of company 0.
    pub fn company(i: usize) -> CompanyId {
        CompanyId::stored(format!("company-{i:05}"))
    }

    /// The user of item `i` of the links and credentials; `None` is the user of the second half.
    pub fn user(i: Option<usize>) -> String {
        i.map_or_else(|| "user-of-many".to_owned(), |i| format!("user-{i:05}"))
    }
}

/// Puts `count` connectors, connections, links, credentials, configurations, keys, users, applications, permissions, sessions and
/// events into a tenant. Every three consecutive items have the same creation time.
///
/// # Panics
/// Panics if the database refuses them, or if there are fewer than two.
pub async fn fill(store: &Store, tenant: TenantId, count: usize) -> Filled {
    assert!(count >= 2);
    let filled = Filled {
        connectors: (0..count).map(|_| ConnectorId::generate()).collect(),
        connections: (0..count).map(|_| ConnectionId::generate()).collect(),
        links: (0..count).map(|_| UserConnectorId::generate()).collect(),
        credentials: (0..count).map(|_| CredentialId::generate()).collect(),
        applications: (0..count).map(|_| ApplicationId::generate()).collect(),
    };
    let txn = store.write().await.expect("a transaction");
    for i in 0..count {
        insert(&txn, tenant, &filled, i).await;
    }
    txn.commit().await.expect("the rows");
    filled
}

/// Puts `count` tenants into the database. They have no data key.
///
/// # Panics
/// Panics if the database refuses them.
pub async fn fill_tenants(store: &Store, count: usize) {
    let txn = store.write().await.expect("a transaction");
    for i in 0..count {
        let name = TenantName::stored(format!("tenant-{:05}", shuffled(i, count)));
        let tenant = Tenant { id: TenantId::generate(), name, display_name: format!("Number {i}"), meta: meta(i) };
        txn.insert(tenant.id, &tenant).await.expect("a tenant");
    }
    txn.commit().await.expect("the tenants");
}

/// Puts `count` connections into a tenant, all of one connector.
///
/// # Panics
/// Panics if the database refuses them.
pub async fn fill_connections(store: &Store, tenant: TenantId, count: usize) {
    let txn = store.write().await.expect("a transaction");
    let connector = ConnectorId::generate();
    let item = a_connector(connector, "of many connections", Labels::stored([].into()), meta(0));
    txn.insert(tenant, &item).await.expect("a connector");
    for i in 0..count {
        let name = format!("{} {:05}", NAMES[i % NAMES.len()], shuffled(i, count));
        let labels = Labels::stored([("env".to_owned(), ["dev", "prod"][i % 2].to_owned())].into());
        let item = a_connection(ConnectionId::generate(), connector, &name, labels, meta(i));
        txn.insert(tenant, &item).await.expect("a connection");
    }
    txn.commit().await.expect("the connections");
}

async fn insert(txn: &Writer, tenant: TenantId, filled: &Filled, i: usize) {
    let first = i < filled.half();
    let connector = filled.connectors[if first { 0 } else { i }];
    let name = format!("{} {:05}", NAMES[i % NAMES.len()], shuffled(i, filled.connectors.len()));
    let user_id = UserId::stored(Filled::user(first.then_some(i)));
    let labels = Labels::stored([("env".to_owned(), ["dev", "prod"][i % 2].to_owned())].into());

    let item = a_connector(filled.connectors[i], &name, labels.clone(), meta(i));
    txn.insert(tenant, &item).await.expect("a connector");
    let item = a_connection(filled.connections[i], connector, &name, labels.clone(), meta(i));
    txn.insert(tenant, &item).await.expect("a connection");
    let item = a_key(&name, labels.clone(), meta(i));
    txn.insert(tenant, &item).await.expect("a key");
    let item = a_user(i, filled.connectors.len(), labels.clone(), meta(i));
    txn.insert(tenant, &item).await.expect("a user");
    let item = an_application(filled.applications[i], connector, &name, labels.clone(), meta(i));
    txn.insert(tenant, &item).await.expect("an application");
    let application = filled.applications[if first { 0 } else { i }];
    let company = if first { 0 } else { i };
    let grant = PermissionGrant {
        id: PermissionGrantId::generate(),
        application,
        company_id: Filled::company(company),
        company_name: format!("Company {company}"),
        user_id: user_id.clone(),
        permissions: [PermissionSlug::stored("use_app".to_owned())].into(),
        meta: meta(i),
    };
    txn.insert(tenant, &grant).await.expect("permissions");
    let session = Session {
        id: SessionId::generate(),
        application,
        user_id: user_id.clone(),
        holder: SessionHolder::User(UserUuid::generate()),
        token_digest: TokenDigest::new(digest_of(i)),
        expire_time: Timestamp::MAX,
        meta: meta(i),
    };
    txn.insert(tenant, &session).await.expect("a session");
    txn.insert(tenant, &an_event(connector, user_id.clone(), i)).await.expect("an event");
    let link = UserConnector {
        id: filled.links[i],
        user_id: user_id.clone(),
        connector,
        connector_name: Name::stored(name),
        state: UserConnectorState::Attached,
        credential_count: 0,
        meta: meta(i),
    };
    assert!(txn.user_connector_insert(tenant, &link).await.expect("a link"));

    let configuration = ConfigurationId::generate();
    let credential = Credential {
        id: filled.credentials[i],
        external_id: Some(ExternalId::stored(format!("credential {i}"))),
        user_id: user_id.clone(),
        connector,
        connection: Some(filled.connections[if first { 0 } else { i }]),
        user_connector: filled.links[i],
        key: None,
        kind: CredentialKind::ApiKey,
        state: CredentialState::Valid,
        scopes: Vec::new(),
        requested_scopes: Vec::new(),
        token_type: String::new(),
        expire_time: None,
        authorization_expire_time: None,
        provider_account_id: String::new(),
        email_digest: None,
        provider_data: JsonObject::default(),
        labels,
        is_default: true,
        material_version: 1,
        client_grant: false,
        refreshable: false,
        last_refresh_time: None,
        refresh_failure_count: 0,
        failure_class: None,
        failure_reason: String::new(),
        failure_connection_version: None,
        next_refresh_time: None,
        refresh_token_kept_count: 0,
        refresh_token_kept_time: None,
        rejections: Vec::new(),
        default_configuration: configuration,
        meta: meta(i),
    };
    txn.insert(tenant, &credential).await.expect("a credential");
    let credential = filled.credentials[if first { 0 } else { i }];
    let configuration = Configuration {
        id: configuration,
        credential,
        external_id: Some(ExternalId::stored(format!("configuration {i}"))),
        shared_settings: JsonObject::default(),
        workflow_settings: [].into(),
        settings_meta: JsonObject::default(),
        is_default: i == 0 || !first,
        user_id: if first { UserId::stored(Filled::user(Some(0))) } else { user_id },
        connector,
        meta: meta(i),
    };
    txn.insert(tenant, &configuration).await.expect("a configuration");
}

fn a_connector(id: ConnectorId, name: &str, labels: Labels, meta: Meta) -> Connector {
    let patch = ConnectorPatch {
        name: Some(Name::stored(name.to_owned())),
        kind: KindPatch::HttpBasic(Default::default()),
        labels: MapPatch::Replace(labels),
        ..ConnectorPatch::default()
    };
    let mut connector = Connector::create(id, &patch, ConnectorKeys::default(), meta).expect("a connector");
    connector.meta = meta;
    connector
}

fn a_connection(id: ConnectionId, connector: ConnectorId, name: &str, tags: Labels, meta: Meta) -> Connection {
    let patch = ConnectionPatch {
        name: Some(Name::stored(name.to_owned())),
        external_id: Some(Some(Slug::stored(id.to_string()))),
        tags: MapPatch::Replace(tags),
        ..ConnectionPatch::default()
    };
    let mut connection = Connection::create(id, connector, None, &patch, meta).expect("a connection");
    connection.meta = meta;
    connection
}

fn an_application(id: ApplicationId, connector: ConnectorId, name: &str, labels: Labels, meta: Meta) -> Application {
    let patch = ApplicationPatch {
        name: Some(Name::stored(name.to_owned())),
        external_id: Some(Some(ExternalId::stored(id.to_string()))),
        labels: MapPatch::Replace(labels),
        ..ApplicationPatch::default()
    };
    Application::create(id, &patch, Some(Some(connector)), meta).expect("an application")
}

fn an_event(connector: ConnectorId, login_id: UserId, i: usize) -> ConnectorEvent {
    let fault = i % 2 == 1;
    ConnectorEvent {
        id: ConnectorEventId::generate(),
        connector,
        operation: EventOperation::AuthenticateUser,
        outcome: if fault { EventOutcome::UpstreamFault } else { EventOutcome::Rejected },
        reason: if fault { "STATUS_UNEXPECTED" } else { "SYSTEM_REJECTED" }.to_owned(),
        cause: Cause::default(),
        http_status: Some(if fault { 500 } else { 404 }),
        duration: Duration::from_millis(7),
        request_id: Uuid::now_v7(),
        login_id: login_id.into(),
        application_id: String::new(),
        meta: Meta::new(Timestamp(meta(i).create_time.0 + EVENTS)),
    }
}

/// A digest that no other session has.
fn digest_of(i: usize) -> [u8; 32] {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&i.to_be_bytes());
    digest
}

fn a_key(name: &str, labels: Labels, meta: Meta) -> Key {
    Key {
        id: KeyId::generate(),
        name: Name::stored(name.to_owned()),
        kind: KeyKind::TrustBundle,
        current: KeyMaterial { not_after: Some(Timestamp(EPOCH)), ..KeyMaterial::default() },
        next: None,
        used_by: 0,
        labels,
        meta,
    }
}

/// The ids of users are not in the order of their `user_id`.
fn a_user(i: usize, count: usize, labels: Labels, meta: Meta) -> User {
    let patch = UserPatch {
        user_id: Some(UserId::stored(Filled::user(Some(shuffled(i, count))))),
        username: Some(Some(Username::stored(format!("{} {i:05}", NAMES[i % NAMES.len()])))),
        labels: MapPatch::Replace(labels),
        ..UserPatch::default()
    };
    User::create(UserUuid::generate(), &patch, meta).expect("a user")
}

fn meta(i: usize) -> Meta {
    let step = i64::try_from(i / 3).expect("a number in reach");
    Meta::new(Timestamp(EPOCH + step * 1_000))
}

/// A permutation of the numbers.
fn shuffled(i: usize, count: usize) -> usize {
    let step = [7_919, 104_729].into_iter().find(|prime| !count.is_multiple_of(*prime)).unwrap_or(1);
    i * step % count
}
