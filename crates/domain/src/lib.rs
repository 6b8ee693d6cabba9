//! The domain of Jackfield: its resources, their rules, its errors. It is pure: no input or output, no async, no wire types.
//! This page is the glossary; each paragraph is a module.
//!
//! # What the modules share
//!
//! [`error`]: an [`Error`] says what went wrong, by meaning; only the transport knows gRPC codes. A [`Violation`] is one field
//! of a request that is wrong. [`Violations`] collects them, so that a caller learns all of them at once.
//!
//! [`resource`]: a [`Resource`] is a kind of thing that the API manages, named as on the wire and in the database.
//!
//! [`value`]: bounded texts, URLs, maps, JSON objects, ids and times. A value can only be made by parsing, so code that holds
//! one need not check it again. A [`Secret`] is a text without a printable form. A [`SecretAddress`] names a
//! sealed secret: the resource that has it, and its name there. A [`value::meta::Meta`] holds the times and the version of a stored
//! resource; an etag is made of it.
//!
//! [`request`]: what requests have in common. A [`request::reference::Ref`] is how a caller names a resource: by id, by name or
//! by external id. A [`request::mask::Mask`] says which fields an update changes (AIP-134). A [`request::schema::Schema`] says
//! what a list can be filtered (AIP-160) and ordered by. A [`request::page::RowKey`] is the position of a row in an order, and
//! so the place where the next page begins.
//!
//! [`principal`]: a principal is a known caller. It belongs to one tenant and has rights; each method needs one right.
//!
//! [`kek`]: a key-encryption key (KEK) wraps the data keys of tenants, and a data key seals secrets.
//!
//! # The resources
//!
//! [`patch`]: a patch is a change of a resource; what it leaves out stays as it is. A draft holds the parts of a new resource, where
//! creation needs more than a patch of an empty one.
//!
//! [`tenant`]: a tenant is the boundary of isolation. Every other resource belongs to exactly one.
//!
//! [`connector`]: a connector is the definition of an outside system and how to reach it. Its kind says how a client
//! authenticates to the system. An event is what came of a call through a connector, recorded while the connector debugs.
//!
//! [`connection`]: a connection is one SSO or OAuth set-up on a connector, with its client id and client secrets.
//!
//! [`authorization`]: an authorisation is the handshake by which a user permits a connection to act for them. Its session is used once. A
//! callback brings the response of the provider, and a completion code proves that it came through the browser of the user.
//!
//! [`user_connector`]: a user connector links a user of the platform to a connector. The user's credentials belong to it.
//!
//! [`credential`]: a credential is what an outside system gave a user. Its material is the secret part: tokens, a key, a
//! password. Everything else about it is public and can be listed.
//!
//! [`configuration`]: a configuration holds the settings and workflow switches of a credential. Every credential has a default
//! configuration, which is created and deleted with it.
//!
//! [`user`]: a user is someone whose password Jackfield checks itself. A login id is what a user logs in with: the user name, the email
//! address or the phone number. A registration names an application that a user may use, and the roles there.
//!
//! [`application`]: an application is what users log in to. It has a vocabulary of permissions. A grant says which of them a user
//! has in a company. A session is what a log-in gives: a token that an application shows to learn who the user is and what
//! the user may do.
//!
//! [`credential_source`]: a source gives the material of a user for a connector when a caller asks for it and gives none.
//!
//! [`rewrap`]: a re-wrap is a run that wraps all data keys with the active KEK and, if asked for, seals all secrets with fresh
//! data keys.
//!
//! [`login`]: a log-in is the login id and the password of an end user, which an outside system checks.
//!
//! [`attempts`]: an attempt is a log-in that is counted before it is checked. A window is the time in which attempts are counted
//! together. A source is the address, or the network, that an end user comes from.
//!
//! [`routing`]: the routing policy of a tenant says by the domain of an email address which connector checks a log-in, or which
//! connection is for it. A user is pinned to the connector that accepted the log-in.
//!
//! [`probe`]: a probe finds out step by step whether the system of a connector can be called. A verdict is the finding of one step.
//!
//! [`key`]: a key is a client identity (certificates with a private key) or a trust bundle (CA certificates). Its material is the
//! certificates and what belongs to them. The next material replaces the current one at a time that a rotation plans. Material is
//! pending as long as the certificate is missing that was requested for its private key.

pub mod application;
pub mod attempts;
pub mod authorization;
pub mod configuration;
pub mod connection;
pub mod connector;
pub mod credential;
pub mod credential_source;
mod document;
pub mod error;
pub mod kek;
pub mod key;
pub mod login;
mod names;
pub mod patch;
pub mod principal;
pub mod probe;
pub mod request;
pub mod resource;
pub mod rewrap;
pub mod routing;
pub mod tenant;
pub mod user;
pub mod user_connector;
pub mod value;

pub use error::{Error, Result, Violation, Violations};
pub use resource::Resource;
pub use value::address::SecretAddress;
pub use value::id::{
    ApplicationId, AuthorizationSessionId, ConfigurationId, ConnectionId, ConnectorEventId, ConnectorId, CredentialId,
    CredentialSourceId, KeyId, PermissionGrantId, SessionId, TenantId, UserConnectorId, UserUuid,
};
pub use value::secret::{Secret, SecretPatch};
pub use value::time::{Clock, SystemClock, Timestamp};
