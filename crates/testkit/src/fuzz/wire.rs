//! Requests with JSON-like parts: compares the scan of the wire with the decoder, which has no limits.

use jackfield_api::codec::decode_message;
use jackfield_api::v1;
use prost::{Message, Name};
use prost_types::value::Kind;
use prost_types::{Struct, Value};

use super::{Target, Way, way};

pub(super) const SCAN: Target = Target {
    name: "struct_scan",
    check: check_scan,
    parse: |data| {
        let Some((kind, wire)) = data.split_first() else { return };
        match kind % 3 {
            0 => drop(decode_message::<v1::CreateConnectorRequest>(wire)),
            1 => drop(decode_message::<v1::CreateConfigurationRequest>(wire)),
            _ => drop(decode_message::<v1::UpdateCredentialRequest>(wire)),
        }
    },
    // A tree has at most 2,000 values and names; the rest of a request is strings and lists of strings.
    memory: |length| 1024 * 1024 + 16 * length as u64,
    max_len: 80 * 1024,
    words: &[
        "\u{a}",
        "\u{12}",
        "\u{1a}",
        "\"",
        "*",
        "2",
        "\u{2a}\u{0}",
        "\u{8}\u{0}",
        "\u{a}\u{0}",
        "\u{12}\u{0}",
        "\u{1}a\u{12}",
        "\u{a}\u{1}a",
        "\u{a}\u{7f}",
        "\u{0}",
        "\u{b}\u{c}",
        "\u{9}12345678",
        "\u{d}1234",
        "true",
    ],
};

/// The limits, as the contract states them.
const MAX_LEVELS: usize = 16;
const MAX_VALUES: usize = 2_000;
const MAX_KEYS: usize = 64;
const MAX_BYTES: usize = 64 * 1024;
const MAX_ENTRIES: usize = 256;

/// The JSON-like parts of a message.
#[derive(Default)]
struct Parts<'a> {
    objects: Vec<&'a Struct>,
    /// Maps with objects as values: the entries, and their least and greatest possible encoded sizes.
    maps: Vec<(usize, usize, usize)>,
}

/// The content of one object.
#[derive(Default)]
struct Tree {
    levels: usize,
    values: usize,
    keys: usize,
}

fn check_scan(data: &[u8]) -> Way {
    let Some((kind, wire)) = data.split_first() else { return way(&["empty"]) };
    match kind % 3 {
        0 => compare(wire, |request: &v1::CreateConnectorRequest| {
            let objects = request.connector.as_ref().and_then(|connector| connector.data.as_ref());
            Parts { objects: objects.into_iter().collect(), maps: Vec::new() }
        }),
        1 => compare(wire, |request: &v1::CreateConfigurationRequest| {
            let Some(configuration) = &request.configuration else { return Parts::default() };
            let settings = &configuration.workflow_settings;
            let objects = [&configuration.shared_settings, &configuration.meta].into_iter().flatten();
            let bytes: usize = settings.iter().map(|(key, value)| key.len() + value.encoded_len()).sum();
            Parts {
                objects: objects.chain(settings.values().filter_map(|it| it.settings.as_ref())).collect(),
                maps: vec![(settings.len(), bytes, bytes + 8 * settings.len())],
            }
        }),
        _ => compare(wire, |request: &v1::UpdateCredentialRequest| {
            let objects = request.credential.as_ref().and_then(|credential| credential.provider_data.as_ref());
            Parts { objects: objects.into_iter().collect(), maps: Vec::new() }
        }),
    }
}

/// Checks that everything the scan accepts is within the limits after decoding, and that everything it refuses is over
/// a limit or not canonically encoded: in that case the same message passes when it is encoded again.
fn compare<M: Message + Name + Default>(wire: &[u8], parts: fn(&M) -> Parts<'_>) -> Way {
    let plain = M::decode(wire);
    match decode_message::<M>(wire) {
        Ok(message) => {
            let plain = plain.expect("what the codec accepts decodes").encode_to_vec();
            let canonical = message.encode_to_vec();
            assert_eq!(plain, canonical, "the codec and the decoder read different messages");
            let parts = parts(&message);
            assert!(!parts.surely_over(), "the scan accepts what is over a limit");
            let again = decode_message::<M>(&canonical).expect("what was accepted is accepted again").encode_to_vec();
            assert_eq!(again, canonical);
            let same = if canonical == wire { "as encoded" } else { "otherwise" };
            way(&["taken", same, &parts.size()])
        }
        Err(status) => {
            assert!(status.message().len() < 512, "{status:?}");
            let Ok(message) = plain else { return way(&["neither", status.message()]) };
            if parts(&message).perhaps_over() {
                return way(&["over", status.message()]);
            }
            let canonical = message.encode_to_vec();
            assert_ne!(canonical, wire, "the scan refuses what is within all limits: {status:?}");
            let again = decode_message::<M>(&canonical).map(|message| message.encode_to_vec());
            assert_eq!(again.ok(), Some(canonical), "the scan refuses what is within all limits after re-encoding");
            way(&["not as encoded", status.message()])
        }
    }
}

// === impl Parts ===

impl Parts<'_> {
    /// Returns whether a limit is exceeded in any encoding.
    fn surely_over(&self) -> bool {
        self.over(|(_, least, _)| *least)
    }

    /// Returns whether a limit is exceeded in the longest encoding.
    fn perhaps_over(&self) -> bool {
        self.over(|(_, _, most)| *most)
    }

    fn over(&self, bytes: fn(&(usize, usize, usize)) -> usize) -> bool {
        let trees = self.objects.iter().any(|object| {
            let tree = Tree::of(object);
            tree.levels > MAX_LEVELS
                || tree.values > MAX_VALUES
                || tree.keys > MAX_KEYS
                || object.encoded_len() > MAX_BYTES
        });
        trees || self.maps.iter().any(|map| map.0 > MAX_ENTRIES || bytes(map) > MAX_BYTES)
    }

    fn size(&self) -> String {
        let sizes = self.objects.iter().map(|object| {
            let Tree { levels, values, keys } = Tree::of(object);
            format!("{} {} {}", "l".repeat(levels), "v".repeat(bits(values)), "k".repeat(bits(keys)))
        });
        sizes.take(3).collect()
    }
}

fn bits(number: usize) -> usize {
    (usize::BITS - number.leading_zeros()) as usize
}

// === impl Tree ===

impl Tree {
    fn of(object: &Struct) -> Self {
        let mut tree = Tree::default();
        tree.object(object, 1);
        tree
    }

    fn object(&mut self, object: &Struct, level: usize) {
        self.levels = self.levels.max(level);
        self.keys = self.keys.max(object.fields.len());
        self.values += object.fields.len();
        object.fields.values().for_each(|value| self.value(value, level));
    }

    fn value(&mut self, value: &Value, level: usize) {
        match &value.kind {
            Some(Kind::StructValue(object)) => self.object(object, level + 1),
            Some(Kind::ListValue(list)) => {
                self.levels = self.levels.max(level + 1);
                self.values += list.values.len();
                list.values.iter().for_each(|value| self.value(value, level + 1));
            }
            _ => {}
        }
    }
}
