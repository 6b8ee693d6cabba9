//! Principals: known callers, with their tenant and their rights.

use std::sync::Arc;

use crate::value::id::TenantId;

/// A known caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Name in the configuration file; the subject of records and request ids.
    pub name: Arc<str>,
    /// The tenant whose resources it sees; there is no other way to name a tenant in a call.
    pub tenant: TenantId,
    /// Its rights.
    pub rights: Rights,
}

macro_rules! rights {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// A right that a method requires of its caller.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Right {
            $($(#[$doc])* $variant,)*
        }

        impl Right {
            /// Every right, in order.
            pub const ALL: &[Right] = &[$(Right::$variant,)*];

            /// The name in the configuration file and in errors.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Right::$variant => $text,)*
                }
            }
        }

        /// The rights as types, so that a signature can demand one.
        pub mod right {
            $(
                #[derive(Debug)]
                pub enum $variant {}

                impl super::RightType for $variant {
                    const RIGHT: super::Right = super::Right::$variant;
                }
            )*
        }
    };
}

rights! {
    /// Everything in AdminService.
    Admin = "admin",
    /// Log-ins to applications, and the use of their sessions.
    ApplicationsAuthenticate = "applications.authenticate",
    ApplicationsRead = "applications.read",
    ApplicationsWrite = "applications.write",
    ConfigurationsRead = "configurations.read",
    ConfigurationsWrite = "configurations.write",
    /// Authorisations of users.
    ConnectionsAuthorize = "connections.authorize",
    ConnectionsRead = "connections.read",
    /// TestConnection.
    ConnectionsTest = "connections.test",
    ConnectionsWrite = "connections.write",
    /// AuthenticateUser.
    ConnectorsAuthenticate = "connectors.authenticate",
    ConnectorsRead = "connectors.read",
    /// TestConnector.
    ConnectorsTest = "connectors.test",
    ConnectorsWrite = "connectors.write",
    /// IssueAccessToken.
    CredentialsIssue = "credentials.issue",
    CredentialsRead = "credentials.read",
    /// RevealCredential.
    CredentialsReveal = "credentials.reveal",
    CredentialsWrite = "credentials.write",
    KeysRead = "keys.read",
    KeysWrite = "keys.write",
    UserConnectorsRead = "user_connectors.read",
    UserConnectorsWrite = "user_connectors.write",
    UsersRead = "users.read",
    UsersWrite = "users.write",
}

/// A right as a type.
pub trait RightType {
    /// The right itself.
    const RIGHT: Right;
}

/// A set of rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights(u32);

const _: () =
    assert!(Right::ALL.len() <= u32::BITS as usize, "a right beyond the bits of `Rights` would alias another");

// === impl Rights ===

impl Rights {
    /// Every right there is.
    pub fn all() -> Self {
        Right::ALL.iter().fold(Self::default(), |rights, right| rights.with(*right))
    }

    /// These rights and one more.
    #[must_use]
    pub const fn with(self, right: Right) -> Self {
        Rights(self.0 | 1 << right as u32)
    }

    /// Returns true if a right is among these.
    pub const fn has(self, right: Right) -> bool {
        self.0 & (1 << right as u32) != 0
    }

    /// Adds what a pattern of the configuration file names: one right, `<resource>.*` or `*`. `None` if it names nothing.
    #[must_use]
    pub fn with_pattern(self, pattern: &str) -> Option<Self> {
        let matches = |right: &&Right| match pattern.strip_suffix('*') {
            Some("") => true,
            Some(prefix) => prefix.ends_with('.') && right.as_str().starts_with(prefix),
            None => right.as_str() == pattern,
        };
        let named: Vec<_> = Right::ALL.iter().filter(matches).collect();
        (!named.is_empty()).then(|| named.into_iter().fold(self, |rights, right| rights.with(*right)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_one_some_or_all_rights() {
        let none = Rights::default();
        assert_eq!(none.with_pattern("*"), Some(Rights::all()));
        let keys = none.with_pattern("keys.*").unwrap();
        assert!(keys.has(Right::KeysRead) && keys.has(Right::KeysWrite) && !keys.has(Right::Admin));
        assert!(none.with_pattern("admin").unwrap().has(Right::Admin));
        for wrong in ["", "key*", "nothing.*", "Admin", "keys."] {
            assert_eq!(none.with_pattern(wrong), None, "{wrong}");
        }
    }
}
