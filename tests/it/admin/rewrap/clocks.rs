//! RewrapSecrets after a clock was ahead, and with a tenant that is deleted and created again.

use jackfield_api::v1;
use jackfield_domain::rewrap::{Rewrap, RewrapState};
use jackfield_domain::{Clock, SystemClock};
use jackfield_testkit::on_both;
use uuid::Uuid;

use super::{break_material, data_keys, ended, insert, newest, running, sealed_otherwise, start};
use crate::steps;

on_both! {
    /// The clock was two hours ahead when data keys and the last re-wrap were made, and was corrected since.
    async fn a_data_key_from_the_future_is_replaced(server) {
        let (client, operator) = (server.client("alpha"), server.client("operator"));
        let link = steps::linked(&client, "ada", "Gmail").await;
        steps::api_key(&client, &link, "one").await;
        server.sql("UPDATE data_key SET create_time = create_time + 7200000000").await;
        let (store, alpha) = (server.store().await, steps::tenant_id(&server, "alpha").await);
        let ahead = SystemClock.now().plus_micros(7_200_000_000);
        let id = Uuid::from_u128(Uuid::now_v7().as_u128() + (1 << 80 << 32));
        insert(&store, &Rewrap { id, state: RewrapState::Done, ..running("a key", true, ahead) }).await;
        for round in 1..4 {
            let before = data_keys(&store, alpha).await[0].id;
            let rewrap = ended(&operator, true).await;
            assert_eq!((rewrap.state(), rewrap.secrets_total, rewrap.secrets_done), (v1::RewrapState::Done, round, round));
            let [after] = &data_keys(&store, alpha).await[..] else { panic!("the previous data key is gone") };
            assert_ne!(after.id, before);
            // A tenant with the same id may come back within one re-wrap, and its keys differ.
            assert_ne!(after.id.to_string(), rewrap.id);
            steps::api_key(&client, &link, &format!("key {round}")).await;
        }
        store.close().await;
    }

    /// As long as a secret does not open, its key stays. New secrets are sealed with the new key, although the other one is from
    /// the future.
    async fn new_secrets_are_sealed_with_the_new_key(server) {
        let (client, operator) = (server.client("alpha"), server.client("operator"));
        let link = steps::linked(&client, "ada", "Gmail").await;
        let broken = steps::api_key(&client, &link, "one").await.id;
        server.sql("UPDATE data_key SET create_time = create_time + 7200000000").await;
        let (store, alpha) = (server.store().await, steps::tenant_id(&server, "alpha").await);
        let data_key = data_keys(&store, alpha).await[0].id;
        break_material(&store, alpha, &broken, data_key).await;
        let rewrap = ended(&operator, true).await;
        assert_eq!((rewrap.state(), rewrap.failed), (v1::RewrapState::Failed, 1));
        let keys = data_keys(&store, alpha).await;
        assert_eq!((keys.len(), keys[1].id), (2, data_key));
        for number in 0..3 {
            steps::api_key(&client, &link, &format!("key {number}")).await;
        }
        assert_eq!(sealed_otherwise(&store, alpha, keys[0].id).await, 1);
        store.close().await;
    }

    /// A clock was ahead when another one ended, and when this one was started. It is found, and not started beside itself.
    async fn a_rewrap_under_way_comes_before_one_from_the_future(server) {
        let operator = server.client("operator");
        let store = server.store().await;
        let (now, ahead) = (SystemClock.now(), SystemClock.now().plus_micros(7_200_000_000));
        let ended = Rewrap { state: RewrapState::Done, ..running("a key", false, ahead) };
        insert(&store, &ended).await;
        let working = Rewrap { heartbeat_time: ahead, ..running("a key", false, now) };
        insert(&store, &working).await;
        assert_eq!(newest(&operator).await.id, working.id.to_string());
        assert_eq!(start(&operator, true).await.id, working.id.to_string());
        assert_eq!(store.read().rewrap_fetch().await.unwrap().unwrap(), working);
        store.close().await;
    }

    /// The tenant was deleted and created again since the data key was read.
    async fn data_keys_stay_if_the_one_to_keep_is_gone(server) {
        let (store, alpha) = (server.store().await, steps::tenant_id(&server, "alpha").await);
        let before = data_keys(&store, alpha).await[0].id;
        for (keep, deleted) in [(Uuid::now_v7(), 0), (before, 0)] {
            let txn = store.write().await.unwrap();
            assert_eq!(txn.data_keys_delete_others(alpha, keep).await.unwrap(), deleted);
            txn.commit().await.unwrap();
        }
        assert_eq!(data_keys(&store, alpha).await[0].id, before);
        store.close().await;
    }
}
