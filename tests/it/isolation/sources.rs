//! The calls of a program about credential sources.

use jackfield_api::v1;
use jackfield_testkit::fixture;

use super::program::{Player, USERS};
use super::wire::{Outcome, Wire};

impl Player {
    /// Makes a call about credential sources, of a user or of the tenant.
    pub(super) async fn source(&self, wire: &Wire, method: &str, [a, b, ..]: [usize; 5]) -> Outcome {
        let client = &self.client;
        let tenant_wide = b % 3 == 0;
        let user_id = if tenant_wide { "" } else { USERS[a % USERS.len()] };
        match method {
            "SetCredentialSource" => {
                let source = Some(fixture::a_stream_source(user_id));
                wire.call(client, method, &v1::SetCredentialSourceRequest { source, ..Default::default() }).await
            }
            "GetCredentialSource" => {
                let request = v1::GetCredentialSourceRequest { user_id: user_id.to_owned(), tenant_wide };
                wire.call(client, method, &request).await
            }
            _ => {
                let user_id = user_id.to_owned();
                let request = v1::DeleteCredentialSourceRequest { user_id, tenant_wide, ..Default::default() };
                wire.call(client, method, &request).await
            }
        }
    }
}
