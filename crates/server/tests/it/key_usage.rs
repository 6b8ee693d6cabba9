//! Clients whose certificates state what their keys are for (RFC 5280 4.2.1.3), in real handshakes.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

use crate::pki::{Pair, Pki};
use crate::process::run;
use crate::support::{CALLER, TestServer, unary};

/// The certificate of a client, followed by that of its issuer, with these key usages.
fn client(pki: &Pki, issuer_usages: &[KeyUsagePurpose], leaf_usages: &[KeyUsagePurpose]) -> Pair {
    let intermediate = an_intermediate("intermediate", issuer_usages);
    let intermediate_key = KeyPair::generate().unwrap();
    let intermediate_certificate = pki.sign(&intermediate, &intermediate_key);

    let mut leaf = a_leaf();
    leaf.key_usages = leaf_usages.to_vec();
    let key = KeyPair::generate().unwrap();
    let certificate = leaf.signed_by(&key, &Issuer::from_params(&intermediate, &intermediate_key)).unwrap();
    Pair { certificate: certificate.pem() + &intermediate_certificate, key: key.serialize_pem() }
}

fn an_intermediate(name: &str, usages: &[KeyUsagePurpose]) -> CertificateParams {
    let mut intermediate = CertificateParams::default();
    intermediate.distinguished_name.push(DnType::CommonName, name);
    intermediate.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    intermediate.key_usages = usages.to_vec();
    intermediate
}

fn a_leaf() -> CertificateParams {
    let mut leaf = CertificateParams::default();
    leaf.distinguished_name.push(DnType::CommonName, "client");
    leaf.subject_alt_names = vec![SanType::URI(CALLER.try_into().unwrap())];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    leaf
}

async fn is_accepted(server: &TestServer, client: &Pair) -> bool {
    match server.connect(client).await {
        Ok(channel) => unary(&channel, "Whoami", Duration::ZERO).await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn issuers_need_key_cert_sign_and_leaves_digital_signature() {
    use KeyUsagePurpose::{CrlSign, DigitalSignature, KeyCertSign, KeyEncipherment};
    let server = TestServer::start(|_| {}).await;
    for (issuer, leaf, let_in) in [
        (&[KeyCertSign] as &[_], &[DigitalSignature] as &[_], true),
        (&[KeyCertSign, CrlSign], &[DigitalSignature, KeyEncipherment], true),
        // A certificate without key usages is good for everything.
        (&[], &[], true),
        (&[CrlSign], &[DigitalSignature], false),
        (&[DigitalSignature], &[], false),
        (&[KeyCertSign], &[KeyEncipherment], false),
    ] {
        let client = client(&server.pki, issuer, leaf);
        assert_eq!(is_accepted(&server, &client).await, let_in, "{issuer:?} {leaf:?}");
    }
}

/// As the guide says, anyExtendedKeyUsage does not include client authentication.
#[tokio::test]
async fn a_certificate_for_any_usage_is_not_a_client_certificate() {
    let server = TestServer::start(|_| {}).await;
    for (usages, let_in) in [
        (&[ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::Any] as &[_], true),
        (&[], true),
        (&[ExtendedKeyUsagePurpose::Any], false),
    ] {
        let mut leaf = a_leaf();
        leaf.extended_key_usages = usages.to_vec();
        let key = KeyPair::generate().unwrap();
        let client = Pair { certificate: server.pki.sign(&leaf, &key), key: key.serialize_pem() };
        assert_eq!(is_accepted(&server, &client).await, let_in, "{usages:?}");
    }
}

#[tokio::test]
async fn a_chain_has_at_most_six_intermediates() {
    let server = TestServer::start(|_| {}).await;
    for (count, let_in) in [(6, true), (7, false)] {
        let (first, first_key) = (an_intermediate("intermediate 1", &[]), KeyPair::generate().unwrap());
        let mut chain = vec![server.pki.sign(&first, &first_key)];
        let (mut issuer, mut issuer_key) = (first, first_key);
        for number in 2..=count {
            let (next, key) = (an_intermediate(&format!("intermediate {number}"), &[]), KeyPair::generate().unwrap());
            chain.push(next.signed_by(&key, &Issuer::from_params(&issuer, &issuer_key)).unwrap().pem());
            (issuer, issuer_key) = (next, key);
        }
        let key = KeyPair::generate().unwrap();
        chain.push(a_leaf().signed_by(&key, &Issuer::from_params(&issuer, &issuer_key)).unwrap().pem());
        chain.reverse();
        let client = Pair { certificate: chain.concat(), key: key.serialize_pem() };
        assert_eq!(is_accepted(&server, &client).await, let_in, "{count} intermediates");
    }
}

#[test]
fn an_authority_that_signs_no_certificates_is_refused_by_name() {
    let pki = Pki::new();
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "an authority of nothing");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::CrlSign];
    pki.write("client-ca.pem", &ca.self_signed(&KeyPair::generate().unwrap()).unwrap().pem());
    let settings = [("certificate", "server.pem"), ("private_key", "server-key.pem"), ("client_ca", "client-ca.pem")]
        .map(|(key, name)| format!("tls.{key}={}", pki.path(name).display()));
    let arguments = ["check-config"].into_iter().chain(settings.iter().flat_map(|setting| ["--set", setting]));
    let refused = run(pki.path("").as_path(), &arguments.collect::<Vec<_>>());
    let text = String::from_utf8_lossy(&refused.stderr);
    let expected =
        "the authority CN=an authority of nothing may not sign certificates: its key usage lacks keyCertSign";
    assert!(!refused.status.success() && text.contains(expected), "{text}");
}
