//! Compiles the contract: `.proto` files to a descriptor set, and that to Rust. No protoc.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const PACKAGE: &str = "jackfield.v1";

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

    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    let mut builder =
        tonic_prost_build::configure().build_transport(false).codec_path("crate::codec::Codec").btree_map(".");
    let mut debug = String::new();
    let mut skip_debug = Vec::new();
    for message in compiler.descriptor_pool().all_messages().filter(|message| message.package_name() == PACKAGE) {
        let redacted = |field: &protox::prost_reflect::FieldDescriptor| {
            field.options().get_field_by_name("debug_redact").and_then(|value| value.as_bool()) == Some(true)
        };
        if !message.fields().any(|field| redacted(&field)) {
            continue;
        }
        skip_debug.push(format!(".{}", message.full_name()));
        let mut shown = String::new();
        for field in message.fields().filter(|field| field.containing_oneof().is_none_or(|it| it.is_synthetic())) {
            let name = field.name();
            let value = if redacted(&field) { "&crate::Redacted".to_owned() } else { format!("&self.r#{name}") };
            write!(shown, ".field({name:?}, {value})")?;
        }
        for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
            if oneof.fields().any(|field| redacted(&field)) {
                return Err(format!("{}: debug_redact cannot stand in a oneof itself", oneof.full_name()).into());
            }
            // Debug is left out with the message, but a oneof shows only what its members show.
            builder = builder.enum_attribute(format!(".{}", oneof.full_name()), "#[derive(Debug)]");
            let name = oneof.name();
            write!(shown, ".field({name:?}, &self.r#{name})")?;
        }
        let name = message.name();
        writeln!(debug, "impl ::core::fmt::Debug for {name} {{ fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>)")?;
        writeln!(debug, "-> ::core::fmt::Result {{ f.debug_struct({name:?}){shown}.finish() }} }}")?;
    }
    fs::write(out.join("debug.rs"), debug)?;
    Ok(builder.skip_debug(skip_debug).compile_fds_with_config(compiler.file_descriptor_set(), config)?)
}
