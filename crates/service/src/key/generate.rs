//! Private keys that are generated here, with a self-signed certificate or a request for one.

use std::time::{Duration, UNIX_EPOCH};

use jackfield_domain::key::{CertificateIssue, KeyAlgorithm, KeyGeneration, KeyMaterial, MAX_COMMON_NAME, SubjectName};
use jackfield_domain::value::text::Name;
use jackfield_domain::{Error, Result, Secret, TenantId, Timestamp, Violation};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, RsaKeySize,
    SanType,
};

use super::x509::{self, Given, PrivateKey};
use crate::turns::Turns;

/// The field of requests that says what to generate.
pub(super) const GENERATION: &str = "generation";

/// The time by which certificates are backdated, for servers whose clock is a little behind.
const BACKDATED: Duration = Duration::from_secs(3_600);

/// Private keys that are generated at the same time. A long RSA key takes a second of a processor, which calls need, too.
pub(crate) const AT_ONCE: usize = 2;

/// Generated material and its private key.
pub(super) struct Generated {
    pub(super) certificate_pem: Option<String>,
    pub(super) signing_request_pem: String,
    pub(super) private_key: Secret,
}

// === impl Generated ===

impl Generated {
    /// Generates what a request asks for. `name` is the name of the key. A request that only validates gets a sample: what was asked for, with
    /// a private key that takes no time to make, and so no turn.
    pub(super) async fn generate(
        (turns, tenant): (&Turns, TenantId),
        generation: KeyGeneration,
        name: &Name,
        now: Timestamp,
        validate_only: bool,
    ) -> Result<Self> {
        let common_name = common_name(&generation, name)?;
        if validate_only {
            let sample = KeyGeneration { algorithm: KeyAlgorithm::EcP256, ..generation };
            return Self::generate_now(&sample, &common_name, now).map_err(Error::internal);
        }
        let generate = move || Self::generate_now(&generation, &common_name, now).map_err(Error::internal);
        turns.run(tenant, generate).await
    }

    fn generate_now(generation: &KeyGeneration, common_name: &str, now: Timestamp) -> Result<Self, rcgen::Error> {
        let key = match generation.algorithm {
            KeyAlgorithm::EcP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            KeyAlgorithm::EcP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            KeyAlgorithm::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
            KeyAlgorithm::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
            KeyAlgorithm::Rsa3072 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072),
            KeyAlgorithm::Rsa4096 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096),
        }?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names =
            generation.subject_alternative_names.iter().map(alternative_name).collect::<Result<_, _>>()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (certificate_pem, signing_request_pem) = match generation.issue {
            CertificateIssue::SelfSigned { lifetime } => {
                let now = UNIX_EPOCH + Duration::from_secs(u64::try_from(now.seconds()).unwrap_or_default());
                params.not_before = (now - BACKDATED).into();
                params.not_after = (now + lifetime).into();
                (Some(params.self_signed(&key)?.pem()), String::new())
            }
            CertificateIssue::SigningRequest => (None, params.serialize_request(&key)?.pem()?),
        };
        Ok(Generated { certificate_pem, signing_request_pem, private_key: Secret::new(key.serialize_pem()) })
    }

    /// The material with a number, and its private key. A certificate is checked as if it had been imported.
    pub(super) fn into_material(self, number: u32, now: Timestamp) -> Result<(KeyMaterial, Secret)> {
        let Generated { certificate_pem, signing_request_pem, private_key } = self;
        let Some(certificate_pem) = certificate_pem else {
            return Ok((KeyMaterial { signing_request_pem, number, ..KeyMaterial::default() }, private_key));
        };
        let given = Given { field: GENERATION, pem: &certificate_pem };
        let (checked, private_key) = x509::check_identity(given, PrivateKey::Stored(&private_key), now)?;
        Ok((KeyMaterial::of(number, checked.certificate_pem, checked.certificates), private_key))
    }
}

/// The common name of the subject: the one that was asked for, or else the name of the key.
fn common_name(generation: &KeyGeneration, name: &Name) -> Result<String> {
    let common_name = generation.common_name.as_deref().unwrap_or(name.as_str());
    if common_name.chars().count() > MAX_COMMON_NAME {
        let description =
            format!("is required, because the name of the key has more than {MAX_COMMON_NAME} characters");
        return Err(Violation::field(format!("{GENERATION}.common_name"), description).into());
    }
    Ok(common_name.to_owned())
}

fn alternative_name(name: &SubjectName) -> Result<SanType, rcgen::Error> {
    Ok(match name {
        SubjectName::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
        SubjectName::Uri(uri) => SanType::URI(uri.as_str().try_into()?),
        SubjectName::Email(address) => SanType::Rfc822Name(address.as_str().try_into()?),
        SubjectName::Ip(address) => SanType::IpAddress(*address),
    })
}
