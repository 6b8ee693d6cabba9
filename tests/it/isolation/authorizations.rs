//! The calls of a program about authorisations.

use jackfield_api::v1;

use super::program::{Player, USERS};
use super::wire::{Outcome, Wire};

impl Player {
    /// Makes a call about authorisations.
    pub(super) async fn authorize(
        &self,
        wire: &Wire,
        method: &str,
        [a, b, c, d, e]: [usize; 5],
        other: &Player,
    ) -> Outcome {
        let client = &self.client;
        let user_id = USERS[a % USERS.len()].to_owned();
        let reference = self.pick("authorization", b, other);
        match method {
            "StartAuthorization" => {
                let connection = self.pick("connection", e, other);
                let credential = if c % 4 == 0 { self.pick("credential", d, other) } else { String::new() };
                let request = v1::StartAuthorizationRequest { connection, user_id, credential, ..Default::default() };
                wire.call(client, method, &request).await
            }
            "CompleteAuthorization" => {
                // Mostly one of its own, sometimes one of the other, or one that is unknown.
                let states = if c % 4 == 0 { &other.states } else { &self.states };
                let state = states.get(d % states.len().max(1)).cloned().unwrap_or_else(|| "a".repeat(43));
                let error = "access_denied".to_owned();
                let request = v1::CompleteAuthorizationRequest { user_id, state, error, ..Default::default() };
                wire.call(client, method, &request).await
            }
            "GetAuthorization" => wire.call(client, method, &v1::GetAuthorizationRequest { reference }).await,
            "WatchAuthorization" => {
                // Otherwise it would be watched until it expires.
                let cancel = v1::CancelAuthorizationRequest { reference: reference.clone(), ..Default::default() };
                wire.call(client, "CancelAuthorization", &cancel).await;
                wire.call(client, method, &v1::WatchAuthorizationRequest { reference }).await
            }
            _ => {
                let request = v1::CancelAuthorizationRequest { reference, ..Default::default() };
                wire.call(client, method, &request).await
            }
        }
    }
}
