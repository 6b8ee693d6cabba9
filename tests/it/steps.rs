//! First steps of tests of several resources. Each is one call that is assumed to succeed.

use std::time::Duration;

use jackfield_api::v1;
use jackfield_domain::application::{Session, SessionHolder, UserProfile};
use jackfield_domain::connector::{Cause, ConnectorEvent, EventOperation, EventOutcome};
use jackfield_domain::value::meta::Meta;
use jackfield_domain::value::text::UserId;
use jackfield_domain::{
    ApplicationId, Clock, ConnectorEventId, ConnectorId, SessionId, SystemClock, TenantId, Timestamp,
};
use jackfield_testkit::{Client, ManualClock, TestServer, fixture};
use uuid::Uuid;

/// Stores a connector.
pub(crate) async fn connector(client: &Client, connector: v1::Connector) -> v1::Connector {
    let request = v1::CreateConnectorRequest { connector: Some(connector), ..Default::default() };
    let answer = client.connectors().create_connector(request).await.expect("a connector");
    answer.into_inner().connector.expect("the created connector")
}

/// Routes every login id to one target.
pub(crate) async fn route(client: &Client, target: v1::routing_rule::Target) {
    let rule = v1::RoutingRule { email_domains: vec!["*".to_owned()], target: Some(target) };
    let routing_policy = Some(v1::RoutingPolicy { rules: vec![rule], ..Default::default() });
    let request = v1::ReplaceRoutingPolicyRequest { routing_policy, ..Default::default() };
    client.connectors().replace_routing_policy(request).await.expect("a routing policy");
}

/// Sets a credential source.
pub(crate) async fn source(client: &Client, source: v1::CredentialSource) {
    let request = v1::SetCredentialSourceRequest { source: Some(source), ..Default::default() };
    client.user_connectors().set_credential_source(request).await.expect("a credential source");
}

/// Stores an application.
pub(crate) async fn application(client: &Client, application: v1::Application) -> v1::Application {
    let request = v1::CreateApplicationRequest { application: Some(application), ..Default::default() };
    let answer = client.applications().create_application(request).await.expect("an application");
    answer.into_inner().application.expect("the created application")
}

/// Gives a user permissions in a company.
pub(crate) async fn permit(client: &Client, application: &str, company_id: &str, user_id: &str, permissions: &[&str]) {
    let request = v1::SetPermissionsRequest {
        application: application.to_owned(),
        company_id: company_id.to_owned(),
        user_id: user_id.to_owned(),
        permissions: permissions.iter().map(|slug| (*slug).to_owned()).collect(),
        ..Default::default()
    };
    client.applications().set_permissions(request).await.expect("permissions");
}

/// Stores a session of a user and returns its token.
pub(crate) async fn session(server: &TestServer, tenant: &str, application: &str, user_id: &str) -> String {
    session_until(server, tenant, application, user_id, Timestamp::MAX).await
}

/// As [`session`]. It ends at this time.
pub(crate) async fn session_until(
    server: &TestServer,
    tenant: &str,
    application: &str,
    user_id: &str,
    expire_time: Timestamp,
) -> String {
    let token = Uuid::new_v4().simple().to_string();
    let profile = UserProfile { username: user_id.to_owned(), ..UserProfile::default() };
    let session = Session {
        id: SessionId::generate(),
        application: ApplicationId(application.parse().expect("a UUID")),
        user_id: UserId::stored(user_id.to_owned()),
        holder: SessionHolder::External(Box::new(profile)),
        token_digest: fixture::token_digest(&token),
        expire_time,
        meta: Meta::new(SystemClock.now()),
    };
    let (store, tenant) = (server.store().await, tenant_id(server, tenant).await);
    let txn = store.write().await.expect("a transaction");
    txn.insert(tenant, &session).await.expect("a session");
    txn.commit().await.expect("the session");
    store.close().await;
    token
}

/// An event of a connector: a log-in of an unknown user.
pub(crate) fn an_event(connector: &str) -> ConnectorEvent {
    ConnectorEvent {
        id: ConnectorEventId::generate(),
        connector: ConnectorId(connector.parse().expect("a UUID")),
        operation: EventOperation::AuthenticateUser,
        outcome: EventOutcome::Rejected,
        reason: "SYSTEM_REJECTED".to_owned(),
        cause: Cause::default(),
        http_status: Some(404),
        duration: Duration::from_millis(7),
        request_id: Uuid::now_v7(),
        login_id: "ada".to_owned(),
        application_id: String::new(),
        meta: Meta::new(SystemClock.now()),
    }
}

/// Stores an event of a connector.
pub(crate) async fn event(server: &TestServer, tenant: &str, event: ConnectorEvent) {
    let (store, tenant) = (server.store().await, tenant_id(server, tenant).await);
    let txn = store.write().await.expect("a transaction");
    txn.insert(tenant, &event).await.expect("an event");
    txn.commit().await.expect("the event");
    store.close().await;
}

/// Starts an authorisation. Returns its id, and the state of its request.
pub(crate) async fn authorization(client: &Client, connection: &str, user_id: &str) -> (String, String) {
    let (connection, user_id) = (connection.to_owned(), user_id.to_owned());
    let request = v1::StartAuthorizationRequest { connection, user_id, ..Default::default() };
    let answer = client.connections().start_authorization(request).await.expect("an authorisation").into_inner();
    let state = jackfield_testkit::oauth::query_of(&answer.authorization_url)["state"].clone();
    (answer.authorization.expect("the authorisation").id, state)
}

/// Links a user to a connector.
pub(crate) async fn link(client: &Client, user_id: &str, connector: &str) -> v1::UserConnector {
    let (user_id, connector) = (user_id.to_owned(), connector.to_owned());
    let request = v1::AddUserConnectorRequest { user_id, connector, ..Default::default() };
    let answer = client.user_connectors().add_user_connector(request).await.expect("a link");
    answer.into_inner().user_connector.expect("the link")
}

/// Stores a generic connector of this name and links this user to it.
pub(crate) async fn linked(client: &Client, user_id: &str, name: &str) -> v1::UserConnector {
    let connector = connector(client, fixture::a_connector(name)).await;
    link(client, user_id, &connector.id).await
}

/// Stores a user.
pub(crate) async fn user(client: &Client, user: v1::User) -> v1::User {
    let request = v1::CreateUserRequest { user: Some(user), ..Default::default() };
    let answer = client.users().create_user(request).await.expect("a user");
    answer.into_inner().user.expect("the created user")
}

/// Stores a credential.
pub(crate) async fn credential(
    client: &Client,
    credential: v1::Credential,
    material: v1::CredentialMaterial,
) -> v1::Credential {
    let (credential, material) = (Some(credential), Some(material));
    let request = v1::CreateCredentialRequest { credential, material, ..Default::default() };
    let answer = client.credentials().create_credential(request).await.expect("a credential");
    answer.into_inner().credential.expect("the created credential")
}

/// Stores a credential with an API key on this link.
pub(crate) async fn api_key(client: &Client, link: &v1::UserConnector, api_key: &str) -> v1::Credential {
    let facts = fixture::a_credential(&link.user_id, &link.connector);
    credential(client, facts, fixture::api_key_material(api_key)).await
}

/// The current facts of a credential.
pub(crate) async fn credential_now(client: &Client, reference: &str) -> v1::Credential {
    let request = v1::GetCredentialRequest { reference: reference.to_owned() };
    let answer = client.credentials().get_credential(request).await.expect("the credential");
    answer.into_inner().credential.expect("the credential")
}

/// The stored material of a credential.
pub(crate) async fn revealed(client: &Client, reference: &str) -> v1::CredentialMaterial {
    let (reference, purpose) = (reference.to_owned(), "a look in a test".to_owned());
    let request = v1::RevealCredentialRequest { reference, purpose };
    let answer = client.credentials().reveal_credential(request).await.expect("the material");
    answer.into_inner().material.expect("the material")
}

/// Stores a configuration.
pub(crate) async fn configuration(client: &Client, configuration: v1::Configuration) -> v1::Configuration {
    let request = v1::CreateConfigurationRequest { configuration: Some(configuration), ..Default::default() };
    let answer = client.configurations().create_configuration(request).await.expect("a configuration");
    answer.into_inner().configuration.expect("the created configuration")
}

/// Switches a connector on or off.
pub(crate) async fn enable(client: &Client, connector: &str, enabled: bool) {
    let request = v1::UpdateConnectorRequest {
        reference: connector.to_owned(),
        connector: Some(v1::Connector { enabled: Some(enabled), ..Default::default() }),
        update_mask: fixture::mask(["enabled"]),
        ..Default::default()
    };
    client.connectors().update_connector(request).await.expect("the connector");
}

/// The id of a tenant.
pub(crate) async fn tenant_id(server: &TestServer, name: &str) -> TenantId {
    let request = v1::GetTenantRequest { reference: format!("name:{name}") };
    let answer = server.client("operator").admin().get_tenant(request).await.expect("the tenant");
    TenantId(answer.into_inner().tenant.expect("the tenant").id.parse().expect("a UUID"))
}

/// OAuth tokens that are valid for this many seconds on this clock; empty ones are omitted.
pub(crate) fn tokens_for(
    clock: &ManualClock,
    seconds: i64,
    access_token: &str,
    refresh_token: &str,
) -> v1::CredentialMaterial {
    let now = clock.now();
    let oauth2 = v1::OAuth2Material {
        access_token: access_token.to_owned(),
        refresh_token: refresh_token.to_owned(),
        expire_time: Some(prost_types::Timestamp { seconds: now.seconds() + seconds, nanos: now.subsec_nanos() }),
        scopes: vec!["email".to_owned(), "profile".to_owned()],
        ..Default::default()
    };
    v1::CredentialMaterial { material: Some(v1::credential_material::Material::Oauth2(oauth2)) }
}
