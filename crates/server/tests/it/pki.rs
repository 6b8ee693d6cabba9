//! An authority with the files that the server reads.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CrlIssuingDistributionPoint, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};

/// An authority in a directory, with the files that the server reads.
pub(crate) struct Pki {
    pub(crate) directory: tempfile::TempDir,
    ca: CertificateParams,
    ca_key: KeyPair,
}

/// A certificate to issue.
pub(crate) struct Leaf<'a> {
    pub(crate) sans: Vec<SanType>,
    pub(crate) serial: u64,
    pub(crate) common_name: &'a str,
    /// The validity in seconds from now.
    pub(crate) valid_for: i64,
    pub(crate) usage: ExtendedKeyUsagePurpose,
}

/// Certificate and key, PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

// === impl Pki ===

impl Pki {
    pub(crate) fn new() -> Pki {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut ca = CertificateParams::new(Vec::<String>::new()).unwrap();
        ca.distinguished_name.push(DnType::CommonName, "test CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_key = KeyPair::generate().unwrap();
        let pki = Pki { directory: tempfile::tempdir().unwrap(), ca_key, ca };
        pki.write("ca.pem", &pki.ca.self_signed(&pki.ca_key).unwrap().pem());
        pki.write_server(100);
        pki
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        write_atomically(&self.path(name), content);
    }

    pub(crate) fn write_server(&self, serial: u64) {
        self.write_server_for(serial, 3_600);
    }

    /// Writes a certificate that is valid for this many seconds from now or, if negative, expired this many seconds
    /// ago.
    pub(crate) fn write_server_for(&self, serial: u64, valid_for: i64) {
        let server = self.issue(&Leaf {
            sans: vec![SanType::DnsName("localhost".try_into().unwrap())],
            serial,
            common_name: "server",
            valid_for,
            usage: ExtendedKeyUsagePurpose::ServerAuth,
        });
        self.write("server-key.pem", &server.key);
        self.write("server.pem", &server.certificate);
    }

    pub(crate) fn client(&self, uri: &str, serial: u64) -> Pair {
        self.issue(&Leaf {
            sans: vec![SanType::URI(uri.try_into().unwrap())],
            serial,
            common_name: "client",
            valid_for: 3_600,
            usage: ExtendedKeyUsagePurpose::ClientAuth,
        })
    }

    pub(crate) fn issue(&self, leaf: &Leaf<'_>) -> Pair {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, leaf.common_name);
        params.subject_alt_names = leaf.sans.clone();
        params.serial_number = Some(SerialNumber::from(leaf.serial));
        params.extended_key_usages = vec![leaf.usage.clone()];
        params.not_before = (now() - Duration::from_secs(3_600)).into();
        params.not_after = match u64::try_from(leaf.valid_for) {
            Ok(seconds) => (now() + Duration::from_secs(seconds)).into(),
            Err(_) => (now() - Duration::from_secs(leaf.valid_for.unsigned_abs())).into(),
        };
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.ca, &self.ca_key);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// A certificate of any kind, signed by this authority.
    pub(crate) fn sign(&self, params: &CertificateParams, key: &KeyPair) -> String {
        params.signed_by(key, &Issuer::from_params(&self.ca, &self.ca_key)).unwrap().pem()
    }

    pub(crate) fn write_crl(&self, revoked: &[u64]) {
        self.write_crl_of(revoked, None);
    }

    /// As [`Pki::write_crl`], for the certificates of one distribution point only.
    pub(crate) fn write_partial_crl(&self, revoked: &[u64]) {
        let distribution_point = CrlDistributionPoint { uris: vec!["http://localhost/part.crl".to_owned()] };
        self.write_crl_of(revoked, Some(CrlIssuingDistributionPoint { distribution_point, scope: None }));
    }

    fn write_crl_of(&self, revoked: &[u64], issuing_distribution_point: Option<CrlIssuingDistributionPoint>) {
        let params = CertificateRevocationListParams {
            this_update: (now() - Duration::from_secs(60)).into(),
            next_update: (now() + Duration::from_secs(3_600)).into(),
            crl_number: SerialNumber::from(revoked.len() as u64 + 1),
            issuing_distribution_point,
            revoked_certs: revoked
                .iter()
                .map(|serial| RevokedCertParams {
                    serial_number: SerialNumber::from(*serial),
                    revocation_time: (now() - Duration::from_secs(1)).into(),
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let crl = params.signed_by(&Issuer::from_params(&self.ca, &self.ca_key)).unwrap();
        self.write("crl.pem", &crl.pem().unwrap());
    }
}

#[expect(clippy::disallowed_methods, reason = "certificates are valid by the machine's clock")]
pub(crate) fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

fn write_atomically(path: &Path, content: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::rename(new, path).unwrap();
}
