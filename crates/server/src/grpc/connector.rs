//! ConnectorService.

mod patch;

use jackfield_api::v1 as pb;
use jackfield_api::v1::connector_service_server::ConnectorService;
use jackfield_domain::connector::{self, Connector, ConnectorKind};
use jackfield_domain::request::mask::Mask;
use jackfield_domain::request::reference::ReferenceForms;
use jackfield_domain::resource::Cascade;
use jackfield_domain::value::url::HttpUrl;
use jackfield_domain::{ConnectorId, Violations};
use jackfield_service::{DeleteOptions, Deleted, ListScope, ListedPage};
use tonic::{Request, Response, Status, async_trait};

use super::parse::{self, ListFields};
use super::stream::PageStream;
use super::update::{self, Identity};
use super::{Api, enter, render, reply};

#[async_trait]
impl ConnectorService for Api {
    type ListConnectorsStream = PageStream<Connector, pb::ListConnectorsResponse>;

    async fn create_connector(
        &self,
        request: Request<pb::CreateConnectorRequest>,
    ) -> Result<Response<pb::CreateConnectorResponse>, Status> {
        let call = async {
            let (caller, request) = enter(request)?;
            let mut wrong = Violations::default();
            let mutation =
                parse::mutation(&mut wrong, "CreateConnector", &request, &request.request_id, request.validate_only);
            let id = wrong.check(parse::optional_id("id", &request.id)).flatten().map(ConnectorId);
            let connector = parse::required(&mut wrong, "connector", request.connector);
            let patch = connector.map(|connector| patch::parse(&mut wrong, connector, &Mask::All));
            let patch = parse::done(wrong, patch)?;
            let connector = self.services.connector_create(&caller, &mutation, id, patch).await?;
            Ok(pb::CreateConnectorResponse { connector: Some(to_message(connector)) })
        };
        reply(call.await)
    }

    async fn get_connector(
        &self,
        request: Request<pb::GetConnectorRequest>,
    ) -> Result<Response<pb::GetConnectorResponse>, Status> {
        let call = async {
            let (caller, request) = enter(request)?;
            let mut wrong = Violations::default();
            let reference = parse::reference(&mut wrong, &request.reference, ReferenceForms::ID_NAME);
            let connector = self.services.connector_get(&caller, &parse::done(wrong, reference)?).await?;
            Ok(pb::GetConnectorResponse { connector: Some(to_message(connector)) })
        };
        reply(call.await)
    }

    async fn list_connectors(
        &self,
        request: Request<pb::ListConnectorsRequest>,
    ) -> Result<Response<Self::ListConnectorsStream>, Status> {
        let call = async {
            let (caller, request) = enter(request)?;
            let pb::ListConnectorsRequest { page_size, page_token, limit, filter, order_by } = &request;
            let fields = ListFields { page_size: *page_size, page_token, limit: *limit, filter, order_by };
            let mut wrong = Violations::default();
            let list = parse::list(&mut wrong, &fields, &connector::SCHEMA);
            let list = parse::done(wrong, list)?;
            let pager = self.services.list(&caller, list, ListScope::default()).await?;
            self.streams.pages(pager, to_page)
        };
        reply(call.await)
    }

    async fn update_connector(
        &self,
        request: Request<pb::UpdateConnectorRequest>,
    ) -> Result<Response<pb::UpdateConnectorResponse>, Status> {
        let call = async {
            let (caller, request) = enter(request)?;
            let mut wrong = Violations::default();
            let mutation =
                parse::mutation(&mut wrong, "UpdateConnector", &request, &request.request_id, request.validate_only);
            let reference = parse::reference(&mut wrong, &request.reference, ReferenceForms::ID_NAME);
            let mask = parse::mask(&mut wrong, request.update_mask.as_ref(), patch::PATHS, patch::OUTPUT_ONLY);
            let connector = parse::required(&mut wrong, "connector", request.connector);
            let inside = connector.as_ref().map(|it| Identity { resource: "connector", id: &it.id, etag: &it.etag });
            let expected = update::expected(&mut wrong, &request.etag, inside);
            let patch = connector.zip(mask).map(|(connector, mask)| {
                let patch = patch::parse(&mut wrong, connector, &mask);
                update::require_change(&mut wrong, &mask, "connector", patch.is_empty());
                patch
            });
            let (reference, patch) = parse::done(wrong, reference.zip(patch))?;
            let updated = self.services.connector_update(&caller, &mutation, &reference, &expected, patch).await?;
            Ok(pb::UpdateConnectorResponse { connector: Some(to_message(updated)) })
        };
        reply(call.await)
    }

    async fn delete_connector(
        &self,
        request: Request<pb::DeleteConnectorRequest>,
    ) -> Result<Response<pb::DeleteConnectorResponse>, Status> {
        let call = async {
            let (caller, request) = enter(request)?;
            let mut wrong = Violations::default();
            let mutation =
                parse::mutation(&mut wrong, "DeleteConnector", &request, &request.request_id, request.validate_only);
            let reference = parse::reference(&mut wrong, &request.reference, ReferenceForms::ID_NAME);
            let reference = parse::done(wrong, reference)?;
            let deletion =
                DeleteOptions { etag: request.etag, allow_missing: request.allow_missing, cascade: request.cascade };
            let deleted = self.services.connector_delete(&caller, &mutation, &reference, &deletion).await?;
            let Deleted { deleted, with } = deleted;
            let Cascade { connections, user_connectors, credentials, configurations } = with;
            Ok(pb::DeleteConnectorResponse {
                deleted,
                connections_deleted: render::count(connections),
                user_connectors_deleted: render::count(user_connectors),
                credentials_deleted: render::count(credentials),
                configurations_deleted: render::count(configurations),
            })
        };
        reply(call.await)
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
        labels,
        meta,
    } = connector;
    pb::Connector {
        id: id.to_string(),
        name: name.into(),
        description: render::text(description),
        enabled: Some(enabled),
        kind: Some(kind_to_message(kind)),
        headers: headers.into(),
        secret_headers: Default::default(),
        secret_header_names,
        connect_timeout: Some(render::duration(timeouts.connect)),
        read_timeout: Some(render::duration(timeouts.read)),
        total_timeout: Some(render::duration(timeouts.total)),
        client_identity_key: client_identity_key.map(|key| key.to_string()),
        trust_bundle_key: trust_bundle_key.map(|key| key.to_string()),
        data: render::json(data),
        debug: Some(debug),
        labels: labels.into(),
        create_time: Some(render::timestamp(meta.create_time)),
        update_time: Some(render::timestamp(meta.update_time)),
        etag,
    }
}

fn kind_to_message(kind: ConnectorKind) -> pb::connector::Kind {
    use pb::connector::Kind;
    let url = |url: Option<HttpUrl>| url.map(String::from);
    match kind {
        ConnectorKind::Generic(generic) => Kind::Generic(pb::GenericConnector {
            authentication_url: generic.authentication_url.into(),
            http_authentication_username: generic.username,
            http_authentication_password: String::new(),
            http_authentication_password_set: generic.password_set,
        }),
        ConnectorKind::License(license) => Kind::License(pb::LicenseConnector {
            base_url: license.base_url.into(),
            application_id: license.application_id,
        }),
        ConnectorKind::OAuth2(oauth2) => Kind::Oauth2(pb::OAuth2Connector {
            issuer_url: url(oauth2.issuer_url),
            authorization_url: url(oauth2.authorization_url),
            token_url: url(oauth2.token_url),
            profile_url: url(oauth2.profile_url),
            revocation_url: url(oauth2.revocation_url),
            jwks_url: url(oauth2.jwks_url),
            device_authorization_url: url(oauth2.device_authorization_url),
        }),
        ConnectorKind::ApiKey(api_key) => Kind::ApiKey(pb::ApiKeyConnector {
            base_url: url(api_key.base_url),
            header_name: api_key.header_name,
            value_prefix: api_key.value_prefix,
            query_parameter: api_key.query_parameter,
        }),
        ConnectorKind::HttpBasic(basic) => Kind::HttpBasic(pb::HttpBasicConnector { base_url: url(basic.base_url) }),
        ConnectorKind::ClientCertificate(certificate) => {
            Kind::ClientCertificate(pb::ClientCertificateConnector { base_url: url(certificate.base_url) })
        }
    }
}
