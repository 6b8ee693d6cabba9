//! The journal of refreshes: tokens that were received are not lost if the database is away, or the process ends.

use std::time::Duration;

use jackfield_api::v1;
use jackfield_testkit::data::SecretUrl;
use jackfield_testkit::provider::Gate;
use jackfield_testkit::{Backend, HaProxy, ProviderFault, ProviderOptions, Proxy, TestServer, logs, on_both, postgres};
use tokio::time::timeout;
use tonic::Code;
use uuid::Uuid;

use super::world::{World, eventually};

mod postgres_away {
    mod postgres {
        mod haproxy {
            use super::super::super::*;

            /// The one call that has the new tokens returns them. Once the database is back, the next one finds them in the journal.
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn tokens_are_issued_and_stored_later() {
                let (database, proxy) = tokio::task::spawn_blocking(|| {
                    let database = postgres::fresh_server();
                    let proxy = HaProxy::before(&database);
                    (database, proxy)
                })
                .await
                .expect("servers");
                let server = TestServer::start_on(database, |config| {
                    config.database.url = SecretUrl::new(proxy.url().to_owned());
                    config.database.acquire_timeout = Duration::from_secs(1);
                })
                .await;
                let world = World::on(&server, ProviderOptions::default()).await;
                let grant = world.expired("ada").await;
                let gate = Gate::closed();
                world.provider.fail([ProviderFault::none().held(&gate)]);
                let away = async {
                    world.sent(1).await;
                    tokio::task::block_in_place(|| proxy.lead_nowhere());
                    gate.open();
                };
                let (issued, ()) = tokio::join!(world.issue(&grant.credential), away);
                let live = world.provider.live(grant.family).unwrap();
                assert_eq!(issued.unwrap().access_token, live.access_token);
                assert!(world.issue(&grant.credential).await.is_err(), "the database is away");

                tokio::task::block_in_place(|| proxy.lead_to(0, server.postgres()));
                let found = timeout(Duration::from_secs(60), async {
                    loop {
                        if let Ok(found) = world.issue(&grant.credential).await {
                            return found;
                        }
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                });
                let found = found.await.expect("the database is back");
                assert_eq!((found.access_token, found.credential_version), (live.access_token, 2));
                assert_eq!(world.facts(&grant.credential).await.state(), v1::CredentialState::Valid);
                assert_eq!((world.provider.exchanges(grant.family), world.provider.reuses(grant.family)), (1, 0));
                let journal = server.data_dir().join("journal/refreshes");
                eventually("it is removed", || std::fs::read_dir(&journal).unwrap().count() == 0).await;
            }
        }
    }
}

mod postgres_back {
    mod postgres {
        use super::super::*;

        /// No caller asks the server that has them. Once its lease is over, the other one would find an attempt without an end.
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn tokens_of_a_journal_are_not_lost_to_another_replica() {
            let mut proxy = None;
            let server = TestServer::start_with(Backend::Postgres, |config| {
                let before = Proxy::before(config.database.url.expose());
                config.database.url = SecretUrl::new(before.url().to_owned());
                config.database.acquire_timeout = Duration::from_secs(1);
                // A lease is three times as long.
                config.refresh.timeout = Duration::from_secs(2);
                proxy = Some(before);
            });
            let (server, proxy) = (server.await, proxy.expect("a proxy"));
            let replica = server.replica().await.unwrap();
            let world = World::on(&server, ProviderOptions::default()).await;
            let grant = world.expired("ada").await;
            let gate = Gate::closed();
            world.provider.fail([ProviderFault::none().held(&gate)]);
            let away = async {
                world.sent(1).await;
                proxy.set_reachable(false);
                gate.open();
            };
            let (issued, ()) = tokio::join!(world.issue(&grant.credential), away);
            let live = world.provider.live(grant.family).unwrap();
            assert_eq!(issued.unwrap().access_token, live.access_token);

            proxy.set_reachable(true);
            let client = replica.client("alpha");
            let found = timeout(Duration::from_secs(60), async {
                loop {
                    match world.issue_by(&client, &grant.credential).await {
                        Ok(found) => return found,
                        Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
            let found = found.await.expect("the database is back");
            assert_eq!((found.access_token, found.credential_version), (live.access_token, 2));
            assert_eq!((world.provider.exchanges(grant.family), world.provider.reuses(grant.family)), (1, 0));
        }
    }
}

on_both! {
    /// The operator has to know which file it is. It keeps nothing else from being done.
    async fn an_entry_that_cannot_be_read_is_named(server) {
        let mut server = server;
        let files = ["refreshes", "authorizations"].map(|of| {
            server.data_dir().join("journal").join(of).join(format!("{}.sealed", Uuid::now_v7()))
        });
        for file in &files {
            std::fs::write(file, "an entry that was altered").unwrap();
        }
        server.restart().await;
        for file in &files {
            let of_file = file.display().to_string();
            eventually("it is named", || {
                logs::text().lines().any(|line| line.contains(&of_file) && line.contains("it was altered"))
            })
            .await;
            assert!(file.exists(), "it may be put right");
        }
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.expired("ada").await;
        world.issue(&grant.credential).await.unwrap();
    }

    /// Nothing can be read from the beginning of an entry.
    async fn an_entry_that_was_not_finished_is_removed(server) {
        let mut server = server;
        let journal = server.data_dir().join("journal/refreshes");
        std::fs::write(journal.join(format!("{}.unfinished", Uuid::now_v7())), "half of an ent").unwrap();
        server.restart().await;
        eventually("it is removed", || std::fs::read_dir(&journal).unwrap().count() == 0).await;
    }
}
