//! CredentialsService.

mod material;

use jackfield_api::v1 as pb;
use jackfield_api::v1::credentials_service_server::CredentialsService;
use jackfield_domain::credential::{
    self, Credential, CredentialDraft, CredentialKind, CredentialParents, CredentialPatch, CredentialRef,
    CredentialState, FailureClass, IssuedToken, MAX_MIN_VALIDITY_MICROS,
};
use jackfield_domain::request::map_patch::MapPatch;
use jackfield_domain::request::mask::Mask;
use jackfield_domain::request::reference::{Ref, ReferenceForms};
use jackfield_domain::value::maps::Labels;
use jackfield_domain::value::scopes::Scopes;
use jackfield_domain::value::text::{ExternalId, UserId, bounded_text};
use jackfield_domain::{CredentialId, Violation, Violations};
use jackfield_service::{DeleteOptions, Deleted, ListScope, ListedPage};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, async_trait};

use super::parse::{self, ListFields};
use super::stream::PageStream;
use super::update::{self, Identity};
use super::{Api, enter, enter_with_metadata, render, reply};

/// The paths that an update mask may name.
const PATHS: &[&str] = &[
    "user_id",
    "connector",
    "connection",
    "external_id",
    "provider_account_id",
    "provider_data",
    "labels",
    "labels.*",
    "is_default",
    "material.oauth2.refresh_token",
    "material.oauth2.id_token",
    "material.custom.fields.*",
];

/// The paths that may be named without effect: what the server keeps.
const OUTPUT_ONLY: &[&str] = &[
    "id",
    "user_connector",
    "kind",
    "state",
    "scopes",
    "expire_time",
    "version",
    "refreshable",
    "last_refresh_time",
    "refresh_failure_count",
    "failure_class",
    "default_configuration",
    "create_time",
    "update_time",
    "etag",
];

const MAX_PROVIDER_ACCOUNT_ID: usize = 256;
const MIN_PURPOSE: usize = 8;
const MAX_PURPOSE: usize = 500;

/// Metadata that may name the credential (the header X-Paragon-Credential of the seed).
pub(super) const CREDENTIAL_METADATA: &str = "x-jackfield-credential";

#[async_trait]
impl CredentialsService for Api {
    type ListCredentialsStream = PageStream<Credential, pb::ListCredentialsResponse>;

    async fn create_credential(
        &self,
        request: Request<pb::CreateCredentialRequest>,
    ) -> Result<Response<pb::CreateCredentialResponse>, Status> {
        let call = async {
            let (caller, request) = enter(request)?;
            let mut wrong = Violations::default();
            let mutation =
                parse::mutation(&mut wrong, "CreateCredential", &request, &request.request_id, request.validate_only);
            let draft = draft(&mut wrong, request);
            let credential = self.services.credential_create(&caller, &mutation, parse::done(wrong, draft)?).await?;
            Ok(pb::CreateCredentialResponse { credential: Some(to_message(credential)) })
        };
        reply(call.await)
    }

    async fn get_credential(
        &self,
        request: Request<pb::GetCredentialRequest>,
    ) -> Result<Response<pb::GetCredentialResponse>, Status> {
        let call = async {
            let (caller, metadata, mut request) = enter_with_metadata(request)?;
            let mut wrong = Violations::default();
            named_by(&mut wrong, &metadata, &mut request.reference);
            let reference = parse::reference(&mut wrong, &request.reference, ReferenceForms::ID_EXTERNAL);
            let credential = self.services.credential_get(&caller, &parse::done(wrong, reference)?).await?;
            Ok(pb::GetCredentialResponse { credential: Some(to_message(credential)) })
        };
        reply(call.await)
    }

    async fn list_credentials(
        &self,
        request: Request<pb::ListCredentialsRequest>,
    ) -> Result<Response<Self::ListCredentialsStream>, Status> {
        let call = async {
            let (caller, request) = enter(request)?;
            let pb::ListCredentialsRequest {
                page_size,
                page_token,
                limit,
                filter,
                order_by,
                user_id,
                connector,
                connection,
            } = &request;
            let fields = ListFields { page_size: *page_size, page_token, limit: *limit, filter, order_by };
            let mut wrong = Violations::default();
            let list = parse::list(&mut wrong, &fields, &credential::SCHEMA);
            let user_id = parse::optional_user(&mut wrong, user_id);
            let connector = wrong.check(Ref::parse_optional("connector", connector, ReferenceForms::ID_NAME));
            let connection =
                wrong.check(Ref::parse_optional("connection", connection, ReferenceForms::ID_NAME_EXTERNAL));
            let parsed = list.zip(user_id).zip(connector.zip(connection));
            let ((list, user_id), (connector, connection)) = parse::done(wrong, parsed)?;
            let scope = ListScope { user_id, connector, connection, ..ListScope::default() };
            let pager = self.services.list(&caller, list, scope).await?;
            self.streams.pages(pager, to_page)
        };
        reply(call.await)
    }

    async fn update_credential(
        &self,
        request: Request<pb::UpdateCredentialRequest>,
    ) -> Result<Response<pb::UpdateCredentialResponse>, Status> {
        let call = async {
            let (caller, metadata, mut request) = enter_with_metadata(request)?;
            let mut wrong = Violations::default();
            named_by(&mut wrong, &metadata, &mut request.reference);
            let mutation =
                parse::mutation(&mut wrong, "UpdateCredential", &request, &request.request_id, request.validate_only);
            let reference = parse::reference(&mut wrong, &request.reference, ReferenceForms::ID_EXTERNAL);
            let mask = parse::mask(&mut wrong, request.update_mask.as_ref(), PATHS, OUTPUT_ONLY);
            let credential = parse::required(&mut wrong, "credential", request.credential);
            let inside = credential.as_ref().map(|it| Identity { resource: "credential", id: &it.id, etag: &it.etag });
            let expected = update::expected(&mut wrong, &request.etag, inside);
            let patch = credential.zip(mask).map(|(credential, mask)| {
                let parents = parents(&mut wrong, &credential, &mask);
                let material = material::patch(&mut wrong, request.material, &mask);
                let patch = CredentialPatch { parents, material, ..patch(&mut wrong, credential, &mask) };
                update::require_change(&mut wrong, &mask, "credential", patch.is_empty());
                patch
            });
            let (reference, patch) = parse::done(wrong, reference.zip(patch))?;
            let updated = self.services.credential_update(&caller, &mutation, &reference, &expected, patch).await?;
            Ok(pb::UpdateCredentialResponse { credential: Some(to_message(updated)) })
        };
        reply(call.await)
    }

    async fn delete_credential(
        &self,
        request: Request<pb::DeleteCredentialRequest>,
    ) -> Result<Response<pb::DeleteCredentialResponse>, Status> {
        let call = async {
            let (caller, metadata, mut request) = enter_with_metadata(request)?;
            let mut wrong = Violations::default();
            named_by(&mut wrong, &metadata, &mut request.reference);
            let mutation =
                parse::mutation(&mut wrong, "DeleteCredential", &request, &request.request_id, request.validate_only);
            let reference = parse::reference(&mut wrong, &request.reference, ReferenceForms::ID_EXTERNAL);
            let reference = parse::done(wrong, reference)?;
            let deletion = DeleteOptions { etag: request.etag, allow_missing: request.allow_missing, cascade: true };
            let deleted = self.services.credential_delete(&caller, &mutation, &reference, &deletion).await?;
            let Deleted { deleted, with } = deleted;
            Ok(pb::DeleteCredentialResponse { deleted, configurations_deleted: render::count(with.configurations) })
        };
        reply(call.await)
    }

    async fn issue_access_token(
        &self,
        request: Request<pb::IssueAccessTokenRequest>,
    ) -> Result<Response<pb::IssueAccessTokenResponse>, Status> {
        let call = async {
            let (caller, metadata, request) = enter_with_metadata(request)?;
            let pb::IssueAccessTokenRequest { mut reference, user_id, connector, min_validity, scopes } = request;
            let mut wrong = Violations::default();
            named_by(&mut wrong, &metadata, &mut reference);
            let named = named(&mut wrong, &reference, &user_id, &connector);
            let min_validity = wrong.check(min_validity_micros(min_validity));
            let scopes = parse::check_all(&mut wrong, Scopes::parse_list("scopes", &scopes));
            let ((named, min_validity), scopes) = parse::done(wrong, named.zip(min_validity).zip(scopes))?;
            let issued = self.services.access_token_issue(&caller, &named, min_validity, scopes.as_slice()).await?;
            Ok(issued_to_message(&issued))
        };
        reply(call.await)
    }

    async fn reveal_credential(
        &self,
        request: Request<pb::RevealCredentialRequest>,
    ) -> Result<Response<pb::RevealCredentialResponse>, Status> {
        let call = async {
            let (caller, metadata, mut request) = enter_with_metadata(request)?;
            let mut wrong = Violations::default();
            named_by(&mut wrong, &metadata, &mut request.reference);
            let reference = parse::reference(&mut wrong, &request.reference, ReferenceForms::ID_EXTERNAL);
            let purpose = wrong.check(purpose(&request.purpose));
            let (reference, purpose) = parse::done(wrong, reference.zip(purpose))?;
            let revealed = self.services.credential_reveal(&caller, &reference, purpose).await?;
            Ok(pb::RevealCredentialResponse {
                material: Some(material::to_message(revealed.material)),
                credential_version: revealed.material_version,
                audit_event: revealed.audit_event.to_string(),
            })
        };
        reply(call.await)
    }
}

fn draft(wrong: &mut Violations, request: pb::CreateCredentialRequest) -> Option<CredentialDraft> {
    let pb::CreateCredentialRequest { credential, material, id, request_id: _, validate_only: _ } = request;
    let id = wrong.check(parse::optional_id("id", &id)).flatten().map(CredentialId);
    let material = parse::required(wrong, "material", material);
    let material = material.and_then(|material| material::parse(wrong, material));
    let credential = parse::required(wrong, "credential", credential)?;
    let user_id = wrong.check(UserId::parse("credential.user_id", &credential.user_id));
    let connector = wrong.check(Ref::parse("credential.connector", &credential.connector, ReferenceForms::ID_NAME));
    let connection =
        Ref::parse_optional("credential.connection", &credential.connection, ReferenceForms::ID_NAME_EXTERNAL);
    let connection = wrong.check(connection);
    let patch = patch(wrong, credential, &Mask::All);
    Some(CredentialDraft {
        id,
        external_id: patch.external_id.flatten(),
        user_id: user_id?,
        connector: connector?,
        connection: connection?,
        provider_account_id: patch.provider_account_id.unwrap_or_default(),
        provider_data: patch.provider_data.unwrap_or_default(),
        labels: match patch.labels {
            MapPatch::Replace(labels) => labels,
            MapPatch::Keep | MapPatch::Entries(_) => Labels::default(),
        },
        is_default: patch.is_default,
        material: material?,
    })
}

fn patch(wrong: &mut Violations, credential: pb::Credential, mask: &Mask) -> CredentialPatch {
    let pb::Credential { external_id, provider_account_id, provider_data, labels, is_default, .. } = credential;
    let mut patch = CredentialPatch::default();
    if mask.covers("external_id", external_id.is_some()) {
        patch.external_id = match external_id.as_deref().and_then(parse::non_empty) {
            Some(text) => wrong.check(ExternalId::parse("credential.external_id", text)).map(Some),
            None => Some(None),
        };
    }
    if mask.covers("provider_account_id", provider_account_id.is_some()) {
        let (field, text) = ("credential.provider_account_id", provider_account_id.unwrap_or_default());
        patch.provider_account_id = wrong.check(bounded_text(field, &text, MAX_PROVIDER_ACCOUNT_ID, true));
    }
    if mask.covers("provider_data", provider_data.is_some()) {
        patch.provider_data = wrong.check(parse::json("credential.provider_data", provider_data));
    }
    patch.labels = update::map(wrong, ("credential", "labels"), labels, mask);
    if mask.covers("is_default", is_default.is_some()) {
        // Absent means "leave it", also where everything is replaced: the mark cannot be taken away.
        patch.is_default = is_default;
    }
    patch
}

/// What an update says the credential hangs on; what it leaves empty stays, whatever the mask.
fn parents(wrong: &mut Violations, credential: &pb::Credential, mask: &Mask) -> CredentialParents {
    let pb::Credential { user_id, connector, connection, .. } = credential;
    let given = |path: &str, value: &String| !value.is_empty() && mask.covers(path, true);
    let mut parents = CredentialParents::default();
    if given("user_id", user_id) {
        parents.user_id = wrong.check(UserId::parse("credential.user_id", user_id));
    }
    if given("connector", connector) {
        parents.connector = wrong.check(Ref::parse("credential.connector", connector, ReferenceForms::ID_NAME));
    }
    if given("connection", connection) {
        parents.connection =
            wrong.check(Ref::parse("credential.connection", connection, ReferenceForms::ID_NAME_EXTERNAL));
    }
    parents
}

fn named_by(wrong: &mut Violations, metadata: &MetadataMap, reference: &mut String) {
    parse::from_metadata(wrong, metadata, CREDENTIAL_METADATA, "reference", reference);
}

/// A credential is named by reference, or as the default of a user for a connector; one of the two ways, not both.
fn named(wrong: &mut Violations, reference: &str, user_id: &str, connector: &str) -> Option<CredentialRef> {
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
        (false, true) => parse::reference(wrong, reference, ReferenceForms::ID_EXTERNAL).map(CredentialRef::Ref),
        (true, false) => {
            let user_id = wrong.check(UserId::parse("user_id", user_id));
            let connector = wrong.check(Ref::parse("connector", connector, ReferenceForms::ID_NAME));
            Some(CredentialRef::DefaultOf { user_id: user_id?, connector: connector? })
        }
    }
}

fn min_validity_micros(value: Option<prost_types::Duration>) -> Result<i64, Violation> {
    let Some(value) = value else { return Ok(0) };
    // Rounded up: a token that is good for less than was asked for is not good enough.
    let micros = parse::duration(value).and_then(|it| i64::try_from(it.as_nanos().div_ceil(1_000)).ok());
    let wrong = || Violation::field("min_validity", "must be at least 0 and at most 24 hours");
    micros.filter(|micros| *micros <= MAX_MIN_VALIDITY_MICROS).ok_or_else(wrong)
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

fn to_message(credential: Credential) -> pb::Credential {
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
        token_type: _,
        expire_time,
        provider_account_id,
        provider_data,
        labels,
        is_default,
        material_version,
        refreshable,
        last_refresh_time,
        refresh_failure_count,
        failure_class,
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
        expire_time: expire_time.map(render::timestamp),
        provider_account_id: render::text(provider_account_id),
        provider_data: render::json(provider_data),
        labels: labels.into(),
        is_default: Some(is_default),
        version: material_version,
        refreshable,
        last_refresh_time: last_refresh_time.map(render::timestamp),
        refresh_failure_count,
        failure_class: failure_to_message(failure_class).into(),
        default_configuration: default_configuration.to_string(),
        create_time: Some(render::timestamp(meta.create_time)),
        update_time: Some(render::timestamp(meta.update_time)),
        etag: meta.etag(),
    }
}

fn issued_to_message(issued: &IssuedToken) -> pb::IssueAccessTokenResponse {
    let IssuedToken { credential, material_version, token, token_type, expire_time, scopes, fields } = issued;
    pb::IssueAccessTokenResponse {
        access_token: token.expose().to_owned(),
        token_type: token_type.clone(),
        expire_time: expire_time.map(render::timestamp),
        scopes: scopes.clone(),
        credential: credential.to_string(),
        credential_version: *material_version,
        fields: fields.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect(),
    }
}

const fn kind_to_message(kind: CredentialKind) -> pb::CredentialKind {
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
