//! Probes of connectors.

use jackfield_domain::connector::{ConnectorKind, ConnectorPatch};
use jackfield_domain::login::LoginId;
use jackfield_domain::principal::right::ConnectorsTest;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::{Result, Secret, Violation};
use jackfield_upstream::probe::{Owner, Plan, Probe, Verdicts};
use tokio::time::Instant;

use crate::attempts::CountedBy;
use crate::caller::Caller;
use crate::outbound::ConnectorDefinition;
use crate::services::Services;

/// The connector that is probed.
pub enum ProbedConnector {
    Stored(Ref),
    /// A patch of a blank connector, with secrets. Nothing of it is stored.
    Draft(Box<ConnectorPatch>),
}

/// A login that the system has to accept.
pub type ProbedLogin = (LoginId, Secret);

// === impl Services ===

impl Services {
    /// Finds out step by step whether the system of a connector can be called. The probe goes on while its verdicts are awaited.
    pub async fn connector_test(
        &self,
        caller: &Caller<ConnectorsTest>,
        connector: ProbedConnector,
        login: Option<ProbedLogin>,
        deadline: Option<Instant>,
    ) -> Result<Verdicts> {
        let (tenant, outbound) = (caller.tenant(), &self.shared.outbound);
        let is_stored = matches!(connector, ProbedConnector::Stored(_));
        let ConnectorDefinition { connector, definition, client } = match connector {
            ProbedConnector::Stored(reference) => outbound.definition(tenant, &reference, None).await?,
            ProbedConnector::Draft(patch) => outbound.draft(tenant, *patch).await?,
        };
        if login.is_some() && !matches!(connector.kind, ConnectorKind::Generic(_) | ConnectorKind::License(_)) {
            let kind = connector.kind.as_str();
            let description =
                format!("is for connectors of the kinds generic and license; this one is of the kind {kind}");
            return Err(Violation::field("login_id", description).into());
        }
        // A test shows if a password is right, as a log-in does.
        if let Some((login_id, _)) = login.as_ref().filter(|_| is_stored) {
            let checker = connector.id.0;
            self.attempt_count(CountedBy { tenant, checker, login_id, address: None, counts_source: false }).await?;
        }
        let plan = Plan::of(&connector.kind, login);
        let owner = Owner { tenant, connector: is_stored.then_some(connector.id.0) };
        Ok(outbound.probe(Probe { owner, client, definition, plan, now: self.now(), deadline }))
    }
}
