//! Probes of connections: each endpoint is probed by itself, one after the other.

use std::sync::Arc;

use futures::channel::mpsc::{self, UnboundedSender};
use jackfield_domain::probe::{ProbeEndpoint, ProbeReason, ProbeResult, ProbeStep, Verdict};

use super::plan::Plan;
use super::report::{Facts, Report};
use super::{Probe, Verdicts, run};
use crate::client::Network;

/// A probe of a connection that is to be made.
pub struct ConnectionProbe {
    /// The connector, with no plan.
    pub connector: Probe,
    /// The same for endpoints to which the client says who it is, if it presents a certificate of its own there.
    pub authenticated: Option<Probe>,
    /// The findings about the definition of the connection. None: nothing is missing.
    pub findings: Vec<Finding>,
    /// The endpoints that are probed, in this order.
    pub plans: Vec<(ProbeEndpoint, Plan)>,
    /// True if the key set is the one that the discovery document names.
    pub seeks_keys: bool,
}

/// A finding about the definition of a connection.
pub struct Finding {
    pub result: ProbeResult,
    pub reason: ProbeReason,
    /// A sentence.
    pub message: String,
}

/// Makes a probe of a connection. An endpoint that fails does not keep the others from being probed.
pub fn probe_connection(network: Arc<Network>, probe: ConnectionProbe) -> Verdicts {
    let (sender, verdicts) = mpsc::unbounded();
    let work = async move {
        let ConnectionProbe { mut connector, mut authenticated, findings, plans, seeks_keys } = probe;
        report_definition(&sender, findings);
        for (endpoint, plan) in plans {
            let mut report = Report::new(sender.clone(), Some(endpoint));
            let probe = match &mut authenticated {
                Some(own) if says_who_it_is(endpoint) => {
                    report.has_client_key = true;
                    own
                }
                _ => &mut connector,
            };
            visit(&network, probe, plan, &mut report).await;
            if let Some(url) = report.named_keys.filter(|_| seeks_keys) {
                let mut report = Report::new(sender.clone(), Some(ProbeEndpoint::Keys));
                visit(&network, &mut connector, Plan::keys(url), &mut report).await;
            }
        }
    };
    Verdicts::new(work, verdicts, tracing::info_span!("test a connection"))
}

/// Returns whether the client says who it is to an endpoint.
fn says_who_it_is(endpoint: ProbeEndpoint) -> bool {
    match endpoint {
        ProbeEndpoint::Token | ProbeEndpoint::DeviceAuthorization | ProbeEndpoint::Revocation => true,
        ProbeEndpoint::Connection | ProbeEndpoint::Discovery | ProbeEndpoint::Keys | ProbeEndpoint::Profile => false,
    }
}

async fn visit(network: &Network, probe: &mut Probe, plan: Plan, report: &mut Report) {
    probe.plan = Some(plan);
    run(network, probe, report).await;
}

fn report_definition(sender: &UnboundedSender<Verdict>, findings: Vec<Finding>) {
    let report = || Report::new(sender.clone(), Some(ProbeEndpoint::Connection));
    if findings.is_empty() {
        report().passed(ProbeStep::Definition, "The connection lacks nothing.", Facts::default());
    }
    for Finding { result, reason, message } in findings {
        report().add(ProbeStep::Definition, result, reason, message, Facts::default());
    }
}
