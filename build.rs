//! Compiles the contract: the `.proto` files to a descriptor set, and the descriptor set to Rust. Needs no protoc.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use protox::prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, Value};
use tonic_prost_build::Builder;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const PACKAGE: &str = "jackfield.v1";
/// The contract that credential sources serve.
const SOURCE_PACKAGE: &str = "jackfield.source.v1";

fn main() -> Result {
    println!("cargo:rerun-if-changed=proto/google");
    println!("cargo:rerun-if-changed=proto/jackfield");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let mut files: Vec<PathBuf> =
        fs::read_dir("proto/jackfield/v1")?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "proto"));
    files.sort();

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(&files)?;
    // Encoded by the compiler itself: prost-types does not know the option debug_redact and would drop it.
    fs::write(out.join("descriptor_set.bin"), compiler.encode_file_descriptor_set())?;
    // This server does not serve it, so it is not among the files above.
    compiler.open_file("proto/jackfield/source/v1/source.proto")?;
    fs::write(out.join("source_descriptor_set.bin"), compiler.encode_file_descriptor_set())?;

    let pool = compiler.descriptor_pool();
    let builder =
        tonic_prost_build::configure().build_transport(false).codec_path("crate::codec::Codec").btree_map(".");
    let (builder, debug) = redact(builder, &pool, PACKAGE)?;
    fs::write(out.join("debug.rs"), debug)?;
    let (builder, debug) = redact(builder, &pool, SOURCE_PACKAGE)?;
    fs::write(out.join("source_debug.rs"), debug)?;
    fs::write(out.join("message.rs"), message_traits(&pool)?)?;
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    Ok(builder.compile_fds_with_config(compiler.file_descriptor_set(), config)?)
}

/// Writes `Debug` for messages with secrets, and keeps the code generator from doing so.
fn redact(mut builder: Builder, pool: &DescriptorPool, package: &str) -> Result<(Builder, String)> {
    let mut debug = String::new();
    let mut skip_debug = Vec::new();
    let of_package = pool.all_messages().filter(|message| message.package_name() == package);
    for message in of_package.filter(|message| message.fields().any(|field| redacted(&field))) {
        skip_debug.push(format!(".{}", message.full_name()));
        let mut shown = String::new();
        for field in message.fields().filter(|field| field.containing_oneof().is_none_or(|it| it.is_synthetic())) {
            let name = field.name();
            let value = if redacted(&field) { "&crate::Redacted".to_owned() } else { format!("&self.r#{name}") };
            write!(shown, ".field({name:?}, {value})")?;
        }
        for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
            if oneof.fields().any(|field| redacted(&field)) {
                return Err(format!("{}: debug_redact cannot be on a oneof itself", oneof.full_name()).into());
            }
            // The message derives no Debug, so its oneofs need their own. A oneof shows only what its members show.
            builder = builder.enum_attribute(format!(".{}", oneof.full_name()), "#[derive(Debug)]");
            let name = oneof.name();
            write!(shown, ".field({name:?}, &self.r#{name})")?;
        }
        let name = message.name();
        writeln!(debug, "impl ::core::fmt::Debug for {name} {{ fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>)")?;
        writeln!(debug, "-> ::core::fmt::Result {{ f.debug_struct({name:?}){shown}.finish() }} }}")?;
    }
    Ok((builder.skip_debug(skip_debug), debug))
}

/// Implements the traits of `proto/message.rs` for the messages that have their fields.
fn message_traits(pool: &DescriptorPool) -> Result<String> {
    let mut out = String::new();
    for method in
        pool.services().filter(|it| it.package_name() == PACKAGE).flat_map(|it| it.methods().collect::<Vec<_>>())
    {
        let request = method.input();
        let name = request.name();
        let has = |fields: &[&str]| fields.iter().all(|field| request.get_field_by_name(field).is_some());
        if has(&["request_id", "validate_only"]) {
            writeln!(out, "impl crate::message::ChangeMessage for {name} {{")?;
            writeln!(out, "const METHOD: &'static str = {:?};", method.name())?;
            writeln!(out, "fn request_id(&mut self) -> &mut String {{ &mut self.request_id }}")?;
            writeln!(out, "fn validate_only(&self) -> bool {{ self.validate_only }} }}")?;
        }
        if has(&["page_size", "page_token", "limit", "filter", "order_by"]) {
            writeln!(out, "impl crate::message::ListMessage for {name} {{")?;
            for number in ["page_size", "limit"] {
                writeln!(out, "fn {number}(&self) -> i32 {{ self.{number} }}")?;
            }
            for text in ["page_token", "filter", "order_by"] {
                writeln!(out, "fn {text}(&self) -> &str {{ &self.{text} }}")?;
            }
            writeln!(out, "}}")?;
        }
        if has(&["update_mask"]) {
            let resource =
                request.fields().find(|field| field.kind().as_message().is_some_and(|it| is_resource(pool, it)));
            let resource = resource.ok_or_else(|| format!("{name} has no resource to update"))?;
            writeln!(out, "impl crate::message::UpdateMessage for {name} {{")?;
            writeln!(out, "type Resource = {};", resource.kind().as_message().map_or("", |it| it.name()))?;
            writeln!(
                out,
                "fn update_mask(&self) -> Option<&::prost_types::FieldMask> {{ self.update_mask.as_ref() }}"
            )?;
            writeln!(out, "fn etag(&self) -> &str {{ &self.etag }}")?;
            writeln!(
                out,
                "fn take_resource(&mut self) -> Option<Self::Resource> {{ self.{}.take() }} }}",
                resource.name()
            )?;
        }
    }
    for message in messages(pool).filter(|message| is_resource(pool, message)) {
        let (mut paths, mut output_only) = (Vec::new(), Vec::new());
        mask_paths(pool, &message, "", &mut paths, &mut output_only);
        let secrets: Vec<_> = paths.iter().filter(|path| is_secret(&message, path)).collect();
        writeln!(out, "impl crate::message::ResourceMessage for {} {{", message.name())?;
        writeln!(out, "const NAME: &'static str = {:?};", snake_case(message.name()))?;
        writeln!(out, "const PATHS: &'static [&'static str] = &{paths:?};")?;
        writeln!(out, "const OUTPUT_ONLY: &'static [&'static str] = &{output_only:?};")?;
        writeln!(out, "const SECRETS: &'static [&'static str] = &{secrets:?};")?;
        writeln!(out, "fn id(&self) -> &str {{ &self.id }}")?;
        writeln!(out, "fn etag(&self) -> &str {{ &self.etag }} }}")?;
    }
    Ok(out)
}

/// Collects the paths that an update mask may name: below singular messages of the contract, and any key of a map.
fn mask_paths(
    pool: &DescriptorPool,
    message: &MessageDescriptor,
    prefix: &str,
    paths: &mut Vec<String>,
    output_only: &mut Vec<String>,
) {
    for field in message.fields() {
        let path = format!("{prefix}{}", field.name());
        match field.kind() {
            _ if field.name() == "etag"
                || behaves(pool, &field, "OUTPUT_ONLY")
                || behaves(pool, &field, "IDENTIFIER") =>
            {
                output_only.push(path);
            }
            Kind::Message(inner) if !field.is_list() && inner.package_name() == PACKAGE && !field.is_map() => {
                mask_paths(pool, &inner, &format!("{path}."), paths, output_only);
            }
            _ => {
                let keys = field.is_map().then(|| format!("{path}.*"));
                paths.push(path);
                paths.extend(keys);
            }
        }
    }
}

fn redacted(field: &FieldDescriptor) -> bool {
    field.options().get_field_by_name("debug_redact").and_then(|value| value.as_bool()) == Some(true)
}

/// Returns whether the field at a path of a message is a secret.
fn is_secret(message: &MessageDescriptor, path: &str) -> bool {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    message.get_field_by_name(name).is_some_and(|field| match (field.kind(), rest) {
        (_, None) => redacted(&field),
        (Kind::Message(inner), Some(rest)) => !field.is_map() && is_secret(&inner, rest),
        _ => false,
    })
}

fn messages(pool: &DescriptorPool) -> impl Iterator<Item = MessageDescriptor> {
    pool.all_messages().filter(|message| message.package_name() == PACKAGE)
}

fn is_resource(pool: &DescriptorPool, message: &MessageDescriptor) -> bool {
    message.fields().any(|field| behaves(pool, &field, "IDENTIFIER"))
}

/// Returns whether a field has a behaviour (AIP-203).
fn behaves(pool: &DescriptorPool, field: &FieldDescriptor, behaviour: &str) -> bool {
    let Some(extension) = pool.get_extension_by_name("google.api.field_behavior") else { return false };
    let Some(names) = pool.get_enum_by_name("google.api.FieldBehavior") else { return false };
    let number = names.get_value_by_name(behaviour).map(|value| value.number());
    let options = field.options();
    let behaviours = options.get_extension(&extension);
    behaviours.as_list().is_some_and(|all| all.iter().any(|it| Value::as_enum_number(it) == number))
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for (index, c) in name.char_indices() {
        if c.is_uppercase() && index > 0 {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake
}
