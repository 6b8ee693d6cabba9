//! The domain of Jackfield: its resources, their rules, its errors. Pure: no input or output, no async, no wire types.

pub mod configuration;
pub mod connection;
pub mod connector;
pub mod credential;
mod document;
pub mod error;
pub mod filter;
pub mod id;
pub mod json;
pub mod kek;
pub mod key;
pub mod mask;
pub mod meta;
pub mod page;
pub mod pem;
pub mod principal;
pub mod reference;
pub mod resource;
pub mod secret;
pub mod tenant;
pub mod text;
pub mod time;
pub mod user_connector;

pub use error::{Error, Result, Violation, Violations};
pub use id::*;
pub use resource::Resource;
pub use secret::{Secret, SecretPatch};
pub use time::{Clock, SystemClock, Timestamp};
