//! KeyService.

mod request;

use jackfield_api::v1 as pb;
use jackfield_api::v1::key_service_server::KeyService;
use jackfield_domain::Violations;
use jackfield_domain::key::{CertificateFacts, Key, KeyKind, KeyMaterial, NextMaterial};
use jackfield_domain::request::reference::ReferenceForms;
use jackfield_service::{DeleteOptions, ListScope, ListedPage, StoredKey};
use tonic::{Request, Response, Status, async_trait};

use super::api::{Api, authorize, respond};
use super::page_stream::PageStream;
use super::parse;
use super::render;
use super::update;

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
            let draft = request::draft(&mut violations, request);
            let imported = self.services.key_import(&caller, &options, violations.into_result(draft)?).await?;
            let StoredKey { key, warnings } = imported;
            Ok(pb::ImportKeyResponse { key: Some(to_message(key)), warnings })
        };
        respond(call.await)
    }

    async fn generate_key(
        &self,
        request: Request<pb::GenerateKeyRequest>,
    ) -> Result<Response<pb::GenerateKeyResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let draft = request::generated(&mut violations, request);
            let key = self.services.key_generate(&caller, &options, violations.into_result(draft)?).await?;
            Ok(pb::GenerateKeyResponse { key: Some(to_message(key)) })
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

    async fn update_key(
        &self,
        request: Request<pb::UpdateKeyRequest>,
    ) -> Result<Response<pb::UpdateKeyResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let reference = parse::reference(&mut violations, &request.reference, ReferenceForms::ID_NAME);
            let update = update::parse(&mut violations, &mut request, &[], request::patch);
            let (reference, (expected, patch)) = violations.into_result(reference.zip(update))?;
            let updated = self.services.key_update(&caller, &options, &reference, &expected, patch).await?;
            let StoredKey { key, warnings } = updated;
            Ok(pb::UpdateKeyResponse { key: Some(to_message(key)), warnings })
        };
        respond(call.await)
    }

    async fn rotate_key(
        &self,
        request: Request<pb::RotateKeyRequest>,
    ) -> Result<Response<pb::RotateKeyResponse>, Status> {
        let call = async {
            let (caller, mut request) = authorize(request)?;
            let mut violations = Violations::default();
            let options = parse::options(&mut violations, &mut request);
            let reference = parse::reference(&mut violations, &request.reference, ReferenceForms::ID_NAME);
            let etag = std::mem::take(&mut request.etag);
            let rotation = request::rotation(&mut violations, request);
            let (reference, rotation) = violations.into_result(reference.zip(rotation))?;
            let rotated = self.services.key_rotate(&caller, &options, &reference, etag, rotation).await?;
            let StoredKey { key, warnings } = rotated;
            Ok(pb::RotateKeyResponse { key: Some(to_message(key)), warnings })
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

fn to_page(page: ListedPage<Key>) -> pb::ListKeysResponse {
    pb::ListKeysResponse {
        keys: page.items.into_iter().map(to_message).collect(),
        next_page_token: page.next_page_token,
    }
}

fn to_message(key: Key) -> pb::Key {
    let Key { id, name, kind, current, next, used_by, labels, meta } = key;
    let state = state(&current);
    let KeyMaterial { certificate_pem, certificates, not_after, signing_request_pem, number: _ } = current;
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
        not_after: not_after.map(render::timestamp),
        used_by_count: render::count(used_by),
        labels: labels.into(),
        state,
        signing_request_pem,
        next: next.map(next_to_message),
        create_time: Some(render::timestamp(meta.create_time)),
        update_time: Some(render::timestamp(meta.update_time)),
        etag: meta.etag(),
    }
}

fn next_to_message(next: NextMaterial) -> pb::KeyRotation {
    let NextMaterial { activate_time, material } = next;
    let state = state(&material);
    let KeyMaterial { certificate_pem, certificates, not_after, signing_request_pem, number: _ } = material;
    pb::KeyRotation {
        activate_time: Some(render::timestamp(activate_time)),
        state,
        certificate_pem,
        certificates: certificates.into_iter().map(certificate_to_message).collect(),
        signing_request_pem,
        not_after: not_after.map(render::timestamp),
    }
}

fn state(material: &KeyMaterial) -> i32 {
    if material.is_pending() { pb::KeyState::Pending } else { pb::KeyState::Ready }.into()
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
