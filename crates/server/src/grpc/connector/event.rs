//! Messages of ListConnectorEvents.

use jackfield_api::v1 as pb;
use jackfield_domain::connector::{ConnectorEvent, EventOperation, EventOutcome};
use jackfield_service::ListedPage;

use crate::grpc::render;

pub(super) fn to_page(page: ListedPage<ConnectorEvent>) -> pb::ListConnectorEventsResponse {
    pb::ListConnectorEventsResponse {
        connector_events: page.items.into_iter().map(to_message).collect(),
        next_page_token: page.next_page_token,
    }
}

fn to_message(event: ConnectorEvent) -> pb::ConnectorEvent {
    let ConnectorEvent {
        id,
        connector,
        operation,
        outcome,
        reason,
        cause,
        http_status,
        duration,
        request_id,
        login_id,
        application_id,
        meta,
    } = event;
    pb::ConnectorEvent {
        id: id.to_string(),
        connector: connector.to_string(),
        create_time: Some(render::timestamp(meta.create_time)),
        operation: operation_to_message(operation).into(),
        outcome: outcome_to_message(outcome).into(),
        reason,
        cause: cause.into(),
        http_status: http_status.map(i32::from),
        duration: Some(render::duration(duration)),
        request_id: request_id.to_string(),
        login_id,
        application_id,
    }
}

fn operation_to_message(operation: EventOperation) -> pb::ConnectorEventOperation {
    match operation {
        EventOperation::AuthenticateUser => pb::ConnectorEventOperation::AuthenticateUser,
        EventOperation::AuthenticateApplicationUser => pb::ConnectorEventOperation::AuthenticateApplicationUser,
    }
}

fn outcome_to_message(outcome: EventOutcome) -> pb::ConnectorEventOutcome {
    match outcome {
        EventOutcome::Accepted => pb::ConnectorEventOutcome::Accepted,
        EventOutcome::Rejected => pb::ConnectorEventOutcome::Rejected,
        EventOutcome::UpstreamFault => pb::ConnectorEventOutcome::UpstreamFault,
    }
}
