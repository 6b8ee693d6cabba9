//! The outcome of deletions.

use jackfield_domain::resource::Dependents;
use serde::{Deserialize, Serialize};

/// The outcome of a deletion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredOutcome")]
pub struct Deleted {
    /// True if there was something to delete.
    pub deleted: bool,
    #[serde(flatten)]
    pub with: Dependents,
}

/// The forms in which answers to repeated requests hold an outcome. Earlier versions stored one for each resource.
#[derive(Deserialize)]
#[serde(untagged)]
enum StoredOutcome {
    Flag(bool),
    Outcome {
        #[serde(alias = "removed")]
        deleted: bool,
        #[serde(flatten)]
        with: Dependents,
    },
}

// === impl Deleted ===

impl Deleted {
    /// A resource was deleted, and these with it.
    pub(crate) fn with(with: Dependents) -> Self {
        Deleted { deleted: true, with }
    }

    /// A resource was deleted, and nothing else.
    pub(crate) fn alone() -> Self {
        Deleted::with(Dependents::default())
    }
}

impl From<StoredOutcome> for Deleted {
    fn from(stored: StoredOutcome) -> Self {
        match stored {
            StoredOutcome::Flag(deleted) => Deleted { deleted, with: Dependents::default() },
            StoredOutcome::Outcome { deleted, with } => Deleted { deleted, with },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_earlier_versions_are_read() {
        let with = |credentials, configurations| Dependents { credentials, configurations, ..Default::default() };
        let all = Dependents { connections: 1, user_connectors: 2, ..with(3, 4) };
        for (stored, expected) in [
            ("true", Deleted::alone()),
            ("false", Deleted::default()),
            (r#"{"deleted":true,"configurations":4}"#, Deleted::with(with(0, 4))),
            (r#"{"deleted":true,"credentials":3,"configurations":4}"#, Deleted::with(with(3, 4))),
            (r#"{"removed":true,"credentials":3,"configurations":4}"#, Deleted::with(with(3, 4))),
            (r#"{"removed":false,"credentials":0,"configurations":0}"#, Deleted::default()),
            (
                r#"{"deleted":true,"connections":1,"user_connectors":2,"credentials":3,"configurations":4}"#,
                Deleted::with(all),
            ),
        ] {
            assert_eq!(serde_json::from_str::<Deleted>(stored).unwrap(), expected, "{stored}");
        }
        let stored = serde_json::to_string(&Deleted::with(all)).unwrap();
        assert_eq!(serde_json::from_str::<Deleted>(&stored).unwrap(), Deleted::with(all));
    }
}
