//! The steps to a connection.

use std::collections::BTreeSet;
use std::time::Duration;

use jackfield_domain::Timestamp;
use jackfield_domain::probe::{ProbeReason, ProbeResult, ProbeStep};
use jackfield_domain::value::url::HttpUrl;
use tokio::net::TcpStream;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::Owner;
use super::certificate::{add_chain, expires_soon};
use super::reason::of_fault;
use super::report::{Facts, Report};
use crate::client::{self, Client, Connected, Definition, Network, dial, handshake, peer, tunnelled};
use crate::egress::{Allowance, Refusal, Target};
use crate::error::Fault;
use crate::tls::{Inspection, TlsFault, inspecting_config};

/// The call of a probe, and everything that decides how it is made.
pub(super) struct Call<'a> {
    pub(super) owner: Owner,
    pub(super) network: &'a Network,
    pub(super) definition: &'a Definition,
    pub(super) url: &'a HttpUrl,
    pub(super) target: &'a Target,
    pub(super) now: Timestamp,
    pub(super) deadline: Deadline,
}

/// The end of a call, or of a part of it.
#[derive(Clone, Copy)]
pub(super) struct Deadline {
    at: Instant,
    source: Limit,
}

/// The limit that a deadline comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Limit {
    Caller,
    Total,
    Connect,
}

/// The precision of timers. A connect timeout that is as long as the total one does not end after it.
const PRECISION: Duration = Duration::from_millis(1);

// === impl Call ===

impl Call<'_> {
    /// Opens a connection. A fault was reported before it is returned.
    pub(super) async fn open(&self, report: &mut Report) -> Result<Connected, Fault> {
        let connecting = self.deadline.connecting(self.definition.timeouts.connect);
        let stream = self.dial(connecting, report).await?;
        self.shake_hands(stream, connecting, report).await
    }

    pub(super) fn check_policy(&self, report: &mut Report) -> Result<(), Fault> {
        let Call { network, definition, target, .. } = self;
        let permitted = self.permitted();
        permitted.map_err(|refusal| report.fault(ProbeStep::EgressPolicy, refusal.into(), Facts::default()))?;
        let because = self.because(&network.allowances(target, definition.proxy.as_ref()));
        let message =
            format!("The egress policy permits the URL{because}. It checks addresses when the name is resolved.");
        report.passed(ProbeStep::EgressPolicy, message, Facts::default());
        Ok(())
    }

    /// Checks that the egress policy permits the URL.
    pub(super) fn permitted(&self) -> Result<(), Refusal> {
        let Call { network, definition, url, target, .. } = self;
        network.policy.check_url(url).and_then(|_| network.check(target, definition.proxy.as_ref()))
    }

    /// Waits for a place among the calls of a client.
    pub(super) async fn place<'a>(
        &self,
        client: Option<&'a Client>,
        report: &mut Report,
    ) -> Result<Option<SemaphorePermit<'a>>, Fault> {
        let Some(client) = client else { return Ok(None) };
        let Deadline { at, source } = self.deadline;
        let place = client.place((source == Limit::Caller).then_some(client::Deadline::Caller(at))).await;
        place.map(Some).inspect_err(|fault| {
            let waited = "while the test waited for a place among the max_concurrent_requests of the connector";
            let message = match fault {
                Fault::CallerTimeout => format!("The time of the caller ended {waited}. The name was not resolved."),
                _ => format!("The connect timeout ended {waited}. The name was not resolved."),
            };
            report.failed(ProbeStep::Dns, of_fault(fault), message, Facts::default());
        })
    }

    /// Resolves the name, and opens a socket and a tunnel.
    async fn dial(&self, deadline: Deadline, report: &mut Report) -> Result<TcpStream, Fault> {
        let Call { network, target, .. } = self;
        let proxy = self.definition.proxy.as_ref();
        let peer = peer(target, proxy);
        // An address that is refused is not shown: it would say what the internal resolver knows.
        let addresses = network.resolve(target, proxy, deadline.at).await;
        let addresses =
            addresses.map_err(|fault| report.fault(ProbeStep::Dns, deadline.of(fault), Facts::default()))?;
        if peer.address().is_some() {
            let message = "The host is an address, so there is no name to resolve.";
            report.skipped(ProbeStep::Dns, ProbeReason::AddressLiteral, message);
        } else {
            let mut facts = Facts::of("name", peer.host());
            for address in &addresses {
                facts.add("address", address);
            }
            let whose = if proxy.is_some() { "The name of the proxy" } else { "The name" };
            let because = self.because(&network.address_allowances(target, proxy, &addresses));
            let message = format!("{whose} is resolved, and the egress policy permits its addresses{because}.");
            report.passed(ProbeStep::Dns, message, facts);
        }

        let dialled = dial(&addresses, peer.port(), deadline.at).await;
        let port = || Facts::of("port", peer.port());
        let mut stream = dialled.map_err(|fault| report.fault(ProbeStep::Tcp, deadline.of(fault), port()))?;
        let facts = stream.peer_addr().map_or_else(|_| port(), |address| Facts::of("peer", address));
        report.passed(ProbeStep::Tcp, "The connection is open.", facts);

        let Some(proxy) = proxy else {
            report.skipped(ProbeStep::Proxy, ProbeReason::NoProxy, "The connector has no egress proxy.");
            return Ok(stream);
        };
        let facts = || Facts::of("proxy", peer.authority());
        let opened = tunnelled(&mut stream, target, proxy, deadline.at).await;
        opened.map_err(|fault| report.fault(ProbeStep::Proxy, deadline.of(fault), facts()))?;
        report.passed(ProbeStep::Proxy, "The proxy has opened a tunnel to the host.", facts());
        Ok(stream)
    }

    /// The part of a sentence that says what permits something although a rule refuses it. The log has the entries.
    fn because(&self, allowances: &BTreeSet<Allowance>) -> String {
        let Owner { tenant, connector } = self.owner;
        for allowance in allowances {
            if let Allowance::Entry(entry) = allowance {
                let connector = connector.map(tracing::field::display);
                tracing::info!(
                    tenant.id = %tenant,
                    connector.id = connector,
                    egress.entry = %entry,
                    "a tested connector calls what an entry of egress.allow permits"
                );
            }
        }
        let shown: BTreeSet<_> = allowances.iter().map(|allowance| self.network.policy.shown(allowance)).collect();
        match shown.into_iter().collect::<Vec<_>>().join(", and ") {
            shown if shown.is_empty() => shown,
            shown => format!(", because {shown}"),
        }
    }

    async fn shake_hands(
        &self,
        stream: TcpStream,
        deadline: Deadline,
        report: &mut Report,
    ) -> Result<Connected, Fault> {
        let Call { definition, target, .. } = self;
        let prepared = inspecting_config(definition.identity(target), &definition.trust);
        let (config, inspection) = prepared.map_err(|error| {
            tracing::warn!(error.message = %error, "a handshake cannot be prepared");
            report.fault(ProbeStep::Tls, Fault::Tls(TlsFault::Other), Facts::default())
        })?;
        match handshake(stream, target, &config, deadline.at).await {
            Ok(connected) if connected.session().is_none() => {
                for step in [ProbeStep::Tls, ProbeStep::ClientCertificate] {
                    report.skipped(step, ProbeReason::NoTls, "The URL is one of http.");
                }
                Ok(connected)
            }
            Ok(connected) => {
                self.report_session(&connected, &inspection, report);
                Ok(connected)
            }
            // In TLS 1.2 the client's certificate is refused at the end of the handshake. The part of the server is good, if it has
            // proved that it has its key.
            Err(fault @ Fault::Tls(TlsFault::ClientCertificate(_))) if inspection.version().is_some() => {
                report.passed(ProbeStep::Tls, "The certificate of the server is good.", self.inspected(&inspection));
                Err(report.fault(ProbeStep::ClientCertificate, fault, Facts::default()))
            }
            Err(fault) => {
                let fault = match fault {
                    Fault::Tls(TlsFault::ClientCertificate(_)) => Fault::Tls(TlsFault::Ended),
                    fault => deadline.of(fault),
                };
                Err(report.fault(ProbeStep::Tls, fault, self.inspected(&inspection)))
            }
        }
    }

    fn report_session(&self, connected: &Connected, inspection: &Inspection, report: &mut Report) {
        let mut facts = Facts::default();
        if let Some(session) = connected.session() {
            let version = session.protocol_version().and_then(|version| version.as_str());
            let suite = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
            let group = session.negotiated_key_exchange_group();
            let group = group.and_then(|group| group.name().as_str().map(str::to_owned));
            let named = [("version", version), ("cipher_suite", suite), ("key_exchange_group", group.as_deref())];
            for (name, value) in named {
                facts.add(name, value.unwrap_or("unknown"));
            }
        }
        let chain = inspection.chain();
        add_chain(&mut facts, &chain, self.now);
        match chain.iter().flatten().any(|certificate| expires_soon(certificate, self.now)) {
            true => {
                let message = "The handshake is done. A certificate of the server expires soon.";
                let reason = ProbeReason::ServerCertificateExpiresSoon;
                report.add(ProbeStep::Tls, ProbeResult::Warning, reason, message, facts);
            }
            false => {
                report.passed(ProbeStep::Tls, "The handshake is done. The certificate of the server is good.", facts)
            }
        }
    }

    /// The facts of a handshake that was not completed.
    fn inspected(&self, inspection: &Inspection) -> Facts {
        let mut facts = Facts::default();
        if let Some(version) = inspection.version().and_then(|version| version.as_str().map(str::to_owned)) {
            facts.add("version", version);
        }
        let chain = inspection.chain();
        if !chain.is_empty() {
            add_chain(&mut facts, &chain, self.now);
        }
        facts
    }
}

// === impl Deadline ===

impl Deadline {
    pub(super) fn new(total: Duration, caller: Option<Instant>) -> Self {
        let total = Instant::now() + total;
        match caller.filter(|caller| *caller < total) {
            Some(at) => Deadline { at, source: Limit::Caller },
            None => Deadline { at: total, source: Limit::Total },
        }
    }

    /// This deadline, or an earlier one: the end of the connect timeout from now on.
    fn connecting(self, timeout: Duration) -> Self {
        let at = Instant::now() + timeout;
        if at < self.at + PRECISION { Deadline { at, source: Limit::Connect } } else { self }
    }

    /// The fault of a connection that took too long, if another limit than that of connections has ended it.
    fn of(self, fault: Fault) -> Fault {
        match fault {
            Fault::ConnectTimeout(_) => self.source.fault().unwrap_or(fault),
            fault => fault,
        }
    }

    /// Does something within the deadline.
    pub(super) async fn limit<T>(self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let late = self.source.fault().unwrap_or(Fault::TotalTimeout);
        timeout_at(self.at, work).await.unwrap_or(Err(late))
    }
}

// === impl Limit ===

impl Limit {
    /// The fault of whatever took longer. `None`: the step that took longer is in it.
    fn fault(self) -> Option<Fault> {
        match self {
            Limit::Caller => Some(Fault::CallerTimeout),
            Limit::Total => Some(Fault::TotalTimeout),
            Limit::Connect => None,
        }
    }
}
