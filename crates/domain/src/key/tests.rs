use super::*;
use crate::value::meta::Meta;

const DAY: i64 = 24 * 3_600 * 1_000_000;

fn material(number: u32, validity: &[(i64, i64)]) -> KeyMaterial {
    let certificate = |(not_before, not_after): &(i64, i64)| CertificateFacts {
        subject: String::new(),
        issuer: String::new(),
        serial_number: String::new(),
        subject_alternative_names: Vec::new(),
        not_before: Timestamp(*not_before),
        not_after: Timestamp(*not_after),
        fingerprint_sha256: String::new(),
        public_key_algorithm: String::new(),
        is_ca: false,
    };
    KeyMaterial::of(number, "pem".to_owned(), validity.iter().map(certificate).collect())
}

fn key(next: Option<NextMaterial>) -> Key {
    Key {
        id: KeyId::generate(),
        name: Name::stored("a".to_owned()),
        kind: KeyKind::ClientIdentity,
        current: material(0, &[(0, 90 * DAY)]),
        next,
        used_by: 0,
        labels: Labels::default(),
        meta: Meta::new(Timestamp(0)),
    }
}

fn next(activate_time: i64, material: KeyMaterial) -> Option<NextMaterial> {
    Some(NextMaterial { activate_time: Timestamp(activate_time), material })
}

#[test]
fn next_material_becomes_current_at_its_time_and_always_in_the_same_way() {
    let scheduled = key(next(7, material(1, &[(0, 180 * DAY)])));
    let mut early = scheduled.clone();
    assert_eq!((early.activate(Timestamp(6)), &early), (None, &scheduled));
    let mut outcomes = Vec::new();
    for noticed in [7, 8, 80 * DAY] {
        let mut key = scheduled.clone();
        let replaced = key.activate(Timestamp(noticed)).unwrap();
        assert_eq!(replaced.private_key_column(), "private_key_pem");
        assert_eq!((key.current.private_key_column(), &key.next), ("private_key_pem/1".to_owned(), &None));
        assert_eq!((key.meta.version, key.meta.update_time), (2, Timestamp(7)));
        assert_eq!(key.activate(Timestamp(noticed)), None);
        outcomes.push(key);
    }
    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]));
}

#[test]
fn material_without_its_certificate_is_never_activated() {
    let mut pending = key(next(7, material(1, &[])));
    assert_eq!(pending.activation(), None);
    assert_eq!(pending.activate(Timestamp::MAX), None);
    assert!(pending.next.is_some());
}

#[test]
fn numbers_of_material_are_not_used_again() {
    let mut key = key(None);
    assert_eq!(key.next_number(), 1);
    key.next = next(7, material(key.next_number(), &[(0, DAY)]));
    assert_eq!(key.next_number(), 2);
    key.activate(Timestamp(7)).unwrap();
    assert_eq!(key.next_number(), 2);
}

#[test]
fn renewal_is_due_when_a_third_of_the_lifetime_is_left() {
    let expiry = |key: &Key| key.expiry().map(|it| (it.not_after.0 / DAY, it.renewal_time.0 / DAY));
    assert_eq!(expiry(&key(None)), Some((90, 60)));
    let mut bundle = key(None);
    bundle.current = material(0, &[(0, 900 * DAY), (30 * DAY, 60 * DAY)]);
    assert_eq!(expiry(&bundle), Some((60, 50)), "that of the certificate that expires first");
    // Material that comes in time counts, and material that comes too late or without a certificate does not.
    let coming = material(1, &[(0, 180 * DAY)]);
    assert_eq!(expiry(&key(next(90 * DAY, coming.clone()))), Some((180, 120)));
    assert_eq!(expiry(&key(next(91 * DAY, coming))), Some((90, 60)));
    assert_eq!(expiry(&key(next(1, material(1, &[])))), Some((90, 60)));
    let mut pending = key(None);
    pending.current = material(0, &[]);
    assert_eq!(expiry(&pending), None);
    // A certificate that ends before it begins is as good as expired.
    assert_eq!(material(0, &[(9, 3)]).expiry().unwrap().renewal_time, Timestamp(3));
}

#[test]
fn the_rest_of_a_lifetime_is_relative_to_it() {
    use Remaining::{Day, None as Nothing, Tenth, Third};
    let hour = DAY / 24;
    for (lifetime, left, expected) in [
        (90 * DAY, 31 * DAY, None),
        (90 * DAY, 30 * DAY, Some(Third)),
        (90 * DAY, 9 * DAY + 1, Some(Third)),
        (90 * DAY, 9 * DAY, Some(Tenth)),
        (90 * DAY, DAY + 1, Some(Tenth)),
        (90 * DAY, DAY, Some(Day)),
        (90 * DAY, 1, Some(Day)),
        (90 * DAY, 0, Some(Nothing)),
        (90 * DAY, -DAY, Some(Nothing)),
        (47 * DAY, 16 * DAY, None),
        (47 * DAY, 15 * DAY, Some(Third)),
        (47 * DAY, 5 * DAY, Some(Third)),
        (47 * DAY, 4 * DAY, Some(Tenth)),
        (47 * DAY, DAY, Some(Day)),
        (365 * DAY, 122 * DAY, None),
        (365 * DAY, 121 * DAY, Some(Third)),
        (365 * DAY, 36 * DAY, Some(Tenth)),
        (365 * DAY, DAY, Some(Day)),
        // Of a short lifetime a day is no matter.
        (hour, hour / 2, None),
        (hour, hour / 3, Some(Third)),
        (hour, hour / 10 + 1, Some(Third)),
        (hour, hour / 10, Some(Tenth)),
        (hour, 1, Some(Tenth)),
        (hour, 0, Some(Nothing)),
        (10 * DAY, DAY, Some(Tenth)),
        (10 * DAY, 1, Some(Tenth)),
        (11 * DAY, DAY + 1, Some(Tenth)),
        (11 * DAY, DAY, Some(Day)),
    ] {
        let expiry = material(0, &[(0, lifetime)]).expiry().unwrap();
        assert_eq!(expiry.remaining(Timestamp(lifetime - left)), expected, "{left} of {lifetime}");
    }
}

#[test]
fn subject_names_are_parsed_as_facts_show_them() {
    let parse = SubjectName::parse;
    let dns = |name: &str| Some(SubjectName::Dns(name.to_owned()));
    assert_eq!(parse("DNS:a-1.example"), dns("a-1.example"));
    assert_eq!(parse("DNS:*.example"), dns("*.example"));
    assert_eq!(parse("URI:spiffe://a.example/b"), Some(SubjectName::Uri("spiffe://a.example/b".to_owned())));
    assert_eq!(parse("email:a@b.example"), Some(SubjectName::Email("a@b.example".to_owned())));
    assert_eq!(parse("IP:192.0.2.1"), Some(SubjectName::Ip([192, 0, 2, 1].into())));
    assert_eq!(parse("IP:2001:db8::1"), Some(SubjectName::Ip("2001:db8::1".parse().unwrap())));
    let long = |labels: usize| format!("DNS:{}", vec!["a"; labels].join("."));
    assert!(parse(&long(127)).is_some() && parse(&long(128)).is_none(), "253 bytes at most");
    for wrong in [
        "",
        "a.example",
        "dns:a",
        "DNS:",
        "DNS:a..b",
        "DNS:-a",
        "DNS:a.*",
        "DNS:ä",
        "DNS:a b",
        "URI:a",
        "URI:http://a\n",
        "email:a",
        "email:@b",
        "email:a@",
        "IP:1.2.3",
        "IP:a",
        "other:a",
    ] {
        assert!(parse(wrong).is_none(), "{wrong:?}");
    }
}
