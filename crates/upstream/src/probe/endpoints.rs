//! The endpoints that an issuer publishes, as a probe reads them.

use jackfield_domain::value::url::HttpUrl;
use tracing::Instrument as _;

use super::connect::{Call, Deadline};
use super::report::Report;
use super::{Owner, Probe};
use crate::client::{Definition, Network};
use crate::egress::Target;
use crate::error::{CallError, Fault};
use crate::oidc::{DocumentFault, DocumentUrls, ProviderEndpoints, Published, document_request};

/// Reads the endpoints that an issuer publishes, for a probe that depends on them. As in all calls of a probe, each document is read over a
/// connection of its own, and the circuit breaker neither refuses nor counts it. `None`: the definition of the probe cannot be used.
///
/// # Errors
/// The issuer publishes none, or the document is that of another issuer.
pub async fn published_endpoints(
    network: &Network,
    probe: &Probe,
    issuer: &str,
) -> Option<Result<ProviderEndpoints, DocumentFault>> {
    let definition = probe.definition.as_ref().ok()?;
    Some(endpoints(network, (probe, definition), issuer).await)
}

async fn endpoints(
    network: &Network,
    of: (&Probe, &Definition),
    issuer: &str,
) -> Result<ProviderEndpoints, DocumentFault> {
    let urls = DocumentUrls::of(issuer)?;
    let published = match read(network, of, &urls.openid).await {
        Err(first) if first.is_no_document() => {
            read(network, of, &urls.oauth).await.map_err(|second| first.or(second))?
        }
        first => first?,
    };
    ProviderEndpoints::of(&published, issuer)
}

async fn read(
    network: &Network,
    (probe, definition): (&Probe, &Definition),
    url: &HttpUrl,
) -> Result<Published, DocumentFault> {
    let unsent = |fault| CallError { fault, sent: false };
    let target = Target::parse(url).map_err(|fault| unsent(Fault::Refused(fault.into())))?;
    let Owner { tenant, connector } = probe.owner;
    let request = document_request(url.clone(), None);
    let observer = network.metrics.observer(connector.map(|connector| (tenant, connector)));
    let observed = observer.begin(&request.method, Some(&target));
    let deadline = Deadline::new(definition.timeouts.total, probe.deadline);
    let call = Call { owner: probe.owner, network, definition, url, target: &target, now: probe.now, deadline };
    let made = async {
        call.permitted()?;
        let report = &mut Report::unheard();
        let _place = call.place(probe.client.as_deref(), report).await?;
        let connected = call.open(report).await?;
        let responding = call.begin(connected, request).await?;
        let status = responding.status();
        Ok::<_, Fault>((status, call.read(responding).await?))
    };
    let outcome = made.instrument(observed.span()).await;
    observed.end(outcome.as_ref().map(|(status, _)| *status));
    let (status, body) = outcome.map_err(unsent)?;
    Published::of(status, &body)
}
