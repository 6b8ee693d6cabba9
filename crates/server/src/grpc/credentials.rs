//! CredentialsService.

mod explain;
mod issued;
mod material;
mod revocation;

use jackfield_api::v1 as pb;
use jackfield_api::v1::credentials_service_server::CredentialsService;
use jackfield_domain::connection::MAX_PROVIDER_USER_ID;
use jackfield_domain::credential::{
    ApiAnswer, Credential, CredentialDraft, CredentialKind, CredentialParents, CredentialPatch, CredentialRef,
    CredentialState, FailureClass, MAX_MIN_VALIDITY_MICROS, Material,
};
use jackfield_domain::request::map_patch::MapPatch;
use jackfield_domain::request::reference::{Ref, ReferenceForms};
use jackfield_domain::value::maps::Labels;
use jackfield_domain::value::scopes::Scopes;
use jackfield_domain::value::text::{ExternalId, UserId, bounded_text};
use jackfield_domain::{CredentialId, Violation, Violations};
use jackfield_service::{DeleteOptions, Deleted, ListScope, ListedPage};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, async_trait};

pub(super) use self::issued::issued_to_message;
use super::api::{Api, authorize, authorize_with_metadata, deadline, respond};
use super::fields::Fields;
use super::page_stream::PageStream;
use super::parse::{self, ReferenceOrPair};
use super::render;
use super::update;

const MIN_PURPOSE: usize = 8;
const MAX_PURPOSE: usize = 500;

/// Metadata that may name the credential (the header X-Paragon-Credential of the model).
const CREDENTIAL_METADATA: &str = "x-jackfield-credential";

#[async_trait]
impl CredentialsService for Api {
    type ListCredentialsStream = PageStream<Credential, pb::ListCredentialsResponse>;

    async fn create_credential(
        &self,
        request: Request<pb::CreateCredentialRequest>,
    ) -> Result<Response<pb::CreateCredentialResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let draft = draft(&mut violations, request);
            let draft = violations.into_result(draft)?;
            let credential = self.services.credential_create(&caller, &options, draft, deadline()).await?;
            Ok(pb::CreateCredentialResponse { credential: Some(to_message(credential)) })
        };
        respond(call.await)
    }

    async fn get_credential(
        &self,
        request: Request<pb::GetCredentialRequest>,
    ) -> Result<Response<pb::GetCredentialResponse>, Status> {
        let call = async {
            let (caller, metadata, mut request) = authorize_with_metadata(request)?;
            let mut violations = Violations::default();
            credential_from_metadata(&mut violations, &metadata, "reference", &mut request.reference);
            let reference = parse::reference(&mut violations, &request.reference, ReferenceForms::ID_EXTERNAL);
            let credential = self.services.credential_get(&caller, &violations.into_result(reference)?).await?;
            Ok(pb::GetCredentialResponse { credential: Some(to_message(credential)) })
        };
        respond(call.await)
    }

    async fn list_credentials(
        &self,
        request: Request<pb::ListCredentialsRequest>,
    ) -> Result<Response<Self::ListCredentialsStream>, Status> {
        let call = async {
            let (caller, request) = authorize(request)?;
            let mut violations = Violations::default();
            let list = parse::list(&mut violations, &request);
            let user_id = parse::optional_user(&mut violations, &request.user_id);
            let connector =
                parse::optional_reference(&mut violations, "connector", &request.connector, ReferenceForms::ID_NAME);
            let connection = parse::optional_reference(
                &mut violations,
                "connection",
                &request.connection,
                ReferenceForms::ID_NAME_EXTERNAL,
            );
            let parsed = list.zip(user_id).zip(connector.zip(connection));
            let ((list, user_id), (connector, connection)) = violations.into_result(parsed)?;
            let scope = ListScope { user_id, connector, connection, ..ListScope::default() };
            let pager = self.services.list(&caller, list, scope).await?;
            self.streams.pages(pager, to_page)
        };
        respond(call.await)
    }

    async fn update_credential(
        &self,
        request: Request<pb::UpdateCredentialRequest>,
    ) -> Result<Response<pb::UpdateCredentialResponse>, Status> {
        let call = async {
            let (caller, metadata, mut request) = authorize_with_metadata(request)?;
            let mut violations = Violations::default();
            credential_from_metadata(&mut violations, &metadata, "reference", &mut request.reference);
            let options = parse::options(&mut violations, &mut request);
            let reference = parse::reference(&mut violations, &request.reference, ReferenceForms::ID_EXTERNAL);
            let material = request.material.take();
            let update = update::parse(&mut violations, &mut request, material::PATHS, |fields, credential| {
                patch(fields, credential, material)
            });
            let (reference, (expected, patch)) = violations.into_result(reference.zip(update))?;
            let services = &self.services;
            let updated =
                services.credential_update(&caller, &options, &reference, &expected, patch, deadline()).await?;
            Ok(pb::UpdateCredentialResponse { credential: Some(to_message(updated)) })
        };
        respond(call.await)
    }

    async fn delete_credential(
        &self,
        request: Request<pb::DeleteCredentialRequest>,
    ) -> Result<Response<pb::DeleteCredentialResponse>, Status> {
        let call = async {
            let (caller, metadata, mut request) = authorize_with_metadata(request)?;
            let mut violations = Violations::default();
            credential_from_metadata(&mut violations, &metadata, "reference", &mut request.reference);
            let options = parse::options(&mut violations, &mut request);
            let reference = parse::reference(&mut violations, &request.reference, ReferenceForms::ID_EXTERNAL);
            let reference = violations.into_result(reference)?;
            let deletion = DeleteOptions { etag: request.etag, allow_missing: request.allow_missing, cascade: true };
            let deleted = self.services.credential_delete(&caller, &options, &reference, &deletion).await?;
            let Deleted { deleted, with } = deleted;
            Ok(pb::DeleteCredentialResponse { deleted, configurations_deleted: render::count(with.configurations) })
        };
        respond(call.await)
    }

    async fn issue_access_token(
        &self,
        request: Request<pb::IssueAccessTokenRequest>,
    ) -> Result<Response<pb::IssueAccessTokenResponse>, Status> {
        let call = async {
            let (caller, metadata, request) = authorize_with_metadata(request)?;
            let pb::IssueAccessTokenRequest { mut reference, user_id, connector, min_validity, scopes } = request;
            let mut violations = Violations::default();
            credential_from_metadata(&mut violations, &metadata, "reference", &mut reference);
            let named = (reference.as_str(), ReferenceForms::ID_EXTERNAL);
            let named = parse::named(&mut violations, named, &user_id, &connector).map(|named| match named {
                ReferenceOrPair::Reference(reference) => CredentialRef::Ref(reference),
                ReferenceOrPair::Pair { user_id, connector } => CredentialRef::DefaultOf { user_id, connector },
            });
            let min_validity = violations.check(min_validity_micros(min_validity));
            let scopes = violations.check_all(Scopes::parse_list("scopes", &scopes));
            let ((named, min_validity), scopes) = violations.into_result(named.zip(min_validity).zip(scopes))?;
            let issued = self.services.access_token_issue(&caller, &named, min_validity, scopes.as_slice(), deadline());
            let issued = issued.await?;
            Ok(issued_to_message(&issued))
        };
        respond(call.await)
    }

    async fn refresh_credential(
        &self,
        request: Request<pb::RefreshCredentialRequest>,
    ) -> Result<Response<pb::RefreshCredentialResponse>, Status> {
        let call = async {
            let (caller, metadata, mut request) = authorize_with_metadata(request)?;
            let mut violations = Violations::default();
            credential_from_metadata(&mut violations, &metadata, "reference", &mut request.reference);
            let reference = parse::reference(&mut violations, &request.reference, ReferenceForms::ID_EXTERNAL);
            let reference = violations.into_result(reference)?;
            let refreshed = self.services.credential_refresh(&caller, &reference, deadline()).await?;
            Ok(pb::RefreshCredentialResponse { credential: Some(to_message(refreshed)) })
        };
        respond(call.await)
    }

    async fn report_token_rejected(
        &self,
        request: Request<pb::ReportTokenRejectedRequest>,
    ) -> Result<Response<pb::ReportTokenRejectedResponse>, Status> {
        let call = async {
            let (caller, metadata, mut request) = authorize_with_metadata(request)?;
            let mut violations = Violations::default();
            credential_from_metadata(&mut violations, &metadata, "reference", &mut request.reference);
            let reference = parse::reference(&mut violations, &request.reference, ReferenceForms::ID_EXTERNAL);
            let version = violations.check(version(request.credential_version));
            let answer = violations.check_all(ApiAnswer::parse(request.status, &request.challenge));
            let ((reference, version), answer) = violations.into_result(reference.zip(version).zip(answer))?;
            let issued = self.services.token_rejected(&caller, &reference, version, &answer, deadline()).await?;
            Ok(pb::ReportTokenRejectedResponse { issued: Some(issued_to_message(&issued)) })
        };
        respond(call.await)
    }

    async fn explain_credential(
        &self,
        request: Request<pb::ExplainCredentialRequest>,
    ) -> Result<Response<pb::ExplainCredentialResponse>, Status> {
        let call = async {
            let (caller, metadata, mut request) = authorize_with_metadata(request)?;
            let mut violations = Violations::default();
            credential_from_metadata(&mut violations, &metadata, "reference", &mut request.reference);
            let reference = parse::reference(&mut violations, &request.reference, ReferenceForms::ID_EXTERNAL);
            let explained = self.services.credential_explain(&caller, &violations.into_result(reference)?).await?;
            Ok(explain::to_message(explained))
        };
        respond(call.await)
    }

    async fn revoke_credential(
        &self,
        request: Request<pb::RevokeCredentialRequest>,
    ) -> Result<Response<pb::RevokeCredentialResponse>, Status> {
        let call = async {
            let (caller, metadata, mut request) = authorize_with_metadata(request)?;
            let mut violations = Violations::default();
            credential_from_metadata(&mut violations, &metadata, "reference", &mut request.reference);
            let options = parse::options(&mut violations, &mut request);
            let reference = parse::reference(&mut violations, &request.reference, ReferenceForms::ID_EXTERNAL);
            let reference = violations.into_result(reference)?;
            let revoked = self.services.credential_revoke(&caller, &options, &reference).await?;
            Ok(revocation::to_message(revoked))
        };
        respond(call.await)
    }

    async fn reveal_credential(
        &self,
        request: Request<pb::RevealCredentialRequest>,
    ) -> Result<Response<pb::RevealCredentialResponse>, Status> {
        let call = async {
            let (caller, metadata, mut request) = authorize_with_metadata(request)?;
            let mut violations = Violations::default();
            credential_from_metadata(&mut violations, &metadata, "reference", &mut request.reference);
            let reference = parse::reference(&mut violations, &request.reference, ReferenceForms::ID_EXTERNAL);
            let purpose = violations.check(purpose(&request.purpose));
            let (reference, purpose) = violations.into_result(reference.zip(purpose))?;
            let revealed = self.services.credential_reveal(&caller, &reference, purpose).await?;
            Ok(pb::RevealCredentialResponse {
                material: Some(material::to_message(revealed.material)),
                credential_version: revealed.material_version,
                audit_event: revealed.audit_event.to_string(),
            })
        };
        respond(call.await)
    }
}

/// The material of a request that must have one.
pub(super) fn required_material(
    violations: &mut Violations,
    material: Option<pb::CredentialMaterial>,
) -> Option<Material> {
    let material = parse::required(violations, "material", material)?;
    material::parse(violations, material)
}

fn draft(violations: &mut Violations, request: pb::CreateCredentialRequest) -> Option<CredentialDraft> {
    let pb::CreateCredentialRequest { credential, material, id, request_id: _, validate_only: _ } = request;
    let id = violations.check(parse::optional_id("id", &id)).flatten().map(CredentialId);
    let material = required_material(violations, material);
    let credential = parse::required(violations, "credential", credential)?;
    let mut fields = Fields::of_new("credential", violations);
    let user_id = fields.required("user_id", &credential.user_id, UserId::parse);
    let connector = fields.required("connector", &credential.connector, parse_connector);
    let connection = fields.optional("connection", Some(credential.connection.clone()), parse_connection);
    let patch = facts(&mut fields, credential);
    Some(CredentialDraft {
        id,
        external_id: patch.external_id.flatten(),
        user_id: user_id?,
        connector: connector?,
        connection: connection?,
        provider_account_id: patch.provider_account_id.unwrap_or_default(),
        email_digest: None,
        provider_data: patch.provider_data.unwrap_or_default(),
        labels: match patch.labels {
            MapPatch::Replace(labels) => labels,
            MapPatch::Keep | MapPatch::Entries(_) => Labels::default(),
        },
        is_default: patch.is_default,
        requested_scopes: Vec::new(),
        material: material?,
    })
}

fn patch(
    fields: &mut Fields<'_>,
    credential: pb::Credential,
    material: Option<pb::CredentialMaterial>,
) -> CredentialPatch {
    let parents = CredentialParents {
        user_id: fields.parent("user_id", &credential.user_id, UserId::parse),
        connector: fields.parent("connector", &credential.connector, parse_connector),
        connection: fields.parent("connection", &credential.connection, parse_connection),
    };
    let material = material::patch(fields.violations, material, fields.mask());
    CredentialPatch { parents, material, ..facts(fields, credential) }
}

/// The facts that a caller may set.
fn facts(fields: &mut Fields<'_>, credential: pb::Credential) -> CredentialPatch {
    let pb::Credential {
        external_id,
        provider_account_id,
        provider_data,
        labels,
        is_default,
        // The parents are read where it is known whether the credential is new.
        user_id: _,
        connector: _,
        connection: _,
        id: _,
        user_connector: _,
        kind: _,
        state: _,
        scopes: _,
        requested_scopes: _,
        missing_scopes: _,
        expire_time: _,
        authorization_expire_time: _,
        version: _,
        refreshable: _,
        last_refresh_time: _,
        refresh_failure_count: _,
        failure_class: _,
        default_configuration: _,
        failure_reason: _,
        next_refresh_time: _,
        create_time: _,
        update_time: _,
        etag: _,
    } = credential;
    CredentialPatch {
        external_id: fields.optional("external_id", external_id, ExternalId::parse),
        provider_account_id: fields.text("provider_account_id", provider_account_id, MAX_PROVIDER_USER_ID),
        provider_data: fields.json("provider_data", provider_data),
        labels: fields.map("labels", labels),
        // An absent one says nothing, even where everything is replaced: a default can only be moved.
        is_default: is_default.filter(|_| fields.mask().covers("is_default", true)),
        ..CredentialPatch::default()
    }
}

fn parse_connector(field: &str, text: &str) -> Result<Ref, Violation> {
    Ref::parse(field, text, ReferenceForms::ID_NAME)
}

fn parse_connection(field: &str, text: &str) -> Result<Ref, Violation> {
    Ref::parse(field, text, ReferenceForms::ID_NAME_EXTERNAL)
}

/// Fills a field that names a credential from the metadata.
pub(super) fn credential_from_metadata(
    violations: &mut Violations,
    metadata: &MetadataMap,
    field: &str,
    value: &mut String,
) {
    parse::from_metadata(violations, metadata, CREDENTIAL_METADATA, field, value);
}

pub(super) fn min_validity_micros(value: Option<prost_types::Duration>) -> Result<i64, Violation> {
    let Some(value) = value else { return Ok(0) };
    // Rounded up, so that a token is never valid for less than the caller asks for.
    let micros = parse::duration(value).and_then(|it| i64::try_from(it.as_nanos().div_ceil(1_000)).ok());
    let wrong = || Violation::field("min_validity", "must be at least 0 and at most 24 hours");
    micros.filter(|micros| *micros <= MAX_MIN_VALIDITY_MICROS).ok_or_else(wrong)
}

fn version(version: i64) -> Result<i64, Violation> {
    let wrong = || Violation::field("credential_version", "must be at least 1: that of the token that was rejected");
    Some(version).filter(|version| *version >= 1).ok_or_else(wrong)
}

fn purpose(text: &str) -> Result<String, Violation> {
    let purpose = bounded_text("purpose", text.trim(), MAX_PURPOSE, false)?;
    if purpose.chars().count() < MIN_PURPOSE {
        return Err(Violation::field("purpose", format!("must be at least {MIN_PURPOSE} characters long")));
    }
    Ok(purpose)
}

fn to_page(page: ListedPage<Credential>) -> pb::ListCredentialsResponse {
    pb::ListCredentialsResponse {
        credentials: page.items.into_iter().map(to_message).collect(),
        next_page_token: page.next_page_token,
    }
}

pub(super) fn to_message(credential: Credential) -> pb::Credential {
    let (missing_scopes, refreshes) = (credential.missing_scopes(), credential.refreshes());
    let Credential {
        id,
        external_id,
        user_id,
        connector,
        connection,
        user_connector,
        key: _,
        kind,
        state,
        scopes,
        requested_scopes,
        token_type: _,
        expire_time,
        authorization_expire_time,
        provider_account_id,
        email_digest: _,
        provider_data,
        labels,
        is_default,
        material_version,
        refreshable: _,
        client_grant: _,
        last_refresh_time,
        refresh_failure_count,
        failure_class,
        failure_reason,
        failure_connection_version: _,
        next_refresh_time,
        refresh_token_kept_count: _,
        refresh_token_kept_time: _,
        rejections: _,
        default_configuration,
        meta,
    } = credential;
    pb::Credential {
        id: id.to_string(),
        external_id: external_id.map(String::from),
        user_id: user_id.into(),
        connector: connector.to_string(),
        connection: connection.map(|id| id.to_string()).unwrap_or_default(),
        user_connector: user_connector.to_string(),
        kind: kind_to_message(kind).into(),
        state: state_to_message(state).into(),
        scopes,
        requested_scopes,
        missing_scopes,
        expire_time: expire_time.map(render::timestamp),
        authorization_expire_time: authorization_expire_time.map(render::timestamp),
        provider_account_id: render::text(provider_account_id),
        provider_data: render::json(provider_data),
        labels: labels.into(),
        is_default: Some(is_default),
        version: material_version,
        refreshable: refreshes,
        last_refresh_time: last_refresh_time.map(render::timestamp),
        refresh_failure_count,
        failure_class: failure_to_message(failure_class).into(),
        failure_reason,
        next_refresh_time: next_refresh_time.map(render::timestamp),
        default_configuration: default_configuration.to_string(),
        create_time: Some(render::timestamp(meta.create_time)),
        update_time: Some(render::timestamp(meta.update_time)),
        etag: meta.etag(),
    }
}

pub(super) const fn kind_to_message(kind: CredentialKind) -> pb::CredentialKind {
    match kind {
        CredentialKind::OAuth2 => pb::CredentialKind::Oauth2,
        CredentialKind::ApiKey => pb::CredentialKind::ApiKey,
        CredentialKind::Basic => pb::CredentialKind::Basic,
        CredentialKind::ClientCredentials => pb::CredentialKind::ClientCredentials,
        CredentialKind::ClientCertificate => pb::CredentialKind::ClientCertificate,
        CredentialKind::Custom => pb::CredentialKind::Custom,
    }
}

const fn state_to_message(state: CredentialState) -> pb::CredentialState {
    match state {
        CredentialState::Pending => pb::CredentialState::Pending,
        CredentialState::Valid => pb::CredentialState::Valid,
        CredentialState::Expired => pb::CredentialState::Expired,
        CredentialState::NeedsReauth => pb::CredentialState::NeedsReauth,
        CredentialState::Revoked => pb::CredentialState::Revoked,
        CredentialState::Indeterminate => pb::CredentialState::Indeterminate,
    }
}

const fn failure_to_message(failure: Option<FailureClass>) -> pb::FailureClass {
    match failure {
        None => pb::FailureClass::Unspecified,
        Some(FailureClass::Transient) => pb::FailureClass::Transient,
        Some(FailureClass::Permanent) => pb::FailureClass::Permanent,
        Some(FailureClass::Connection) => pb::FailureClass::Connection,
        Some(FailureClass::Indeterminate) => pb::FailureClass::Indeterminate,
    }
}
