//! Users whose credential is gone: they are not named, and not any more.

use jackfield_api::v1;
use jackfield_testkit::on_both;
use serde_json::json;

use super::{State, authorized, becomes, complete, digests, get, named, verified, world};

on_both! {
    async fn a_credential_that_is_gone_names_no_user(server) {
        let world = world(&server).await;
        let email = verified("ada@example.com");
        becomes(&world, "account", email.clone());
        let known = authorized(&world, &world.connection, "known", false).await.credential;
        assert_eq!(named(&world, &world.connection, "second").await, ["known"]);
        let revoke = v1::RevokeCredentialRequest { reference: known.clone(), ..Default::default() };
        world.client.credentials().revoke_credential(revoke).await.unwrap();
        assert_eq!(digests(&server).await, "1");
        assert_eq!(named(&world, &world.connection, "third").await, ["second"]);
        // It is there again once it is authorised again, and is the oldest.
        let again = v1::StartAuthorizationRequest { credential: known.clone(), ..world.request("known") };
        let brought = world.provider.visit(&world.start(again).await.1).await;
        let session = complete(&world.client, brought.completion("known")).await.unwrap();
        assert_eq!((session.state(), &*session.linked_users), (State::Completed, &["second".to_owned(), "third".to_owned()][..]));
        assert_eq!(named(&world, &world.connection, "fourth").await, ["known", "second", "third"]);
        let delete = v1::DeleteCredentialRequest { reference: known, ..Default::default() };
        world.client.credentials().delete_credential(delete).await.unwrap();
        assert_eq!(named(&world, &world.connection, "fifth").await, ["second", "third", "fourth"]);
    }

    /// They were named when the session was completed.
    async fn users_who_are_gone_are_not_named_any_more(server) {
        let world = world(&server).await;
        becomes(&world, "account", json!({}));
        let mut known = Vec::new();
        for user_id in ["deleted", "revoked", "unlinked", "stays"] {
            known.push(authorized(&world, &world.connection, user_id, false).await.credential);
        }
        let last = authorized(&world, &world.connection, "last", false).await;
        assert_eq!(last.linked_users, ["deleted", "revoked", "unlinked", "stays"]);
        assert_eq!(get(&world.client, &last.id).await.unwrap(), last);
        let delete = v1::DeleteCredentialRequest { reference: known[0].clone(), ..Default::default() };
        world.client.credentials().delete_credential(delete).await.unwrap();
        let revoke = v1::RevokeCredentialRequest { reference: known[1].clone(), ..Default::default() };
        world.client.credentials().revoke_credential(revoke).await.unwrap();
        let (user_id, connector) = ("unlinked".to_owned(), world.connection.connector.clone());
        let remove = v1::RemoveUserConnectorRequest { user_id, connector, ..Default::default() };
        world.client.user_connectors().remove_user_connector(remove).await.unwrap();
        assert_eq!(get(&world.client, &last.id).await.unwrap().linked_users, ["stays"]);
        let request = v1::WatchAuthorizationRequest { reference: last.id.clone() };
        let mut watching = world.client.connections().watch_authorization(request).await.unwrap().into_inner();
        let watched = watching.message().await.unwrap().unwrap().authorization.unwrap();
        assert_eq!(watched.linked_users, ["stays"]);
    }
}
