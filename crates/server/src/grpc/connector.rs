//! ConnectorService.

mod event;
mod json;
pub(super) mod login;
mod patch;
pub(super) mod probe;
mod routing;

use jackfield_api::v1 as pb;
use jackfield_api::v1::connector_service_server::ConnectorService;
use jackfield_domain::connector::{
    ApiKey, ClientCertificate, Connector, ConnectorEvent, ConnectorKind, Generic, HttpBasic, License, OAuth2Endpoints,
    Timeouts,
};
use jackfield_domain::request::reference::ReferenceForms;
use jackfield_domain::resource::Dependents;
use jackfield_domain::value::url::HttpUrl;
use jackfield_domain::{ConnectorId, Violations};
use jackfield_service::{DeleteOptions, Deleted, ListScope, ListedPage};
use tonic::{Request, Response, Status, async_trait};

use super::api::{Api, authorize, deadline, respond};
use super::fields::Fields;
use super::page_stream::PageStream;
use super::parse;
use super::render;
use super::update;

#[async_trait]
impl ConnectorService for Api {
    type ListConnectorsStream = PageStream<Connector, pb::ListConnectorsResponse>;
    type ListConnectorEventsStream = PageStream<ConnectorEvent, pb::ListConnectorEventsResponse>;
    type TestConnectorStream = probe::VerdictStream;

    async fn create_connector(
        &self,
        request: Request<pb::CreateConnectorRequest>,
    ) -> Result<Response<pb::CreateConnectorResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let id = violations.check(parse::optional_id("id", &request.id)).flatten().map(ConnectorId);
            let connector = parse::required(&mut violations, "connector", request.connector);
            let patch = connector.map(|it| patch::parse(&mut Fields::of_new("connector", &mut violations), it));
            let patch = violations.into_result(patch)?;
            let connector = self.services.connector_create(&caller, &options, id, patch).await?;
            Ok(pb::CreateConnectorResponse { connector: Some(to_message(connector)) })
        };
        respond(call.await)
    }

    async fn get_connector(
        &self,
        request: Request<pb::GetConnectorRequest>,
    ) -> Result<Response<pb::GetConnectorResponse>, Status> {
        let call = async {
            let (caller, request) = authorize(request)?;
            let mut violations = Violations::default();
            let reference = parse::reference(&mut violations, &request.reference, ReferenceForms::ID_NAME);
            let connector = self.services.connector_get(&caller, &violations.into_result(reference)?).await?;
            Ok(pb::GetConnectorResponse { connector: Some(to_message(connector)) })
        };
        respond(call.await)
    }

    async fn list_connectors(
        &self,
        request: Request<pb::ListConnectorsRequest>,
    ) -> Result<Response<Self::ListConnectorsStream>, Status> {
        let call = async {
            let (caller, request) = authorize(request)?;
            let mut violations = Violations::default();
            let list = parse::list(&mut violations, &request);
            let list = violations.into_result(list)?;
            let pager = self.services.list(&caller, list, ListScope::default()).await?;
            self.streams.pages(pager, to_page)
        };
        respond(call.await)
    }

    async fn update_connector(
        &self,
        request: Request<pb::UpdateConnectorRequest>,
    ) -> Result<Response<pb::UpdateConnectorResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let reference = parse::reference(&mut violations, &request.reference, ReferenceForms::ID_NAME);
            let update = update::parse(&mut violations, &mut request, &[], patch::parse);
            let (reference, (expected, patch)) = violations.into_result(reference.zip(update))?;
            let updated = self.services.connector_update(&caller, &options, &reference, &expected, patch).await?;
            Ok(pb::UpdateConnectorResponse { connector: Some(to_message(updated)) })
        };
        respond(call.await)
    }

    async fn patch_connector(
        &self,
        request: Request<pb::PatchConnectorRequest>,
    ) -> Result<Response<pb::PatchConnectorResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let reference = parse::reference(&mut violations, &request.reference, ReferenceForms::ID_NAME);
            let patch = violations.check(json::parse(request.patch));
            let (reference, patch) = violations.into_result(reference.zip(patch))?;
            let patched = |connector| json::patched(&patch, connector);
            let connector = self.services.connector_patch(&caller, &options, &reference, request.etag, patched).await?;
            Ok(pb::PatchConnectorResponse { connector: Some(to_message(connector)) })
        };
        respond(call.await)
    }

    async fn delete_connector(
        &self,
        request: Request<pb::DeleteConnectorRequest>,
    ) -> Result<Response<pb::DeleteConnectorResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let reference = parse::reference(&mut violations, &request.reference, ReferenceForms::ID_NAME);
            let reference = violations.into_result(reference)?;
            let deletion =
                DeleteOptions { etag: request.etag, allow_missing: request.allow_missing, cascade: request.cascade };
            Ok(to_deleted(self.services.connector_delete(&caller, &options, &reference, &deletion).await?))
        };
        respond(call.await)
    }

    async fn authenticate_user(
        &self,
        request: Request<pb::AuthenticateUserRequest>,
    ) -> Result<Response<pb::AuthenticateUserResponse>, Status> {
        let call = async {
            let (caller, request) = authorize(request)?;
            let (connector, attempt) = login::parse(request)?;
            let login = self.services.user_authenticate(&caller, connector.as_ref(), &attempt, deadline()).await?;
            Ok(login::to_message(login))
        };
        respond(call.await)
    }

    async fn list_connector_events(
        &self,
        request: Request<pb::ListConnectorEventsRequest>,
    ) -> Result<Response<Self::ListConnectorEventsStream>, Status> {
        let call = async {
            let (caller, request) = authorize(request)?;
            let mut violations = Violations::default();
            let list = parse::list(&mut violations, &request);
            let connector =
                parse::optional_reference(&mut violations, "connector", &request.connector, ReferenceForms::ID_NAME);
            let (list, connector) = violations.into_result(list.zip(connector))?;
            let scope = ListScope { connector, ..ListScope::default() };
            self.streams.pages(self.services.list(&caller, list, scope).await?, event::to_page)
        };
        respond(call.await)
    }

    async fn get_routing_policy(
        &self,
        request: Request<pb::GetRoutingPolicyRequest>,
    ) -> Result<Response<pb::GetRoutingPolicyResponse>, Status> {
        let call = async {
            let (caller, pb::GetRoutingPolicyRequest {}) = authorize(request)?;
            let policy = self.services.routing_policy_get(&caller).await?;
            Ok(pb::GetRoutingPolicyResponse { routing_policy: Some(routing::policy_to_message(policy)) })
        };
        respond(call.await)
    }

    async fn replace_routing_policy(
        &self,
        request: Request<pb::ReplaceRoutingPolicyRequest>,
    ) -> Result<Response<pb::ReplaceRoutingPolicyResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let parsed = routing::parse(&mut violations, request.routing_policy, request.etag);
            let (etag, rules) = violations.into_result(parsed)?;
            let policy = self.services.routing_policy_replace(&caller, &options, &etag, rules).await?;
            Ok(pb::ReplaceRoutingPolicyResponse { routing_policy: Some(routing::policy_to_message(policy)) })
        };
        respond(call.await)
    }

    async fn resolve_route(
        &self,
        request: Request<pb::ResolveRouteRequest>,
    ) -> Result<Response<pb::ResolveRouteResponse>, Status> {
        let call = async {
            let (caller, request) = authorize(request)?;
            let mut violations = Violations::default();
            let login_id = routing::login_id(&mut violations, &request.login_id);
            let routes = self.services.route_resolve(&caller, &violations.into_result(login_id)?).await?;
            Ok(pb::ResolveRouteResponse { routes: routes.into_iter().map(routing::route_to_message).collect() })
        };
        respond(call.await)
    }

    async fn unpin_user(
        &self,
        request: Request<pb::UnpinUserRequest>,
    ) -> Result<Response<pb::UnpinUserResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let login_id = routing::login_id(&mut violations, &request.login_id);
            let login_id = violations.into_result(login_id)?;
            let unpinned = self.services.user_unpin(&caller, &options, &login_id).await?;
            Ok(pb::UnpinUserResponse { unpinned })
        };
        respond(call.await)
    }

    async fn test_connector(
        &self,
        request: Request<pb::TestConnectorRequest>,
    ) -> Result<Response<Self::TestConnectorStream>, Status> {
        let call = async {
            let (caller, request) = authorize(request)?;
            let (connector, login) = probe::parse(request)?;
            let verdicts = self.services.connector_test(&caller, connector, login, probe::deadline()).await?;
            Ok(probe::stream(verdicts))
        };
        respond(call.await)
    }
}

fn to_page(page: ListedPage<Connector>) -> pb::ListConnectorsResponse {
    pb::ListConnectorsResponse {
        connectors: page.items.into_iter().map(to_message).collect(),
        next_page_token: page.next_page_token,
    }
}

fn to_message(connector: Connector) -> pb::Connector {
    let etag = connector.meta.etag();
    let Connector {
        id,
        name,
        description,
        enabled,
        kind,
        headers,
        secret_header_names,
        timeouts,
        client_identity_key,
        trust_bundle_key,
        data,
        debug,
        debug_until,
        egress_proxy,
        egress_proxy_username,
        egress_proxy_password_set,
        max_concurrent_requests,
        max_response_bytes,
        propagate_trace_context,
        labels,
        meta,
    } = connector;
    let Timeouts { connect, read, total } = timeouts;
    pb::Connector {
        id: id.to_string(),
        name: name.into(),
        description: render::text(description),
        enabled: Some(enabled),
        kind: Some(kind_to_message(kind)),
        headers: headers.into(),
        secret_headers: Default::default(),
        secret_header_names,
        connect_timeout: Some(render::duration(connect)),
        read_timeout: Some(render::duration(read)),
        total_timeout: Some(render::duration(total)),
        client_identity_key: client_identity_key.map(|key| key.to_string()),
        trust_bundle_key: trust_bundle_key.map(|key| key.to_string()),
        data: render::json(data),
        debug: Some(debug),
        debug_until: debug_until.map(render::timestamp),
        egress_proxy: url(egress_proxy),
        egress_proxy_username,
        egress_proxy_password: String::new(),
        egress_proxy_password_set,
        max_concurrent_requests: max_concurrent_requests.map(i32_of),
        max_response_bytes: max_response_bytes.map(i32_of),
        propagate_trace_context: Some(propagate_trace_context),
        labels: labels.into(),
        create_time: Some(render::timestamp(meta.create_time)),
        update_time: Some(render::timestamp(meta.update_time)),
        etag,
    }
}

fn kind_to_message(kind: ConnectorKind) -> pb::connector::Kind {
    use pb::connector::Kind;
    match kind {
        ConnectorKind::Generic(Generic { authentication_url, username, password_set, migrate_users }) => {
            Kind::Generic(pb::GenericConnector {
                authentication_url: authentication_url.into(),
                http_authentication_username: username,
                http_authentication_password: String::new(),
                http_authentication_password_set: password_set,
                migrate_users: Some(migrate_users),
            })
        }
        ConnectorKind::License(License { base_url, application_id }) => {
            Kind::License(pb::LicenseConnector { base_url: base_url.into(), application_id })
        }
        ConnectorKind::OAuth2(oauth2) => Kind::Oauth2(oauth2_to_message(oauth2)),
        ConnectorKind::ApiKey(ApiKey { base_url, header_name, value_prefix, query_parameter }) => {
            Kind::ApiKey(pb::ApiKeyConnector { base_url: url(base_url), header_name, value_prefix, query_parameter })
        }
        ConnectorKind::HttpBasic(HttpBasic { base_url }) => {
            Kind::HttpBasic(pb::HttpBasicConnector { base_url: url(base_url) })
        }
        ConnectorKind::ClientCertificate(ClientCertificate { base_url }) => {
            Kind::ClientCertificate(pb::ClientCertificateConnector { base_url: url(base_url) })
        }
    }
}

fn oauth2_to_message(oauth2: OAuth2Endpoints) -> pb::OAuth2Connector {
    let OAuth2Endpoints {
        issuer_url,
        authorization_url,
        token_url,
        profile_url,
        revocation_url,
        jwks_url,
        device_authorization_url,
    } = oauth2;
    pb::OAuth2Connector {
        issuer_url: url(issuer_url),
        authorization_url: url(authorization_url),
        token_url: url(token_url),
        profile_url: url(profile_url),
        revocation_url: url(revocation_url),
        jwks_url: url(jwks_url),
        device_authorization_url: url(device_authorization_url),
    }
}

/// A number that was parsed from an `int32`.
fn i32_of(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn url(url: Option<HttpUrl>) -> Option<String> {
    url.map(String::from)
}

fn to_deleted(Deleted { deleted, with }: Deleted) -> pb::DeleteConnectorResponse {
    let Dependents { connections, user_connectors, credentials, configurations, routing_rules, .. } = with;
    pb::DeleteConnectorResponse {
        deleted,
        connections_deleted: render::count(connections),
        user_connectors_deleted: render::count(user_connectors),
        credentials_deleted: render::count(credentials),
        configurations_deleted: render::count(configurations),
        routing_rules_removed: render::count(routing_rules),
    }
}
