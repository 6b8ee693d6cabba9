//! The stored formats, pinned. An implementation in another language made these values from the description alone. If a
//! test fails here, databases of earlier versions can no longer be read.

use futures::executor::block_on;
use jackfield_vault::{DataKey, Vault, WrappedDataKey};
use uuid::Uuid;

use crate::support::{TENANT, address, keyring};

/// The data key with the bytes 100 to 131, wrapped with the key kek-1 and the nonce 0 to 11.
const WRAPPED: &str = "01010f725f2f6427ec75f5423a52ce1c73f6df723eb48c36f960c897894a9d5cb23c000102030405060708090a0b3f990f\
                       dd4dfb6aa22021f9b615c1f7b641b5f1e0902c0bb837d0e23bed3238115e540817b3f012cd2021b21aa0e54502";
const DATA_KEY_ID: Uuid = Uuid::from_bytes([0x22; 16]);
const SEALED: &str = "01012222222222222222222222222222222252411966b4be0e9a133bdbc856cf659c92a0bfe08a831a1b8b8715af0a6e914\
                      2000102030405060708090a0bdd18cb4fca4a79c0eddbbc14209b784d7cc7f9fed518522b33466ed27b";
const TOKEN: &str = "AQGaDRk4BIzEoRo9wEXlHlYk8E4CLWHW3hBIFSy692j2KgABAgMEBQYHCAkKC67DbZOOKMqDvv0DeX-8Zl8QTJBkC19gIg";
const FINGERPRINT: &str = "cf5792cdad19a867add57290a507fa6f22dc3afe60081281ce8ddc13cac9d529";

#[test]
fn stored_data_key_opens() {
    assert_eq!(data_key().id(), DATA_KEY_ID);
}

#[test]
fn stored_value_opens() {
    let sealed = unhex(SEALED);
    assert_eq!(data_key().open(&address(TENANT), &sealed).unwrap().as_slice(), b"basicPassword");
    assert_eq!(DataKey::id_of(&sealed), Some(DATA_KEY_ID));
}

/// Pins sealing, together with the test above: everything but nonce, ciphertext and tag is the same for every value.
#[test]
fn fresh_value_has_the_form_of_a_stored_one() {
    let stored = unhex(SEALED);
    let fresh = data_key().seal(&address(TENANT), b"basicPassword").unwrap();
    assert_eq!(fresh.len(), stored.len());
    assert_eq!(fresh[..50], stored[..50]);
    assert_ne!(fresh[50..62], stored[50..62]);
    assert_eq!(fresh.len() - b"basicPassword".len(), 78);
}

#[test]
fn issued_token_opens() {
    let context: [&[u8]; 2] = [b"connector", b""];
    assert_eq!(data_key().open_token(&context, TOKEN).unwrap().as_slice(), b"after 42");
}

#[test]
fn stored_fingerprint_is_recognised() {
    assert_eq!(data_key().fingerprint("request_id", &[b"a", b"bc"]).as_slice(), unhex(FINGERPRINT));
}

fn data_key() -> DataKey {
    let wrapped = WrappedDataKey { kek_id: "kek-1".into(), bytes: unhex(WRAPPED) };
    block_on(Vault::new(keyring()).data_key_open(TENANT, DATA_KEY_ID, &wrapped)).expect("the stored data key opens")
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16).expect("a hexadecimal digit");
    text.as_bytes().chunks(2).map(|pair| (digit(pair[0]) * 16 + digit(pair[1])) as u8).collect()
}
