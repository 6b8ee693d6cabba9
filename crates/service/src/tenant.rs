//! Use cases of tenants, for operators.

use jackfield_domain::error::Precondition;
use jackfield_domain::principal::right::Admin;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::tenant::{Tenant, TenantDraft};
use jackfield_domain::value::meta::Meta;
use jackfield_domain::{Error, Resource, Result, TenantId};
use jackfield_store::Writer;

use crate::caller::Caller;
use crate::change::{Change, DeleteOptions, Deleted, Length, RequestOptions, found_for_delete, missing, refuse_in_use};
use crate::list::Listable;
use crate::services::Services;

// === impl Services ===

impl Services {
    pub async fn tenant_create(
        &self,
        caller: &Caller<Admin>,
        request: &RequestOptions,
        draft: TenantDraft,
    ) -> Result<Tenant> {
        self.change(Change::of_deployment(caller, request, Length::Short), async |txn| {
            let TenantDraft { id, name, display_name } = draft;
            let id = id.unwrap_or_else(TenantId::generate);
            if id == TenantId::SYSTEM {
                let description = "must not be the nil UUID";
                return Err(jackfield_domain::Violation::field("id", description).into());
            }
            let tenant = Tenant { id, name, display_name, meta: Meta::new(self.now()) };
            txn.insert(tenant.id, &tenant).await?;
            if !request.validate_only {
                self.shared.data_keys.create(txn, tenant.id).await?;
            }
            Ok(tenant)
        })
        .await
    }

    pub async fn tenant_get(&self, _: &Caller<Admin>, reference: &Ref) -> Result<Tenant> {
        let found = self.shared.store.read().tenant_find(reference).await?;
        found.ok_or_else(|| missing::<Tenant>(reference))
    }

    /// The tenant that the configuration names for a principal.
    pub async fn tenant_id_by_name(&self, name: &str) -> Result<TenantId> {
        if let Some(tenant) = self.shared.tenant_names.get(name) {
            return Ok(tenant);
        }
        let tenant = self.shared.store.read().tenant_id_by_name(name).await?;
        let tenant = tenant.ok_or_else(|| Error::TenantUnknown { tenant: name.to_owned() })?;
        self.shared.tenant_names.put(name, tenant);
        Ok(tenant)
    }

    /// Deletes a tenant and destroys its data keys. A caller's own tenant is refused: without it, the caller would be locked out,
    /// and so would every administrator that could create it again, if all of them belong to it.
    pub async fn tenant_delete(
        &self,
        caller: &Caller<Admin>,
        request: &RequestOptions,
        reference: &Ref,
        options: &DeleteOptions,
    ) -> Result<Deleted> {
        let mut gone = None;
        let deleted = self.change(Change::of_deployment(caller, request, Length::of(options)), async |txn| {
            let id = txn.tenant_find(reference).await?.map(|tenant| tenant.id);
            // Two administrators may delete each other's tenant at the same time. They lock both in the order of their ids, so
            // that the second one finds that its own is gone.
            if id.is_some_and(|id| caller.tenant().0 < id.0) {
                keep(txn, caller.tenant()).await?;
            }
            let found = match id {
                Some(id) => txn.fetch_for_update::<Tenant>(id, id).await?,
                None => None,
            };
            if id.is_some_and(|id| caller.tenant().0 > id.0) {
                keep(txn, caller.tenant()).await?;
            }
            let Some(tenant) = found_for_delete(found, || missing::<Tenant>(reference), options)? else {
                return Ok(Deleted::default());
            };
            if tenant.id == caller.tenant() {
                let message = "the tenant is the caller's own: an administrator of another tenant can delete it";
                return Err(Error::precondition(Precondition::OwnTenant, Resource::Tenant, tenant.id, message));
            }
            if !options.cascade {
                let contents = txn.tenant_contents(tenant.id).await?;
                refuse_in_use(&tenant, contents.into_iter().map(|by| (by.resource, by.count)))?;
            }
            txn.tenant_delete(tenant.id).await?;
            gone = Some(tenant.id);
            Ok(Deleted::alone())
        });
        let deleted = deleted.await?;
        if let Some(tenant) = gone.filter(|_| !request.validate_only) {
            self.shared.data_keys.forget(tenant);
            self.shared.tenant_names.forget(tenant);
            self.shared.outbound.forget_tenant(tenant);
            self.shared.issuers.forget_tenant(tenant);
            self.refresh_forget_tenant(tenant);
            self.shared.tokens.sweep(self.now());
        }
        Ok(deleted)
    }
}

/// Keeps the tenant of a caller from being deleted until the transaction ends.
async fn keep(txn: &Writer, id: TenantId) -> Result<()> {
    match txn.tenant_lock_shared(id).await? && txn.tenant_exists(id).await? {
        true => Ok(()),
        false => Err(Error::TenantUnknown { tenant: id.to_string() }),
    }
}

impl Listable for Tenant {
    type Right = Admin;
    const LIST: &'static str = "tenants";
}
