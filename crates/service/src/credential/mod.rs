//! Use cases of credentials.

mod crud;
mod defaults;
mod issue;
mod material;
mod reveal;

pub use self::reveal::Revealed;
