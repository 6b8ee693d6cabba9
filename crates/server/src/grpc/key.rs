//! KeyService.

use jackfield_api::v1 as pb;
use jackfield_api::v1::key_service_server::KeyService;
use jackfield_domain::key::{
    self, CertificateFacts, Key, KeyDraft, KeyKind, MAX_CERTIFICATE_PEM_BYTES, MAX_PRIVATE_KEY_PEM_CHARS,
    require_no_private_key,
};
use jackfield_domain::request::reference::ReferenceForms;
use jackfield_domain::value::maps::Labels;
use jackfield_domain::value::text::{MAX_NAME, Name};
use jackfield_domain::{KeyId, Secret, Violation, Violations};
use jackfield_service::{DeleteOptions, ListScope, ListedPage};
use tonic::{Request, Response, Status, async_trait};

use super::parse::{self, ListFields};
use super::stream::PageStream;
use super::{Api, enter, render, reply};

#[async_trait]
impl KeyService for Api {
    type ListKeysStream = PageStream<Key, pb::ListKeysResponse>;

    async fn import_key(
        &self,
        request: Request<pb::ImportKeyRequest>,
    ) -> Result<Response<pb::ImportKeyResponse>, Status> {
        let call = async {
            let (caller, request) = enter(request)?;
            let mut wrong = Violations::default();
            let mutation =
                parse::mutation(&mut wrong, "ImportKey", &request, &request.request_id, request.validate_only);
            let draft = draft(&mut wrong, request);
            let key = self.services.key_import(&caller, &mutation, parse::done(wrong, draft)?).await?;
            Ok(pb::ImportKeyResponse { key: Some(to_message(key)) })
        };
        reply(call.await)
    }

    async fn get_key(&self, request: Request<pb::GetKeyRequest>) -> Result<Response<pb::GetKeyResponse>, Status> {
        let call = async {
            let (caller, request) = enter(request)?;
            let mut wrong = Violations::default();
            let reference = parse::reference(&mut wrong, &request.reference, ReferenceForms::ID_NAME);
            let key = self.services.key_get(&caller, &parse::done(wrong, reference)?).await?;
            Ok(pb::GetKeyResponse { key: Some(to_message(key)) })
        };
        reply(call.await)
    }

    async fn list_keys(&self, request: Request<pb::ListKeysRequest>) -> Result<Response<Self::ListKeysStream>, Status> {
        let call = async {
            let (caller, request) = enter(request)?;
            let pb::ListKeysRequest { page_size, page_token, limit, filter, order_by } = &request;
            let fields = ListFields { page_size: *page_size, page_token, limit: *limit, filter, order_by };
            let mut wrong = Violations::default();
            let list = parse::list(&mut wrong, &fields, &key::SCHEMA);
            let pager = self.services.list(&caller, parse::done(wrong, list)?, ListScope::default()).await?;
            self.streams.pages(pager, to_page)
        };
        reply(call.await)
    }

    async fn delete_key(
        &self,
        request: Request<pb::DeleteKeyRequest>,
    ) -> Result<Response<pb::DeleteKeyResponse>, Status> {
        let call = async {
            let (caller, request) = enter(request)?;
            let mut wrong = Violations::default();
            let mutation =
                parse::mutation(&mut wrong, "DeleteKey", &request, &request.request_id, request.validate_only);
            let reference = parse::reference(&mut wrong, &request.reference, ReferenceForms::ID_NAME);
            let reference = parse::done(wrong, reference)?;
            let deletion = DeleteOptions { etag: request.etag, allow_missing: request.allow_missing, cascade: false };
            let deleted = self.services.key_delete(&caller, &mutation, &reference, &deletion).await?;
            Ok(pb::DeleteKeyResponse { deleted: deleted.deleted })
        };
        reply(call.await)
    }
}

fn draft(wrong: &mut Violations, request: pb::ImportKeyRequest) -> Option<KeyDraft> {
    let pb::ImportKeyRequest { key, private_key_pem, id, request_id: _, validate_only: _ } = request;
    let id = wrong.check(parse::optional_id("id", &id)).flatten().map(KeyId);
    let key = parse::required(wrong, "key", key)?;
    let name = wrong.check(Name::parse("key.name", &key.name, MAX_NAME));
    let kind = wrong.check(parse::known_enum("key.type", key.r#type).map(|kind| match kind {
        pb::KeyType::Unspecified => None,
        pb::KeyType::ClientIdentity => Some(KeyKind::ClientIdentity),
        pb::KeyType::TrustBundle => Some(KeyKind::TrustBundle),
    }));
    let labels = parse::check_all(wrong, Labels::parse("key.labels", key.labels));
    if key.certificate_pem.is_empty() {
        wrong.push(Violation::field("key.certificate_pem", "is required"));
    } else if key.certificate_pem.len() > MAX_CERTIFICATE_PEM_BYTES {
        let description = format!("must be at most {MAX_CERTIFICATE_PEM_BYTES} bytes long");
        wrong.push(Violation::field("key.certificate_pem", description));
    } else {
        wrong.check(require_no_private_key("key.certificate_pem", &key.certificate_pem));
    }
    let private_key_pem = match private_key_pem.is_empty() {
        true => Some(None),
        false => wrong.check(Secret::parse("private_key_pem", private_key_pem, MAX_PRIVATE_KEY_PEM_CHARS)).map(Some),
    };
    Some(KeyDraft {
        id,
        name: name?,
        kind: kind?,
        certificate_pem: key.certificate_pem,
        private_key_pem: private_key_pem?,
        labels: labels?,
    })
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
    pb::Certificate {
        subject: certificate.subject,
        issuer: certificate.issuer,
        serial_number: certificate.serial_number,
        subject_alternative_names: certificate.subject_alternative_names,
        not_before: Some(render::timestamp(certificate.not_before)),
        not_after: Some(render::timestamp(certificate.not_after)),
        fingerprint_sha256: certificate.fingerprint_sha256,
        public_key_algorithm: certificate.public_key_algorithm,
        is_ca: certificate.is_ca,
    }
}
