//! Use cases of configurations.

use jackfield_domain::configuration::{Configuration, ConfigurationPatch};
use jackfield_domain::credential::{Credential, CredentialState};
use jackfield_domain::error::{Precondition, Violation};
use jackfield_domain::principal::right::{ConfigurationsRead, ConfigurationsWrite};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::{ConfigurationId, CredentialId, Error, Resource, Result, TenantId, Timestamp};
use jackfield_store::Writer;

use crate::caller::Caller;
use crate::change::{
    Change, DeleteOptions, Deleted, Expected, Length, RequestOptions, found_for_delete, found_for_update,
    found_if_named, names, unchanged,
};
use crate::list::Listable;
use crate::services::Services;

/// The name of a configuration in a call: by itself, within a credential, or as the default of a credential.
#[derive(Clone, Debug)]
pub struct ConfigurationRef {
    /// `None` = the default of the credential.
    pub configuration: Option<Ref>,
    /// Needed with an external id, and without `configuration`.
    pub credential: Option<Ref>,
}

// === impl Services ===

impl Services {
    pub async fn configuration_create(
        &self,
        caller: &Caller<ConfigurationsWrite>,
        request: &RequestOptions,
        id: Option<ConfigurationId>,
        patch: ConfigurationPatch,
    ) -> Result<Configuration> {
        self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            let tenant = caller.tenant();
            let now = self.now();
            let credential = patch.credential.as_ref();
            let credential = credential.ok_or_else(|| Violation::field("configuration.credential", "is required"))?;
            let found = txn.find::<Credential>(tenant, credential).await?;
            let found = match found {
                Some(found) => txn.credential_lock_shared(tenant, &found).await?,
                None => None,
            };
            let credential = found.ok_or_else(|| Error::not_found(Resource::Credential, credential))?;
            require_valid(&credential, now)?;
            let meta = Meta::new(now);
            let blank = Configuration::blank(id.unwrap_or_else(ConfigurationId::generate), &credential, false, meta);
            let configuration = blank.patched(&patch, meta).map_err(Error::Invalid)?;
            txn.insert(tenant, &configuration).await?;
            Ok(configuration)
        })
        .await
    }

    pub async fn configuration_get(
        &self,
        caller: &Caller<ConfigurationsRead>,
        reference: &ConfigurationRef,
    ) -> Result<Configuration> {
        let tenant = caller.tenant();
        let credential = found_if_named(&self.shared.store, tenant, reference.credential.as_ref()).await?;
        let named = named_in(reference, credential.as_ref())?;
        let found = self.shared.store.read().configuration_find(tenant, &named, credential.map(|it| it.id)).await?;
        found.ok_or_else(|| missing(reference))
    }

    pub async fn configuration_update(
        &self,
        caller: &Caller<ConfigurationsWrite>,
        request: &RequestOptions,
        reference: &ConfigurationRef,
        expected: &Expected,
        patch: ConfigurationPatch,
    ) -> Result<Configuration> {
        self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            let tenant = caller.tenant();
            // Before the configuration, as the deletion of the credential locks them.
            let credential = match patch.workflow_settings.may_enable() {
                true => credential_locked(txn, tenant, reference).await?,
                false => None,
            };
            let found = configuration_locked(txn, tenant, reference).await?;
            let before = found_for_update(found, || missing(reference), expected)?;
            if let Some(credential) = &patch.credential
                && !names::<Credential>(txn, tenant, credential, Some(before.credential.0)).await?
            {
                return Err(Violation::field("configuration.credential", "may not be changed").into());
            }
            let meta = before.meta.changed(self.now());
            let configuration = before.clone().patched(&patch, meta).map_err(Error::Invalid)?;
            if unchanged(&before, &configuration) {
                return Ok(before);
            }
            if configuration.enables_beyond(&before) {
                let credential = credential.filter(|credential| credential.id == before.credential);
                let credential =
                    credential.ok_or_else(|| Error::not_found(Resource::Credential, Ref::Id(before.credential.0)))?;
                require_valid(&credential, self.now())?;
            }
            txn.replace(tenant, &configuration).await?;
            Ok(configuration)
        })
        .await
    }

    /// Destroys a configuration.
    pub async fn configuration_destroy(
        &self,
        caller: &Caller<ConfigurationsWrite>,
        request: &RequestOptions,
        reference: &ConfigurationRef,
        options: &DeleteOptions,
    ) -> Result<Deleted> {
        self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            let tenant = caller.tenant();
            let found = match configuration_locked(txn, tenant, reference).await {
                // A configuration whose credential is missing is missing, too.
                Err(Error::NotFound { .. }) if options.allow_missing => None,
                found => found?,
            };
            let Some(configuration) = found_for_delete(found, || missing(reference), options)? else {
                return Ok(Deleted::default());
            };
            if configuration.is_default {
                let message = "a default configuration is created and deleted with its credential";
                let reason = Precondition::DefaultConfiguration;
                return Err(Error::precondition(reason, Resource::Configuration, configuration.id, message));
            }
            txn.configuration_delete(tenant, configuration.id).await?;
            Ok(Deleted::alone())
        })
        .await
    }
}

impl Listable for Configuration {
    type Right = ConfigurationsRead;
    const LIST: &'static str = "configurations";
}

/// The configuration that a reference names, locked until the transaction ends.
async fn configuration_locked(
    txn: &Writer,
    tenant: TenantId,
    reference: &ConfigurationRef,
) -> Result<Option<Configuration>> {
    let (named, credential) = named_within(txn, tenant, reference).await?;
    txn.configuration_find_for_update(tenant, &named, credential).await
}

/// The credential of the configuration that a reference names, locked so that it stays as it is.
async fn credential_locked(txn: &Writer, tenant: TenantId, reference: &ConfigurationRef) -> Result<Option<Credential>> {
    let (named, credential) = named_within(txn, tenant, reference).await?;
    let Some(found) = txn.configuration_find(tenant, &named, credential).await? else { return Ok(None) };
    match txn.find::<Credential>(tenant, &Ref::Id(found.credential.0)).await? {
        Some(credential) => txn.credential_lock_shared(tenant, &credential).await,
        None => Ok(None),
    }
}

/// The configuration that a reference names, and the credential of the reference, which must exist.
async fn named_within(
    txn: &Writer,
    tenant: TenantId,
    reference: &ConfigurationRef,
) -> Result<(Ref, Option<CredentialId>)> {
    let credential = match &reference.credential {
        Some(credential) => {
            let found = txn.find::<Credential>(tenant, credential).await?;
            Some(found.ok_or_else(|| Error::not_found(Resource::Credential, credential))?)
        }
        None => None,
    };
    Ok((named_in(reference, credential.as_ref())?, credential.map(|it| it.id)))
}

/// Refuses a credential for which no workflow can run: one that is neither valid nor can be renewed (the rule of Paragon).
fn require_valid(credential: &Credential, now: Timestamp) -> Result<()> {
    let state = credential.state_at(now);
    let renewable = state == CredentialState::Expired && credential.refreshes();
    if state == CredentialState::Valid || renewable {
        return Ok(());
    }
    let message = format!("the credential is {}, and not VALID", state.as_str());
    Err(Error::precondition(Precondition::CredentialNotValid, Resource::Credential, credential.id, message))
}

/// The configuration that a reference names, as it is named within the credential of the reference.
fn named_in(reference: &ConfigurationRef, credential: Option<&Credential>) -> Result<Ref> {
    let (field, needed) = match (&reference.configuration, credential) {
        (Some(Ref::External(_)), None) => ("credential", EXTERNAL_NEEDS_CREDENTIAL),
        (Some(configuration), _) => return Ok(configuration.clone()),
        (None, Some(credential)) => return Ok(Ref::Id(credential.default_configuration.0)),
        (None, None) => ("reference", "is required, unless credential is given"),
    };
    Err(Violation::reference(field, needed).into())
}

fn missing(reference: &ConfigurationRef) -> Error {
    let ConfigurationRef { configuration, credential } = reference;
    let by = credential.as_ref().map(|credential| ("credential", credential.to_string()));
    Error::not_found_by(Resource::Configuration, configuration.as_ref().map(ToString::to_string), by)
}

const EXTERNAL_NEEDS_CREDENTIAL: &str =
    "is required with an \"ext:\" reference: external ids are unique in a credential only";
