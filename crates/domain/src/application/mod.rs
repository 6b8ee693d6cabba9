//! Applications: what the users of a tenant log in to, with the vocabulary of its permissions (Cloudspot).

mod list;
mod permission;
mod session;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::document::is_default;
use crate::error::{Violation, Violations};
use crate::patch::patchable;
use crate::request::map_patch::MapPatch;
use crate::request::reference::Ref;
use crate::value::id::{ApplicationId, ConnectorId};
use crate::value::maps::Labels;
use crate::value::meta::Meta;
use crate::value::text::{ExternalId, Name};

pub use list::{GRANTS, SCHEMA, SESSIONS};
pub use permission::{
    CompanyPermissions, MAX_COMPANIES, MAX_PERMISSIONS, Permission, PermissionChange, PermissionGrant,
    SessionPermissions, USE_APP, parse_vocabulary,
};
pub use session::{
    LICENSE_TOKEN_COLUMN, MAX_SESSIONS, Session, SessionHolder, SessionRef, SessionToken, TokenDigest, UserProfile,
};

patchable! {
    /// An application.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct Application in "application", blank(id: ApplicationId, name: Name, meta: Meta);

    /// A change of an application. A new application is a change of a blank one.
    pub struct ApplicationPatch;

    fixed {
        id: ApplicationId = id,
    }
    patched {
        name: Name = name,
        /// The id that clients of the application send.
        #[serde(default, skip_serializing_if = "is_default")]
        external_id: Option<ExternalId>,
        enabled: bool = true,
        /// The vocabulary, in the order in which it was given. [`USE_APP`] is part of it, also if it is not here.
        #[serde(default, skip_serializing_if = "is_default")]
        permissions: Vec<Permission>,
    }
    fixed {
        /// The connector that checks passwords; `None` = users of the tenant.
        #[serde(default, skip_serializing_if = "is_default")]
        connector: Option<ConnectorId>,
    }
    patched {
        session_lifetime: Duration = DEFAULT_SESSION_LIFETIME,
        #[serde(default, skip_serializing_if = "is_default")]
        labels: Labels => MapPatch<Labels>,
    }
    fixed {
        meta: Meta = meta,
    }
    patched {}
    patch only {
        /// The inner `None` removes the connector.
        connector: Option<Option<Ref>>,
    }
}

/// The life of a session if an application does not say: 12 hours.
pub const DEFAULT_SESSION_LIFETIME: Duration = Duration::from_secs(12 * 3_600);
/// The shortest life of a session.
pub const MIN_SESSION_LIFETIME: Duration = Duration::from_secs(60);
/// The longest life of a session: 90 days.
pub const MAX_SESSION_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3_600);

// === impl Application ===

impl Application {
    /// Makes an application from a patch that has everything required.
    pub fn create(
        id: ApplicationId,
        patch: &ApplicationPatch,
        connector: Option<Option<ConnectorId>>,
        meta: Meta,
    ) -> Result<Self, Vec<Violation>> {
        let name = patch.name.clone().ok_or_else(|| vec![Violation::field("application.name", "is required")])?;
        Application::blank(id, name, meta).patched(patch, connector, meta)
    }

    /// This application after a patch, or what is wrong with the result.
    pub fn patched(
        mut self,
        patch: &ApplicationPatch,
        connector: Option<Option<ConnectorId>>,
        meta: Meta,
    ) -> Result<Self, Vec<Violation>> {
        let mut violations = Violations::default();
        self.apply(patch, &mut violations);
        self.connector = connector.unwrap_or(self.connector);
        self.meta = meta;
        violations.into_whole(self)
    }
}
