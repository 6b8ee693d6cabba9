//! Probes: a system is called once, over a connection of its own, and each step on the way has a verdict.
//!
//! A probe is made of the parts that all calls are made of, so what it finds is what calls will find. It takes one of the places of
//! calls if the connector has a client, and does not count for the circuit breaker.

mod certificate;
mod connect;
mod connection;
mod document;
mod endpoints;
mod exchange;
mod license;
mod plan;
mod prepare;
mod reason;
mod report;
mod response;
mod token;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::channel::mpsc::{self, UnboundedReceiver};
use futures::{Stream, StreamExt as _};
use jackfield_domain::probe::{ProbeReason, Verdict};
use jackfield_domain::{TenantId, Timestamp};
use tokio::time::Instant;
use tracing::Instrument as _;
use uuid::Uuid;

use self::connect::{Call, Deadline};
use self::report::{Ended, Report};
use crate::client::{Client, Definition, DefinitionError, Network};

pub use self::connection::{ConnectionProbe, Finding, probe_connection};
pub use self::endpoints::published_endpoints;
pub use self::plan::{DocumentUse, Plan};
pub use self::token::{ProbedCode, TokenCheck};

/// The tenant that makes a probe, and the connector that is probed, if it is stored.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    pub tenant: TenantId,
    pub connector: Option<Uuid>,
}

/// A probe that is to be made.
pub struct Probe {
    pub owner: Owner,
    /// The client of the connector, whose limit of calls at a time counts.
    pub client: Option<Arc<Client>>,
    pub definition: Result<Definition, DefinitionError>,
    /// `None`: there is no URL to call.
    pub plan: Option<Plan>,
    /// The time for which certificates are looked at.
    pub now: Timestamp,
    /// The time at which the caller stops waiting.
    pub deadline: Option<Instant>,
}

/// The verdicts of a probe, in order, each as soon as it is there. The probe goes on while they are awaited, and ends when they
/// are dropped.
pub struct Verdicts {
    work: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    verdicts: UnboundedReceiver<Verdict>,
}

/// Makes a probe.
pub fn probe(network: Arc<Network>, probe: Probe) -> Verdicts {
    let (sender, verdicts) = mpsc::unbounded();
    let work = async move { run(&network, &probe, &mut Report::new(sender, None)).await };
    Verdicts::new(work, verdicts, tracing::info_span!("test a connector"))
}

/// Makes a probe. Each step has a verdict then.
async fn run(network: &Network, probe: &Probe, report: &mut Report) {
    match walk(network, probe, report).await {
        Ok(()) | Err(Ended) if probe.plan.is_none() => {
            report.skip_rest(ProbeReason::UrlMissing, "The connector has no URL that could be called.");
        }
        Ok(()) | Err(Ended) => report.skip_rest(ProbeReason::PreviousStepFailed, "A step before this one failed."),
    }
}

async fn walk(network: &Network, probe: &Probe, report: &mut Report) -> Result<(), Ended> {
    let request = prepare::request(probe.plan.as_ref(), probe.deadline, report)?;
    let definition = prepare::definition(&probe.definition, probe.now, report)?;
    let (Some(plan), Some(request)) = (&probe.plan, request) else { return Ok(()) };
    let target = prepare::url(&plan.url, definition, report)?;
    let Owner { tenant, connector } = probe.owner;
    let observer = network.metrics.observer(connector.map(|connector| (tenant, connector)));
    let observed = observer.begin(&request.method, Some(&target));
    let deadline = Deadline::new(definition.timeouts.total, probe.deadline);
    let call =
        Call { owner: probe.owner, network, definition, url: &plan.url, target: &target, now: probe.now, deadline };
    let made = async {
        call.check_policy(report)?;
        let _place = call.place(probe.client.as_deref(), report).await?;
        let connected = call.open(report).await?;
        call.exchange(connected, request, &plan.subject, report).await
    };
    let outcome = made.instrument(observed.span()).await;
    observed.end(outcome.as_ref().map(|status| *status));
    Ok(())
}

// === impl Verdicts ===

impl Verdicts {
    fn new(
        work: impl Future<Output = ()> + Send + 'static,
        verdicts: UnboundedReceiver<Verdict>,
        span: tracing::Span,
    ) -> Self {
        Verdicts { work: Some(Box::pin(work.instrument(span))), verdicts }
    }
}

impl Stream for Verdicts {
    type Item = Verdict;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Verdict>> {
        if self.work.as_mut().is_some_and(|work| work.as_mut().poll(cx).is_ready()) {
            self.work = None;
        }
        self.verdicts.poll_next_unpin(cx)
    }
}
