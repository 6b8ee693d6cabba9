//! ConnectionService.

mod authorization;
mod patch;
mod probe;

use jackfield_api::v1 as pb;
use jackfield_api::v1::connection_service_server::ConnectionService;
use jackfield_domain::connection::{
    ClientAuthentication, ClientSecretFacts, Connection, ConnectionGrant, ConnectionKind, ConnectionSettings, Linking,
    TokenContentType,
};
use jackfield_domain::credential::CredentialRef;
use jackfield_domain::request::reference::{Ref, ReferenceForms};
use jackfield_domain::value::scopes::Scopes;
use jackfield_domain::value::text::UserId;
use jackfield_domain::value::url::{HttpUrl, RedirectUri};
use jackfield_domain::{ConnectionId, Violations};
use jackfield_service::{DeleteOptions, Deleted, Expected, ListScope, ListedPage};
use tonic::{Request, Response, Status, async_trait};

use super::api::{Api, authorize, respond};
use super::connector::probe::deadline;
use super::credentials::{issued_to_message, min_validity_micros};
use super::fields::Fields;
use super::page_stream::PageStream;
use super::parse;
use super::render;
use super::update;

#[async_trait]
impl ConnectionService for Api {
    type ListConnectionsStream = PageStream<Connection, pb::ListConnectionsResponse>;
    type TestConnectionStream = probe::VerdictStream;
    type WatchAuthorizationStream = authorization::SessionStream;

    async fn create_connection(
        &self,
        request: Request<pb::CreateConnectionRequest>,
    ) -> Result<Response<pb::CreateConnectionResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let id = violations.check(parse::optional_id("id", &request.id)).flatten().map(ConnectionId);
            let connection = parse::required(&mut violations, "connection", request.connection);
            let patch = connection.map(|it| patch::parse(&mut Fields::of_new("connection", &mut violations), it));
            let patch = violations.into_result(patch)?;
            let connection = self.services.connection_create(&caller, &options, id, patch).await?;
            Ok(pb::CreateConnectionResponse { connection: Some(to_message(connection)) })
        };
        respond(call.await)
    }

    async fn get_connection(
        &self,
        request: Request<pb::GetConnectionRequest>,
    ) -> Result<Response<pb::GetConnectionResponse>, Status> {
        let call = async {
            let (caller, request) = authorize(request)?;
            let mut violations = Violations::default();
            let reference = parse::reference(&mut violations, &request.reference, ReferenceForms::ID_NAME_EXTERNAL);
            let connection = self.services.connection_get(&caller, &violations.into_result(reference)?).await?;
            Ok(pb::GetConnectionResponse { connection: Some(to_message(connection)) })
        };
        respond(call.await)
    }

    async fn get_user_connection_credentials(
        &self,
        request: Request<pb::GetUserConnectionCredentialsRequest>,
    ) -> Result<Response<pb::GetUserConnectionCredentialsResponse>, Status> {
        let call = async {
            let (caller, request) = authorize(request)?;
            let pb::GetUserConnectionCredentialsRequest { connection, user_id, min_validity, scopes } = request;
            let mut violations = Violations::default();
            let forms = ReferenceForms::ID_NAME_EXTERNAL;
            let connection = violations.check(Ref::parse("connection", &connection, forms));
            let user_id = violations.check(UserId::parse("user_id", &user_id));
            let min_validity = violations.check(min_validity_micros(min_validity));
            let scopes = violations.check_all(Scopes::parse_list("scopes", &scopes));
            let parsed = connection.zip(user_id).zip(min_validity.zip(scopes));
            let ((connection, user_id), (min_validity, scopes)) = violations.into_result(parsed)?;
            let named = CredentialRef::OfConnection { user_id, connection };
            let issued = self.services.access_token_issue(&caller, &named, min_validity, scopes.as_slice(), deadline());
            let issued = issued.await?;
            Ok(pb::GetUserConnectionCredentialsResponse { issued: Some(issued_to_message(&issued)) })
        };
        respond(call.await)
    }

    async fn list_connections(
        &self,
        request: Request<pb::ListConnectionsRequest>,
    ) -> Result<Response<Self::ListConnectionsStream>, Status> {
        let call = async {
            let (caller, request) = authorize(request)?;
            let mut violations = Violations::default();
            let list = parse::list(&mut violations, &request);
            let connector =
                parse::optional_reference(&mut violations, "connector", &request.connector, ReferenceForms::ID_NAME);
            let (list, connector) = violations.into_result(list.zip(connector))?;
            let scope = ListScope { connector, ..ListScope::default() };
            let pager = self.services.list(&caller, list, scope).await?;
            self.streams.pages(pager, to_page)
        };
        respond(call.await)
    }

    async fn update_connection(
        &self,
        request: Request<pb::UpdateConnectionRequest>,
    ) -> Result<Response<pb::UpdateConnectionResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let reference = parse::reference(&mut violations, &request.reference, ReferenceForms::ID_NAME_EXTERNAL);
            let update = update::parse(&mut violations, &mut request, &[], patch::parse);
            let (reference, (expected, patch)) = violations.into_result(reference.zip(update))?;
            let updated = self.services.connection_update(&caller, &options, &reference, &expected, patch).await?;
            Ok(pb::UpdateConnectionResponse { connection: Some(to_message(updated)) })
        };
        respond(call.await)
    }

    async fn rotate_connection_secret(
        &self,
        request: Request<pb::RotateConnectionSecretRequest>,
    ) -> Result<Response<pb::RotateConnectionSecretResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let pb::RotateConnectionSecretRequest { reference, client_secret, secret_id, etag, .. } = request;
            let reference = parse::reference(&mut violations, &reference, ReferenceForms::ID_NAME_EXTERNAL);
            let secret = patch::new_secret(&mut violations, secret_id, client_secret);
            let (reference, secret) = violations.into_result(reference.zip(secret))?;
            let expected = Expected { etag, id: None };
            let rotated = self.services.connection_rotate_secret(&caller, &options, &reference, &expected, secret);
            Ok(pb::RotateConnectionSecretResponse { connection: Some(to_message(rotated.await?)) })
        };
        respond(call.await)
    }

    async fn delete_connection(
        &self,
        request: Request<pb::DeleteConnectionRequest>,
    ) -> Result<Response<pb::DeleteConnectionResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let reference = parse::reference(&mut violations, &request.reference, ReferenceForms::ID_NAME_EXTERNAL);
            let reference = violations.into_result(reference)?;
            let deletion =
                DeleteOptions { etag: request.etag, allow_missing: request.allow_missing, cascade: request.cascade };
            let deleted = self.services.connection_delete(&caller, &options, &reference, &deletion).await?;
            let Deleted { deleted, with } = deleted;
            Ok(pb::DeleteConnectionResponse {
                deleted,
                credentials_deleted: render::count(with.credentials),
                configurations_deleted: render::count(with.configurations),
                routing_rules_removed: render::count(with.routing_rules),
            })
        };
        respond(call.await)
    }

    async fn test_connection(
        &self,
        request: Request<pb::TestConnectionRequest>,
    ) -> Result<Response<Self::TestConnectionStream>, Status> {
        let call = async {
            let (caller, request) = authorize(request)?;
            let mut violations = Violations::default();
            let reference = parse::reference(&mut violations, &request.reference, ReferenceForms::ID_NAME_EXTERNAL);
            let reference = violations.into_result(reference)?;
            Ok(probe::stream(self.services.connection_test(&caller, &reference, deadline()).await?))
        };
        respond(call.await)
    }

    async fn start_authorization(
        &self,
        request: Request<pb::StartAuthorizationRequest>,
    ) -> Result<Response<pb::StartAuthorizationResponse>, Status> {
        let call = async {
            let (caller, request) = authorize(request)?;
            let started = self.services.authorization_start(&caller, authorization::draft(request)?).await?;
            Ok(authorization::started_to_message(started))
        };
        respond(call.await)
    }

    async fn complete_authorization(
        &self,
        request: Request<pb::CompleteAuthorizationRequest>,
    ) -> Result<Response<pb::CompleteAuthorizationResponse>, Status> {
        let call = async {
            let (caller, request) = authorize(request)?;
            let (user_id, answer) = authorization::answer(request)?;
            let session = self.services.authorization_complete(caller, user_id, answer).await?;
            Ok(pb::CompleteAuthorizationResponse { authorization: Some(authorization::to_message(session)) })
        };
        respond(call.await)
    }

    async fn get_authorization(
        &self,
        request: Request<pb::GetAuthorizationRequest>,
    ) -> Result<Response<pb::GetAuthorizationResponse>, Status> {
        let call = async {
            let (caller, request) = authorize(request)?;
            let session = self.services.authorization_get(&caller, authorization::id(&request.reference)?).await?;
            Ok(pb::GetAuthorizationResponse { authorization: Some(authorization::to_message(session)) })
        };
        respond(call.await)
    }

    async fn watch_authorization(
        &self,
        request: Request<pb::WatchAuthorizationRequest>,
    ) -> Result<Response<Self::WatchAuthorizationStream>, Status> {
        let call = async {
            let (caller, request) = authorize(request)?;
            let id = authorization::id(&request.reference)?;
            let sessions = self.services.authorization_watch(&caller, id).await?;
            Ok(authorization::stream(sessions, self.drain.clone()))
        };
        respond(call.await)
    }

    async fn cancel_authorization(
        &self,
        request: Request<pb::CancelAuthorizationRequest>,
    ) -> Result<Response<pb::CancelAuthorizationResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let reference = parse::reference(&mut violations, &request.reference, ReferenceForms::ID);
            let id = authorization::id_of(violations.into_result(reference)?);
            let session = self.services.authorization_cancel(&caller, &options, id).await?;
            Ok(pb::CancelAuthorizationResponse { authorization: Some(authorization::to_message(session)) })
        };
        respond(call.await)
    }
}

fn to_page(page: ListedPage<Connection>) -> pb::ListConnectionsResponse {
    pb::ListConnectionsResponse {
        connections: page.items.into_iter().map(to_message).collect(),
        next_page_token: page.next_page_token,
    }
}

/// A connection as its callers see it.
pub fn to_message(connection: Connection) -> pb::Connection {
    let Connection { id, connector, settings, client_secrets, client_key, meta } = connection;
    let ConnectionSettings {
        name,
        external_id,
        kind,
        authentication_url,
        token_url,
        issuer_url,
        provider_certificate,
        client_id,
        user_data_location,
        provider_tenant_id,
        developer_account_id,
        content_type,
        oidc_user_endpoint_url,
        user_id_expression,
        trust_identity_user_id,
        scope,
        parameters,
        require_business_account,
        linking,
        active,
        tags,
        redirect_uris,
        revocation_url,
        jwks_url,
        device_authorization_url,
        client_authentication,
        token_parameters,
        refresh_parameters,
        refresh_token_grace_period,
        return_uris,
        iss_parameter_supported,
        grant,
    } = settings;
    let url = |url: Option<HttpUrl>| url.map(String::from);
    let secrets = client_secrets.into_iter().map(|ClientSecretFacts { secret_id, create_time }| pb::ClientSecret {
        secret_id,
        value: String::new(),
        create_time: Some(render::timestamp(create_time)),
    });
    pb::Connection {
        id: id.to_string(),
        name: name.into(),
        external_id: external_id.map(String::from),
        connector: connector.to_string(),
        r#type: kind_to_message(kind).into(),
        authentication_url: url(authentication_url),
        token_url: url(token_url),
        issuer_url: render::text(issuer_url),
        provider_certificate: render::text(provider_certificate),
        client_id: render::text(client_id),
        client_secrets: secrets.collect(),
        user_data_location: user_data_location.map(String::from),
        provider_tenant_id: render::text(provider_tenant_id),
        developer_account_id: render::text(developer_account_id),
        supported_content_type: match content_type {
            TokenContentType::Json => pb::TokenContentType::Json,
            TokenContentType::Form => pb::TokenContentType::Form,
        }
        .into(),
        oidc_user_endpoint_url: url(oidc_user_endpoint_url),
        user_id_expression: render::text(user_id_expression),
        trust_identity_user_id: Some(trust_identity_user_id),
        scope: Some(scope),
        parameters: parameters.into(),
        require_business_account: Some(require_business_account),
        linking: match linking {
            Linking::Disabled => pb::LinkingType::Disabled,
            Linking::Explicit => pb::LinkingType::Explicit,
            Linking::Automatic => pb::LinkingType::Automatic,
        }
        .into(),
        active: Some(active),
        tags: tags.into(),
        redirect_uris: redirect_uris.into_iter().map(RedirectUri::into).collect(),
        revocation_url: url(revocation_url),
        jwks_url: url(jwks_url),
        device_authorization_url: url(device_authorization_url),
        client_authentication: match client_authentication {
            ClientAuthentication::None => pb::ClientAuthentication::None,
            ClientAuthentication::ClientSecretBasic => pb::ClientAuthentication::ClientSecretBasic,
            ClientAuthentication::ClientSecretPost => pb::ClientAuthentication::ClientSecretPost,
            ClientAuthentication::PrivateKeyJwt => pb::ClientAuthentication::PrivateKeyJwt,
            ClientAuthentication::TlsClientAuth => pb::ClientAuthentication::TlsClientAuth,
            ClientAuthentication::SelfSignedTlsClientAuth => pb::ClientAuthentication::SelfSignedTlsClientAuth,
        }
        .into(),
        client_key: client_key.map(|key| key.to_string()),
        token_parameters: token_parameters.into(),
        refresh_parameters: refresh_parameters.into(),
        refresh_token_grace_period: refresh_token_grace_period.map(render::duration),
        return_uris: return_uris.into_iter().map(RedirectUri::into).collect(),
        iss_parameter_supported: Some(iss_parameter_supported),
        grant_type: match grant {
            ConnectionGrant::AuthorizationCode => pb::ConnectionGrantType::AuthorizationCode,
            ConnectionGrant::ClientCredentials => pb::ConnectionGrantType::ClientCredentials,
        }
        .into(),
        create_time: Some(render::timestamp(meta.create_time)),
        update_time: Some(render::timestamp(meta.update_time)),
        etag: meta.etag(),
    }
}

const fn kind_to_message(kind: ConnectionKind) -> pb::ConnectionType {
    match kind {
        ConnectionKind::OAuth2 => pb::ConnectionType::Oauth2,
        ConnectionKind::Saml2 => pb::ConnectionType::Saml2,
        ConnectionKind::WebAuthn => pb::ConnectionType::Webauthn,
        ConnectionKind::Password => pb::ConnectionType::Password,
        ConnectionKind::OpenIdLegacy => pb::ConnectionType::OpenidLegacy,
    }
}
