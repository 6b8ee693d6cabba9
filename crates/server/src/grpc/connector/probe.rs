//! Messages of TestConnector.

use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use jackfield_api::v1 as pb;
use jackfield_api::v1::test_connector_request::Definition;
use jackfield_domain::login::{LoginId, password};
use jackfield_domain::probe::{ProbeReason, ProbeResult, ProbeStep, Verdict};
use jackfield_domain::request::reference::{Ref, ReferenceForms};
use jackfield_domain::{Result, Violation, Violations};
use jackfield_service::{ProbedConnector, ProbedLogin};
use tokio::time::Instant;
use tonic::Status;

use super::patch;
use crate::grpc::api;
use crate::grpc::fields::Fields;
use crate::grpc::render;

/// The verdicts on the wire.
pub(super) type VerdictStream = BoxStream<'static, Result<pb::TestConnectorResponse, Status>>;

/// The time that is left to send the last verdict when the deadline of a call comes near.
const MARGIN: Duration = Duration::from_millis(200);

/// The connector and the login that a request names.
pub(super) fn parse(request: pb::TestConnectorRequest) -> Result<(ProbedConnector, Option<ProbedLogin>)> {
    let pb::TestConnectorRequest { definition, login_id, password: text } = request;
    let mut violations = Violations::default();
    let connector = match definition {
        Some(Definition::Reference(reference)) => {
            let reference = violations.check(Ref::parse("reference", &reference, ReferenceForms::ID_NAME));
            reference.map(ProbedConnector::Stored)
        }
        Some(Definition::Connector(connector)) => {
            let patch = patch::parse(&mut Fields::of_new("connector", &mut violations), connector);
            Some(ProbedConnector::Draft(Box::new(patch)))
        }
        None => {
            violations.push(Violation::field("definition", "is required: a reference or a connector"));
            None
        }
    };
    let login = match (login_id.is_empty(), text.is_empty()) {
        (true, true) => Some(None),
        (true, false) => {
            violations.push(Violation::field("password", "must not be given without login_id"));
            None
        }
        (false, _) => {
            let login_id = violations.check(LoginId::parse("login_id", &login_id));
            login_id.zip(violations.check(password("password", text))).map(Some)
        }
    };
    violations.into_result(connector.zip(login))
}

/// The time at which a probe has to end, so that its caller learns why.
pub(in crate::grpc) fn deadline() -> Option<Instant> {
    let deadline = api::deadline()?;
    let left = deadline.saturating_duration_since(Instant::now());
    Some(deadline - MARGIN.min(left / 10))
}

pub(super) fn stream(verdicts: impl Stream<Item = Verdict> + Send + 'static) -> VerdictStream {
    verdicts.map(|verdict| Ok(to_message(verdict))).boxed()
}

/// A verdict without the part of a connection that it is about.
pub(in crate::grpc) fn to_message(verdict: Verdict) -> pb::TestConnectorResponse {
    let hint = verdict.hint().into_owned();
    let Verdict { endpoint: _, step, result, reason, message, duration, facts, has_client_key: _ } = verdict;
    pb::TestConnectorResponse {
        step: step_of(step).into(),
        result: result_of(result).into(),
        reason: reason_of(reason).into(),
        message,
        hint,
        duration: Some(render::duration(duration)),
        facts: facts.into_iter().map(|(name, value)| pb::ConnectorTestFact { name, value }).collect(),
    }
}

// The names of the contract are those of the domain with a prefix. A test compares them.

fn step_of(step: ProbeStep) -> pb::ConnectorTestStep {
    pb::ConnectorTestStep::from_str_name(&format!("CONNECTOR_TEST_STEP_{}", step.as_str())).unwrap_or_default()
}

fn result_of(result: ProbeResult) -> pb::ConnectorTestResult {
    pb::ConnectorTestResult::from_str_name(&format!("CONNECTOR_TEST_RESULT_{}", result.as_str())).unwrap_or_default()
}

fn reason_of(reason: ProbeReason) -> pb::ConnectorTestReason {
    pb::ConnectorTestReason::from_str_name(&format!("CONNECTOR_TEST_REASON_{}", reason.as_str())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The numbers of an enum of the contract, without UNSPECIFIED.
    fn numbers<E: TryFrom<i32>>() -> BTreeSet<i32> {
        (1..1_000).filter(|number| E::try_from(*number).is_ok()).collect()
    }

    #[test]
    fn the_contract_has_the_names_of_the_domain() {
        let steps: Vec<i32> = ProbeStep::ALL.map(|step| step_of(step).into()).into();
        assert!(steps.is_sorted() && steps.into_iter().collect::<BTreeSet<_>>() == numbers::<pb::ConnectorTestStep>());
        let reasons: BTreeSet<i32> = ProbeReason::ALL.iter().map(|reason| reason_of(*reason).into()).collect();
        assert_eq!(reasons, numbers::<pb::ConnectorTestReason>());
        let results = [ProbeResult::Ok, ProbeResult::Warning, ProbeResult::Failed, ProbeResult::Skipped];
        let results: BTreeSet<i32> = results.map(|result| result_of(result).into()).into();
        assert_eq!(results, numbers::<pb::ConnectorTestResult>());
    }
}
