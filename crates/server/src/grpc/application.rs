//! ApplicationService.

mod message;
mod patch;
mod request;

use jackfield_api::v1 as pb;
use jackfield_api::v1::application_service_server::ApplicationService;
use jackfield_domain::application::{Application, PermissionGrant, Session};
use jackfield_domain::request::reference::ReferenceForms;
use jackfield_domain::resource::Dependents;
use jackfield_domain::value::text::CompanyId;
use jackfield_domain::{ApplicationId, Violations};
use jackfield_service::{DeleteOptions, Deleted, ListScope};
use tonic::{Request, Response, Status, async_trait};

use self::message::{application_to_message, grant_to_message, permissions_to_message, user_to_message};
use self::request::{APPLICATION_FORMS, named_by};
use super::api::{Api, authorize, authorize_with_metadata, deadline, respond};
use super::fields::Fields;
use super::page_stream::PageStream;
use super::parse;
use super::render;
use super::update;

#[async_trait]
impl ApplicationService for Api {
    type ListApplicationsStream = PageStream<Application, pb::ListApplicationsResponse>;
    type ListPermissionsStream = PageStream<PermissionGrant, pb::ListPermissionsResponse>;
    type ListSessionsStream = PageStream<Session, pb::ListSessionsResponse>;

    async fn create_application(
        &self,
        request: Request<pb::CreateApplicationRequest>,
    ) -> Result<Response<pb::CreateApplicationResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let id = violations.check(parse::optional_id("id", &request.id)).flatten().map(ApplicationId);
            let application = parse::required(&mut violations, "application", request.application);
            let patch = application.map(|it| patch::parse(&mut Fields::of_new("application", &mut violations), it));
            let patch = violations.into_result(patch)?;
            let created = self.services.application_create(&caller, &options, id, patch).await?;
            Ok(pb::CreateApplicationResponse { application: Some(application_to_message(created)) })
        };
        respond(call.await)
    }

    async fn get_application(
        &self,
        request: Request<pb::GetApplicationRequest>,
    ) -> Result<Response<pb::GetApplicationResponse>, Status> {
        let call = async {
            let (caller, request) = authorize(request)?;
            let mut violations = Violations::default();
            let reference = parse::reference(&mut violations, &request.reference, APPLICATION_FORMS);
            let found = self.services.application_get(&caller, &violations.into_result(reference)?).await?;
            Ok(pb::GetApplicationResponse { application: Some(application_to_message(found)) })
        };
        respond(call.await)
    }

    async fn list_applications(
        &self,
        request: Request<pb::ListApplicationsRequest>,
    ) -> Result<Response<Self::ListApplicationsStream>, Status> {
        let call = async {
            let (caller, request) = authorize(request)?;
            let mut violations = Violations::default();
            let list = parse::list(&mut violations, &request);
            let connector =
                parse::optional_reference(&mut violations, "connector", &request.connector, ReferenceForms::ID_NAME);
            let (list, connector) = violations.into_result(list.zip(connector))?;
            let scope = ListScope { connector, ..ListScope::default() };
            self.streams.pages(self.services.list(&caller, list, scope).await?, message::applications_to_page)
        };
        respond(call.await)
    }

    async fn update_application(
        &self,
        request: Request<pb::UpdateApplicationRequest>,
    ) -> Result<Response<pb::UpdateApplicationResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let reference = parse::reference(&mut violations, &request.reference, APPLICATION_FORMS);
            let update = update::parse(&mut violations, &mut request, &[], patch::parse);
            let (reference, (expected, patch)) = violations.into_result(reference.zip(update))?;
            let updated = self.services.application_update(&caller, &options, &reference, &expected, patch).await?;
            Ok(pb::UpdateApplicationResponse { application: Some(application_to_message(updated)) })
        };
        respond(call.await)
    }

    async fn delete_application(
        &self,
        request: Request<pb::DeleteApplicationRequest>,
    ) -> Result<Response<pb::DeleteApplicationResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let reference = parse::reference(&mut violations, &request.reference, APPLICATION_FORMS);
            let reference = violations.into_result(reference)?;
            let deletion = DeleteOptions { etag: request.etag, allow_missing: request.allow_missing, cascade: false };
            let deleted = self.services.application_delete(&caller, &options, &reference, &deletion).await?;
            let Deleted { deleted, with: Dependents { permission_grants, sessions, .. } } = deleted;
            Ok(pb::DeleteApplicationResponse {
                deleted,
                permission_grants_deleted: render::count(permission_grants),
                sessions_deleted: render::count(sessions),
            })
        };
        respond(call.await)
    }

    async fn set_permissions(
        &self,
        request: Request<pb::SetPermissionsRequest>,
    ) -> Result<Response<pb::SetPermissionsResponse>, Status> {
        let call = async {
            let (caller, metadata, mut request) = authorize_with_metadata(request)?;
            let mut violations = Violations::default();
            let application = named_by(&mut violations, &metadata, &mut request.application);
            let options = parse::options(&mut violations, &mut request);
            let change = request::permission_change(&mut violations, request);
            let (application, change) = violations.into_result(application.zip(change))?;
            let grant = self.services.permissions_set(&caller, &options, &application, change).await?;
            Ok(pb::SetPermissionsResponse { grant: grant.map(grant_to_message) })
        };
        respond(call.await)
    }

    async fn list_permissions(
        &self,
        request: Request<pb::ListPermissionsRequest>,
    ) -> Result<Response<Self::ListPermissionsStream>, Status> {
        let call = async {
            let (caller, metadata, mut request) = authorize_with_metadata(request)?;
            let mut violations = Violations::default();
            let list = parse::list(&mut violations, &request);
            let application = request::optional(&mut violations, &metadata, &mut request.application);
            let user_id = parse::optional_user(&mut violations, &request.user_id);
            let company_id = parse::non_empty(&request.company_id).map(|id| CompanyId::parse("company_id", id));
            let company_id = violations.check(company_id.transpose());
            let parsed = list.zip(application).zip(user_id.zip(company_id));
            let ((list, application), (user_id, company_id)) = violations.into_result(parsed)?;
            let scope = ListScope { application, user_id, company_id, ..ListScope::default() };
            self.streams.pages(self.services.list(&caller, list, scope).await?, message::grants_to_page)
        };
        respond(call.await)
    }

    async fn authenticate_application_user(
        &self,
        request: Request<pb::AuthenticateApplicationUserRequest>,
    ) -> Result<Response<pb::AuthenticateApplicationUserResponse>, Status> {
        let call = async {
            let (caller, metadata, mut request) = authorize_with_metadata(request)?;
            let mut violations = Violations::default();
            let application = named_by(&mut violations, &metadata, &mut request.application);
            let login = request::login(&mut violations, request);
            let (application, (credentials, event)) = violations.into_result(application.zip(login))?;
            let services = &self.services;
            let login =
                services.application_authenticate(&caller, &application, credentials, event, deadline()).await?;
            Ok(message::login_to_message(login))
        };
        respond(call.await)
    }

    async fn get_session_user(
        &self,
        request: Request<pb::GetSessionUserRequest>,
    ) -> Result<Response<pb::GetSessionUserResponse>, Status> {
        let call = async {
            let (caller, metadata, mut request) = authorize_with_metadata(request)?;
            let mut violations = Violations::default();
            let application = named_by(&mut violations, &metadata, &mut request.application);
            let token = request::session_token(&mut violations, request.session_token);
            let (application, token) = violations.into_result(application.zip(token))?;
            let found = self.services.session_user(&caller, &application, &token, deadline()).await?;
            Ok(user_to_message(found))
        };
        respond(call.await)
    }

    async fn get_session_permissions(
        &self,
        request: Request<pb::GetSessionPermissionsRequest>,
    ) -> Result<Response<pb::GetSessionPermissionsResponse>, Status> {
        let call = async {
            let (caller, metadata, mut request) = authorize_with_metadata(request)?;
            let mut violations = Violations::default();
            let application = named_by(&mut violations, &metadata, &mut request.application);
            let token = request::session_token(&mut violations, request.session_token);
            let (application, token) = violations.into_result(application.zip(token))?;
            let found = self.services.session_permissions(&caller, &application, &token, deadline()).await?;
            Ok(permissions_to_message(found))
        };
        respond(call.await)
    }

    async fn end_session(
        &self,
        request: Request<pb::EndSessionRequest>,
    ) -> Result<Response<pb::EndSessionResponse>, Status> {
        let call = async {
            let (caller, metadata, mut request) = authorize_with_metadata(request)?;
            let mut violations = Violations::default();
            let application = request::optional(&mut violations, &metadata, &mut request.application);
            let options = parse::options(&mut violations, &mut request);
            let session = request::session(&mut violations, request);
            let (application, session) = violations.into_result(application.zip(session))?;
            let ended = self.services.session_end(&caller, &options, application.as_ref(), &session).await?;
            Ok(pb::EndSessionResponse { ended })
        };
        respond(call.await)
    }

    async fn list_sessions(
        &self,
        request: Request<pb::ListSessionsRequest>,
    ) -> Result<Response<Self::ListSessionsStream>, Status> {
        let call = async {
            let (caller, metadata, mut request) = authorize_with_metadata(request)?;
            let mut violations = Violations::default();
            let list = parse::list(&mut violations, &request);
            let application = request::optional(&mut violations, &metadata, &mut request.application);
            let user_id = parse::optional_user(&mut violations, &request.user_id);
            let ((list, application), user_id) = violations.into_result(list.zip(application).zip(user_id))?;
            let scope = ListScope { application, user_id, ..ListScope::default() };
            self.streams.pages(self.services.list(&caller, list, scope).await?, message::sessions_to_page)
        };
        respond(call.await)
    }
}
