//! UserService.

use jackfield_api::v1 as pb;
use jackfield_api::v1::user_service_server::UserService;
use jackfield_domain::request::reference::ReferenceForms;
use jackfield_domain::user::{
    EmailAddress, MAX_PERSON_NAME, Password, PhoneNumber, Registration, User, UserPatch, Username, registrations,
};
use jackfield_domain::value::text::UserId;
use jackfield_domain::{UserUuid, Violations};
use jackfield_service::{DeleteOptions, ListScope, ListedPage};
use tonic::{Request, Response, Status, async_trait};

use super::api::{Api, authorize, respond};
use super::fields::Fields;
use super::page_stream::PageStream;
use super::parse;
use super::render;
use super::update;

#[async_trait]
impl UserService for Api {
    type ListUsersStream = PageStream<User, pb::ListUsersResponse>;

    async fn create_user(
        &self,
        request: Request<pb::CreateUserRequest>,
    ) -> Result<Response<pb::CreateUserResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let id = violations.check(parse::optional_id("id", &request.id)).flatten().map(UserUuid);
            let user = parse::required(&mut violations, "user", request.user);
            let patch = user.map(|it| to_patch(&mut Fields::of_new("user", &mut violations), it));
            let patch = violations.into_result(patch)?;
            let user = self.services.user_create(&caller, &options, id, patch).await?;
            Ok(pb::CreateUserResponse { user: Some(to_message(user)) })
        };
        respond(call.await)
    }

    async fn get_user(&self, request: Request<pb::GetUserRequest>) -> Result<Response<pb::GetUserResponse>, Status> {
        let call = async {
            let (caller, request) = authorize(request)?;
            let mut violations = Violations::default();
            let reference = parse::reference(&mut violations, &request.reference, ReferenceForms::ID_EXTERNAL);
            let user = self.services.user_get(&caller, &violations.into_result(reference)?).await?;
            Ok(pb::GetUserResponse { user: Some(to_message(user)) })
        };
        respond(call.await)
    }

    async fn list_users(
        &self,
        request: Request<pb::ListUsersRequest>,
    ) -> Result<Response<Self::ListUsersStream>, Status> {
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

    async fn update_user(
        &self,
        request: Request<pb::UpdateUserRequest>,
    ) -> Result<Response<pb::UpdateUserResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let reference = parse::reference(&mut violations, &request.reference, ReferenceForms::ID_EXTERNAL);
            let update = update::parse(&mut violations, &mut request, &[], to_patch);
            let (reference, (expected, patch)) = violations.into_result(reference.zip(update))?;
            let updated = self.services.user_update(&caller, &options, &reference, &expected, patch).await?;
            Ok(pb::UpdateUserResponse { user: Some(to_message(updated)) })
        };
        respond(call.await)
    }

    async fn delete_user(
        &self,
        request: Request<pb::DeleteUserRequest>,
    ) -> Result<Response<pb::DeleteUserResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let reference = parse::reference(&mut violations, &request.reference, ReferenceForms::ID_EXTERNAL);
            let reference = violations.into_result(reference)?;
            let deletion =
                DeleteOptions { etag: request.etag, allow_missing: request.allow_missing, ..Default::default() };
            let deleted = self.services.user_delete(&caller, &options, &reference, &deletion).await?;
            Ok(pb::DeleteUserResponse { deleted: deleted.deleted })
        };
        respond(call.await)
    }
}

/// The patch that a message asks for.
fn to_patch(fields: &mut Fields<'_>, user: pb::User) -> UserPatch {
    let pb::User {
        user_id,
        username,
        email,
        phone_number,
        first_name,
        last_name,
        data,
        registrations: given,
        enabled,
        password,
        labels,
        id: _,
        password_set: _,
        connector: _,
        create_time: _,
        update_time: _,
        etag: _,
    } = user;
    let given =
        given.into_iter().map(|pb::UserRegistration { application_id, roles }| Registration { application_id, roles });
    let given: Vec<_> = given.collect();
    UserPatch {
        user_id: fields.optional("user_id", Some(user_id), UserId::parse).flatten(),
        username: fields.optional("username", username, Username::parse),
        email: fields.optional("email", email, EmailAddress::parse),
        phone_number: fields.optional("phone_number", phone_number, PhoneNumber::parse),
        first_name: fields.text("first_name", first_name, MAX_PERSON_NAME),
        last_name: fields.text("last_name", last_name, MAX_PERSON_NAME),
        data: fields.json("data", data),
        registrations: fields.list("registrations", given, registrations),
        enabled: fields.switch("enabled", enabled, true),
        password: fields.secret_as("password", password, Password::chosen),
        labels: fields.map("labels", labels),
        origin: None,
    }
}

fn to_page(page: ListedPage<User>) -> pb::ListUsersResponse {
    pb::ListUsersResponse {
        users: page.items.into_iter().map(to_message).collect(),
        next_page_token: page.next_page_token,
    }
}

fn to_message(user: User) -> pb::User {
    let User {
        id,
        user_id,
        username,
        email,
        phone_number,
        first_name,
        last_name,
        data,
        registrations,
        enabled,
        password_set,
        connector,
        connector_create_time: _,
        labels,
        meta,
    } = user;
    let registration = |Registration { application_id, roles }| pb::UserRegistration { application_id, roles };
    pb::User {
        id: id.to_string(),
        user_id: user_id.into(),
        username: username.map(String::from),
        email: email.map(String::from),
        phone_number: phone_number.map(String::from),
        first_name: render::text(first_name),
        last_name: render::text(last_name),
        data: render::json(data),
        registrations: registrations.into_iter().map(registration).collect(),
        enabled: Some(enabled),
        password: String::new(),
        password_set,
        connector: connector.map(|id| id.to_string()).unwrap_or_default(),
        labels: labels.into(),
        create_time: Some(render::timestamp(meta.create_time)),
        update_time: Some(render::timestamp(meta.update_time)),
        etag: meta.etag(),
    }
}
