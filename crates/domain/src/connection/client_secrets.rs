//! Client secrets of connections.

use serde::{Deserialize, Serialize};

use crate::error::{Violation, Violations};
use crate::patch::Patch;
use crate::value::secret::Secret;
use crate::value::time::Timestamp;

/// The public facts of a client secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSecretFacts {
    /// The name of the secret in its connection; may be empty.
    pub secret_id: String,
    /// The time at which this value was stored.
    pub create_time: Timestamp,
}

/// A change of the sealed client secrets.
#[derive(Debug, Default)]
pub enum ClientSecretsPatch {
    #[default]
    Keep,
    /// Exactly these, in this order.
    Set(Vec<ClientSecretPatch>),
    Clear,
}

/// One client secret of a new list.
#[derive(Debug)]
pub struct ClientSecretPatch {
    pub secret_id: String,
    /// `None` keeps the stored value of this `secret_id`.
    pub value: Option<Secret>,
}

/// The most client secrets in one connection.
pub const MAX_CLIENT_SECRETS: usize = 8;

/// The column of a sealed client secret.
pub fn client_secret_column(secret_id: &str) -> String {
    format!("client_secret/{secret_id}")
}

/// Puts a secret before those that are stored, or returns why it cannot be added.
pub(super) fn add(facts: &mut Vec<ClientSecretFacts>, secret_id: &str, now: Timestamp) -> Result<(), Violation> {
    if facts.iter().any(|stored| stored.secret_id == secret_id) {
        let description = "is that of a stored secret, whose value UpdateConnection replaces";
        return Err(Violation::field("secret_id", description));
    }
    if facts.len() >= MAX_CLIENT_SECRETS {
        let description = format!("cannot be added: the connection has {MAX_CLIENT_SECRETS}, remove one first");
        return Err(Violation::field("client_secret", description));
    }
    facts.insert(0, ClientSecretFacts { secret_id: secret_id.to_owned(), create_time: now });
    Ok(())
}

// === impl ClientSecretsPatch ===

impl ClientSecretsPatch {
    /// Changes the facts, and adds a violation for each secret without a value.
    pub(super) fn apply(&self, facts: &mut Vec<ClientSecretFacts>, now: Timestamp, violations: &mut Violations) {
        let secrets = match self {
            ClientSecretsPatch::Keep => return,
            ClientSecretsPatch::Clear => &[],
            ClientSecretsPatch::Set(secrets) => secrets.as_slice(),
        };
        let mut changed = Vec::with_capacity(secrets.len());
        for (index, ClientSecretPatch { secret_id, value }) in secrets.iter().enumerate() {
            let stored = facts.iter().find(|stored| stored.secret_id == *secret_id);
            match (value, stored) {
                (Some(_), _) => changed.push(ClientSecretFacts { secret_id: secret_id.clone(), create_time: now }),
                (None, Some(stored)) => changed.push(stored.clone()),
                (None, None) => {
                    let description = format!("is required: no secret with secret_id \"{secret_id}\" is stored");
                    violations.push(Violation::field(format!("connection.client_secrets[{index}].value"), description));
                }
            }
        }
        *facts = changed;
    }
}

impl Patch for ClientSecretsPatch {
    fn is_empty(&self) -> bool {
        matches!(self, ClientSecretsPatch::Keep)
    }
}
