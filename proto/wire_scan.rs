//! Checks the JSON-like parts of a request (`google.protobuf.Struct`, `Value`, `ListValue`) on the wire, before anything is
//! built of them: a tree takes up to sixteen times the memory of its bytes. Only the texts of refusals are allocated. All
//! parts are read, so that a sender learns of all fields over a limit at once.
//!
//! Only messages that can hold such parts are read. In these a field that may occur once must occur once: decoders merge
//! repeats, and two halves within the limits can make a whole that is not. No encoder writes repeats.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet};

/// The package whose methods count.
const PACKAGE: &str = <crate::v1::Connector as prost::Name>::PACKAGE;
/// Levels of objects and lists, the outermost included.
const MAX_LEVELS: u32 = 16;
/// Values of one object, those of inner objects and lists included.
const MAX_VALUES: u32 = 2_000;
/// Members of one object.
const MAX_KEYS: u32 = 64;
/// Encoded size of one object, or of all entries of a map of them.
const MAX_BYTES: usize = 64 * 1024;
/// Entries of a map whose values hold such parts.
const MAX_ENTRIES: u32 = 256;
/// Fields of one message that lead to such parts; see [`Table::new`].
const MAX_FIELDS: usize = 8;
/// Nesting of messages around such parts; prost has the same limit.
const MAX_MESSAGES: usize = 100;

/// The reason why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not a protobuf message, or not of its type.
    Malformed,
    /// It is over limits. Each field is listed once, with the first limit that it is over.
    Limits(Vec<Limit>),
}

/// A field that is over a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Path of the field, such as `connector.data`.
    pub(crate) field: String,
    /// The fault, to be read after the path.
    pub(crate) description: String,
}

/// A message that some method takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// Index into [`Table::messages`]; `None` if it cannot hold parts to be checked.
    message: Option<usize>,
}

/// The facts of the contract that the scan needs.
struct Table {
    messages: Vec<Message>,
    requests: HashMap<String, Request>,
}

/// A message that can hold such parts, or is one.
struct Message {
    role: Role,
    /// The fields that lead to such parts, at most [`MAX_FIELDS`].
    fields: Vec<Field>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// An object or a list: a level.
    Level,
    /// A value in an object or a list.
    Value,
    /// Any other message.
    Plain,
}

struct Field {
    number: u32,
    name: String,
    /// Index into [`Table::messages`].
    child: usize,
    /// The most times that it may occur.
    most: u32,
    /// The most bytes that all its occurrences may have together.
    most_bytes: usize,
    /// True if the name is part of the path.
    named: bool,
}

/// The way from the request down to the present message.
struct Path<'a> {
    field: &'a Field,
    parent: Option<&'a Path<'a>>,
}

/// The position of the scan.
#[derive(Clone, Copy)]
struct Position<'a> {
    path: Option<&'a Path<'a>>,
    /// Messages around this one.
    messages: usize,
    /// Levels around this message.
    levels: u32,
    /// True if a level or a value is around this message.
    inside: bool,
}

/// Reads wire bytes (protobuf encoding). Groups are refused: proto3 has none.
struct Reader<'a>(&'a [u8]);

#[derive(Clone, Copy, PartialEq, Eq)]
enum WireType {
    Varint,
    Fixed64,
    Length,
    Fixed32,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    // The set is part of this binary; if it did not decode, a test would have failed.
    Table::new(&FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).unwrap_or_default())
});

/// Returns the message with this name, if it is a request of the contract.
pub(crate) fn request(package: &str, name: &str) -> Option<Request> {
    (package == PACKAGE).then(|| TABLE.requests.get(name).copied()).flatten()
}

// === impl Request ===

impl Request {
    /// Checks the wire bytes of this request.
    pub(crate) fn scan(self, wire: &[u8]) -> Result<(), Fault> {
        match self.message {
            Some(message) => TABLE.scan(message, wire, Position::START, &mut 0),
            None => Ok(()),
        }
    }
}

// === impl Table ===

impl Table {
    fn new(set: &FileDescriptorSet) -> Self {
        let mut all = Vec::new();
        for file in &set.file {
            collect(&format!(".{}", file.package()), &file.message_type, &mut all);
        }
        // The messages that lead to a JSON-like part: the parts themselves, and repeatedly those that have a field of such
        // a type.
        let mut leading: Vec<&str> =
            all.iter().filter(|(name, _)| role(name) != Role::Plain).map(|(name, _)| name.as_str()).collect();
        loop {
            let leads = |message: &DescriptorProto| message.field.iter().any(|it| leading.contains(&it.type_name()));
            let more: Vec<&str> = all
                .iter()
                .filter(|(name, message)| !leading.contains(&name.as_str()) && leads(message))
                .map(|(name, _)| name.as_str())
                .collect();
            if more.is_empty() {
                break;
            }
            leading.extend(more);
        }
        let index = |name: &str| leading.iter().position(|it| *it == name);
        let messages =
            leading.iter().filter_map(|name| all.iter().find(|(it, _)| it == name)).map(|(name, message)| {
                let field = |it: &prost_types::FieldDescriptorProto| {
                    Some(Field::new(name, message, it, index(it.type_name())?))
                };
                Message { role: role(name), fields: message.field.iter().filter_map(field).collect() }
            });
        let methods = set.file.iter().filter(|file| file.package() == PACKAGE).flat_map(|file| &file.service);
        let inputs = methods.flat_map(|service| &service.method).map(|method| method.input_type());
        let requests = inputs.filter_map(|name| {
            let short = name.strip_prefix('.')?.strip_prefix(PACKAGE)?.strip_prefix('.')?;
            Some((short.to_owned(), Request { message: index(name) }))
        });
        Table { messages: messages.collect(), requests: requests.collect() }
    }

    /// Checks one message and what is in it. `values` counts those of the JSON-like part around it. For such a part, the
    /// first limit is reported and the rest is not read; other parts are still read.
    fn scan(&self, message: usize, wire: &[u8], at: Position<'_>, values: &mut u32) -> Result<(), Fault> {
        let Message { role, fields } = &self.messages[message];
        let mut own_values = 0;
        let values = if at.inside { values } else { &mut own_values };
        let inside = at.inside || *role != Role::Plain;
        let levels = at.levels + u32::from(*role == Role::Level);
        if levels > MAX_LEVELS {
            return Err(at.limit(format!("nests deeper than {MAX_LEVELS} levels")));
        }
        if at.messages > MAX_MESSAGES {
            return Err(Fault::Malformed);
        }

        let mut limits = Vec::new();
        let mut refused = [false; MAX_FIELDS];
        let mut counts = [0_u32; MAX_FIELDS];
        let mut bytes = [0_usize; MAX_FIELDS];
        let mut reader = Reader(wire);
        while let Some((number, wire_type)) = reader.key()? {
            let Some(slot) = fields.iter().position(|field| field.number == number) else {
                reader.skip(wire_type)?;
                continue;
            };
            if wire_type != WireType::Length {
                return Err(Fault::Malformed);
            }
            let part = reader.length_delimited()?;
            let (field, Some(count), Some(bytes)) = (&fields[slot], counts.get_mut(slot), bytes.get_mut(slot)) else {
                return Err(Fault::Malformed);
            };
            if refused[slot] {
                continue; // once refused, it is not read again, however often it occurs
            }
            *count += 1;
            // Members are counted and not values: an encoder may leave out a value that is empty.
            *values += u32::from(*role == Role::Level);
            *bytes += part.len();
            let path = Path { field, parent: at.path };
            let below = Position { path: Some(&path), messages: at.messages + 1, levels, inside };
            let over = if *count > field.most {
                Some(field.too_many())
            } else if *bytes > field.most_bytes {
                Some(format!("is larger than {} KiB", field.most_bytes / 1024))
            } else if *values > MAX_VALUES {
                Some(format!("holds more than {MAX_VALUES} values"))
            } else {
                None
            };
            refused[slot] = over.is_some();
            let scanned = match over {
                Some(description) => Err(below.limit(description)),
                None => self.scan(field.child, part, below, values),
            };
            match scanned {
                Err(Fault::Limits(more)) if !inside => {
                    for limit in more {
                        if limits.iter().all(|known: &Limit| known.field != limit.field) {
                            limits.push(limit);
                        }
                    }
                }
                scanned => scanned?,
            }
        }
        if limits.is_empty() { Ok(()) } else { Err(Fault::Limits(limits)) }
    }
}

/// All messages of a scope by full name, those inside others included.
fn collect<'a>(scope: &str, messages: &'a [DescriptorProto], all: &mut Vec<(String, &'a DescriptorProto)>) {
    for message in messages {
        let name = format!("{scope}.{}", message.name());
        collect(&name, &message.nested_type, all);
        all.push((name, message));
    }
}

fn role(name: &str) -> Role {
    match name {
        ".google.protobuf.Struct" | ".google.protobuf.ListValue" => Role::Level,
        ".google.protobuf.Value" => Role::Value,
        _ => Role::Plain,
    }
}

// === impl Field ===

impl Field {
    fn new(parent: &str, message: &DescriptorProto, field: &prost_types::FieldDescriptorProto, child: usize) -> Self {
        let map_entry = message.options.as_ref().is_some_and(|options| options.map_entry());
        let repeated = field.label() == Label::Repeated;
        let starts = role(parent) == Role::Plain && role(field.type_name()) != Role::Plain;
        let json = parent.starts_with(".google.protobuf.");
        let (most, most_bytes) = match (parent, repeated) {
            (".google.protobuf.Struct", _) => (MAX_KEYS, usize::MAX),
            (".google.protobuf.ListValue", _) => (MAX_VALUES, usize::MAX),
            (_, true) => (MAX_ENTRIES, MAX_BYTES),
            (_, false) => (1, if starts && !json { MAX_BYTES } else { usize::MAX }),
        };
        debug_assert_eq!(field.r#type(), Type::Message, "only messages lead to other messages");
        let number = u32::try_from(field.number()).unwrap_or_default();
        Field { number, name: field.name().to_owned(), child, most, most_bytes, named: !map_entry && !json }
    }

    /// The description of a field that occurs more often than it may.
    fn too_many(&self) -> String {
        match self.most {
            1 => "is given more than once".to_owned(),
            MAX_KEYS => format!("has an object with more than {MAX_KEYS} keys"),
            MAX_VALUES => format!("holds more than {MAX_VALUES} values"),
            most => format!("has more than {most} entries"),
        }
    }
}

// === impl Position ===

impl Position<'_> {
    const START: Position<'static> = Position { path: None, messages: 0, levels: 0, inside: false };

    fn limit(self, description: String) -> Fault {
        let mut names = Vec::new();
        let mut path = self.path;
        while let Some(Path { field, parent }) = path {
            names.extend(field.named.then_some(field.name.as_str()));
            path = *parent;
        }
        names.reverse();
        Fault::Limits(vec![Limit { field: names.join("."), description }])
    }
}

// === impl Reader ===

impl<'a> Reader<'a> {
    /// Number and wire type of the next field; `None` at the end.
    fn key(&mut self) -> Result<Option<(u32, WireType)>, Fault> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = u32::try_from(self.varint()?).map_err(|_| Fault::Malformed)?;
        let wire_type = match key & 7 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Length,
            5 => WireType::Fixed32,
            _ => return Err(Fault::Malformed),
        };
        if key >> 3 == 0 { Err(Fault::Malformed) } else { Ok(Some((key >> 3, wire_type))) }
    }

    fn skip(&mut self, wire_type: WireType) -> Result<(), Fault> {
        match wire_type {
            WireType::Varint => self.varint().map(drop),
            WireType::Fixed64 => self.take(8).map(drop),
            WireType::Length => self.length_delimited().map(drop),
            WireType::Fixed32 => self.take(4).map(drop),
        }
    }

    fn length_delimited(&mut self) -> Result<&'a [u8], Fault> {
        let length = usize::try_from(self.varint()?).map_err(|_| Fault::Malformed)?;
        self.take(length)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Fault::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    /// A base-128 number of at most 64 bits.
    fn varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0_u64;
        for (index, byte) in self.0.iter().enumerate().take(10) {
            if index == 9 && *byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.0 = &self.0[index + 1..];
                return Ok(value);
            }
        }
        Err(Fault::Malformed)
    }
}

#[cfg(test)]
#[path = "wire_scan_tests.rs"]
mod tests;
