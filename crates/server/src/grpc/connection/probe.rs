//! Messages of TestConnection.

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use jackfield_api::v1 as pb;
use jackfield_domain::Result;
use jackfield_domain::probe::{ProbeEndpoint, Verdict};
use tonic::Status;

use crate::grpc::connector::probe as of_connector;

/// The verdicts on the wire.
pub(super) type VerdictStream = BoxStream<'static, Result<pb::TestConnectionResponse, Status>>;

pub(super) fn stream(verdicts: impl Stream<Item = Verdict> + Send + 'static) -> VerdictStream {
    verdicts.map(|verdict| Ok(to_message(verdict))).boxed()
}

fn to_message(verdict: Verdict) -> pb::TestConnectionResponse {
    let endpoint = verdict.endpoint.map(endpoint_of).unwrap_or_default();
    let pb::TestConnectorResponse { step, result, reason, message, hint, duration, facts } =
        of_connector::to_message(verdict);
    pb::TestConnectionResponse { step, result, reason, message, hint, duration, facts, endpoint: endpoint.into() }
}

/// The value of the contract, whose name is that of the domain with a prefix. A test compares them.
fn endpoint_of(endpoint: ProbeEndpoint) -> pb::ConnectionTestEndpoint {
    let name = format!("CONNECTION_TEST_ENDPOINT_{}", endpoint.as_str());
    pb::ConnectionTestEndpoint::from_str_name(&name).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_has_the_names_of_the_domain() {
        let endpoints: Vec<i32> = ProbeEndpoint::ALL.map(|endpoint| endpoint_of(endpoint).into()).into();
        let contract = (1..1_000).filter(|number| pb::ConnectionTestEndpoint::try_from(*number).is_ok());
        assert_eq!(endpoints, contract.collect::<Vec<i32>>());
    }
}
