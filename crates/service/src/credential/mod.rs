//! Use cases of credentials.

mod crud;
mod defaults;
mod issue;
mod material;
mod refresh;
mod reveal;

pub(crate) use self::crud::lock_credential;
pub(crate) use self::issue::token_of;
pub(crate) use self::material::MaterialFacts;
pub use self::reveal::Revealed;
