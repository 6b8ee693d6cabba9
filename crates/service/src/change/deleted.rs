//! The outcome of deletions.

use jackfield_domain::Resource;
use jackfield_store::CascadeIds;
use serde::{Deserialize, Serialize};

/// The outcome of a deletion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Deleted {
    /// True if there was something to delete.
    pub deleted: bool,
    #[serde(flatten)]
    pub with: CascadeCounts,
}

/// The number of resources that were deleted together with another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CascadeCounts {
    pub connections: u64,
    pub user_connectors: u64,
    pub credentials: u64,
    pub configurations: u64,
}

/// The forms in which answers to repeated requests hold an outcome. Earlier versions stored one for each resource.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Flag(bool),
    Outcome {
        #[serde(alias = "removed")]
        deleted: bool,
        #[serde(flatten)]
        with: CascadeCounts,
    },
}

// === impl Deleted ===

impl Deleted {
    /// A resource was deleted, and these with it.
    pub(crate) fn with(with: CascadeCounts) -> Self {
        Deleted { deleted: true, with }
    }

    /// A resource was deleted, and nothing else.
    pub(crate) fn alone() -> Self {
        Deleted::with(CascadeCounts::default())
    }
}

// === impl CascadeCounts ===

impl CascadeCounts {
    /// The counts that keep a resource from being deleted by itself.
    pub(crate) fn dependents(self) -> [(Resource, u64); 3] {
        let CascadeCounts { connections, user_connectors, credentials, configurations: _ } = self;
        [
            (Resource::Connection, connections),
            (Resource::UserConnector, user_connectors),
            (Resource::Credential, credentials),
        ]
    }
}

impl From<Stored> for Deleted {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Flag(deleted) => Deleted { deleted, with: CascadeCounts::default() },
            Stored::Outcome { deleted, with } => Deleted { deleted, with },
        }
    }
}

impl From<CascadeIds> for CascadeCounts {
    fn from(ids: CascadeIds) -> Self {
        ids.counts().into()
    }
}

impl From<jackfield_store::Cascade> for CascadeCounts {
    fn from(cascade: jackfield_store::Cascade) -> Self {
        let jackfield_store::Cascade { connections, user_connectors, credentials, configurations } = cascade;
        CascadeCounts { connections, user_connectors, credentials, configurations }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_earlier_versions_are_read() {
        let with = |credentials, configurations| CascadeCounts { credentials, configurations, ..Default::default() };
        let all = CascadeCounts { connections: 1, user_connectors: 2, ..with(3, 4) };
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
