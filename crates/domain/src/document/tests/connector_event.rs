//! Documents of events of connectors.

use super::*;
use crate::connector::{Cause, ConnectorEvent, EventOperation, EventOutcome};
use crate::value::id::{ConnectorEventId, ConnectorId};

#[test]
fn a_connector_event() {
    let sparse = json!({
        "id": uuid(1),
        "connector": uuid(2),
        "operation": "AUTHENTICATE_USER",
        "outcome": "REJECTED",
        "reason": "a",
        "duration": { "secs": 1, "nanos": 0 },
        "request_id": uuid(3),
        "login_id": "b",
        "meta": meta_doc(),
    });
    let defaults = json!({ "cause": "", "http_status": null, "application_id": "" });
    let full = ConnectorEvent {
        id: ConnectorEventId(uuid(1)),
        connector: ConnectorId(uuid(2)),
        operation: EventOperation::AuthenticateApplicationUser,
        outcome: EventOutcome::UpstreamFault,
        reason: "a".to_owned(),
        cause: Cause::of(&std::io::Error::other("b")),
        http_status: Some(500),
        duration: Duration::new(1, 2),
        request_id: uuid(3),
        login_id: "c".to_owned(),
        application_id: "d".to_owned(),
        meta: meta(),
    };
    check(&sparse, &defaults, &full);
}
