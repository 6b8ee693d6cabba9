//! UserConnectorService.

use jackfield_api::v1 as pb;
use jackfield_api::v1::user_connector_service_server::UserConnectorService;
use jackfield_domain::request::reference::{Ref, ReferenceForms};
use jackfield_domain::user_connector::{self, Added, UserConnector, UserConnectorRef, UserConnectorState};
use jackfield_domain::value::text::UserId;
use jackfield_domain::{UserConnectorId, Violation, Violations};
use jackfield_service::{Deleted, ListScope, ListedPage};
use tonic::{Request, Response, Status, async_trait};

use super::parse::{self, ListFields};
use super::stream::PageStream;
use super::{Api, enter, render, reply};

#[async_trait]
impl UserConnectorService for Api {
    type ListUserConnectorsStream = PageStream<UserConnector, pb::ListUserConnectorsResponse>;

    async fn add_user_connector(
        &self,
        request: Request<pb::AddUserConnectorRequest>,
    ) -> Result<Response<pb::AddUserConnectorResponse>, Status> {
        let call = async {
            let (caller, request) = enter(request)?;
            let mut wrong = Violations::default();
            let mutation =
                parse::mutation(&mut wrong, "AddUserConnector", &request, &request.request_id, request.validate_only);
            let id = wrong.check(parse::optional_id("id", &request.id)).flatten().map(UserConnectorId);
            let user_id = wrong.check(UserId::parse("user_id", &request.user_id));
            let connector = wrong.check(Ref::parse("connector", &request.connector, ReferenceForms::ID_NAME));
            let (user_id, connector) = parse::done(wrong, user_id.zip(connector))?;
            let added = self.services.user_connector_add(&caller, &mutation, id, user_id, &connector).await?;
            let Added { user_connector, created } = added;
            let warning = if created {
                String::new()
            } else {
                let UserConnector { user_id, connector_name, .. } = &user_connector;
                format!("user {user_id} is linked to connector {connector_name} already; nothing was changed")
            };
            Ok(pb::AddUserConnectorResponse { user_connector: Some(to_message(user_connector)), created, warning })
        };
        reply(call.await)
    }

    async fn remove_user_connector(
        &self,
        request: Request<pb::RemoveUserConnectorRequest>,
    ) -> Result<Response<pb::RemoveUserConnectorResponse>, Status> {
        let call = async {
            let (caller, request) = enter(request)?;
            let mut wrong = Violations::default();
            let (id, only) = (&request.request_id, request.validate_only);
            let mutation = parse::mutation(&mut wrong, "RemoveUserConnector", &request, id, only);
            let link = link(&mut wrong, &request.reference, &request.user_id, &request.connector);
            let link = parse::done(wrong, link)?;
            let removed = self.services.user_connector_remove(&caller, &mutation, &link, &request.etag).await?;
            let Deleted { deleted: removed, with } = removed;
            let warning = if removed { String::new() } else { NOT_LINKED.to_owned() };
            Ok(pb::RemoveUserConnectorResponse {
                removed,
                warning,
                credentials_deleted: render::count(with.credentials),
                configurations_deleted: render::count(with.configurations),
            })
        };
        reply(call.await)
    }

    async fn get_user_connector(
        &self,
        request: Request<pb::GetUserConnectorRequest>,
    ) -> Result<Response<pb::GetUserConnectorResponse>, Status> {
        let call = async {
            let (caller, request) = enter(request)?;
            let mut wrong = Violations::default();
            let link = link(&mut wrong, &request.reference, &request.user_id, &request.connector);
            let found = self.services.user_connector_get(&caller, &parse::done(wrong, link)?).await?;
            Ok(pb::GetUserConnectorResponse { user_connector: Some(to_message(found)) })
        };
        reply(call.await)
    }

    async fn list_user_connectors(
        &self,
        request: Request<pb::ListUserConnectorsRequest>,
    ) -> Result<Response<Self::ListUserConnectorsStream>, Status> {
        let call = async {
            let (caller, request) = enter(request)?;
            let pb::ListUserConnectorsRequest { page_size, page_token, limit, filter, order_by, user_id, connector } =
                &request;
            let fields = ListFields { page_size: *page_size, page_token, limit: *limit, filter, order_by };
            let mut wrong = Violations::default();
            let list = parse::list(&mut wrong, &fields, &user_connector::SCHEMA);
            let user_id = parse::optional_user(&mut wrong, user_id);
            let connector = wrong.check(Ref::parse_optional("connector", connector, ReferenceForms::ID_NAME));
            let ((list, user_id), connector) = parse::done(wrong, list.zip(user_id).zip(connector))?;
            let scope = ListScope { user_id, connector, ..ListScope::default() };
            let pager = self.services.list(&caller, list, scope).await?;
            self.streams.pages(pager, to_page)
        };
        reply(call.await)
    }
}

/// A link is named by its id, or by user and connector; one of the two ways, not both.
fn link(wrong: &mut Violations, reference: &str, user_id: &str, connector: &str) -> Option<UserConnectorRef> {
    match (reference.is_empty(), user_id.is_empty() && connector.is_empty()) {
        (true, true) => {
            let description = "must be given, or user_id and connector instead of it";
            wrong.push(Violation::reference("reference", description));
            None
        }
        (false, false) => {
            wrong.push(Violation::reference("reference", "must not be given together with user_id and connector"));
            None
        }
        (false, true) => match parse::reference(wrong, reference, ReferenceForms::ID)? {
            Ref::Id(id) => Some(UserConnectorRef::Id(UserConnectorId(id))),
            Ref::Name(_) | Ref::External(_) => None,
        },
        (true, false) => {
            let user_id = wrong.check(UserId::parse("user_id", user_id));
            let connector = wrong.check(Ref::parse("connector", connector, ReferenceForms::ID_NAME));
            Some(UserConnectorRef::Pair { user_id: user_id?, connector: connector? })
        }
    }
}

fn to_page(page: ListedPage<UserConnector>) -> pb::ListUserConnectorsResponse {
    pb::ListUserConnectorsResponse {
        user_connectors: page.items.into_iter().map(to_message).collect(),
        next_page_token: page.next_page_token,
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

const NOT_LINKED: &str = "there is no such link; nothing was changed";
