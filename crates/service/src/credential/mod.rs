//! Use cases of credentials.

mod authenticate;
mod crud;
mod deadline;
mod defaults;
mod exchange;
mod explain;
mod issue;
mod material;
mod refresh;
mod rejected;
mod reveal;
mod revoke;

pub(crate) use self::crud::{Parents, find_locked, lock_credential};
pub use self::explain::ExplainedCredential;
pub(crate) use self::material::MaterialFacts;
pub use self::reveal::Revealed;
pub use self::revoke::RevokedCredential;
pub(crate) use self::revoke::{LaterRevocations, Revocable};
