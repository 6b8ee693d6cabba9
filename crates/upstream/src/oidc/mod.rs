//! OpenID Connect: what an issuer publishes about itself, its keys, its ID tokens, and the profiles of users.
//!
//! [`Discovery`] keeps the metadata of issuers and their endpoints, and [`KeySets`] their keys. [`IdTokenRules::validate`] says whether an ID token is one for
//! this client (OpenID Connect Core 1.0 3.1.3.7 and 12.2). [`fetch_profile`] asks for what an ID token does not have.

mod algorithm;
mod claims;
mod discovery;
mod documents;
mod fault;
mod id_token;
mod jwk;
mod keys;
mod members;
mod profile;
mod published;

pub use self::algorithm::Algorithm;
pub use self::claims::IdTokenClaims;
pub use self::discovery::{Discovery, ProviderMetadata, ResponseIssuerFault, check_response_issuer, discover};
pub use self::documents::Fetcher;
pub(crate) use self::documents::document_request;
pub use self::fault::{DocumentFault, IdTokenFault, ProfileFault};
pub use self::id_token::{IdTokenRules, IdTokenUse, claimed_subject};
pub use self::keys::KeySets;
pub(crate) use self::keys::count_keys;
pub use self::profile::{Profile, ProfileNeed, fetch_profile};
pub(crate) use self::published::Published;
pub use self::published::{DocumentUrls, ProviderEndpoint, ProviderEndpoints};
