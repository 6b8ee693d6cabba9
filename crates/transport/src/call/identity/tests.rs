use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

use super::*;

const URI: &str = "spiffe://example.org/billing";

fn principals() -> Principals {
    let principal =
        |name: &str| PrincipalConfig { name: name.into(), tenant: "t".into(), ..PrincipalConfig::default() };
    Principals::new(&[
        PrincipalConfig { spiffe: URI.into(), rights: vec!["keys.*".into()], ..principal("spiffe") },
        PrincipalConfig { dns: "Reports.example.org".into(), ..principal("dns") },
        PrincipalConfig { dns: "other.example.org".into(), ..principal("dns2") },
        PrincipalConfig { subject: "CN=archive,O=Example\\, Inc.".into(), ..principal("subject") },
        PrincipalConfig { subject: "CN=Reports.example.org".into(), ..principal("common name") },
    ])
}

fn certificate(sans: &[SanType], subject: &[(DnType, &str)]) -> CertificateDer<'static> {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.subject_alt_names = sans.to_vec();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in subject {
        params.distinguished_name.push(kind.clone(), *value);
    }
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

fn uri(uri: &str) -> SanType {
    SanType::URI(uri.try_into().unwrap())
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

/// Alternative names, subject, and the expected principal.
type Row<'a> = (Vec<SanType>, &'a [(DnType, &'a str)], Result<&'a str, Unknown>);

#[test]
fn certificates_identify_exactly_their_principals() {
    let archive = [(DnType::OrganizationName, "Example, Inc."), (DnType::CommonName, "archive")];
    let reversed = [archive[1].clone(), archive[0].clone()];
    let common_name = [(DnType::CommonName, "Reports.example.org")];
    let ip = SanType::IpAddress([192, 0, 2, 1].into());
    let mail = SanType::Rfc822Name("a@example.org".try_into().unwrap());
    let table: Vec<Row<'_>> = vec![
        (vec![uri(URI)], &[], Ok("spiffe")),
        (vec![uri(URI)], &archive, Ok("spiffe")),
        (vec![uri(URI), dns("reports.example.org")], &[], Ok("spiffe")),
        (vec![dns("reports.example.org")], &[], Ok("dns")),
        (vec![dns("REPORTS.example.org"), ip.clone()], &archive, Ok("dns")),
        (vec![dns("unknown.example.org"), dns("reports.example.org")], &[], Ok("dns")),
        (vec![], &archive, Ok("subject")),
        (vec![ip.clone(), mail.clone()], &archive, Ok("subject")),
        (vec![], &common_name, Ok("common name")),
        // Several URIs are no identity, whatever they are.
        (vec![uri(URI), uri("spiffe://example.org/other")], &[], Err(Unknown::SeveralUris)),
        (vec![uri(URI), uri(URI)], &[], Err(Unknown::SeveralUris)),
        (vec![uri(URI), uri("https://example.org")], &[], Err(Unknown::SeveralUris)),
        // A URI hides everything below it, known or not.
        (vec![uri("spiffe://example.org/other"), dns("reports.example.org")], &archive, Err(Unknown::NoPrincipal)),
        (vec![uri("https://example.org/billing"), dns("reports.example.org")], &[], Err(Unknown::NoPrincipal)),
        // The match is exact: trust domain, path, letter case, no prefix, no trailing slash.
        (vec![uri("spiffe://example.net/billing")], &[], Err(Unknown::NoPrincipal)),
        (vec![uri("spiffe://example.org/Billing")], &[], Err(Unknown::NoPrincipal)),
        (vec![uri("SPIFFE://example.org/billing")], &[], Err(Unknown::NoPrincipal)),
        (vec![uri("spiffe://example.org/billing/")], &[], Err(Unknown::NoPrincipal)),
        (vec![uri("spiffe://example.org/billing/x")], &[], Err(Unknown::NoPrincipal)),
        (vec![uri("spiffe://example.org/")], &[], Err(Unknown::NoPrincipal)),
        // No wildcards, no parents, no common name beside a DNS name, no ambiguity.
        (vec![dns("*.example.org")], &[], Err(Unknown::NoPrincipal)),
        (vec![dns("example.org")], &[], Err(Unknown::NoPrincipal)),
        (vec![dns("a.reports.example.org")], &[], Err(Unknown::NoPrincipal)),
        (vec![dns("unknown.example.org")], &archive, Err(Unknown::NoPrincipal)),
        (vec![dns("unknown.example.org")], &common_name, Err(Unknown::NoPrincipal)),
        (vec![dns("reports.example.org"), dns("other.example.org")], &[], Err(Unknown::NoPrincipal)),
        // The whole subject, in its order.
        (vec![], &archive[1..], Err(Unknown::NoPrincipal)),
        (vec![], &reversed, Err(Unknown::NoPrincipal)),
        (vec![ip], &[], Err(Unknown::NoPrincipal)),
        (vec![mail], &[], Err(Unknown::NoPrincipal)),
        (vec![], &[], Err(Unknown::NoPrincipal)),
    ];
    let principals = principals();
    for (sans, subject, expected) in table {
        let found = principals.identify(&certificate(&sans, subject)).map(|caller| caller.name.clone());
        assert_eq!(found, expected.map(Arc::from), "{sans:?} {subject:?}");
    }
}

#[test]
fn malformed_certificates_have_no_identity() {
    let principals = principals();
    let good = certificate(&[uri(URI)], &[]);
    let mut longer = good.to_vec();
    longer.push(0);
    for bytes in [vec![], vec![0x30, 0x82], good[..good.len() - 1].to_vec(), longer] {
        assert_eq!(principals.identify(&CertificateDer::from(bytes)), Err(Unknown::Unreadable));
    }
}

#[test]
fn rights_are_those_of_the_configuration() {
    let caller = principals().by_name("spiffe").unwrap();
    let principal = caller.in_tenant(TenantId::SYSTEM);
    assert!(principal.rights.has(jackfield_domain::principal::Right::KeysWrite));
    assert!(!principal.rights.has(jackfield_domain::principal::Right::Admin));
    assert_eq!(&*principal.name, "spiffe");
}

#[test]
fn subjects_are_written_as_in_rfc_4514() {
    let subject = |parts: &[(DnType, &str)]| {
        let der = certificate(&[], parts);
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        rfc4514(certificate.subject())
    };
    let custom = DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 1466, 0]);
    for (parts, text) in [
        (
            vec![(DnType::CountryName, "DE"), (DnType::OrganizationName, "O"), (DnType::CommonName, "a")],
            "CN=a,O=O,C=DE",
        ),
        (vec![(DnType::CommonName, "James \"Jim\" Smith, III")], "CN=James \\\"Jim\\\" Smith\\, III"),
        (vec![(DnType::CommonName, " #a+b;<c>\\ ")], "CN=\\ #a\\+b\\;\\<c\\>\\\\\\ "),
        (vec![(DnType::CommonName, "#x")], "CN=\\#x"),
        (vec![(DnType::CommonName, "Lučić")], "CN=Lučić"),
        (vec![(custom, "Hi")], "1.3.6.1.4.1.1466.0=#0c024869"),
    ] {
        assert_eq!(subject(&parts).as_deref(), Some(text));
    }
    assert_eq!(subject(&[]), None);
}

#[test]
fn the_claimed_identity_can_be_copied_into_a_configuration() {
    let subject = [(DnType::OrganizationName, "Example, Inc."), (DnType::CommonName, "archive")];
    let all = certificate(&[uri(URI), dns("archive.example.org")], &subject);
    let expected = r#"spiffe = "spiffe://example.org/billing", dns = "archive.example.org", subject = "CN=archive,O=Example\\, Inc.""#;
    assert_eq!(claims(&all), expected);
    assert_eq!(claims(&certificate(&[], &[])), "");
    let hostile = certificate(&[], &[(DnType::CommonName, &"\u{1b}[31m\n\"".repeat(1_000))]);
    let claimed = claims(&hostile);
    assert_eq!(claimed.chars().count(), MAX_CLAIMS);
    assert!(!claimed.contains(char::is_control), "{claimed}");
}
