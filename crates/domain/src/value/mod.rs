//! Values that several resources have in common. Each can only be made by parsing, or from what was parsed and stored before.

pub mod address;
pub mod id;
pub mod json;
pub mod maps;
pub mod meta;
pub mod pem;
pub mod scopes;
pub mod secret;
pub mod text;
pub mod time;
pub mod url;
