//! Explanations of credentials as messages.

use jackfield_api::v1 as pb;
use jackfield_domain::credential::{Credential, NextStep, RefreshAttempt, RefreshEnd, RefreshOutcome, TokenRejection};
use jackfield_service::ExplainedCredential;

use crate::grpc::render;

pub(super) fn to_message(explained: ExplainedCredential) -> pb::ExplainCredentialResponse {
    let ExplainedCredential { credential, explanation, next_attempt, attempts } = explained;
    let obstacle =
        explanation.obstacle.and_then(|reason| pb::ErrorReason::from_str_name(&format!("ERROR_REASON_{reason}")));
    let next_step = match explanation.next_step {
        NextStep::None => pb::NextStep::None,
        NextStep::Wait => pb::NextStep::Wait,
        NextStep::Reauthorize => pb::NextStep::Reauthorize,
        NextStep::StoreMaterial => pb::NextStep::StoreMaterial,
        NextStep::CorrectConnection => pb::NextStep::CorrectConnection,
        NextStep::ActivateConnection => pb::NextStep::ActivateConnection,
        NextStep::EnableConnector => pb::NextStep::EnableConnector,
    };
    let is_of_user = explanation.next_step == NextStep::Reauthorize && credential.can_be_authorized();
    pb::ExplainCredentialResponse {
        start_authorization: is_of_user.then(|| start_authorization(&credential)),
        next_attempt_time: next_attempt.map(render::timestamp),
        rejections: credential.rejections.iter().map(rejection_to_message).collect(),
        credential: Some(super::to_message(credential)),
        obstacle: obstacle.unwrap_or_default().into(),
        next_step: next_step.into(),
        explanation: explanation.text,
        attempts: attempts.into_iter().map(attempt_to_message).collect(),
    }
}

/// The request that begins another authorisation of a credential.
fn start_authorization(credential: &Credential) -> pb::StartAuthorizationRequest {
    pb::StartAuthorizationRequest {
        connection: credential.connection.map(|id| id.to_string()).unwrap_or_default(),
        user_id: credential.user_id.as_str().to_owned(),
        credential: credential.id.to_string(),
        scopes: credential.scopes_to_ask(),
        ..Default::default()
    }
}

fn attempt_to_message(attempt: RefreshAttempt) -> pb::RefreshAttempt {
    let (end_time, outcome, reason, status) = match attempt.end {
        Some(RefreshEnd { time, outcome, reason, status }) => {
            (Some(render::timestamp(time)), outcome_to_message(outcome), reason, status)
        }
        None => (None, pb::RefreshOutcome::Unspecified, String::new(), None),
    };
    pb::RefreshAttempt {
        begin_time: Some(render::timestamp(attempt.sent_time)),
        end_time,
        credential_version: attempt.material_version,
        outcome: outcome.into(),
        reason,
        status: status.map(i32::from).unwrap_or_default(),
    }
}

fn rejection_to_message(rejection: &TokenRejection) -> pb::TokenRejection {
    let TokenRejection { time, material_version, status, error, scopes, replaces: _ } = rejection;
    pb::TokenRejection {
        report_time: Some(render::timestamp(*time)),
        credential_version: *material_version,
        status: status.map(i32::from).unwrap_or_default(),
        error: error.map(|error| error.as_str().to_owned()).unwrap_or_default(),
        scopes: scopes.clone(),
    }
}

const fn outcome_to_message(outcome: RefreshOutcome) -> pb::RefreshOutcome {
    match outcome {
        RefreshOutcome::Refreshed => pb::RefreshOutcome::Refreshed,
        RefreshOutcome::Superseded => pb::RefreshOutcome::Superseded,
        RefreshOutcome::NotProcessed => pb::RefreshOutcome::NotProcessed,
        RefreshOutcome::Unknown => pb::RefreshOutcome::Lost,
        RefreshOutcome::Refused => pb::RefreshOutcome::Refused,
        RefreshOutcome::ConnectionRefused => pb::RefreshOutcome::ConnectionRefused,
    }
}
