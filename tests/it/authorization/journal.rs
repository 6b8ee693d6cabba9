//! The journal of authorisations: tokens that came for a code are stored later if the database is away when they come.

use std::time::Duration;

use jackfield_api::v1::AuthorizationState as State;
use jackfield_testkit::data::SecretUrl;
use jackfield_testkit::{HaProxy, TestServer, expect_status, on_both, postgres};
use tonic::{Code, Response};

use super::{World, complete, device};
use crate::refresh::world::eventually;
use crate::steps;

mod postgres_away {
    mod postgres {
        mod haproxy {
            use super::super::super::*;

            /// A server whose database can be led away.
            async fn behind_a_proxy() -> (TestServer, HaProxy) {
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
                    config.refresh.timeout = Duration::from_secs(3);
                })
                .await;
                (server, proxy)
            }

            /// The number of entries of the journal.
            fn files(server: &TestServer) -> usize {
                let journal = server.data_dir().join("journal/authorizations");
                let names = std::fs::read_dir(journal).unwrap().map(|file| file.unwrap().file_name());
                names.filter(|name| name.to_string_lossy().ends_with(".sealed")).count()
            }

            /// A server that starts again has them, and the one user need not go to the provider again.
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn tokens_are_stored_by_the_next_start() {
                let (mut server, proxy) = behind_a_proxy().await;
                let world = World::new(&server).await;
                let (session, brought) = world.visited("ada").await;
                world.provider.system.hold();
                let (client, completion) = (world.client.clone(), brought.completion("ada"));
                let call = tokio::spawn(async move { complete(&client, completion).await });
                world.provider.system.requests(1).await;
                tokio::task::block_in_place(|| proxy.lead_nowhere());
                world.provider.system.release();
                eventually("the tokens are in the journal", || files(&server) == 1).await;
                server.crash();
                assert!(call.await.unwrap().is_err());
                assert_eq!(files(&server), 1);

                tokio::task::block_in_place(|| proxy.lead_to(0, server.postgres()));
                server.restart().await;
                expect_stored(&server, &session.id).await;
                assert_eq!(world.provider.redeemed().len(), 1);
            }

            /// The code is spent, and is not polled for again.
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn tokens_for_a_device_are_stored_when_the_database_is_back() {
                let (server, proxy) = behind_a_proxy().await;
                let world = World::new(&server).await;
                let started = device::start(&world).await;
                world.provider.reply(device::error(400, "authorization_pending"));
                world.provider.approve(&started.user_code).await;
                let before = world.provider.system.received().len();
                world.provider.system.hold();
                world.provider.reply(None);
                world.provider.system.requests(before + 1).await;
                tokio::task::block_in_place(|| proxy.lead_nowhere());
                world.provider.system.release();
                eventually("the tokens are in the journal", || files(&server) == 1).await;
                let polls = world.provider.polls().len();
                // Longer than the lease.
                tokio::time::sleep(Duration::from_secs(11)).await;
                tokio::task::block_in_place(|| proxy.lead_to(0, server.postgres()));
                expect_stored(&server, &started.id).await;
                assert_eq!(world.provider.polls().len(), polls);
            }

            async fn expect_stored(server: &TestServer, id: &str) {
                let client = server.client("alpha");
                let last = device::ended(&client, id).await;
                assert_eq!(last.state(), State::Completed, "{last:?}");
                assert!(steps::credential_now(&client, &last.credential).await.refreshable);
                eventually("the journal is empty", || files(server) == 0).await;
            }
        }
    }
}

on_both! {
    /// The code is not taken, so the same response completes the session once there is a place for the tokens.
    async fn no_code_is_redeemed_without_a_journal(server) {
        let world = World::new(&server).await;
        let (session, brought) = world.visited("ada").await;
        let journal = server.data_dir().join("journal/authorizations");
        let aside = journal.with_extension("aside");
        std::fs::rename(&journal, &aside).unwrap();
        std::fs::write(&journal, "").unwrap();
        let refused = complete(&world.client, brought.completion("ada")).await;
        expect_status(refused.map(Response::new), Code::Unavailable, "SERVER_UNAVAILABLE");
        assert_eq!(world.provider.redeemed().len(), 0, "the provider is not asked");
        assert_eq!(server.metric("jackfield_credential_journals_unwritable", &[]), Some(1.0));
        std::fs::remove_file(&journal).unwrap();
        std::fs::rename(&aside, &journal).unwrap();
        let completed = complete(&world.client, brought.completion("ada")).await.unwrap();
        assert_eq!((completed.state(), completed.id), (State::Completed, session.id));
    }
}
