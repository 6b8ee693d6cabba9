//! Use cases of applications.

mod authenticate;
mod license;
mod permission;
mod session;

use jackfield_domain::application::{Application, ApplicationPatch};
use jackfield_domain::connector::Connector;
use jackfield_domain::error::Precondition;
use jackfield_domain::principal::right::{ApplicationsRead, ApplicationsWrite};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::{ApplicationId, ConnectorId, Error, Resource, Result, TenantId, Violation};
use jackfield_store::Writer;

use crate::caller::Caller;
use crate::change::{
    Change, DeleteOptions, Deleted, Expected, Length, RequestOptions, found_for_delete, found_for_update, lock_parent,
    missing, unchanged,
};
use crate::list::Listable;
use crate::services::Services;

use self::authenticate::Authenticator;

pub use authenticate::{ApplicationLogin, OpenedSession};
pub use session::{PermittedSession, SessionUser};

// === impl Services ===

impl Services {
    pub async fn application_create(
        &self,
        caller: &Caller<ApplicationsWrite>,
        request: &RequestOptions,
        id: Option<ApplicationId>,
        patch: ApplicationPatch,
    ) -> Result<Application> {
        self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            let tenant = caller.tenant();
            let connector = connector_of(txn, tenant, &patch).await?;
            let id = id.unwrap_or_else(ApplicationId::generate);
            let application = Application::create(id, &patch, connector, Meta::new(self.now()));
            let application = application.map_err(Error::Invalid)?;
            txn.insert(tenant, &application).await?;
            Ok(application)
        })
        .await
    }

    pub async fn application_get(&self, caller: &Caller<ApplicationsRead>, reference: &Ref) -> Result<Application> {
        self.find::<Application>(caller.tenant(), reference).await
    }

    pub async fn application_update(
        &self,
        caller: &Caller<ApplicationsWrite>,
        request: &RequestOptions,
        reference: &Ref,
        expected: &Expected,
        patch: ApplicationPatch,
    ) -> Result<Application> {
        self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            let tenant = caller.tenant();
            // All transactions lock from the top down.
            let connector = connector_of(txn, tenant, &patch).await?;
            let found = txn.find_for_update::<Application>(tenant, reference).await?;
            let before = found_for_update(found, || missing::<Application>(reference), expected)?;
            let meta = before.meta.changed(self.now());
            let application = before.clone().patched(&patch, connector, meta).map_err(Error::Invalid)?;
            if unchanged(&before, &application) {
                return Ok(before);
            }
            if application.connector != before.connector {
                // The system that checks the passwords now may know the users by other ids.
                txn.sessions_delete_of(tenant, application.id).await?;
            }
            txn.replace(tenant, &application).await?;
            Ok(application)
        })
        .await
    }

    /// Deletes an application with its permissions and sessions.
    pub async fn application_delete(
        &self,
        caller: &Caller<ApplicationsWrite>,
        request: &RequestOptions,
        reference: &Ref,
        options: &DeleteOptions,
    ) -> Result<Deleted> {
        self.change(Change::of_tenant(caller, request, Length::Long), async |txn| {
            let tenant = caller.tenant();
            let found = txn.find_for_update::<Application>(tenant, reference).await?;
            let Some(application) = found_for_delete(found, || missing::<Application>(reference), options)? else {
                return Ok(Deleted::default());
            };
            Ok(Deleted::with(txn.application_delete(tenant, application.id).await?))
        })
        .await
    }
}

impl Listable for Application {
    type Right = ApplicationsRead;
    const LIST: &'static str = "applications";
}

/// The connector that a patch names. It must be of a kind that checks passwords.
async fn connector_of(txn: &Writer, tenant: TenantId, patch: &ApplicationPatch) -> Result<Option<Option<ConnectorId>>> {
    let Some(Some(reference)) = &patch.connector else { return Ok(patch.connector.as_ref().map(|_| None)) };
    let connector = lock_parent::<Connector>(txn, tenant, reference).await?;
    if Authenticator::of(&connector).is_none() {
        let kind = connector.kind.as_str();
        let description =
            format!("must name a connector of the kind generic or license; this one is of the kind {kind}");
        return Err(Violation::field("application.connector", description).into());
    }
    Ok(Some(Some(connector.id)))
}

/// The application that a reference names, as a transaction sees it.
async fn find(txn: &Writer, tenant: TenantId, reference: &Ref) -> Result<Application> {
    txn.find::<Application>(tenant, reference).await?.ok_or_else(|| missing::<Application>(reference))
}

/// Refuses the use of an application that is disabled.
fn require_enabled(application: &Application) -> Result<()> {
    if application.enabled {
        return Ok(());
    }
    let (reason, resource) = (Precondition::ApplicationDisabled, Resource::Application);
    Err(Error::precondition(reason, resource, application.id, "the application is disabled"))
}
