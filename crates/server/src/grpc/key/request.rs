//! Messages about keys as drafts and changes.

use std::time::Duration;

use jackfield_api::v1 as pb;
use jackfield_domain::key::{
    CertificateIssue, KeyAlgorithm, KeyDraft, KeyGeneration, KeyKind, KeyPatch, MAX_CERTIFICATE_PEM_BYTES,
    MAX_COMMON_NAME, MAX_LIFETIME, MAX_PRIVATE_KEY_PEM_CHARS, MAX_SUBJECT_NAMES, MIN_LIFETIME, SubjectName,
};
use jackfield_domain::value::maps::Labels;
use jackfield_domain::value::pem;
use jackfield_domain::value::text::{MAX_NAME, Name, bounded_text};
use jackfield_domain::{KeyId, Secret, Violation, Violations};
use jackfield_service::{GeneratedKey, NewMaterial, Rotation};

use crate::grpc::fields::Fields;
use crate::grpc::parse;

/// The lifetime of a self-signed certificate if none is given: a year.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3_600);

/// The key of an import.
pub(super) fn draft(violations: &mut Violations, request: pb::ImportKeyRequest) -> Option<KeyDraft> {
    let pb::ImportKeyRequest { key, private_key_pem, id, request_id: _, validate_only: _ } = request;
    let id = violations.check(parse::optional_id("id", &id)).flatten().map(KeyId);
    let Given { name, kind, certificate_pem, labels } = Given::of(parse::required(violations, "key", key)?);
    let mut fields = Fields::of_new("key", violations);
    let name = fields.required("name", &name, |field, name| Name::parse(field, name, MAX_NAME));
    let kind = fields.choice("type", kind, kind_of);
    let labels = fields.violations.check_all(Labels::parse("key.labels", labels));
    let certificate_pem = fields.required("certificate_pem", &certificate_pem, certificates);
    let private_key_pem = private_key(violations, "private_key_pem", private_key_pem);
    Some(KeyDraft {
        id,
        name: name?,
        kind: kind?,
        certificate_pem: certificate_pem?,
        private_key_pem: private_key_pem?,
        labels: labels?,
    })
}

/// The key to be generated.
pub(super) fn generated(violations: &mut Violations, request: pb::GenerateKeyRequest) -> Option<GeneratedKey> {
    let pb::GenerateKeyRequest { key, generation, id, request_id: _, validate_only: _ } = request;
    let id = violations.check(parse::optional_id("id", &id)).flatten().map(KeyId);
    let key = parse::required(violations, "key", key).map(Given::of);
    let generation = generation_of(violations, generation.unwrap_or_default());
    let Given { name, kind, certificate_pem, labels } = key?;
    let mut fields = Fields::of_new("key", violations);
    let name = fields.required("name", &name, |field, name| Name::parse(field, name, MAX_NAME));
    if fields.choice("type", kind, kind_of).flatten() == Some(KeyKind::TrustBundle) {
        fields.refuse("type", "must be a client identity: a trust bundle has no private key");
    }
    if !certificate_pem.is_empty() {
        fields.refuse("certificate_pem", "must not be given: it is generated, or it is given to UpdateKey later");
    }
    let labels = fields.violations.check_all(Labels::parse("key.labels", labels));
    Some(GeneratedKey { id, name: name?, labels: labels?, generation: generation? })
}

/// The patch that a message asks for.
pub(super) fn patch(fields: &mut Fields<'_>, key: pb::Key) -> KeyPatch {
    let Given { name, kind, certificate_pem, labels } = Given::of(key);
    let pem = Some(certificate_pem).filter(|pem| !pem.is_empty());
    KeyPatch {
        name: fields.required("name", &name, |field, name| Name::parse(field, name, MAX_NAME)),
        kind: fields.choice("type", kind, kind_of).flatten(),
        certificate_pem: fields
            .value("certificate_pem", pem, |field, pem| pem.map(|pem| certificates(field, &pem)).transpose()),
        labels: fields.map("labels", labels),
    }
}

/// The next material that a rotation asks for.
pub(super) fn rotation(violations: &mut Violations, request: pb::RotateKeyRequest) -> Option<Rotation> {
    use pb::rotate_key_request::Material;
    let pb::RotateKeyRequest { reference: _, material, activate_time, etag: _, request_id: _, validate_only: _ } =
        request;
    let activate_time = activate_time.map(|time| parse::timestamp("activate_time", time)).transpose();
    let activate_time = violations.check(activate_time);
    let material = match parse::required(violations, "material", material)? {
        Material::Generation(generation) => NewMaterial::Generated(generation_of(violations, generation)?),
        Material::Imported(pb::KeyImport { certificate_pem, private_key_pem }) => {
            let mut fields = Fields::of_new("imported", violations);
            let certificate_pem = fields.required("certificate_pem", &certificate_pem, certificates);
            let private_key_pem = private_key(violations, "imported.private_key_pem", private_key_pem);
            NewMaterial::Given { certificate_pem: certificate_pem?, private_key_pem: private_key_pem? }
        }
    };
    Some(Rotation { material, activate_time: activate_time? })
}

/// The fields of a key that callers set.
struct Given {
    name: String,
    kind: i32,
    certificate_pem: String,
    labels: std::collections::BTreeMap<String, String>,
}

// === impl Given ===

impl Given {
    fn of(key: pb::Key) -> Self {
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
            state: _,
            signing_request_pem: _,
            next: _,
            create_time: _,
            update_time: _,
            etag: _,
        } = key;
        Given { name, kind, certificate_pem, labels }
    }
}

fn kind_of(kind: pb::KeyType) -> Option<KeyKind> {
    match kind {
        pb::KeyType::Unspecified => None,
        pb::KeyType::ClientIdentity => Some(KeyKind::ClientIdentity),
        pb::KeyType::TrustBundle => Some(KeyKind::TrustBundle),
    }
}

fn certificates(field: &str, text: &str) -> Result<String, Violation> {
    if text.is_empty() {
        return Err(Violation::field(field, "is required"));
    }
    let bounded = |pem: &str| match pem.len() > MAX_CERTIFICATE_PEM_BYTES {
        true => Err(Violation::field(field, format!("must be at most {MAX_CERTIFICATE_PEM_BYTES} bytes long"))),
        false => Ok(()),
    };
    bounded(text)?;
    let stored = pem::stored_certificates(field, text)?;
    // Lines may have become shorter. The text that a caller gets can be given again.
    bounded(&stored).map(|()| stored)
}

/// The private key, if one is given.
fn private_key(violations: &mut Violations, field: &str, pem: String) -> Option<Option<Secret>> {
    if pem.is_empty() {
        return Some(None);
    }
    violations.check(Secret::parse(field, pem, MAX_PRIVATE_KEY_PEM_CHARS)).map(Some)
}

fn generation_of(violations: &mut Violations, generation: pb::KeyGeneration) -> Option<KeyGeneration> {
    let pb::KeyGeneration { algorithm, issue, common_name, subject_alternative_names, lifetime } = generation;
    let mut fields = Fields::of_new("generation", violations);
    let algorithm = fields.choice("algorithm", algorithm, |algorithm| match algorithm {
        pb::KeyAlgorithm::Unspecified | pb::KeyAlgorithm::EcP256 => KeyAlgorithm::EcP256,
        pb::KeyAlgorithm::EcP384 => KeyAlgorithm::EcP384,
        pb::KeyAlgorithm::Ed25519 => KeyAlgorithm::Ed25519,
        pb::KeyAlgorithm::Rsa2048 => KeyAlgorithm::Rsa2048,
        pb::KeyAlgorithm::Rsa3072 => KeyAlgorithm::Rsa3072,
        pb::KeyAlgorithm::Rsa4096 => KeyAlgorithm::Rsa4096,
    });
    let is_requested =
        fields.choice("issue", issue, |issue: pb::CertificateIssue| issue == pb::CertificateIssue::SigningRequest);
    let common_name = fields
        .optional("common_name", Some(common_name), |field, text| bounded_text(field, text, MAX_COMMON_NAME, false));
    let lifetime = fields.value("lifetime", lifetime, lifetime_of);
    let names = subject_names(fields.violations, &subject_alternative_names);
    let issue = match (is_requested?, lifetime?) {
        (true, None) => CertificateIssue::SigningRequest,
        (true, Some(_)) => {
            fields.refuse("lifetime", "must not be given with a signing request: the authority decides");
            return None;
        }
        (false, lifetime) => CertificateIssue::SelfSigned { lifetime: lifetime.unwrap_or(DEFAULT_LIFETIME) },
    };
    Some(KeyGeneration { algorithm: algorithm?, common_name: common_name?, subject_alternative_names: names?, issue })
}

fn lifetime_of(field: &str, lifetime: Option<prost_types::Duration>) -> Result<Option<Duration>, Violation> {
    let Some(lifetime) = lifetime else { return Ok(None) };
    let lifetime = parse::duration(lifetime).filter(|lifetime| (MIN_LIFETIME..=MAX_LIFETIME).contains(lifetime));
    let outside = || {
        let [min, max] = [MIN_LIFETIME, MAX_LIFETIME].map(|bound| bound.as_secs());
        Violation::field(field, format!("must be {min} s to {max} s"))
    };
    lifetime.map(Some).ok_or_else(outside)
}

fn subject_names(violations: &mut Violations, names: &[String]) -> Option<Vec<SubjectName>> {
    const FIELD: &str = "generation.subject_alternative_names";
    if names.len() > MAX_SUBJECT_NAMES {
        violations.push(Violation::field(FIELD, format!("must have at most {MAX_SUBJECT_NAMES} entries")));
        return None;
    }
    let parse = |(index, name): (usize, &String)| {
        let description =
            || format!("entry {} is not of the form \"DNS:…\", \"URI:…\", \"email:…\" or \"IP:…\"", index + 1);
        violations.check(SubjectName::parse(name).ok_or_else(|| Violation::field(FIELD, description())))
    };
    let parsed: Vec<_> = names.iter().enumerate().map(parse).collect();
    parsed.into_iter().collect()
}
