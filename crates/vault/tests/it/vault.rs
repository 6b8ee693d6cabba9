//! Wrapping and unwrapping of data keys, and replacement of keyrings.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use jackfield_domain::kek::BoxFuture;
use jackfield_domain::{Error, Resource};
use jackfield_vault::{KekError, KeyEncryption, Keyring, KeyringChange, KeyringError, Vault, WrappedDataKey};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::support::{KEYRING, OTHER_TENANT, SECRET, TENANT, address, keyring};

#[test]
fn wrapped_data_key_opens() {
    let vault = Vault::new(keyring());
    let (key, wrapped) = block_on(vault.data_key_create(TENANT)).unwrap();
    assert_eq!((key.tenant(), wrapped.kek_id.as_str()), (TENANT, "kek-1"));
    assert_eq!(key.id().get_version_num(), 7);
    let sealed = key.seal(&address(TENANT), b"basicPassword").unwrap();
    let reopened = block_on(vault.data_key_open(TENANT, key.id(), &wrapped)).unwrap();
    assert_eq!((reopened.id(), reopened.tenant()), (key.id(), TENANT));
    assert_eq!(reopened.open(&address(TENANT), &sealed).unwrap().as_slice(), b"basicPassword");
    assert_eq!(reopened.fingerprint("body", &[b"x"]), key.fingerprint("body", &[b"x"]));
    let token = key.seal_token(&[b"list"], b"after").unwrap();
    assert_eq!(reopened.open_token(&[b"list"], &token).unwrap().as_slice(), b"after");
}

#[test]
fn data_keys_differ() {
    let vault = Vault::new(keyring());
    let (one, _) = block_on(vault.data_key_create(TENANT)).unwrap();
    let (two, _) = block_on(vault.data_key_create(TENANT)).unwrap();
    assert_ne!(one.id(), two.id());
    assert_ne!(one.fingerprint("body", &[]), two.fingerprint("body", &[]));
}

#[test]
fn wrapped_key_opens_only_for_its_tenant_and_id() {
    let vault = Vault::new(keyring());
    let (key, wrapped) = block_on(vault.data_key_create(TENANT)).unwrap();
    assert_rejected(block_on(vault.data_key_open(OTHER_TENANT, key.id(), &wrapped)));
    assert_rejected(block_on(vault.data_key_open(TENANT, Uuid::nil(), &wrapped)));
    assert_rejected(block_on(vault.data_key_rewrap(OTHER_TENANT, key.id(), &wrapped)));
    for position in 0..wrapped.bytes.len() * 8 {
        let mut altered = wrapped.clone();
        altered.bytes[position / 8] ^= 1 << (position % 8);
        assert_rejected(block_on(vault.data_key_open(TENANT, key.id(), &altered)));
    }
    for length in 0..wrapped.bytes.len() {
        let bytes = wrapped.bytes[..length].to_vec();
        assert_rejected(block_on(vault.data_key_open(TENANT, key.id(), &WrappedDataKey { bytes, ..wrapped.clone() })));
    }
}

/// A key with the same secret but another id is another key, because wrapping binds the id.
#[test]
fn wrapped_key_is_bound_to_the_id_of_its_kek() {
    let (key, wrapped) = block_on(Vault::new(keyring()).data_key_create(TENANT)).unwrap();
    let renamed = Vault::new(Keyring::parse(&KEYRING.replace("kek-1", "kek-2")).unwrap());
    let wrapped = WrappedDataKey { kek_id: "kek-2".into(), ..wrapped };
    assert_rejected(block_on(renamed.data_key_open(TENANT, key.id(), &wrapped)));
}

#[test]
fn missing_key_is_named() {
    let (key, wrapped) = block_on(Vault::new(keyring()).data_key_create(TENANT)).unwrap();
    let vault = Vault::new(Keyring::generate().unwrap().0);
    let error = block_on(vault.data_key_open(TENANT, key.id(), &wrapped)).expect_err("the key is missing");
    let cause = error.source().unwrap().downcast_ref::<KekError>().unwrap();
    assert!(matches!(cause, KekError::UnknownKey { id } if id == "kek-1"), "{cause}");
    assert_eq!(cause.to_string(), "key-encryption key \"kek-1\" is not available");
}

#[test]
fn missing_required_keys_are_named() {
    let vault = Vault::new(keyring());
    vault.require_keys([]).unwrap();
    vault.require_keys(["kek-1", "kek-1"]).unwrap();
    let error = vault.require_keys(["kek-3", "kek-1", "kek-2", "kek-3"]).expect_err("two are missing");
    assert!(matches!(&error, KeyringError::KeysMissing { ids } if ids == &["kek-2", "kek-3"]));
    assert!(error.to_string().ends_with(": kek-2, kek-3"), "{error}");
}

#[test]
fn rewrapping_moves_a_data_key_to_the_active_key() {
    let vault = Vault::new(keyring());
    let (key, wrapped) = block_on(vault.data_key_create(TENANT)).unwrap();
    let sealed = key.seal(&address(TENANT), b"basicPassword").unwrap();
    let mut next = keyring();
    let newer = next.add_key(true).unwrap();
    vault.reload(Keyring::parse(&next.to_toml()).unwrap()).unwrap();
    // The old wrapped key still opens; the new one needs only the new key.
    block_on(vault.data_key_open(TENANT, key.id(), &wrapped)).unwrap();
    let rewrapped = block_on(vault.data_key_rewrap(TENANT, key.id(), &wrapped)).unwrap();
    assert_eq!(rewrapped.kek_id, newer);
    next.remove("kek-1").unwrap();
    let change = vault.reload(next).unwrap();
    assert_eq!(change, KeyringChange { removed: vec!["kek-1".into()], ..KeyringChange::default() });
    assert!(block_on(vault.data_key_open(TENANT, key.id(), &wrapped)).is_err());
    let reopened = block_on(vault.data_key_open(TENANT, key.id(), &rewrapped)).unwrap();
    assert_eq!(reopened.open(&address(TENANT), &sealed).unwrap().as_slice(), b"basicPassword");
}

#[test]
fn reload_reports_the_changes() {
    let vault = Vault::new(keyring());
    assert_eq!(vault.reload(keyring()).unwrap(), KeyringChange::default());
    let mut next = keyring();
    let staged = next.add_key(false).unwrap();
    let expected = KeyringChange { added: vec![staged.clone()], ..KeyringChange::default() };
    assert_eq!(vault.compare(&next).unwrap(), expected);
    assert_eq!(vault.key_ids(), ["kek-1"], "comparing changes nothing");
    assert_eq!(vault.reload(Keyring::parse(&next.to_toml()).unwrap()).unwrap(), expected);
    assert_eq!((vault.active_key_id(), vault.key_ids()), ("kek-1".into(), vec!["kek-1".into(), staged.clone()]));
    next.activate(&staged).unwrap();
    let change = vault.reload(next).unwrap();
    assert_eq!(change, KeyringChange { activated: Some(staged.clone()), ..KeyringChange::default() });
    assert_eq!(vault.active_key_id(), staged);
}

#[test]
fn reload_refuses_changes_that_would_lose_data() {
    let vault = Vault::new(keyring());
    let dropped = vault.reload(Keyring::generate().unwrap().0);
    assert!(matches!(dropped, Err(KeyringError::ActiveKeyDropped { id }) if id == "kek-1"));
    let changed = Keyring::parse(&KEYRING.replace("AAEC", "AAEB")).unwrap();
    assert!(matches!(vault.reload(changed), Err(KeyringError::SecretChanged { id }) if id == "kek-1"));
    assert_eq!(vault.key_ids(), ["kek-1"]);
    block_on(vault.data_key_create(TENANT)).unwrap();
}

#[test]
fn keyring_is_replaced_under_load() {
    let vault = Vault::new(keyring());
    let (key, wrapped) = block_on(vault.data_key_create(TENANT)).unwrap();
    std::thread::scope(|scope| {
        let work = || {
            for _ in 0..200 {
                block_on(vault.data_key_open(TENANT, key.id(), &wrapped)).unwrap();
                let rewrapped = block_on(vault.data_key_rewrap(TENANT, key.id(), &wrapped)).unwrap();
                block_on(vault.data_key_open(TENANT, key.id(), &rewrapped)).unwrap();
            }
        };
        let workers = [scope.spawn(work), scope.spawn(work)];
        let mut next = keyring();
        while !workers.iter().all(std::thread::ScopedJoinHandle::is_finished) && next.ids().len() < 50 {
            next.add_key(true).unwrap();
            vault.reload(Keyring::parse(&next.to_toml()).unwrap()).unwrap();
        }
    });
    assert!(vault.key_ids().len() > 1);
}

#[test]
fn unavailable_service_is_a_retryable_error() {
    let vault = Vault::with_provider(Arc::new(Away));
    let error = block_on(vault.data_key_create(TENANT)).expect_err("the service is unavailable");
    assert!(matches!(error, Error::ServerUnavailable { retry_after } if retry_after == Duration::from_secs(3)));
    assert!(matches!(vault.reload(keyring()), Err(KeyringError::NotAKeyring)));
    assert!(matches!(vault.compare(&keyring()), Err(KeyringError::NotAKeyring)));
    assert_eq!((vault.active_key_id(), vault.key_ids()), ("remote".into(), vec!["remote".into()]));
}

#[test]
fn service_that_returns_another_key_is_detected() {
    let vault = Vault::with_provider(Arc::new(Forgetful));
    let (key, wrapped) = block_on(vault.data_key_create(TENANT)).unwrap();
    let short = WrappedDataKey { bytes: vec![1], ..wrapped.clone() };
    assert_rejected(block_on(vault.data_key_open(TENANT, key.id(), &short)));
    assert!(matches!(block_on(vault.data_key_rewrap(TENANT, key.id(), &wrapped)), Err(Error::Internal(_))));
}

/// Servers need futures that can move between threads.
#[test]
fn futures_and_keys_can_be_sent() {
    fn sent<T: Send + 'static>(make: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(make).join().unwrap()
    }
    let vault = Arc::new(Vault::new(keyring()));
    let work = async move {
        let (key, wrapped) = vault.data_key_create(TENANT).await.unwrap();
        let rewrapped = vault.data_key_rewrap(TENANT, key.id(), &wrapped).await.unwrap();
        (key.id(), Arc::new(vault.data_key_open(TENANT, key.id(), &rewrapped).await.unwrap()))
    };
    let (id, key) = sent(move || block_on(work));
    assert_eq!(sent(move || key.id()), id);
}

#[test]
fn debug_shows_no_secret() {
    let vault = Vault::new(keyring());
    assert_eq!(format!("{vault:?}"), r#"Vault { active_key_id: "kek-1", key_ids: ["kek-1"], .. }"#);
    let (_, wrapped) = block_on(vault.data_key_create(TENANT)).unwrap();
    assert!(!format!("{wrapped:?}{:?}", KeyringChange::default()).contains(&SECRET[..8]));
}

/// A key-encryption service that does not answer.
struct Away;

/// A key-encryption service that unwraps to bytes other than those it wrapped.
struct Forgetful;

impl KeyEncryption for Away {
    fn wrap<'a>(&'a self, _: &'a [u8], _: &'a [u8]) -> BoxFuture<'a, Result<WrappedDataKey, KekError>> {
        let error = KekError::Unavailable { retry_after: Duration::from_secs(3), source: "no route".into() };
        Box::pin(std::future::ready(Err(error)))
    }

    fn unwrap<'a>(
        &'a self,
        id: &'a str,
        _: &'a [u8],
        _: &'a [u8],
    ) -> BoxFuture<'a, Result<Zeroizing<Vec<u8>>, KekError>> {
        Box::pin(std::future::ready(Err(KekError::UnknownKey { id: id.into() })))
    }

    fn active_id(&self) -> String {
        "remote".into()
    }

    fn ids(&self) -> Vec<String> {
        vec!["remote".into()]
    }
}

impl KeyEncryption for Forgetful {
    fn wrap<'a>(&'a self, _: &'a [u8], key: &'a [u8]) -> BoxFuture<'a, Result<WrappedDataKey, KekError>> {
        let bytes = key.iter().map(|byte| byte.wrapping_add(1)).collect();
        Box::pin(std::future::ready(Ok(WrappedDataKey { kek_id: self.active_id(), bytes })))
    }

    fn unwrap<'a>(
        &'a self,
        _: &'a str,
        _: &'a [u8],
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<Zeroizing<Vec<u8>>, KekError>> {
        Box::pin(std::future::ready(Ok(Zeroizing::new(wrapped.to_vec()))))
    }

    fn active_id(&self) -> String {
        "remote".into()
    }

    fn ids(&self) -> Vec<String> {
        vec!["remote".into()]
    }
}

fn assert_rejected<T: std::fmt::Debug>(result: jackfield_domain::Result<T>) {
    match result {
        Err(Error::DecryptFailed { resource: Resource::Tenant, .. }) => {}
        other => panic!("{other:?}"),
    }
}
