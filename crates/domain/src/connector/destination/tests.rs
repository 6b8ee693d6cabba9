use std::collections::BTreeMap;

use super::*;
use crate::connector::{ApiKeyPatch, ConnectorKeys, GenericPatch, OAuth2Patch, SecretHeadersPatch};
use crate::value::id::{ConnectorId, KeyId};
use crate::value::meta::Meta;
use crate::value::secret::Secret;
use crate::value::text::Name;
use crate::value::time::Timestamp;

const META: Meta = Meta::new(Timestamp(0));

fn url(text: &str) -> HttpUrl {
    HttpUrl::parse("url", text, 2048).unwrap()
}

fn secret() -> Secret {
    Secret::new("of the system".to_owned())
}

fn generic(authentication_url: &str) -> GenericPatch {
    GenericPatch { authentication_url: Some(url(authentication_url)), ..GenericPatch::default() }
}

fn of_kind(kind: KindPatch) -> ConnectorPatch {
    ConnectorPatch { kind, ..ConnectorPatch::default() }
}

fn trusting(bundle: Option<KeyId>) -> ConnectorKeys {
    ConnectorKeys { trust_bundle_key: Some(bundle), ..ConnectorKeys::default() }
}

/// A connector with all secrets that its kind has.
fn stored(kind: KindPatch, keys: ConnectorKeys) -> Connector {
    let patch = ConnectorPatch {
        name: Some(Name::parse("name", "a", 191).unwrap()),
        kind,
        secret_headers: SecretHeadersPatch::Set(BTreeMap::from([("X-Token".to_owned(), secret())])),
        egress_proxy: Some(Some(url("http://proxy.example:3128"))),
        egress_proxy_password: SecretPatch::Set(secret()),
        ..ConnectorPatch::default()
    };
    Connector::create(ConnectorId::generate(), &patch, keys, META).unwrap()
}

fn a_generic(keys: ConnectorKeys) -> Connector {
    stored(
        KindPatch::Generic(GenericPatch { password: SecretPatch::Set(secret()), ..generic("https://a.example/1") }),
        keys,
    )
}

/// The fields that are refused.
fn refused(before: &Connector, patch: &ConnectorPatch, keys: ConnectorKeys) -> Vec<String> {
    let after = before.clone().patched(patch, keys, META).unwrap();
    before.misdirected_secrets(&after, patch).into_iter().map(|violation| violation.field).collect()
}

const PASSWORD: &str = "connector.generic.http_authentication_password";
const HEADERS: &str = "connector.secret_headers";
const PROXY_PASSWORD: &str = "connector.egress_proxy_password";

#[test]
fn secrets_stay_with_the_origin_of_the_system() {
    let before = a_generic(ConnectorKeys::default());
    for (to, expected) in [
        ("https://a.example/2?x=y", &[][..]),
        ("https://A.example:443/", &[]),
        ("https://a.example:8443/1", &[PASSWORD, HEADERS]),
        ("http://a.example/1", &[PASSWORD, HEADERS]),
        ("https://b.example/1", &[PASSWORD, HEADERS]),
    ] {
        let patch = of_kind(KindPatch::Generic(generic(to)));
        assert_eq!(refused(&before, &patch, ConnectorKeys::default()), expected, "{to}");
    }
    let moved = |password, secret_headers| ConnectorPatch {
        secret_headers,
        ..of_kind(KindPatch::Generic(GenericPatch { password, ..generic("https://b.example/1") }))
    };
    for (patch, expected) in [
        (moved(SecretPatch::Set(secret()), SecretHeadersPatch::Clear), &[][..]),
        (moved(SecretPatch::Clear, SecretHeadersPatch::Keep), &[HEADERS]),
        (moved(SecretPatch::Keep, SecretHeadersPatch::Set(BTreeMap::new())), &[PASSWORD]),
    ] {
        assert_eq!(refused(&before, &patch, ConnectorKeys::default()), expected, "{patch:?}");
    }
}

#[test]
fn a_url_that_comes_or_goes_is_another_destination() {
    let to = |base_url: Option<&str>| {
        of_kind(KindPatch::ApiKey(ApiKeyPatch { base_url: Some(base_url.map(url)), ..ApiKeyPatch::default() }))
    };
    let with = stored(to(Some("https://a.example/")).kind, ConnectorKeys::default());
    let without = stored(to(None).kind, ConnectorKeys::default());
    for (before, base_url, expected) in [
        (&with, None, &[HEADERS][..]),
        (&with, Some("https://a.example/v2"), &[]),
        (&without, None, &[]),
        (&without, Some("https://elsewhere.example/"), &[HEADERS]),
    ] {
        assert_eq!(refused(before, &to(base_url), ConnectorKeys::default()), expected, "{base_url:?}");
    }

    let endpoints = |token_url: Option<&str>, jwks_url: Option<&str>| {
        of_kind(KindPatch::OAuth2(OAuth2Patch {
            issuer_url: Some(Some(url("https://a.example/"))),
            token_url: Some(token_url.map(url)),
            jwks_url: Some(jwks_url.map(url)),
            ..OAuth2Patch::default()
        }))
    };
    let before = stored(endpoints(Some("https://token.example/"), None).kind, ConnectorKeys::default());
    for (token_url, jwks_url, expected) in [
        (Some("https://token.example/"), Some("https://a.example/keys"), &[][..]),
        (Some("https://token.example/"), Some("https://b.example/keys"), &[HEADERS]),
        (Some("https://b.example/"), None, &[HEADERS]),
        (None, None, &[HEADERS]),
    ] {
        let patch = endpoints(token_url, jwks_url);
        assert_eq!(refused(&before, &patch, ConnectorKeys::default()), expected, "{token_url:?} {jwks_url:?}");
    }
    // Only browsers go there.
    let authorization_url = Some(Some(url("https://b.example/authorize")));
    let patch = of_kind(KindPatch::OAuth2(OAuth2Patch { authorization_url, ..OAuth2Patch::default() }));
    assert_eq!(refused(&before, &patch, ConnectorKeys::default()), [] as [&str; 0]);
}

#[test]
fn a_password_stays_with_its_proxy() {
    let before = a_generic(ConnectorKeys::default());
    let to = |proxy: Option<&str>, egress_proxy_password| ConnectorPatch {
        egress_proxy: Some(proxy.map(url)),
        egress_proxy_password,
        ..ConnectorPatch::default()
    };
    for (patch, expected) in [
        (to(Some("http://proxy.example:3128/"), SecretPatch::Keep), &[][..]),
        (to(Some("http://proxy.example:3129"), SecretPatch::Keep), &[PROXY_PASSWORD]),
        (to(None, SecretPatch::Keep), &[PROXY_PASSWORD]),
        (to(None, SecretPatch::Clear), &[]),
        (to(Some("http://b.example"), SecretPatch::Set(secret())), &[]),
    ] {
        assert_eq!(refused(&before, &patch, ConnectorKeys::default()), expected, "{patch:?}");
    }
    // A connector may have been stored without a proxy, and with a password for one.
    let without = Connector { egress_proxy: None, ..before };
    let patch = to(Some("http://b.example"), SecretPatch::Keep);
    assert_eq!(refused(&without, &patch, ConnectorKeys::default()), [PROXY_PASSWORD]);
}

#[test]
fn secrets_stay_with_the_trust_bundle() {
    let (one, other) = (KeyId::generate(), KeyId::generate());
    for (before, after, expected) in [
        (Some(one), Some(one), &[][..]),
        (Some(one), None, &[]),
        (None, Some(one), &[PASSWORD, HEADERS]),
        (Some(one), Some(other), &[PASSWORD, HEADERS]),
    ] {
        let before = a_generic(trusting(before));
        let keys = trusting(after);
        assert_eq!(refused(&before, &ConnectorPatch::default(), keys), expected, "{after:?}");
    }
    let before = a_generic(trusting(Some(one)));
    let given = ConnectorPatch {
        secret_headers: SecretHeadersPatch::Clear,
        ..of_kind(KindPatch::Generic(GenericPatch {
            password: SecretPatch::Set(secret()),
            ..generic("https://a.example")
        }))
    };
    assert_eq!(refused(&before, &given, trusting(Some(other))), [] as [&str; 0]);
}

#[test]
fn the_violation_says_what_to_do_and_why() {
    let before = a_generic(ConnectorKeys::default());
    let patch = of_kind(KindPatch::Generic(generic("https://b.example/1")));
    let after = before.clone().patched(&patch, trusting(Some(KeyId::generate())), META).unwrap();
    let violations = before.misdirected_secrets(&after, &patch);
    let expected = "must be given again, or cleared, in the same request: generic.authentication_url changes the scheme, host or port \
                    that it was given for";
    assert_eq!(violations[0].description, expected);
}
