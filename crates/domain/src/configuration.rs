//! Configurations: the settings and workflow switches that hang on a credential (Paragon).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::connector::set;
use crate::document::is_default;
use crate::error::Violation;
use crate::request::order::OrderBy;
use crate::request::reference::Ref;
use crate::request::schema::{Field, FieldKind, Schema};
use crate::resource::Resource;
use crate::value::id::{ConfigurationId, ConnectorId, CredentialId};
use crate::value::json::JsonObject;
use crate::value::meta::Meta;
use crate::value::text::{ExternalId, UserId};

/// A configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Configuration {
    pub id: ConfigurationId,
    pub credential: CredentialId,
    #[serde(default, skip_serializing_if = "is_default")]
    pub external_id: Option<ExternalId>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub shared_settings: JsonObject,
    #[serde(default, skip_serializing_if = "is_default")]
    pub workflow_settings: BTreeMap<String, WorkflowSettings>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub settings_meta: JsonObject,
    /// Whether it was born with its credential; such a one dies only with it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub is_default: bool,
    pub user_id: UserId,
    pub connector: ConnectorId,
    pub meta: Meta,
}

/// The switch and the settings of one workflow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkflowSettings {
    pub enabled: bool,
    pub settings: JsonObject,
}

/// A change of a configuration: what is `None` stays as it is.
#[derive(Debug, Default)]
pub struct ConfigurationPatch {
    /// The inner `None` takes the external id away.
    pub external_id: Option<Option<ExternalId>>,
    pub shared_settings: Option<JsonObject>,
    /// All workflows anew.
    pub workflow_settings: Option<BTreeMap<String, WorkflowSettings>>,
    /// Single workflows; `None` takes one away.
    pub workflows: BTreeMap<String, Option<WorkflowSettings>>,
    pub settings_meta: Option<JsonObject>,
    /// The credential that it hangs on, as the caller says; it may not be changed.
    pub credential: Option<Ref>,
}

/// Workflows in one configuration at most.
pub const MAX_WORKFLOWS: usize = 256;
/// All workflow settings of a configuration together, as JSON, in bytes.
pub const MAX_WORKFLOW_SETTINGS_BYTES: usize = 64 * 1024;

/// What lists of configurations can be filtered and ordered by.
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

// === impl ConfigurationPatch ===

impl ConfigurationPatch {
    /// Whether it asks for no change of anything.
    pub fn is_empty(&self) -> bool {
        let ConfigurationPatch {
            external_id,
            shared_settings,
            workflow_settings,
            workflows,
            settings_meta,
            credential,
        } = self;
        external_id.is_none()
            && shared_settings.is_none()
            && workflow_settings.is_none()
            && workflows.is_empty()
            && settings_meta.is_none()
            && credential.is_none()
    }
}

// === impl Configuration ===

impl Configuration {
    /// This configuration after a patch, or what is wrong with the result.
    pub fn patched(mut self, patch: &ConfigurationPatch, meta: Meta) -> Result<Self, Vec<Violation>> {
        let ConfigurationPatch {
            external_id,
            shared_settings,
            workflow_settings,
            workflows,
            settings_meta,
            credential: _,
        } = patch;
        set(&mut self.external_id, external_id);
        set(&mut self.shared_settings, shared_settings);
        set(&mut self.workflow_settings, workflow_settings);
        set(&mut self.settings_meta, settings_meta);
        for (workflow, settings) in workflows {
            match settings {
                Some(settings) => self.workflow_settings.insert(workflow.clone(), settings.clone()),
                None => self.workflow_settings.remove(workflow),
            };
        }
        self.meta = meta;
        let bytes = serde_json::to_vec(&self.workflow_settings).map_or(usize::MAX, |json| json.len());
        let mut violations = Vec::new();
        if self.workflow_settings.len() > MAX_WORKFLOWS {
            let description = format!("must not hold more than {MAX_WORKFLOWS} workflows");
            violations.push(Violation::field("configuration.workflow_settings", description));
        }
        if bytes > MAX_WORKFLOW_SETTINGS_BYTES {
            let description = format!("must not be larger than {MAX_WORKFLOW_SETTINGS_BYTES} bytes in all");
            violations.push(Violation::field("configuration.workflow_settings", description));
        }
        if violations.is_empty() { Ok(self) } else { Err(violations) }
    }
}
