//! Tokens that are revoked: a provider that sends them back in its refusal must not have them shown.

use jackfield_api::v1;
use jackfield_testkit::{Canary, Reply, System, TestServer, fixture};
use prost::Message as _;
use tonic::Code;

use super::raw::call;
use super::sown::Sown;
use crate::refresh::world::eventually;
use crate::{login, steps};

/// Revokes tokens, and deletes credentials that have some.
pub(super) async fn revoke(server: &TestServer, sown: &mut Sown) {
    let system = System::start(|received| {
        let echo = String::from_utf8_lossy(&received.body).into_owned();
        Reply::new(400, serde_json::json!({ "error": "invalid_request", "error_description": echo }).to_string())
    })
    .await;
    let alpha = server.client("alpha");
    let revocation_url = Some(system.url("/revoke"));
    let kind = v1::connector::Kind::Oauth2(v1::OAuth2Connector { revocation_url, ..Default::default() });
    let connector = v1::Connector { kind: Some(kind), ..login::connector(&alpha, &system, "revoking").await };
    let connector = steps::connector(&alpha, connector).await.id;
    let connection = fixture::a_connection("revoking", &connector);
    let request = v1::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
    let connection = alpha.connections().create_connection(request).await.unwrap().into_inner().connection.unwrap().id;
    let mut planted = |what: String| {
        let canary = Canary::new(format!("a revocation: {what}"));
        sown.canaries.push(canary.clone());
        canary.secret
    };
    for (count, method) in ["RevokeCredential", "DeleteCredential"].into_iter().enumerate() {
        steps::link(&alpha, "ada", &connector).await;
        let facts = v1::Credential { connection: connection.clone(), ..fixture::a_credential("ada", &connector) };
        let [access_token, refresh_token] =
            ["access", "refresh"].map(|kind| planted(format!("{kind} token, {method}")));
        let material = fixture::oauth2_material(&access_token, &refresh_token);
        let reference = steps::credential(&alpha, facts, material).await.id;
        // Both have the reference as their first field.
        let request = v1::RevokeCredentialRequest { reference, ..Default::default() }.encode_to_vec();
        let reply = call(&alpha, &format!("jackfield.v1.CredentialsService/{method}"), &request, &[]).await;
        assert_eq!(reply.code, Code::Ok, "{reply:?}");
        sown.replies.push((method.to_owned(), reply));
        eventually("both tokens are sent", || system.received().len() == 2 * (count + 1)).await;
    }
    // What was revoked has nothing to reveal.
    let remove = v1::RemoveUserConnectorRequest { user_id: "ada".to_owned(), connector, ..Default::default() };
    alpha.user_connectors().remove_user_connector(remove).await.unwrap();
}
