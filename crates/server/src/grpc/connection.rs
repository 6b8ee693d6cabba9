//! ConnectionService.

mod patch;

use jackfield_api::v1 as pb;
use jackfield_api::v1::connection_service_server::ConnectionService;
use jackfield_domain::connection::{self, Connection, ConnectionKind, ConnectionSettings, Linking, TokenContentType};
use jackfield_domain::request::mask::Mask;
use jackfield_domain::request::reference::{Ref, ReferenceForms};
use jackfield_domain::value::url::{HttpUrl, RedirectUri};
use jackfield_domain::{ConnectionId, Violations};
use jackfield_service::{DeleteOptions, Deleted, ListScope, ListedPage};
use tonic::{Request, Response, Status, async_trait};

use super::parse::{self, ListFields};
use super::stream::PageStream;
use super::update::{self, Identity};
use super::{Api, enter, render, reply};

#[async_trait]
impl ConnectionService for Api {
    type ListConnectionsStream = PageStream<Connection, pb::ListConnectionsResponse>;

    async fn create_connection(
        &self,
        request: Request<pb::CreateConnectionRequest>,
    ) -> Result<Response<pb::CreateConnectionResponse>, Status> {
        let call = async {
            let (caller, request) = enter(request)?;
            let mut wrong = Violations::default();
            let mutation =
                parse::mutation(&mut wrong, "CreateConnection", &request, &request.request_id, request.validate_only);
            let id = wrong.check(parse::optional_id("id", &request.id)).flatten().map(ConnectionId);
            let connection = parse::required(&mut wrong, "connection", request.connection);
            let patch = connection.map(|connection| patch::parse(&mut wrong, connection, &Mask::All, true));
            let patch = parse::done(wrong, patch)?;
            let connection = self.services.connection_create(&caller, &mutation, id, patch).await?;
            Ok(pb::CreateConnectionResponse { connection: Some(to_message(connection)) })
        };
        reply(call.await)
    }

    async fn get_connection(
        &self,
        request: Request<pb::GetConnectionRequest>,
    ) -> Result<Response<pb::GetConnectionResponse>, Status> {
        let call = async {
            let (caller, request) = enter(request)?;
            let mut wrong = Violations::default();
            let reference = parse::reference(&mut wrong, &request.reference, ReferenceForms::ID_NAME_EXTERNAL);
            let connection = self.services.connection_get(&caller, &parse::done(wrong, reference)?).await?;
            Ok(pb::GetConnectionResponse { connection: Some(to_message(connection)) })
        };
        reply(call.await)
    }

    async fn list_connections(
        &self,
        request: Request<pb::ListConnectionsRequest>,
    ) -> Result<Response<Self::ListConnectionsStream>, Status> {
        let call = async {
            let (caller, request) = enter(request)?;
            let pb::ListConnectionsRequest { page_size, page_token, limit, filter, order_by, connector } = &request;
            let fields = ListFields { page_size: *page_size, page_token, limit: *limit, filter, order_by };
            let mut wrong = Violations::default();
            let list = parse::list(&mut wrong, &fields, &connection::SCHEMA);
            let connector = wrong.check(Ref::parse_optional("connector", connector, ReferenceForms::ID_NAME));
            let (list, connector) = parse::done(wrong, list.zip(connector))?;
            let scope = ListScope { connector, ..ListScope::default() };
            let pager = self.services.list(&caller, list, scope).await?;
            self.streams.pages(pager, to_page)
        };
        reply(call.await)
    }

    async fn update_connection(
        &self,
        request: Request<pb::UpdateConnectionRequest>,
    ) -> Result<Response<pb::UpdateConnectionResponse>, Status> {
        let call = async {
            let (caller, request) = enter(request)?;
            let mut wrong = Violations::default();
            let mutation =
                parse::mutation(&mut wrong, "UpdateConnection", &request, &request.request_id, request.validate_only);
            let reference = parse::reference(&mut wrong, &request.reference, ReferenceForms::ID_NAME_EXTERNAL);
            let mask = parse::mask(&mut wrong, request.update_mask.as_ref(), patch::PATHS, patch::OUTPUT_ONLY);
            let connection = parse::required(&mut wrong, "connection", request.connection);
            let inside = connection.as_ref().map(|it| Identity { resource: "connection", id: &it.id, etag: &it.etag });
            let expected = update::expected(&mut wrong, &request.etag, inside);
            let patch = connection.zip(mask).map(|(connection, mask)| {
                let patch = patch::parse(&mut wrong, connection, &mask, false);
                update::require_change(&mut wrong, &mask, "connection", patch.is_empty());
                patch
            });
            let (reference, patch) = parse::done(wrong, reference.zip(patch))?;
            let updated = self.services.connection_update(&caller, &mutation, &reference, &expected, patch).await?;
            Ok(pb::UpdateConnectionResponse { connection: Some(to_message(updated)) })
        };
        reply(call.await)
    }

    async fn delete_connection(
        &self,
        request: Request<pb::DeleteConnectionRequest>,
    ) -> Result<Response<pb::DeleteConnectionResponse>, Status> {
        let call = async {
            let (caller, request) = enter(request)?;
            let mut wrong = Violations::default();
            let mutation =
                parse::mutation(&mut wrong, "DeleteConnection", &request, &request.request_id, request.validate_only);
            let reference = parse::reference(&mut wrong, &request.reference, ReferenceForms::ID_NAME_EXTERNAL);
            let reference = parse::done(wrong, reference)?;
            let deletion =
                DeleteOptions { etag: request.etag, allow_missing: request.allow_missing, cascade: request.cascade };
            let deleted = self.services.connection_delete(&caller, &mutation, &reference, &deletion).await?;
            let Deleted { deleted, with } = deleted;
            Ok(pb::DeleteConnectionResponse {
                deleted,
                credentials_deleted: render::count(with.credentials),
                configurations_deleted: render::count(with.configurations),
            })
        };
        reply(call.await)
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
    let Connection { id, connector, settings, client_secrets, meta } = connection;
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
    } = settings;
    let url = |url: Option<HttpUrl>| url.map(String::from);
    let secrets = client_secrets.into_iter().map(|secret| pb::ClientSecret {
        secret_id: secret.secret_id,
        value: String::new(),
        create_time: Some(render::timestamp(secret.create_time)),
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
