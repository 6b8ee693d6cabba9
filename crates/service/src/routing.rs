//! Use cases of routing: the policy of a tenant, and the users who stay with a connector.

use std::collections::BTreeMap;

use jackfield_domain::connection::Connection;
use jackfield_domain::connector::{Connector, ConnectorKind};
use jackfield_domain::login::LoginId;
use jackfield_domain::principal::right::{ConnectorsRead, ConnectorsWrite};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::routing::{Route, RouteReason, RouteTarget, RoutingPolicy, RoutingRule, RuleDraft, TargetRef};
use jackfield_domain::value::meta::Meta;
use jackfield_domain::{ConnectorId, Error, Resource, Result, TenantId, Violation, Violations};
use jackfield_store::{Stored, Writer};

use crate::caller::Caller;
use crate::change::{Change, Length, RequestOptions};
use crate::services::Services;

// === impl Services ===

impl Services {
    pub async fn routing_policy_get(&self, caller: &Caller<ConnectorsRead>) -> Result<RoutingPolicy> {
        self.shared.store.read().routing_policy_fetch(caller.tenant()).await
    }

    pub async fn routing_policy_replace(
        &self,
        caller: &Caller<ConnectorsWrite>,
        request: &RequestOptions,
        etag: &str,
        rules: Vec<RuleDraft>,
    ) -> Result<RoutingPolicy> {
        self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            let tenant = caller.tenant();
            // The targets before the policy, as all transactions lock.
            let targets = targets_of(txn, tenant, &rules).await?;
            let (mut resolved, mut violations) = (Vec::new(), Violations::default());
            for (rule, target) in rules.into_iter().zip(targets) {
                let target = violations.check(target);
                resolved.extend(target.map(|target| RoutingRule { email_domains: rule.email_domains, target }));
            }
            violations.into_result(Some(()))?;
            let before = txn.routing_policy_fetch_for_update(tenant).await?;
            if !etag.is_empty() && etag != before.etag() {
                return Err(Error::EtagMismatch { resource: Resource::RoutingPolicy, id: String::new() });
            }
            if before.meta.is_some() && before.rules == resolved {
                return Ok(before);
            }
            let meta = before.meta.map_or(Meta::new(self.now()), |meta| meta.changed(self.now()));
            let policy = RoutingPolicy { rules: resolved, meta: Some(meta) };
            txn.routing_policy_put(tenant, &policy).await?;
            Ok(policy)
        })
        .await
    }

    pub async fn route_resolve(&self, caller: &Caller<ConnectorsRead>, login_id: &LoginId) -> Result<Vec<Route>> {
        self.routes(caller.tenant(), login_id).await
    }

    /// Lets a user go back to the rules. Returns whether the user stayed with a connector.
    pub async fn user_unpin(
        &self,
        caller: &Caller<ConnectorsWrite>,
        request: &RequestOptions,
        login_id: &LoginId,
    ) -> Result<bool> {
        self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            txn.user_pin_delete(caller.tenant(), login_id.as_str()).await
        })
        .await
    }

    /// The routes of a login id. The rules decide whether the user logs in with a password, and a pin only which connector checks it:
    /// otherwise the way of logging in that an end user is offered would show who is pinned.
    pub(crate) async fn routes(&self, tenant: TenantId, login_id: &LoginId) -> Result<Vec<Route>> {
        let read = self.shared.store.read();
        let routes = read.routing_policy_fetch(tenant).await?.routes(login_id.as_str());
        match routes.first().map(|route| route.target) {
            None => Err(Error::not_found_by(Resource::RoutingRule, None, [("login_id", login_id.as_str().to_owned())])),
            Some(RouteTarget::Connection(_)) => Ok(routes),
            Some(RouteTarget::Connector(_)) => {
                let pin = read.user_pin_fetch(tenant, login_id.as_str()).await?;
                let pinned = |id| vec![Route { target: RouteTarget::Connector(id), reason: RouteReason::Pinned }];
                Ok(pin.map_or(routes, pinned))
            }
        }
    }

    /// Keeps a user with the connector that accepted the log-in. If that fails, the user is asked for by the rules the next time.
    pub(crate) async fn user_pin<R>(&self, caller: &Caller<R>, login_id: &LoginId, connector: ConnectorId) {
        let (tenant, now) = (caller.tenant(), self.now());
        let pinned = self.change(Change::on_behalf_of(caller), async |txn| {
            txn.user_pin_insert(tenant, login_id.as_str(), connector, now).await
        });
        if let Err(error) = pinned.await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, connector.id = %connector, "a user could not be pinned to a connector");
        }
    }
}

/// The targets that rules name, in their order, or the reasons why they cannot be ones. Connectors are locked before connections, as all
/// transactions lock: the deletion of a connector locks its connections after it.
async fn targets_of(
    txn: &Writer,
    tenant: TenantId,
    rules: &[RuleDraft],
) -> Result<Vec<Result<RouteTarget, Violation>>> {
    let mut order: Vec<_> = rules.iter().enumerate().collect();
    order.sort_by_key(|(_, rule)| matches!(rule.target, TargetRef::Connection(_)));
    let mut targets = BTreeMap::new();
    for (index, rule) in order {
        targets.insert(index, target_of(txn, tenant, &rule.target, index).await?);
    }
    Ok(targets.into_values().collect())
}

/// The target that a rule names, or the reason why it cannot be one.
async fn target_of(
    txn: &Writer,
    tenant: TenantId,
    target: &TargetRef,
    index: usize,
) -> Result<Result<RouteTarget, Violation>> {
    match target {
        TargetRef::Connection(reference) => {
            let connection = named::<Connection>(txn, tenant, reference, index).await?;
            Ok(Ok(RouteTarget::Connection(connection.id)))
        }
        TargetRef::Connector(reference) => {
            let connector = named::<Connector>(txn, tenant, reference, index).await?;
            if !matches!(connector.kind, ConnectorKind::Generic(_)) {
                let kind = connector.kind.as_str();
                let description = format!("must name a connector of the kind generic; this one is of the kind {kind}");
                return Ok(Err(Violation::field(format!("routing_policy.rules[{index}].connector"), description)));
            }
            Ok(Ok(RouteTarget::Connector(connector.id)))
        }
    }
}

/// The resource that a rule names. The error says which rule it is.
async fn named<R: Stored>(txn: &Writer, tenant: TenantId, reference: &Ref, index: usize) -> Result<R> {
    let found = txn.lock_shared::<R>(tenant, reference).await?;
    found.ok_or_else(|| Error::not_found_by(R::RESOURCE, Some(reference.to_string()), [("rule", index.to_string())]))
}
