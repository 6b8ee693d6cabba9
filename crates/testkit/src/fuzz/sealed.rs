//! Sealed data: page tokens and values in the database.

use std::sync::LazyLock;

use futures::executor::block_on;
use jackfield_domain::{Resource, SecretAddress, TenantId};
use jackfield_vault::{DataKey, Keyring, Vault};
use uuid::Uuid;

use super::{Target, Way, way};

pub(super) const PAGE_TOKEN: Target = Target {
    name: "page_token",
    check: check_token,
    parse: |data| drop(std::str::from_utf8(data).map(|token| KEY.open_token(&CONTEXT, token))),
    // It is decoded once and copied once, and the context is copied as well.
    memory: |length| 4 * 1024 + 2 * length as u64,
    max_len: 1024,
    words: &["A", "Z", "_", "-", "=", "==", "+", "/", "AAAA", "\u{1}", "\u{2}", "\0", " ", "\n"],
};

pub(super) const ENVELOPE: Target = Target {
    name: "envelope",
    check: check_envelope,
    parse: |data| {
        drop((DataKey::id_of(data), KEY.open(&ADDRESS, data)));
    },
    memory: |length| 4 * 1024 + 2 * length as u64,
    max_len: 1024,
    words: &["\u{1}\u{1}", "\u{1}\u{2}", "\u{2}\u{1}", "\0", "\u{7f}", "0123456789abcdef"],
};

const TENANT: TenantId = TenantId(Uuid::from_bytes([0x11; 16]));
const ADDRESS: SecretAddress<'static> = SecretAddress {
    tenant: TENANT,
    owner: Resource::Credential,
    owner_id: Uuid::from_bytes([0x33; 16]),
    name: "material",
};
const CONTEXT: [&[u8]; 3] = [b"tenant", b"connectors", b"question"];
/// Version, suite, id of the data key, commitment, nonce and tag.
const OVERHEAD: usize = 2 + 16 + 32 + 12 + 16;

/// More changes do not make an input more interesting.
const MAX_EDITS: usize = 16;

static KEY: LazyLock<DataKey> = LazyLock::new(|| {
    let (keyring, _) = Keyring::generate().expect("a keyring");
    block_on(Vault::new(keyring).data_key_create(TENANT)).expect("a data key").0
});

/// Changes to bytes, read from the input: operation, place, byte.
struct Edits<'a>(&'a [u8]);

// === impl Edits ===

impl Edits<'_> {
    /// Applies the changes in order.
    fn apply(&self, bytes: &mut Vec<u8>) {
        for edit in self.0.chunks_exact(3).take(MAX_EDITS) {
            let [what, at, byte] = [edit[0], edit[1], edit[2]];
            let at = usize::from(at) % (bytes.len() + 1);
            match what % 6 {
                0 if at < bytes.len() => bytes[at] ^= byte,
                1 => bytes.insert(at, byte),
                2 if at < bytes.len() => drop(bytes.remove(at)),
                3 => bytes.truncate(at),
                4 => bytes.extend_from_within(at..bytes.len().min(at + 64)),
                5 => bytes.rotate_left(at),
                _ => {}
            }
        }
    }
}

/// Checks that an altered token, a token of another request and a token that was never issued are not accepted.
fn check_token(data: &[u8]) -> Way {
    let Some((mode, rest)) = data.split_first() else { return way(&["empty"]) };
    if mode % 2 == 0 {
        // The key was made for this process, so it cannot have sealed this text.
        let opened = std::str::from_utf8(rest).ok().and_then(|token| KEY.open_token(&CONTEXT, token));
        assert!(opened.is_none(), "a token that was never issued is accepted");
        return way(&["foreign", if rest.is_ascii() { "ascii" } else { "other" }, &"i".repeat(rest.len() / 16)]);
    }
    let (payload, edits) = rest.split_at(rest.len().min(usize::from(mode / 2) % 48));
    let made = KEY.seal_token(&CONTEXT, payload).expect("a token");
    assert_eq!(KEY.open_token(&CONTEXT, &made).expect("its own token opens").as_slice(), payload);
    for context in
        [&[][..], &CONTEXT[..2], &[CONTEXT[0], CONTEXT[2], CONTEXT[1]], &[b"tenantconnectors", b"", b"question"]]
    {
        assert!(KEY.open_token(context, &made).is_none(), "a token of another request is accepted: {context:?}");
    }
    let mut altered = made.clone().into_bytes();
    Edits(edits).apply(&mut altered);
    if altered == made.as_bytes() {
        return way(&["unchanged"]);
    }
    let opened = std::str::from_utf8(&altered).ok().and_then(|token| KEY.open_token(&CONTEXT, token));
    assert!(opened.is_none(), "{made} is accepted when altered to {}", String::from_utf8_lossy(&altered));
    way(&["altered", &kinds(edits)])
}

/// Checks that a value opens only unaltered and at its address, and that its header is read as the format specifies.
fn check_envelope(data: &[u8]) -> Way {
    let Some((mode, rest)) = data.split_first() else { return way(&["empty"]) };
    if mode % 2 == 0 {
        assert!(KEY.open(&ADDRESS, rest).is_err(), "a value that was never sealed opens");
        let id = DataKey::id_of(rest);
        assert_eq!(id, by_the_book(rest), "{rest:?}");
        return way(&["foreign", if id.is_some() { "known" } else { "unknown" }]);
    }
    let (plaintext, edits) = rest.split_at(rest.len().min(usize::from(mode / 2) % 48));
    let made = KEY.seal(&ADDRESS, plaintext).expect("a sealed value");
    assert_eq!(made.len(), plaintext.len() + OVERHEAD);
    assert_eq!(KEY.open(&ADDRESS, &made).expect("its own value opens").as_slice(), plaintext);
    for address in [
        SecretAddress { name: "materia", ..ADDRESS },
        SecretAddress { owner_id: Uuid::from_bytes([0x34; 16]), ..ADDRESS },
        SecretAddress { owner: Resource::Connection, ..ADDRESS },
        SecretAddress { tenant: TenantId(Uuid::from_bytes([0x12; 16])), ..ADDRESS },
    ] {
        assert!(KEY.open(&address, &made).is_err(), "a value opens at {address:?}");
    }
    let mut altered = made.clone();
    Edits(edits).apply(&mut altered);
    assert_eq!(DataKey::id_of(&altered), by_the_book(&altered), "{altered:?}");
    if altered == made {
        return way(&["unchanged"]);
    }
    assert!(KEY.open(&ADDRESS, &altered).is_err(), "{made:?} opens when altered to {altered:?}");
    way(&["altered", &kinds(edits), if by_the_book(&altered).is_some() { "known" } else { "unknown" }])
}

/// The id of the data key, parsed independently: version 1, suite 1, sixteen bytes, and enough bytes after them.
fn by_the_book(sealed: &[u8]) -> Option<Uuid> {
    let head = sealed.starts_with(&[1, 1]) && sealed.len() >= OVERHEAD;
    head.then(|| Uuid::from_slice(&sealed[2..18]).expect("sixteen bytes"))
}

fn kinds(edits: &[u8]) -> String {
    edits.chunks_exact(3).take(MAX_EDITS / 4).map(|edit| char::from(b'a' + edit[0] % 6)).collect()
}
