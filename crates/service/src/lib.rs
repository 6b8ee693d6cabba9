//! The use cases. Only here do a row and a key meet: store and vault do not know each other. Requests arrive parsed and
//! results leave as domain types, so no wire type is used here.
//!
//! [`Services`] is the facade, with one method for each RPC. The entry points of its components are `DataKeys` and
//! `Secrets` (`sealing`), `Changes` (`change`), `Lists` (`list`), `Tokens` (`cache`), `Outbound` (`outbound`) and
//! `ConnectorEvents` (`events`).

mod application;
mod attempts;
mod authorization;
mod backup;
mod cache;
mod caller;
mod change;
mod configuration;
mod connection;
mod connector;
mod credential;
mod events;
mod gauges;
mod journal;
mod key;
mod list;
mod login;
mod maintenance;
mod outbound;
pub mod planted;
mod probe;
mod refresh;
mod rewrap;
mod routing;
mod sealing;
mod services;
mod source;
mod startup;
mod tenant;
mod turns;
mod user;
mod user_connector;

pub use application::{ApplicationLogin, OpenedSession, PermittedSession, SessionUser};
pub use authorization::{ConnectedAuthorization, Redeeming, ReturnedAuthorization, Watching};
pub use backup::{Verified, VerifyError};
pub use cache::tokens::TokenCacheSettings;
pub use caller::Caller;
pub use change::{DeleteOptions, Deleted, Expected, RequestId, RequestOptions};
pub use configuration::ConfigurationRef;
pub use credential::{ExplainedCredential, Revealed, RevokedCredential};
pub use gauges::{EventCounts, ExpiringKeys, Gauges, RewrapProgress};
pub use key::{GeneratedKey, NewMaterial, PublicRoots, Rotation, StoredKey};
pub use list::{FoundPage, ListScope, Listable, ListedPage, Pager, Position};
pub use login::{Login, LoginSettings};
pub use outbound::OutboundSettings;
pub use probe::{ProbedConnector, ProbedLogin};
pub use refresh::{RefreshBudget, RefreshSettings};
pub use services::{KeyringReplaceError, ServerInfo, Services};
pub use source::{MaterialOrigin, ServedSource, SourceAnswer, SourceFailure, SourceForm, SourceQuestion};
pub use startup::{OpenError, Preflight, Settings};

/// The settings and errors of the store.
pub use jackfield_store::{Database, Pool, PoolSettings, StoreError, postgres_url};
/// The rules for URLs and addresses that may be called.
pub use jackfield_upstream::egress::{Policy, PolicyError};
/// The verdicts of a probe, as a stream.
pub use jackfield_upstream::probe::Verdicts;
/// The form of name servers in the configuration.
pub use jackfield_upstream::resolve::name_server;
/// Keyrings, for the commands that manage them.
pub use jackfield_vault::{KeyInfo, KeyState, Keyring, KeyringError, Vault, provider as keyring_provider, sha256_of};
