//! AdminService.

use jackfield_api::v1 as pb;
use jackfield_api::v1::admin_service_server::AdminService;
use jackfield_domain::request::reference::ReferenceForms;
use jackfield_domain::rewrap::{Rewrap, RewrapState};
use jackfield_domain::tenant::{Tenant, TenantDraft};
use jackfield_domain::value::text::{MAX_NAME, TenantName};
use jackfield_domain::{TenantId, Violations};
use jackfield_service::{DeleteOptions, ListScope, ListedPage, ServerInfo};
use tonic::{Request, Response, Status, async_trait};

use super::api::{Api, authorize, respond};
use super::fields::Fields;
use super::page_stream::PageStream;
use super::parse;
use super::render;

#[async_trait]
impl AdminService for Api {
    type ListTenantsStream = PageStream<Tenant, pb::ListTenantsResponse>;

    async fn create_tenant(
        &self,
        request: Request<pb::CreateTenantRequest>,
    ) -> Result<Response<pb::CreateTenantResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let draft = draft(&mut violations, request);
            let tenant = self.services.tenant_create(&caller, &options, violations.into_result(draft)?).await?;
            Ok(pb::CreateTenantResponse { tenant: Some(to_message(tenant)) })
        };
        respond(call.await)
    }

    async fn get_tenant(
        &self,
        request: Request<pb::GetTenantRequest>,
    ) -> Result<Response<pb::GetTenantResponse>, Status> {
        let call = async {
            let (caller, request) = authorize(request)?;
            let mut violations = Violations::default();
            let reference = parse::reference(&mut violations, &request.reference, ReferenceForms::ID_NAME);
            let tenant = self.services.tenant_get(&caller, &violations.into_result(reference)?).await?;
            Ok(pb::GetTenantResponse { tenant: Some(to_message(tenant)) })
        };
        respond(call.await)
    }

    async fn list_tenants(
        &self,
        request: Request<pb::ListTenantsRequest>,
    ) -> Result<Response<Self::ListTenantsStream>, Status> {
        let call = async {
            let (caller, request) = authorize(request)?;
            let mut violations = Violations::default();
            let list = parse::list(&mut violations, &request);
            let pager = self.services.list(&caller, violations.into_result(list)?, ListScope::default()).await?;
            self.streams.pages(pager, to_page)
        };
        respond(call.await)
    }

    async fn delete_tenant(
        &self,
        request: Request<pb::DeleteTenantRequest>,
    ) -> Result<Response<pb::DeleteTenantResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let reference = parse::reference(&mut violations, &request.reference, ReferenceForms::ID_NAME);
            let reference = violations.into_result(reference)?;
            let deletion =
                DeleteOptions { etag: request.etag, allow_missing: request.allow_missing, cascade: request.cascade };
            let deleted = self.services.tenant_delete(&caller, &options, &reference, &deletion).await?;
            Ok(pb::DeleteTenantResponse { deleted: deleted.deleted })
        };
        respond(call.await)
    }

    async fn rewrap_secrets(
        &self,
        request: Request<pb::RewrapSecretsRequest>,
    ) -> Result<Response<pb::RewrapSecretsResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            violations.into_result(Some(()))?;
            let rewrap = self.services.rewrap_start(&caller, &options, request.reseal).await?;
            Ok(pb::RewrapSecretsResponse { rewrap: Some(rewrap_to_message(rewrap)) })
        };
        respond(call.await)
    }

    async fn get_rewrap(
        &self,
        request: Request<pb::GetRewrapRequest>,
    ) -> Result<Response<pb::GetRewrapResponse>, Status> {
        let call = async {
            let (caller, _) = authorize(request)?;
            let rewrap = self.services.rewrap_get(&caller).await?;
            Ok(pb::GetRewrapResponse { rewrap: Some(rewrap_to_message(rewrap)) })
        };
        respond(call.await)
    }

    async fn get_server_info(
        &self,
        request: Request<pb::GetServerInfoRequest>,
    ) -> Result<Response<pb::GetServerInfoResponse>, Status> {
        let call = async {
            let (caller, _) = authorize(request)?;
            let info = self.services.server_info(&caller).await?;
            Ok(server_info_to_message(info))
        };
        respond(call.await)
    }
}

fn draft(violations: &mut Violations, request: pb::CreateTenantRequest) -> Option<TenantDraft> {
    let pb::CreateTenantRequest { tenant, id, request_id: _, validate_only: _ } = request;
    let id = violations.check(parse::optional_id("id", &id)).flatten().map(TenantId);
    let tenant = parse::required(violations, "tenant", tenant)?;
    let pb::Tenant { name, display_name, id: _, create_time: _, update_time: _, etag: _ } = tenant;
    let mut fields = Fields::of_new("tenant", violations);
    let name = fields.required("name", &name, TenantName::parse);
    let display_name = fields.text("display_name", Some(display_name), MAX_NAME);
    Some(TenantDraft { id, name: name?, display_name: display_name? })
}

fn server_info_to_message(info: ServerInfo) -> pb::GetServerInfoResponse {
    let ServerInfo {
        database_backend,
        database_version,
        schema_version,
        active_key,
        keys,
        start_time,
        reveal_enabled,
        development,
    } = info;
    pb::GetServerInfoResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        database_backend: database_backend.to_owned(),
        database_version,
        schema_version,
        active_key_encryption_key: active_key,
        key_encryption_keys: keys,
        start_time: Some(render::timestamp(start_time)),
        reveal_enabled,
        development_mode: development,
    }
}

fn to_page(page: ListedPage<Tenant>) -> pb::ListTenantsResponse {
    pb::ListTenantsResponse {
        tenants: page.items.into_iter().map(to_message).collect(),
        next_page_token: page.next_page_token,
    }
}

fn to_message(tenant: Tenant) -> pb::Tenant {
    let Tenant { id, name, display_name, meta } = tenant;
    pb::Tenant {
        id: id.to_string(),
        name: name.into(),
        display_name,
        create_time: Some(render::timestamp(meta.create_time)),
        update_time: Some(render::timestamp(meta.update_time)),
        etag: meta.etag(),
    }
}

fn rewrap_to_message(rewrap: Rewrap) -> pb::Rewrap {
    let Rewrap {
        id,
        state,
        kek_id,
        reseal,
        data_keys_total,
        data_keys_done,
        secrets_total,
        secrets_done,
        failed,
        start_time,
        end_time,
        heartbeat_time: _,
    } = rewrap;
    pb::Rewrap {
        id: id.to_string(),
        state: match state {
            RewrapState::Running => pb::RewrapState::Running,
            RewrapState::Done => pb::RewrapState::Done,
            RewrapState::Failed => pb::RewrapState::Failed,
        }
        .into(),
        key_encryption_key: kek_id,
        reseal,
        data_keys_total,
        data_keys_done,
        secrets_total,
        secrets_done,
        failed,
        start_time: Some(render::timestamp(start_time)),
        end_time: end_time.map(render::timestamp),
    }
}
