//! KeyService.

use jackfield_api::v1 as pb;
use jackfield_api::v1::key_service_server::KeyService;
use jackfield_domain::key::{
    CertificateFacts, Key, KeyDraft, KeyKind, MAX_CERTIFICATE_PEM_BYTES, MAX_PRIVATE_KEY_PEM_CHARS,
    require_no_private_key,
};
use jackfield_domain::request::reference::ReferenceForms;
use jackfield_domain::value::maps::Labels;
use jackfield_domain::value::text::{MAX_NAME, Name};
use jackfield_domain::{KeyId, Secret, Violation, Violations};
use jackfield_service::{DeleteOptions, ImportedKey, ListScope, ListedPage};
use tonic::{Request, Response, Status, async_trait};

use super::api::{Api, authorize, respond};
use super::fields::Fields;
use super::page_stream::PageStream;
use super::parse;
use super::render;

#[async_trait]
impl KeyService for Api {
    type ListKeysStream = PageStream<Key, pb::ListKeysResponse>;

    async fn import_key(
        &self,
        request: Request<pb::ImportKeyRequest>,
    ) -> Result<Response<pb::ImportKeyResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let draft = draft(&mut violations, request);
            let imported = self.services.key_import(&caller, &options, violations.into_result(draft)?).await?;
            let ImportedKey { key, warnings } = imported;
            Ok(pb::ImportKeyResponse { key: Some(to_message(key)), warnings })
        };
        respond(call.await)
    }

    async fn get_key(&self, request: Request<pb::GetKeyRequest>) -> Result<Response<pb::GetKeyResponse>, Status> {
        let call = async {
            let (caller, request) = authorize(request)?;
            let mut violations = Violations::default();
            let reference = parse::reference(&mut violations, &request.reference, ReferenceForms::ID_NAME);
            let key = self.services.key_get(&caller, &violations.into_result(reference)?).await?;
            Ok(pb::GetKeyResponse { key: Some(to_message(key)) })
        };
        respond(call.await)
    }

    async fn list_keys(&self, request: Request<pb::ListKeysRequest>) -> Result<Response<Self::ListKeysStream>, Status> {
        let call = async {
            let (caller, request) = authorize(request)?;
            let mut violations = Violations::default();
            let list = parse::list(&mut violations, &request);
            let pager = self.services.list(&caller, violations.into_result(list)?, ListScope::default()).await?;
            self.streams.pages(pager, to_page)
        };
        respond(call.await)
    }

    async fn delete_key(
        &self,
        request: Request<pb::DeleteKeyRequest>,
    ) -> Result<Response<pb::DeleteKeyResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let reference = parse::reference(&mut violations, &request.reference, ReferenceForms::ID_NAME);
            let reference = violations.into_result(reference)?;
            let deletion = DeleteOptions { etag: request.etag, allow_missing: request.allow_missing, cascade: false };
            let deleted = self.services.key_delete(&caller, &options, &reference, &deletion).await?;
            Ok(pb::DeleteKeyResponse { deleted: deleted.deleted })
        };
        respond(call.await)
    }
}

fn draft(violations: &mut Violations, request: pb::ImportKeyRequest) -> Option<KeyDraft> {
    let pb::ImportKeyRequest { key, private_key_pem, id, request_id: _, validate_only: _ } = request;
    let id = violations.check(parse::optional_id("id", &id)).flatten().map(KeyId);
    let pb::Key {
        name,
        r#type: kind,
        certificate_pem,
        labels,
        id: _,
        certificates: _,
        private_key_set: _,
        not_after: _,
        used_by_count: _,
        create_time: _,
        update_time: _,
        etag: _,
    } = parse::required(violations, "key", key)?;
    let mut fields = Fields::of_new("key", violations);
    let name = fields.required("name", &name, |field, name| Name::parse(field, name, MAX_NAME));
    let kind = fields.choice("type", kind, |kind| match kind {
        pb::KeyType::Unspecified => None,
        pb::KeyType::ClientIdentity => Some(KeyKind::ClientIdentity),
        pb::KeyType::TrustBundle => Some(KeyKind::TrustBundle),
    });
    let labels = fields.violations.check_all(Labels::parse("key.labels", labels));
    let certificate_pem = fields.required("certificate_pem", &certificate_pem, parse_certificates);
    let private_key_pem = match private_key_pem.is_empty() {
        true => Some(None),
        false => {
            violations.check(Secret::parse("private_key_pem", private_key_pem, MAX_PRIVATE_KEY_PEM_CHARS)).map(Some)
        }
    };
    Some(KeyDraft {
        id,
        name: name?,
        kind: kind?,
        certificate_pem: certificate_pem?,
        private_key_pem: private_key_pem?,
        labels: labels?,
    })
}

fn parse_certificates(field: &str, pem: &str) -> Result<String, Violation> {
    if pem.is_empty() {
        return Err(Violation::field(field, "is required"));
    }
    if pem.len() > MAX_CERTIFICATE_PEM_BYTES {
        return Err(Violation::field(field, format!("must be at most {MAX_CERTIFICATE_PEM_BYTES} bytes long")));
    }
    require_no_private_key(field, pem).map(|()| pem.to_owned())
}

fn to_page(page: ListedPage<Key>) -> pb::ListKeysResponse {
    pb::ListKeysResponse {
        keys: page.items.into_iter().map(to_message).collect(),
        next_page_token: page.next_page_token,
    }
}

fn to_message(key: Key) -> pb::Key {
    let Key { id, name, kind, certificate_pem, certificates, not_after, used_by, labels, meta } = key;
    pb::Key {
        id: id.to_string(),
        name: name.into(),
        r#type: match kind {
            KeyKind::ClientIdentity => pb::KeyType::ClientIdentity,
            KeyKind::TrustBundle => pb::KeyType::TrustBundle,
        }
        .into(),
        certificate_pem,
        certificates: certificates.into_iter().map(certificate_to_message).collect(),
        private_key_set: kind == KeyKind::ClientIdentity,
        not_after: Some(render::timestamp(not_after)),
        used_by_count: render::count(used_by),
        labels: labels.into(),
        create_time: Some(render::timestamp(meta.create_time)),
        update_time: Some(render::timestamp(meta.update_time)),
        etag: meta.etag(),
    }
}

fn certificate_to_message(certificate: CertificateFacts) -> pb::Certificate {
    let CertificateFacts {
        subject,
        issuer,
        serial_number,
        subject_alternative_names,
        not_before,
        not_after,
        fingerprint_sha256,
        public_key_algorithm,
        is_ca,
    } = certificate;
    pb::Certificate {
        subject,
        issuer,
        serial_number,
        subject_alternative_names,
        not_before: Some(render::timestamp(not_before)),
        not_after: Some(render::timestamp(not_after)),
        fingerprint_sha256,
        public_key_algorithm,
        is_ca,
    }
}
