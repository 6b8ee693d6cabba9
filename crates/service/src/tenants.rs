//! Use cases of tenants, for operators.

use std::future::Future;

use jackfield_domain::principal::right::Admin;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::tenant::{Tenant, TenantDraft};
use jackfield_domain::value::meta::Meta;
use jackfield_domain::{Error, Resource, Result, TenantId};
use jackfield_store::{Page, PageQuery, Reader};

use crate::caller::Caller;
use crate::mutation::{Deletion, Mutation, Weight, check_etag};
use crate::open::Services;
use crate::pager::Listable;

// === impl Services ===

impl Services {
    pub async fn tenant_create(
        &self,
        caller: &Caller<Admin>,
        mutation: &Mutation,
        draft: TenantDraft,
    ) -> Result<Tenant> {
        self.change_for_all(caller, mutation, Weight::Light, async |txn| {
            let TenantDraft { id, name, display_name } = draft;
            let id = id.unwrap_or_else(TenantId::generate);
            if id == TenantId::SYSTEM {
                let description = "must not be the nil UUID";
                return Err(jackfield_domain::Violation::field("id", description).into());
            }
            let tenant = Tenant { id, name, display_name, meta: Meta::new(self.now()) };
            txn.insert(tenant.id, &tenant).await?;
            if !mutation.validate_only {
                self.data_key_create(txn, tenant.id).await?;
            }
            Ok(tenant)
        })
        .await
    }

    pub async fn tenant_get(&self, _: &Caller<Admin>, reference: &Ref) -> Result<Tenant> {
        let found = self.shared.store.read().tenant_find(reference).await?;
        found.ok_or_else(|| Error::not_found(Resource::Tenant, reference))
    }

    /// The tenant of a principal, by the name in the configuration.
    pub async fn tenant_id_by_name(&self, name: &str) -> Result<TenantId> {
        if let Some(tenant) = self.shared.tenant_names.get(name) {
            return Ok(tenant);
        }
        let tenant = self.shared.store.read().tenant_id_by_name(name).await?;
        let tenant = tenant.ok_or_else(|| Error::TenantUnknown { tenant: name.to_owned() })?;
        self.shared.tenant_names.put(name, tenant);
        Ok(tenant)
    }

    /// Deletes a tenant and destroys its data keys. Says whether there was one.
    pub async fn tenant_delete(
        &self,
        caller: &Caller<Admin>,
        mutation: &Mutation,
        reference: &Ref,
        deletion: &Deletion,
    ) -> Result<bool> {
        let mut gone = None;
        let deleted = self.change_for_all(caller, mutation, Weight::of(deletion), async |txn| {
            let found = match txn.tenant_find(reference).await? {
                Some(found) => txn.fetch_for_update::<Tenant>(found.id, found.id).await?,
                None => None,
            };
            let Some(tenant) = found else {
                if deletion.allow_missing {
                    return Ok(false);
                }
                return Err(Error::not_found(Resource::Tenant, reference));
            };
            check_etag(&tenant.meta, &deletion.etag, Resource::Tenant, tenant.id)?;
            if !deletion.cascade {
                let by = txn.tenant_contents(tenant.id).await?;
                if !by.is_empty() {
                    return Err(Error::InUse { resource: Resource::Tenant, id: tenant.id.to_string(), by });
                }
            }
            txn.tenant_delete(tenant.id).await?;
            gone = Some(tenant.id);
            Ok(true)
        });
        let deleted = deleted.await?;
        if let Some(tenant) = gone.filter(|_| !mutation.validate_only) {
            self.shared.data_keys.forget(tenant);
            self.shared.tenant_names.forget(tenant);
            self.shared.tokens.sweep(self.shared.store.generations(), self.now());
        }
        Ok(deleted)
    }
}

impl Listable for Tenant {
    type Right = Admin;
    const LIST: &'static str = "tenants";

    fn page(read: &Reader, query: &PageQuery<'_>) -> impl Future<Output = Result<Page<Self>>> + Send {
        read.page(query)
    }
}
