use std::collections::HashSet;

use jackfield_domain::Timestamp;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256,
    PublicKeyData as _,
};
use serde_json::{Value, json};

use super::*;

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp(1_800_000_000_900_000)
    }
}

fn assertion(pair: &KeyPair, kid: Option<&str>, rsa: RsaScheme) -> ClientAssertion {
    let pem = Secret::new(pair.serialize_pem());
    let key = AssertionKey::from_pem(&pem, kid.map(str::to_owned), rsa).unwrap();
    ClientAssertion::new("c1".to_owned(), "https://id.example".to_owned(), key, Arc::new(Fixed))
}

/// Header and claims of an assertion, and whether another library finds its signature right.
fn read(assertion: &ClientAssertion, pair: &KeyPair, algorithm: jsonwebtoken::Algorithm) -> (Value, Value, bool) {
    let assertion = assertion.sign().unwrap();
    let (message, signature) = assertion.expose().rsplit_once('.').unwrap();
    let part = |text| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap();
    let (header, claims) = message.split_once('.').unwrap();
    let key = match &algorithm {
        jsonwebtoken::Algorithm::EdDSA => DecodingKey::from_ed_der(pair.der_bytes()),
        jsonwebtoken::Algorithm::ES256 | jsonwebtoken::Algorithm::ES384 => DecodingKey::from_ec_der(pair.der_bytes()),
        _ => DecodingKey::from_rsa_der(pair.der_bytes()),
    };
    let verifier = (DEFAULT_PROVIDER.verifier_factory)(&algorithm, &key).unwrap();
    let is_right = verifier.verify(message.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).is_ok();
    (part(header), part(claims), is_right)
}

#[test]
fn each_kind_of_key_signs_by_its_algorithm() {
    use jsonwebtoken::Algorithm as Jwa;
    for (kind, rsa, algorithm) in [
        (&PKCS_RSA_SHA256, RsaScheme::Pkcs1, Jwa::RS256),
        (&PKCS_RSA_SHA256, RsaScheme::Pss, Jwa::PS256),
        (&PKCS_ECDSA_P256_SHA256, RsaScheme::Pkcs1, Jwa::ES256),
        (&PKCS_ECDSA_P384_SHA384, RsaScheme::Pss, Jwa::ES384),
        (&PKCS_ED25519, RsaScheme::Pkcs1, Jwa::EdDSA),
    ] {
        let pair = KeyPair::generate_for(kind).unwrap();
        let assertion = assertion(&pair, Some("k1"), rsa);
        let (header, mut claims, is_right) = read(&assertion, &pair, algorithm);
        assert!(is_right, "{algorithm:?}");
        assert_eq!(header, json!({ "alg": format!("{algorithm:?}"), "typ": "client-authentication+jwt", "kid": "k1" }));
        let jti = claims.as_object_mut().unwrap().remove("jti").unwrap();
        assert!(Uuid::try_parse(jti.as_str().unwrap()).is_ok());
        let (iat, exp) = (1_800_000_000, 1_800_000_060);
        let expected = json!({ "iss": "c1", "sub": "c1", "aud": "https://id.example", "iat": iat, "exp": exp });
        assert_eq!(claims, expected);
    }
}

#[test]
fn no_assertion_is_made_twice() {
    let pair = KeyPair::generate().unwrap();
    let assertion = assertion(&pair, None, RsaScheme::Pkcs1).without_type();
    let mut ids = HashSet::new();
    // One of 128 signatures has a number that is shorter than the others.
    for _ in 0..1_000 {
        let (header, claims, is_right) = read(&assertion, &pair, jsonwebtoken::Algorithm::ES256);
        assert!(is_right);
        assert_eq!(header, json!({ "alg": "ES256" }));
        assert!(ids.insert(claims["jti"].as_str().unwrap().to_owned()));
    }
    assert_eq!(format!("{assertion:?}"), r#"ClientAssertion { client_id: "c1", .. }"#);
}

#[test]
fn a_key_that_cannot_sign_is_refused() {
    let read = |pem: &str| AssertionKey::from_pem(&Secret::new(pem.to_owned()), None, RsaScheme::Pkcs1).err();
    assert_eq!(read(""), Some(AssertionError::Key(IdentityError::NoPrivateKey)));
    assert_eq!(read("secret"), Some(AssertionError::Key(IdentityError::NoPrivateKey)));
    let pem = KeyPair::generate().unwrap().serialize_pem();
    assert_eq!(read(&format!("{pem}{pem}")), Some(AssertionError::Key(IdentityError::SeveralPrivateKeys)));
    assert!(matches!(read(&pem.replace("PRIVATE KEY", "PUBLIC KEY")), Some(AssertionError::Key(_))));
    let large = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap().serialize_pem();
    assert_eq!(read(&large), Some(AssertionError::Unsupported));
}

#[test]
fn numbers_of_a_signature_have_a_fixed_size() {
    assert_eq!(fixed(&[0x30, 6, 2, 1, 5, 2, 1, 7], 2).unwrap(), [0, 5, 0, 7]);
    assert_eq!(fixed(&[0x30, 7, 2, 2, 0, 0x80, 2, 1, 0], 1).unwrap(), [0x80, 0]);
    assert_eq!(fixed(&[0x30, 0x81, 6, 2, 1, 5, 2, 1, 7], 1).unwrap(), [5, 7]);
    for wrong in [
        &[][..],
        &[0x30],
        &[0x30, 0x82, 0, 6, 2, 1, 5, 2, 1, 7],
        &[0x30, 6, 2, 1, 5, 2, 1],
        &[0x30, 6, 2, 1, 5, 3, 1, 7],
        &[0x30, 6, 2, 1, 5, 2, 1, 7, 0],
        &[0x30, 9, 2, 1, 5, 2, 1, 7, 2, 1, 1],
        &[0x30, 7, 2, 2, 1, 1, 2, 1, 7],
    ] {
        assert_eq!(fixed(wrong, 1), None, "{wrong:?}");
    }
}
