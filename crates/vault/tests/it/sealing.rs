//! Sealed values open at their address and nowhere else.

use std::collections::HashSet;

use jackfield_domain::{Error, Resource, SecretAddress, TenantId};
use jackfield_vault::DataKey;
use proptest::collection::vec;
use proptest::prelude::*;
use uuid::Uuid;

use crate::support::{OTHER_TENANT, ROW, TENANT, address, data_key};

#[test]
fn sealed_value_opens_at_its_address() {
    let key = data_key(TENANT);
    for plaintext in [&b""[..], b"x", b"basicPassword", &[0; 70_000]] {
        let sealed = key.seal(&address(TENANT), plaintext).unwrap();
        assert_eq!(key.open(&address(TENANT), &sealed).unwrap().as_slice(), plaintext);
        assert_eq!(DataKey::id_of(&sealed), Some(key.id()));
        assert_eq!(sealed.len(), plaintext.len() + 78);
    }
}

#[test]
fn every_bit_matters() {
    let key = data_key(TENANT);
    let sealed = key.seal(&address(TENANT), b"basicPassword").unwrap();
    for position in 0..sealed.len() * 8 {
        let mut altered = sealed.clone();
        altered[position / 8] ^= 1 << (position % 8);
        assert_fails(key.open(&address(TENANT), &altered));
    }
}

#[test]
fn every_length_but_the_right_one_fails() {
    let key = data_key(TENANT);
    let sealed = key.seal(&address(TENANT), b"basicPassword").unwrap();
    for length in 0..sealed.len() {
        assert_fails(key.open(&address(TENANT), &sealed[..length]));
        assert_fails(key.open(&address(TENANT), &sealed[sealed.len() - length..]));
    }
    let longer = [sealed.as_slice(), b"\0"].concat();
    assert_fails(key.open(&address(TENANT), &longer));
}

#[test]
fn other_address_fails_and_names_the_row() {
    let key = data_key(TENANT);
    let here = address(TENANT);
    let sealed = key.seal(&here, b"basicPassword").unwrap();
    let elsewhere = [
        SecretAddress { tenant: OTHER_TENANT, ..here },
        SecretAddress { tenant: TenantId::SYSTEM, ..here },
        SecretAddress { owner_id: Uuid::nil(), ..here },
        SecretAddress { owner_id: Uuid::from_u128(here.owner_id.as_u128() ^ 1), ..here },
        SecretAddress { name: "", ..here },
        SecretAddress { name: "materia", ..here },
        SecretAddress { name: "materials", ..here },
        SecretAddress { name: "Material", ..here },
    ];
    for address in elsewhere {
        assert_fails(key.open(&address, &sealed));
    }
    for resource in Resource::ALL {
        let opened = key.open(&SecretAddress { owner: resource, ..here }, &sealed);
        if resource == here.owner {
            assert!(opened.is_ok());
        } else {
            match opened.map(drop) {
                Err(Error::DecryptFailed { resource: named, id }) => {
                    assert_eq!((named, id), (resource, ROW.to_string()));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn other_data_key_fails() {
    let (key, sibling) = (data_key(TENANT), data_key(TENANT));
    let mut sealed = key.seal(&address(TENANT), b"basicPassword").unwrap();
    assert_fails(sibling.open(&address(TENANT), &sealed));
    // It fails even if the value claims to be sealed with it.
    sealed[2..18].copy_from_slice(sibling.id().as_bytes());
    assert_eq!(DataKey::id_of(&sealed), Some(sibling.id()));
    assert_fails(sibling.open(&address(TENANT), &sealed));
}

#[test]
fn data_key_does_not_seal_for_another_tenant() {
    let key = data_key(TENANT);
    assert!(matches!(key.seal(&address(OTHER_TENANT), b"text"), Err(Error::Internal(_))));
}

#[test]
fn no_two_sealed_values_are_equal() {
    let key = data_key(TENANT);
    let sealed: HashSet<_> = (0..1_000).map(|_| key.seal(&address(TENANT), b"text").unwrap()).collect();
    assert_eq!(sealed.len(), 1_000);
    // The nonces differ.
    let nonces: HashSet<_> = sealed.iter().map(|sealed| sealed[50..62].to_vec()).collect();
    assert_eq!(nonces.len(), 1_000);
}

#[test]
fn plaintext_is_not_in_the_sealed_value() {
    let key = data_key(TENANT);
    let sealed = key.seal(&address(TENANT), b"basicPassword").unwrap();
    assert!(!sealed.windows(5).any(|window| b"basicPassword".windows(5).any(|part| part == window)));
}

#[test]
fn fingerprints_depend_on_key_purpose_and_parts() {
    let key = data_key(TENANT);
    let lists: [&[&[u8]]; 6] = [&[], &[b""], &[b"ab"], &[b"a", b"b"], &[b"b", b"a"], &[b"ab", b""]];
    let mut fingerprints = HashSet::new();
    for list in lists {
        assert_eq!(key.fingerprint("body", list), key.fingerprint("body", list));
        assert!(fingerprints.insert(key.fingerprint("body", list)));
        assert!(fingerprints.insert(key.fingerprint("filter", list)));
        assert!(fingerprints.insert(data_key(TENANT).fingerprint("body", list)));
    }
}

#[test]
fn debug_shows_no_secret() {
    let key = data_key(TENANT);
    let shown = format!("{key:?}");
    assert_eq!(shown, format!("DataKey {{ id: {:?}, tenant: {TENANT:?}, .. }}", key.id()));
    let shown = format!("{:?}", address(TENANT));
    assert!(shown.contains("material"), "{shown}");
}

proptest! {
    #[test]
    fn sealed_values_open_and_altered_ones_do_not(
        plaintext in vec(any::<u8>(), 0..300),
        column in ".{0,20}",
        row in any::<u128>(),
        at in any::<prop::sample::Index>(),
        mask in 1..=u8::MAX,
    ) {
        let key = data_key(TENANT);
        let address = SecretAddress { owner_id: Uuid::from_u128(row), name: &column, ..address(TENANT) };
        let mut sealed = key.seal(&address, &plaintext).unwrap();
        prop_assert_eq!(key.open(&address, &sealed).unwrap().to_vec(), plaintext);
        let at = at.index(sealed.len());
        sealed[at] ^= mask;
        prop_assert!(key.open(&address, &sealed).is_err());
    }

    #[test]
    fn two_addresses_never_open_each_other(
        rows in (0_u128..3, 0_u128..3),
        columns in ("[ab]{0,2}", "[ab]{0,2}"),
        resources in (0..Resource::ALL.len(), 0..Resource::ALL.len()),
    ) {
        let key = data_key(TENANT);
        let (resource, id) = (Resource::ALL[resources.0], Uuid::from_u128(rows.0));
        let one = SecretAddress { tenant: TENANT, owner: resource, owner_id: id, name: &columns.0 };
        let (resource, id) = (Resource::ALL[resources.1], Uuid::from_u128(rows.1));
        let two = SecretAddress { tenant: TENANT, owner: resource, owner_id: id, name: &columns.1 };
        let sealed = key.seal(&one, b"text").unwrap();
        prop_assert_eq!(key.open(&two, &sealed).is_ok(), one == two);
    }

    #[test]
    fn arbitrary_bytes_neither_open_nor_panic(mut bytes in vec(any::<u8>(), 0..200), known in any::<bool>()) {
        let key = data_key(TENANT);
        if known {
            bytes.splice(0..bytes.len().min(2), [1, 1]);
        }
        let id = DataKey::id_of(&bytes);
        prop_assert_eq!(id.is_some(), bytes.len() >= 78 && bytes.starts_with(&[1, 1]));
        prop_assert!(key.open(&address(TENANT), &bytes).is_err());
    }
}

fn assert_fails(opened: jackfield_domain::Result<zeroize::Zeroizing<Vec<u8>>>) {
    assert!(matches!(opened, Err(Error::DecryptFailed { .. })), "{:?}", opened.map(|text| text.len()));
}
