//! UserConnectorService.

use jackfield_api::v1 as pb;
use jackfield_api::v1::user_connector_service_server::UserConnectorService;
use jackfield_domain::request::reference::{Ref, ReferenceForms};
use jackfield_domain::user_connector::{Added, Authenticated, UserConnector, UserConnectorRef, UserConnectorState};
use jackfield_domain::value::text::UserId;
use jackfield_domain::{UserConnectorId, Violations};
use jackfield_service::{DeleteOptions, Deleted, ListScope, ListedPage, MaterialOrigin};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::api::{Api, authorize, deadline, respond};
use super::credentials;
use super::page_stream::PageStream;
use super::parse::{self, ReferenceOrPair};
use super::render;
use super::source::{self, WireForm};

#[async_trait]
impl UserConnectorService for Api {
    type ListUserConnectorsStream = PageStream<UserConnector, pb::ListUserConnectorsResponse>;
    type ServeCredentialsStream = source::QuestionStream;

    async fn add_user_connector(
        &self,
        request: Request<pb::AddUserConnectorRequest>,
    ) -> Result<Response<pb::AddUserConnectorResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let id = violations.check(parse::optional_id("id", &request.id)).flatten().map(UserConnectorId);
            let user_id = violations.check(UserId::parse("user_id", &request.user_id));
            let connector = violations.check(Ref::parse("connector", &request.connector, ReferenceForms::ID_NAME));
            let (user_id, connector) = violations.into_result(user_id.zip(connector))?;
            let added = self.services.user_connector_add(&caller, &options, id, user_id, &connector).await?;
            let Added { user_connector, created } = added;
            let warning = if created {
                String::new()
            } else {
                let UserConnector { user_id, connector_name, .. } = &user_connector;
                format!("user {user_id} is linked to connector {connector_name} already; nothing was changed")
            };
            Ok(pb::AddUserConnectorResponse { user_connector: Some(to_message(user_connector)), created, warning })
        };
        respond(call.await)
    }

    async fn remove_user_connector(
        &self,
        request: Request<pb::RemoveUserConnectorRequest>,
    ) -> Result<Response<pb::RemoveUserConnectorResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let link = link(&mut violations, &request.reference, &request.user_id, &request.connector);
            let link = violations.into_result(link)?;
            let removed = self.services.user_connector_remove(&caller, &options, &link, &request.etag).await?;
            let Deleted { deleted: removed, with } = removed;
            let warning = removal_warning(removed, with.authorizations).to_owned();
            Ok(pb::RemoveUserConnectorResponse {
                removed,
                warning,
                credentials_deleted: render::count(with.credentials),
                configurations_deleted: render::count(with.configurations),
                authorizations_cancelled: render::count(with.authorizations),
            })
        };
        respond(call.await)
    }

    async fn authenticate_user_connector(
        &self,
        request: Request<pb::AuthenticateUserConnectorRequest>,
    ) -> Result<Response<pb::AuthenticateUserConnectorResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let user_id = violations.check(UserId::parse("user_id", &request.user_id));
            let connector = violations.check(Ref::parse("connector", &request.connector, ReferenceForms::ID_NAME));
            let origin = origin(&mut violations, request.material, request.use_source);
            let ((user_id, connector), origin) = violations.into_result(user_id.zip(connector).zip(origin))?;
            let services = &self.services;
            let done = services
                .user_connector_authenticate(&caller, &options, user_id, &connector, origin, deadline())
                .await?;
            Ok(to_authenticated(done))
        };
        respond(call.await)
    }

    async fn get_user_connector(
        &self,
        request: Request<pb::GetUserConnectorRequest>,
    ) -> Result<Response<pb::GetUserConnectorResponse>, Status> {
        let call = async {
            let (caller, request) = authorize(request)?;
            let mut violations = Violations::default();
            let link = link(&mut violations, &request.reference, &request.user_id, &request.connector);
            let found = self.services.user_connector_get(&caller, &violations.into_result(link)?).await?;
            Ok(pb::GetUserConnectorResponse { user_connector: Some(to_message(found)) })
        };
        respond(call.await)
    }

    async fn set_credential_source(
        &self,
        request: Request<pb::SetCredentialSourceRequest>,
    ) -> Result<Response<pb::SetCredentialSourceResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let draft = source::draft(&mut violations, request.source);
            let draft = violations.into_result(draft)?;
            let set = self.services.credential_source_set(&caller, &options, draft).await?;
            Ok(pb::SetCredentialSourceResponse { source: Some(source::to_message(set)) })
        };
        respond(call.await)
    }

    async fn get_credential_source(
        &self,
        request: Request<pb::GetCredentialSourceRequest>,
    ) -> Result<Response<pb::GetCredentialSourceResponse>, Status> {
        let call = async {
            let (caller, request) = authorize(request)?;
            let mut violations = Violations::default();
            let user_id = parse::user_or_tenant(&mut violations, "", (&request.user_id, request.tenant_wide));
            let user_id = violations.into_result(user_id)?;
            let found = self.services.credential_source_get(&caller, user_id.as_ref()).await?;
            Ok(pb::GetCredentialSourceResponse { source: Some(source::to_message(found)) })
        };
        respond(call.await)
    }

    async fn delete_credential_source(
        &self,
        request: Request<pb::DeleteCredentialSourceRequest>,
    ) -> Result<Response<pb::DeleteCredentialSourceResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let user_id = parse::user_or_tenant(&mut violations, "", (&request.user_id, request.tenant_wide));
            let user_id = violations.into_result(user_id)?;
            let deletion = DeleteOptions { etag: request.etag, allow_missing: request.allow_missing, cascade: true };
            let services = &self.services;
            let deleted = services.credential_source_delete(&caller, &options, user_id.as_ref(), &deletion).await?;
            Ok(pb::DeleteCredentialSourceResponse { deleted })
        };
        respond(call.await)
    }

    async fn serve_credentials(
        &self,
        request: Request<Streaming<pb::ServeCredentialsRequest>>,
    ) -> Result<Response<Self::ServeCredentialsStream>, Status> {
        let call = async {
            let (caller, answers) = authorize(request)?;
            let served = self.services.credentials_serve(&caller);
            Ok(source::conversation(served, answers, self.drain.clone()))
        };
        respond(call.await)
    }

    async fn list_user_connectors(
        &self,
        request: Request<pb::ListUserConnectorsRequest>,
    ) -> Result<Response<Self::ListUserConnectorsStream>, Status> {
        let call = async {
            let (caller, request) = authorize(request)?;
            let mut violations = Violations::default();
            let list = parse::list(&mut violations, &request);
            let user_id = parse::optional_user(&mut violations, &request.user_id);
            let connector =
                parse::optional_reference(&mut violations, "connector", &request.connector, ReferenceForms::ID_NAME);
            let ((list, user_id), connector) = violations.into_result(list.zip(user_id).zip(connector))?;
            let scope = ListScope { user_id, connector, ..ListScope::default() };
            let pager = self.services.list(&caller, list, scope).await?;
            self.streams.pages(pager, to_page)
        };
        respond(call.await)
    }
}

/// A link is named by its id, or by what it links.
fn link(violations: &mut Violations, reference: &str, user_id: &str, connector: &str) -> Option<UserConnectorRef> {
    match parse::named(violations, (reference, ReferenceForms::ID), user_id, connector)? {
        ReferenceOrPair::Reference(Ref::Id(id)) => Some(UserConnectorRef::Id(UserConnectorId(id))),
        ReferenceOrPair::Reference(Ref::Name(_) | Ref::External(_)) => None,
        ReferenceOrPair::Pair { user_id, connector } => Some(UserConnectorRef::Pair { user_id, connector }),
    }
}

fn to_page(page: ListedPage<UserConnector>) -> pb::ListUserConnectorsResponse {
    pb::ListUserConnectorsResponse {
        user_connectors: page.items.into_iter().map(to_message).collect(),
        next_page_token: page.next_page_token,
    }
}

/// The origin of material: the request, or else a source.
fn origin(
    violations: &mut Violations,
    material: Option<pb::CredentialMaterial>,
    use_source: bool,
) -> Option<MaterialOrigin<'static>> {
    match material {
        None if use_source => Some(MaterialOrigin::Source(&WireForm, deadline())),
        material => credentials::required_material(violations, material).map(MaterialOrigin::Given),
    }
}

fn to_authenticated(authenticated: Authenticated) -> pb::AuthenticateUserConnectorResponse {
    let Authenticated { user_connector, credential, created } = authenticated;
    pb::AuthenticateUserConnectorResponse {
        user_connector: Some(to_message(user_connector)),
        credential: Some(credentials::to_message(credential)),
        created,
    }
}

fn to_message(link: UserConnector) -> pb::UserConnector {
    let UserConnector { id, user_id, connector, connector_name, state, credential_count, meta } = link;
    pb::UserConnector {
        id: id.to_string(),
        user_id: user_id.into(),
        connector: connector.to_string(),
        connector_name: connector_name.into(),
        state: match state {
            UserConnectorState::Attached => pb::UserConnectorState::Attached,
            UserConnectorState::Authenticated => pb::UserConnectorState::Authenticated,
            UserConnectorState::NeedsReauth => pb::UserConnectorState::NeedsReauth,
            UserConnectorState::Disabled => pb::UserConnectorState::Disabled,
        }
        .into(),
        credential_count: render::count(credential_count),
        create_time: Some(render::timestamp(meta.create_time)),
        update_time: Some(render::timestamp(meta.update_time)),
        etag: meta.etag(),
    }
}

/// The explanation of a removal that found no link.
fn removal_warning(removed: bool, cancelled: u64) -> &'static str {
    match (removed, cancelled) {
        (true, _) => "",
        (false, 0) => NOT_LINKED,
        (false, _) => ONLY_CANCELLED,
    }
}

const ONLY_CANCELLED: &str =
    "there is no such link; authorisations of the user that were open for the connector were cancelled";
const NOT_LINKED: &str = "there is no such link; nothing was changed";
