//! Authorisations: how a user permits a connection to act for them, and the token endpoints that exchange what came of it.

mod endpoint;

pub(crate) use self::endpoint::TokenClient;
