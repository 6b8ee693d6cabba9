//! Configurations: the settings and workflow switches of a credential (Paragon).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::credential::Credential;
use crate::document::is_default;
use crate::error::{Violation, Violations};
use crate::patch::{FieldPatch, Patch, patchable};
use crate::request::map_patch::Entries;
use crate::request::order::OrderBy;
use crate::request::reference::Ref;
use crate::request::schema::{Field, FieldKind, Schema};
use crate::resource::Resource;
use crate::value::id::{ConfigurationId, ConnectorId, CredentialId};
use crate::value::json::JsonObject;
use crate::value::meta::Meta;
use crate::value::text::{ExternalId, UserId};

patchable! {
    /// A configuration.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Configuration in "configuration",
        pub blank(id: ConfigurationId, credential: &Credential, is_default: bool, meta: Meta);

    /// A change of a configuration.
    pub struct ConfigurationPatch;

    fixed {
        id: ConfigurationId = id,
        credential: CredentialId = credential.id,
    }
    patched {
        #[serde(default, skip_serializing_if = "is_default")]
        external_id: Option<ExternalId>,
        #[serde(default, skip_serializing_if = "is_default")]
        shared_settings: JsonObject,
        #[serde(default, skip_serializing_if = "is_default")]
        workflow_settings: BTreeMap<String, WorkflowSettings> => WorkflowsPatch,
        #[serde(default, skip_serializing_if = "is_default")]
        settings_meta: JsonObject,
    }
    fixed {
        /// True if it was created with its credential. Such a configuration is deleted only with it.
        #[serde(default, skip_serializing_if = "is_default")]
        is_default: bool = is_default,
        user_id: UserId = credential.user_id.clone(),
        connector: ConnectorId = credential.connector,
        meta: Meta = meta,
    }
    patched {}
    patch only {
        /// The credential that it belongs to, as the caller names it; it may not be changed.
        credential: Option<Ref>,
    }
}

/// The switch and the settings of one workflow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkflowSettings {
    pub enabled: bool,
    pub settings: JsonObject,
}

/// A change of the workflows.
#[derive(Debug, Default)]
pub enum WorkflowsPatch {
    #[default]
    Keep,
    /// Replaces all of them.
    Replace(BTreeMap<String, WorkflowSettings>),
    /// Sets or removes single ones; the others stay.
    Entries(Entries<WorkflowSettings>),
}

/// The most workflows in one configuration.
pub const MAX_WORKFLOWS: usize = 256;
/// The most bytes that all workflow settings of a configuration may take together, as JSON.
pub const MAX_WORKFLOW_SETTINGS_BYTES: usize = 64 * 1024;

/// The filter fields and orders of lists of configurations.
pub const SCHEMA: Schema = Schema {
    resource: Resource::Configuration,
    fields: &[
        Field { name: "id", kind: FieldKind::Id },
        Field { name: "external_id", kind: FieldKind::Text },
        Field { name: "credential", kind: FieldKind::Id },
        Field { name: "user_id", kind: FieldKind::Text },
        Field { name: "connector", kind: FieldKind::Id },
        Field { name: "is_default", kind: FieldKind::Bool },
        Field { name: "create_time", kind: FieldKind::Time },
        Field { name: "update_time", kind: FieldKind::Time },
    ],
    orders: &[OrderBy::Id, OrderBy::CreateTime],
};

// === impl Configuration ===

impl Configuration {
    /// This configuration after a patch, or what is wrong with the result.
    pub fn patched(mut self, patch: &ConfigurationPatch, meta: Meta) -> Result<Self, Vec<Violation>> {
        let mut violations = Violations::default();
        self.apply(patch, &mut violations);
        self.meta = meta;
        violations.into_whole(self)
    }

    /// Returns true if a workflow is enabled here that was not before.
    pub fn enables_beyond(&self, before: &Self) -> bool {
        let was_enabled =
            |id| before.workflow_settings.get(id).is_some_and(|workflow: &WorkflowSettings| workflow.enabled);
        self.workflow_settings.iter().any(|(id, workflow)| workflow.enabled && !was_enabled(id))
    }
}

// === impl WorkflowsPatch ===

impl WorkflowsPatch {
    /// Returns true if it may enable a workflow.
    pub fn may_enable(&self) -> bool {
        let mut workflows = match self {
            WorkflowsPatch::Keep => return false,
            WorkflowsPatch::Replace(new) => new.values(),
            WorkflowsPatch::Entries(Entries { set, .. }) => set.values(),
        };
        workflows.any(|workflow| workflow.enabled)
    }
}

impl Patch for WorkflowsPatch {
    fn is_empty(&self) -> bool {
        matches!(self, WorkflowsPatch::Keep)
    }
}

impl FieldPatch<BTreeMap<String, WorkflowSettings>> for WorkflowsPatch {
    fn apply(&self, path: &str, workflows: &mut BTreeMap<String, WorkflowSettings>, violations: &mut Violations) {
        match self {
            WorkflowsPatch::Keep => return,
            WorkflowsPatch::Replace(new) => workflows.clone_from(new),
            WorkflowsPatch::Entries(Entries { set, gone }) => {
                workflows.retain(|workflow, _| !gone.contains(workflow));
                workflows.extend(set.clone());
            }
        }
        let bytes = serde_json::to_vec(workflows).map_or(usize::MAX, |json| json.len());
        if workflows.len() > MAX_WORKFLOWS {
            violations.push(Violation::field(path, format!("must not hold more than {MAX_WORKFLOWS} workflows")));
        }
        if bytes > MAX_WORKFLOW_SETTINGS_BYTES {
            let description = format!("must not be larger than {MAX_WORKFLOW_SETTINGS_BYTES} bytes in all");
            violations.push(Violation::field(path, description));
        }
    }
}
