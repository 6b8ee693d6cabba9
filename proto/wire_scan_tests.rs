use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Name as _;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

use super::*;
use crate::v1::{
    Configuration, Connector, CreateConfigurationRequest, CreateConnectorRequest, GetConnectorRequest, WorkflowSettings,
};

fn scan(wire: &[u8]) -> Result<(), Fault> {
    request(PACKAGE, CreateConnectorRequest::NAME).unwrap().scan(wire)
}

fn scan_configuration(configuration: Configuration) -> Result<(), Fault> {
    let message = CreateConfigurationRequest { configuration: Some(configuration), ..Default::default() };
    request(PACKAGE, CreateConfigurationRequest::NAME).unwrap().scan(&message.encode_to_vec())
}

fn connector(data: Struct) -> Vec<u8> {
    let connector = Connector { name: "Gmail".into(), data: Some(data), ..Default::default() };
    CreateConnectorRequest { connector: Some(connector), ..Default::default() }.encode_to_vec()
}

fn object(members: impl IntoIterator<Item = (String, Value)>) -> Struct {
    Struct { fields: members.into_iter().collect() }
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn list(values: Vec<Value>) -> Value {
    value(Kind::ListValue(ListValue { values }))
}

fn text(length: usize) -> Value {
    value(Kind::StringValue("x".repeat(length)))
}

/// An object of so many levels, of objects or of lists.
fn nested(levels: usize, lists: bool) -> Struct {
    let leaf = value(Kind::BoolValue(true));
    let inner = (1..levels).fold(leaf, |inner, _| match lists {
        true => list(vec![inner]),
        false => value(Kind::StructValue(object([("a".to_owned(), inner)]))),
    });
    object([("a".to_owned(), inner)])
}

/// A field of the wire type "length-delimited".
fn field(number: u64, part: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    prost::encoding::encode_varint(number << 3 | 2, &mut wire);
    prost::encoding::encode_varint(part.len() as u64, &mut wire);
    wire.extend_from_slice(part);
    wire
}

fn limit(field: &str, description: &str) -> Result<(), Fault> {
    Err(Fault::Limits(vec![over(field, description)]))
}

fn over(field: &str, description: &str) -> Limit {
    Limit { field: field.into(), description: description.into() }
}

#[test]
fn the_contract_is_known() {
    assert!(TABLE.messages.iter().all(|message| message.fields.len() <= MAX_FIELDS));
    let mut scanned: Vec<_> =
        TABLE.requests.iter().filter(|(_, request)| request.message.is_some()).map(|(name, _)| name.as_str()).collect();
    scanned.sort_unstable();
    assert_eq!(
        scanned,
        [
            "CreateConfigurationRequest",
            "CreateConnectorRequest",
            "CreateCredentialRequest",
            "CreateUserRequest",
            "TestConnectorRequest",
            "UpdateConfigurationRequest",
            "UpdateConnectorRequest",
            "UpdateCredentialRequest",
            "UpdateUserRequest",
        ]
    );
    assert!(request(PACKAGE, GetConnectorRequest::NAME).is_some_and(|request| request.message.is_none()));
    assert!(request(PACKAGE, Connector::NAME).is_none() && request("other.v1", GetConnectorRequest::NAME).is_none());
}

#[test]
fn levels() {
    for lists in [false, true] {
        let wire = connector(nested(16, lists));
        assert_eq!(scan(&wire), Ok(()));
        CreateConnectorRequest::decode(&*wire).expect("what is accepted can be decoded");
        assert_eq!(scan(&connector(nested(17, lists))), limit("connector.data", "nests deeper than 16 levels"));
        assert_eq!(scan(&connector(nested(30, lists))), limit("connector.data", "nests deeper than 16 levels"));
    }
}

#[test]
fn values() {
    let flat = |count: usize| connector(object([("a".to_owned(), list(vec![value(Kind::NullValue(0)); count - 1]))]));
    assert_eq!(scan(&flat(2_000)), Ok(()));
    assert_eq!(scan(&flat(2_001)), limit("connector.data", "holds more than 2000 values"));
    let lists = |count: usize| list(vec![Value { kind: None }; count]);
    let spread = |count: usize| connector(object((0..4).map(|key| (key.to_string(), lists(count)))));
    assert_eq!(scan(&spread(499)), Ok(()), "2,000 values in all: empty ones, and the lists themselves, count");
    assert_eq!(scan(&spread(500)), limit("connector.data", "holds more than 2000 values"));
}

#[test]
fn keys() {
    let keys = |count: usize| object((0..count).map(|key| (key.to_string(), text(1))));
    let inner = |count: usize| object([("inner".to_owned(), value(Kind::StructValue(keys(count))))]);
    let too_many = limit("connector.data", "has an object with more than 64 keys");
    assert_eq!((scan(&connector(keys(64))), scan(&connector(inner(64)))), (Ok(()), Ok(())));
    assert_eq!((scan(&connector(keys(65))), scan(&connector(inner(65)))), (too_many.clone(), too_many));
}

#[test]
fn bytes() {
    let sized = |size: usize| {
        let overhead = object([("a".to_owned(), text(MAX_BYTES - 100))]).encoded_len() - (MAX_BYTES - 100);
        let data = object([("a".to_owned(), text(size - overhead))]);
        assert_eq!(data.encoded_len(), size);
        connector(data)
    };
    assert_eq!(scan(&sized(MAX_BYTES)), Ok(()));
    assert_eq!(scan(&sized(MAX_BYTES + 1)), limit("connector.data", "is larger than 64 KiB"));
}

#[test]
fn maps_of_objects() {
    let workflows = |count: usize, settings: &Struct| Configuration {
        workflow_settings: (0..count)
            .map(|key| (key.to_string(), WorkflowSettings { enabled: true, settings: Some(settings.clone()) }))
            .collect::<BTreeMap<_, _>>(),
        ..Default::default()
    };
    assert_eq!(scan_configuration(workflows(256, &Struct::default())), Ok(()));
    let path = "configuration.workflow_settings";
    assert_eq!(scan_configuration(workflows(257, &Struct::default())), limit(path, "has more than 256 entries"));
    let large = object([("a".to_owned(), text(1_000))]);
    assert_eq!(scan_configuration(workflows(60, &large)), Ok(()));
    assert_eq!(scan_configuration(workflows(66, &large)), limit(path, "is larger than 64 KiB"));
    let deep = limit("configuration.workflow_settings.settings", "nests deeper than 16 levels");
    assert_eq!(scan_configuration(workflows(1, &nested(17, false))), deep);
    let many = object([("a".to_owned(), list(vec![text(1); 1_500]))]);
    let both = Configuration { shared_settings: Some(many.clone()), meta: Some(many), ..Default::default() };
    assert_eq!(scan_configuration(both), Ok(()), "each object has limits of its own");
}

#[test]
fn every_field_over_a_limit_is_named_once() {
    let deep = nested(17, false);
    let large = object([("a".to_owned(), text(MAX_BYTES))]);
    let settings = WorkflowSettings { enabled: true, settings: Some(deep.clone()) };
    let configuration = Configuration {
        shared_settings: Some(deep),
        meta: Some(large),
        workflow_settings: (0..300).map(|key| (key.to_string(), settings.clone())).collect(),
        ..Default::default()
    };
    let Err(Fault::Limits(mut limits)) = scan_configuration(configuration.clone()) else { panic!("it is accepted") };
    limits.sort_by(|a, b| a.field.cmp(&b.field));
    assert_eq!(
        limits,
        [
            over("configuration.meta", "is larger than 64 KiB"),
            over("configuration.shared_settings", "nests deeper than 16 levels"),
            over("configuration.workflow_settings", "has more than 256 entries"),
            over("configuration.workflow_settings.settings", "nests deeper than 16 levels"),
        ]
    );
    // What is no message at all is not taken apart.
    let message = CreateConfigurationRequest { configuration: Some(configuration), ..Default::default() };
    let cut = [message.encode_to_vec(), vec![0x08]].concat();
    assert_eq!(request(PACKAGE, CreateConfigurationRequest::NAME).unwrap().scan(&cut), Err(Fault::Malformed));
}

#[test]
fn repeats_are_refused() {
    let data = field(28, &object([("a".to_owned(), text(1))]).encode_to_vec());
    let once = field(1, &data);
    assert_eq!(scan(&once), Ok(()));
    assert_eq!(scan(&[&*once, &*once].concat()), limit("connector", "is given more than once"));
    assert_eq!(scan(&field(1, &data.repeat(2))), limit("connector.data", "is given more than once"));
    // A value of two objects, which decoders would merge.
    let half = field(5, &nested(2, false).encode_to_vec());
    let entry = [field(1, b"a"), field(2, &half.repeat(2))].concat();
    let wire = field(1, &field(28, &field(1, &entry)));
    assert!(CreateConnectorRequest::decode(&*wire).is_ok());
    assert_eq!(scan(&wire), limit("connector.data", "is given more than once"));
}

#[test]
fn every_cut_is_seen() {
    let wire = connector(object([("a".to_owned(), list(vec![text(3), value(Kind::NumberValue(0.5))]))]));
    assert_eq!(scan(&wire), Ok(()));
    for end in 0..wire.len() {
        let cut = &wire[..end];
        assert_eq!(scan(cut).is_ok(), CreateConnectorRequest::decode(cut).is_ok(), "cut at {end}");
    }
}

#[test]
fn malformed_wire() {
    let huge = [&[0x0a][..], &[0xff; 9], &[0x01]].concat();
    let long_varint = [&[0xf8, 0x07][..], &[0xff; 10], &[0x01]].concat();
    let overflowing_varint = [&[0xf8, 0x07][..], &[0xff; 9], &[0x02]].concat();
    for (what, wire) in [
        ("field number 0", vec![0x02, 0x00]),
        ("unknown wire type 6", vec![0x0e]),
        ("unknown wire type 7", vec![0x0f]),
        ("start of a group", vec![0x0b, 0x0c]),
        ("end of a group", vec![0x0c]),
        ("connector as a number", vec![0x08, 0x01]),
        ("connector as fixed 32", vec![0x0d, 0, 0, 0, 0]),
        ("data as a number", field(1, &[0xe0, 0x01, 0x01])),
        ("a length beyond the end", vec![0x0a, 0x05, 0x00]),
        ("a length of 64 bits", huge),
        ("a key that does not end", vec![0x80]),
        ("a key over 32 bits", vec![0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0x00]),
        ("a number of 11 bytes in an unknown field", long_varint),
        ("a number over 64 bits in an unknown field", overflowing_varint),
        ("a cut fixed 64", vec![0x79, 0, 0, 0]),
    ] {
        assert_eq!(scan(&wire), Err(Fault::Malformed), "{what}");
    }
    for (what, wire) in [
        ("nothing", vec![]),
        ("an unknown number", vec![0xf8, 0x07, 0x01]),
        ("an unknown fixed 64", vec![0xf9, 0x07, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("an unknown fixed 32", vec![0xfd, 0x07, 0, 0, 0, 0]),
        ("unknown bytes that are no message", field(127, &[0xff; 5])),
    ] {
        assert_eq!(scan(&wire), Ok(()), "{what}");
    }
}

#[test]
fn a_bomb_does_not_exhaust_the_stack() {
    let mut wire = vec![];
    for _ in 0..20_000 {
        // value.struct_value.fields["a"], built from the inside out.
        wire = field(1, &[field(1, b""), field(2, &field(5, &wire))].concat());
        if wire.len() > 60_000 {
            break;
        }
    }
    assert_eq!(scan(&field(1, &field(28, &wire))), limit("connector.data", "nests deeper than 16 levels"));
}

/// Levels, values and most keys of what was decoded, counted independently of the scan.
fn measure(object: &Struct) -> (u32, u32, u32) {
    let mut all = (1, object.fields.len() as u32, object.fields.len() as u32);
    for value in object.fields.values() {
        let (levels, values, keys) = measure_value(value);
        all = (all.0.max(1 + levels), all.1 + values, all.2.max(keys));
    }
    all
}

fn measure_value(value: &Value) -> (u32, u32, u32) {
    match &value.kind {
        Some(Kind::StructValue(object)) => measure(object),
        Some(Kind::ListValue(list)) => {
            let mut all = (1, list.values.len() as u32, 0);
            for value in &list.values {
                let (levels, values, keys) = measure_value(value);
                all = (all.0.max(1 + levels), all.1 + values, all.2.max(keys));
            }
            all
        }
        _ => (0, 0, 0),
    }
}

/// What the scan accepts keeps the limits when it is decoded.
fn accepted_is_bounded(wire: &[u8]) -> Result<(), TestCaseError> {
    let accepted = scan(wire);
    if let (Ok(()), Ok(message)) = (accepted, CreateConnectorRequest::decode(wire))
        && let Some(data) = message.connector.and_then(|connector| connector.data)
    {
        let (levels, values, keys) = measure(&data);
        prop_assert!(levels <= MAX_LEVELS && values <= MAX_VALUES && keys <= MAX_KEYS, "{levels} {values} {keys}");
        prop_assert!(data.encoded_len() <= MAX_BYTES);
    }
    Ok(())
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value { kind: None }),
        Just(value(Kind::NullValue(0))),
        any::<f64>().prop_map(|number| value(Kind::NumberValue(number))),
        "\\PC{0,8}".prop_map(|text| value(Kind::StringValue(text))),
    ];
    // Deep and narrow, wide and shallow: with the right share of each, both sides of every limit come up.
    let chain = (leaf.clone(), 10..20_usize, any::<bool>()).prop_map(|(leaf, levels, lists)| {
        (0..levels).fold(leaf, |inner, level| match lists ^ (level % 3 == 0) {
            true => list(vec![inner]),
            false => value(Kind::StructValue(object([("k".to_owned(), inner)]))),
        })
    });
    let wide = (leaf.clone(), 0..2_100_usize).prop_map(|(leaf, count)| list(vec![leaf; count]));
    let keys = (leaf.clone(), 50..75_usize).prop_map(|(leaf, count)| {
        value(Kind::StructValue(object((0..count).map(|key| (key.to_string(), leaf.clone())))))
    });
    let branch = prop_oneof![8 => leaf, 1 => chain, 1 => wide, 1 => keys];
    branch.prop_recursive(6, 24, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(list),
            proptest::collection::btree_map("[a-z]{0,3}", inner, 0..5)
                .prop_map(|members| value(Kind::StructValue(object(members)))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_bytes(wire in proptest::collection::vec(any::<u8>(), 0..200)) {
        accepted_is_bounded(&wire)?;
        accepted_is_bounded(&field(1, &wire))?;
        accepted_is_bounded(&field(1, &field(28, &wire)))?;
    }

    #[test]
    fn trees_are_judged_by_the_limits(tree in tree()) {
        let data = object([("a".to_owned(), tree)]);
        let (levels, values, keys) = measure(&data);
        let within = levels <= MAX_LEVELS && values <= MAX_VALUES && keys <= MAX_KEYS && data.encoded_len() <= MAX_BYTES;
        prop_assert_eq!(scan(&connector(data)).is_ok(), within, "{} {} {}", levels, values, keys);
    }

    /// Trees with bytes altered, pieces repeated and pieces cut out.
    #[test]
    fn altered_trees(
        tree in tree(),
        alterations in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8, 0..40_usize), 1..4),
    ) {
        let mut data = object([("a".to_owned(), tree)]).encode_to_vec();
        for (place, byte, kind, length) in alterations {
            if data.is_empty() {
                break;
            }
            let at = place.index(data.len());
            let end = (at + length).min(data.len());
            match kind {
                0 => data[at] = byte,
                1 => data = [&data[..end], &data[at..]].concat(),
                _ => drop(data.drain(at..end)),
            }
        }
        accepted_is_bounded(&field(1, &field(28, &data)))?;
    }
}
