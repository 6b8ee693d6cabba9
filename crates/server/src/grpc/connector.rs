//! ConnectorService.

mod patch;

use jackfield_api::v1 as pb;
use jackfield_api::v1::connector_service_server::ConnectorService;
use jackfield_domain::connector::{self, Connector, ConnectorKind};
use jackfield_domain::request::reference::ReferenceForms;
use jackfield_domain::resource::Cascade;
use jackfield_domain::value::url::HttpUrl;
use jackfield_domain::{ConnectorId, Violations};
use jackfield_service::{DeleteOptions, Deleted, ListScope, ListedPage};
use tonic::{Request, Response, Status, async_trait};

use super::api::{Api, authorize, respond};
use super::fields::Fields;
use super::page_stream::PageStream;
use super::parse;
use super::render;
use super::update;

#[async_trait]
impl ConnectorService for Api {
    type ListConnectorsStream = PageStream<Connector, pb::ListConnectorsResponse>;

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
            let list = parse::list(&mut violations, &request, &connector::SCHEMA);
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
            let deleted = self.services.connector_delete(&caller, &options, &reference, &deletion).await?;
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
