//! Certificates for tests: an authority with an intermediate, a server, and clients of every kind, valid and flawed.
//! The files that a server reads are in a directory and can be replaced while it runs.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use jackfield_domain::{Clock, SystemClock};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};
use uuid::Uuid;

/// An hour in seconds.
const HOUR: i64 = 3600;

/// An authority with its files: `ca.pem`, `crl.pem`, `server.pem` and `server-key.pem`.
pub struct Pki {
    directory: PathBuf,
    root: Authority,
    intermediate: Authority,
}

/// The identity in a client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A URI in the subject alternative name, `spiffe://…` (SPIFFE X.509-SVID).
    Spiffe(String),
    /// A DNS name in the subject alternative name.
    Dns(String),
    /// The common name of the subject, without any alternative name.
    Subject(String),
    /// Arbitrary alternative names, for certificates with too many.
    Names(Vec<Name>),
}

/// One alternative name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// A URI.
    Uri(String),
    /// A DNS name.
    Dns(String),
}

/// A flaw of a client certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Its validity has ended.
    Expired,
    /// Its validity has not begun.
    NotYetValid,
    /// The authority has revoked it; `crl.pem` lists it from then on.
    Revoked,
    /// An authority with the same name but another key has signed it.
    WrongAuthority,
    /// It is for servers only (extended key usage).
    ServerOnly,
    /// It is self-signed.
    SelfSigned,
    /// The chain lacks the intermediate certificate.
    ChainMissing,
}

/// A certificate chain with its private key.
#[derive(Clone)]
pub struct Leaf {
    /// The chain as PEM, the leaf first.
    pub certificate_pem: String,
    /// The private key as PEM (PKCS #8).
    pub key_pem: String,
    serial: SerialNumber,
}

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

// === impl Pki ===

impl Pki {
    /// Makes an authority and a server certificate for `localhost`, 127.0.0.1 and ::1, and writes them to a directory,
    /// which is created if necessary.
    pub fn create(directory: &Path) -> Self {
        fs::create_dir_all(directory).expect("cannot make the directory for certificates");
        let root = Authority::root();
        let intermediate = root.intermediate();
        let pki = Self { directory: directory.to_owned(), root, intermediate };
        pki.write("ca.pem", &pki.ca_pem());
        pki.renew_server();
        pki.revoke(&[]);
        pki
    }

    /// The certificate of the authority that clients and servers trust.
    pub fn ca_pem(&self) -> String {
        self.root.issuer.pem()
    }

    /// The path of a file of the server: `ca.pem`, `crl.pem`, `server.pem`, `server-key.pem`.
    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    /// A flawless client certificate, valid for an hour.
    pub fn client(&self, identity: Identity) -> Leaf {
        self.client_for(identity, Duration::from_secs(3600))
    }

    /// A client certificate that is valid for this time, rounded to whole seconds.
    pub fn client_for(&self, identity: Identity, validity: Duration) -> Leaf {
        self.intermediate.sign(client_params(identity, validity.as_secs() as i64), &self.chain())
    }

    /// A client certificate with a flaw.
    pub fn flawed_client(&self, identity: Identity, flaw: Flaw) -> Leaf {
        let mut params = client_params(identity, HOUR);
        match flaw {
            Flaw::Expired => set_validity(&mut params, -2 * HOUR, -HOUR),
            Flaw::NotYetValid => set_validity(&mut params, HOUR, 2 * HOUR),
            Flaw::ServerOnly => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
            Flaw::WrongAuthority => {
                let root = Authority::root();
                let intermediate = root.intermediate();
                return intermediate.sign(params, &intermediate.issuer.pem());
            }
            Flaw::SelfSigned => return self_signed(&params),
            Flaw::ChainMissing => return self.intermediate.sign(params, ""),
            Flaw::Revoked => {
                let leaf = self.intermediate.sign(params, &self.chain());
                self.revoke(&[&leaf]);
                return leaf;
            }
        }
        self.intermediate.sign(params, &self.chain())
    }

    /// Rewrites `crl.pem`: the lists of both authorities, with only these certificates revoked.
    pub fn revoke(&self, leaves: &[&Leaf]) {
        let lists = [self.root.revocation_list(&[]), self.intermediate.revocation_list(leaves)];
        self.write("crl.pem", &lists.concat());
    }

    /// Writes a new server certificate with a new key, and returns it.
    pub fn renew_server(&self) -> Leaf {
        self.renew_server_for(HOUR)
    }

    /// As [`Pki::renew_server`], with a certificate whose validity ended a minute ago.
    pub fn expire_server(&self) -> Leaf {
        self.renew_server_for(-60)
    }

    /// Renews with a validity that began an hour ago and ends this many seconds from now.
    fn renew_server_for(&self, validity: i64) -> Leaf {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let mut params = params("jackfield test server", validity);
        params.subject_alt_names = CertificateParams::new(names).expect("server names").subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = self.intermediate.sign(params, &self.chain());
        self.write("server-key.pem", &leaf.key_pem);
        self.write("server.pem", &leaf.certificate_pem);
        leaf
    }

    fn chain(&self) -> String {
        self.intermediate.issuer.pem()
    }

    /// Replaces a file atomically, as tools that renew certificates do.
    fn write(&self, file: &str, text: &str) {
        let partial = self.path(&format!(".{file}.new"));
        // A key is for its owner only; otherwise the server warns.
        let mode = if file.ends_with("-key.pem") { 0o600 } else { 0o644 };
        fs::write(&partial, text)
            .and_then(|()| fs::set_permissions(&partial, PermissionsExt::from_mode(mode)))
            .and_then(|()| fs::rename(&partial, self.path(file)))
            .expect("cannot write a PEM file");
    }
}

// === impl Authority ===

impl Authority {
    fn root() -> Self {
        let issuer = CertifiedIssuer::self_signed(Self::params("jackfield test authority"), key());
        Self { issuer: issuer.expect("root certificate") }
    }

    fn intermediate(&self) -> Self {
        let params = Self::params("jackfield test intermediate");
        Self { issuer: CertifiedIssuer::signed_by(params, key(), &self.issuer).expect("intermediate certificate") }
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = params(name, 24 * HOUR);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    fn sign(&self, params: CertificateParams, chain: &str) -> Leaf {
        let key = key();
        let certificate = params.signed_by(&key, &self.issuer).expect("leaf certificate");
        Leaf {
            certificate_pem: certificate.pem() + chain,
            key_pem: key.serialize_pem(),
            serial: params.serial_number.expect("params() gives a serial number"),
        }
    }

    fn revocation_list(&self, leaves: &[&Leaf]) -> String {
        let epoch = date_time_ymd(1970, 1, 1);
        let revoked = leaves.iter().map(|leaf| RevokedCertParams {
            serial_number: leaf.serial.clone(),
            revocation_time: epoch + since_epoch(0),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: epoch + since_epoch(0),
            next_update: epoch + since_epoch(24 * HOUR),
            crl_number: serial(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).and_then(|list| list.pem()).expect("revocation list")
    }
}

// === impl Identity ===

impl Identity {
    /// The SPIFFE identity of a principal of the test servers.
    pub fn of(principal: &str) -> Self {
        Identity::Spiffe(format!("spiffe://test.jackfield/{principal}"))
    }
}

fn client_params(identity: Identity, validity: i64) -> CertificateParams {
    let (subject, names) = match identity {
        Identity::Spiffe(uri) => ("client".to_owned(), vec![Name::Uri(uri)]),
        Identity::Dns(name) => ("client".to_owned(), vec![Name::Dns(name)]),
        Identity::Subject(subject) => (subject, Vec::new()),
        Identity::Names(names) => ("client".to_owned(), names),
    };
    let mut params = params(&subject, validity);
    params.subject_alt_names = names.into_iter().map(san).collect();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn san(name: Name) -> SanType {
    match name {
        Name::Uri(uri) => SanType::URI(uri.try_into().expect("ASCII URI")),
        Name::Dns(name) => SanType::DnsName(name.try_into().expect("ASCII name")),
    }
}

fn params(name: &str, validity: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    set_validity(&mut params, -HOUR, validity);
    params.serial_number = Some(serial());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

/// Sets the validity, in seconds from now.
fn set_validity(params: &mut CertificateParams, from: i64, until: i64) {
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(from);
    params.not_after = epoch + since_epoch(until);
}

/// The time from 1970 until this many seconds from now.
fn since_epoch(seconds_from_now: i64) -> Duration {
    let seconds = SystemClock.now().seconds() + seconds_from_now;
    Duration::from_secs(u64::try_from(seconds).expect("a time after 1970"))
}

fn self_signed(params: &CertificateParams) -> Leaf {
    let key = key();
    let certificate = params.self_signed(&key).expect("self-signed certificate");
    Leaf { certificate_pem: certificate.pem(), key_pem: key.serialize_pem(), serial: serial() }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("key pair")
}

/// A positive serial number that is never reused (RFC 5280 4.1.2.2).
fn serial() -> SerialNumber {
    let mut bytes = *Uuid::now_v7().as_bytes();
    bytes[0] &= 0x7f;
    SerialNumber::from_slice(&bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{
        RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime, pem::PemObject},
        server::WebPkiClientVerifier,
    };

    use super::*;

    /// The verdict on a client of a server that reads the files: `None`, or the error.
    fn verdict(pki: &Pki, client: &Leaf) -> Option<String> {
        let chain: Vec<CertificateDer<'_>> =
            CertificateDer::pem_slice_iter(client.certificate_pem.as_bytes()).map(Result::unwrap).collect();
        let crls = CertificateRevocationListDer::pem_file_iter(pki.path("crl.pem")).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(pki.path("ca.pem")).unwrap()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(aws_lc_rs::default_provider()))
                .with_crls(crls.map(Result::unwrap))
                .build()
                .unwrap();
        verifier.verify_client_cert(&chain[0], &chain[1..], UnixTime::now()).err().map(|error| format!("{error:?}"))
    }

    #[test]
    fn every_flaw_has_exactly_the_effect_it_names() {
        let directory = tempfile::tempdir().unwrap();
        let pki = Pki::create(directory.path());
        for identity in [Identity::of("a"), Identity::Dns("a.test".to_owned()), Identity::Subject("a".to_owned())] {
            assert_eq!(verdict(&pki, &pki.client(identity)), None);
        }
        let expected = [
            (Flaw::Expired, "Expired"),
            (Flaw::NotYetValid, "NotValidYet"),
            (Flaw::Revoked, "Revoked"),
            (Flaw::WrongAuthority, "BadSignature"),
            (Flaw::ServerOnly, "InvalidPurpose"),
            (Flaw::SelfSigned, "UnknownIssuer"),
            (Flaw::ChainMissing, "UnknownIssuer"),
        ];
        for (flaw, error) in expected {
            let verdict = verdict(&pki, &pki.flawed_client(Identity::of("a"), flaw));
            assert!(verdict.as_deref().is_some_and(|text| text.contains(error)), "{flaw:?}: {verdict:?}");
        }
        pki.revoke(&[]);
        assert_eq!(verdict(&pki, &pki.client(Identity::of("a"))), None);
    }
}
