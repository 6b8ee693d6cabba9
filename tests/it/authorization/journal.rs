//! The journal of authorisations: tokens that came for a code are stored later if the database is away when they come.

use std::time::Duration;

use jackfield_api::v1::AuthorizationState as State;
use jackfield_testkit::data::SecretUrl;
use jackfield_testkit::{HaProxy, TestServer, postgres};

use super::{World, complete, get};
use crate::steps;

mod postgres_away {
    mod postgres {
        mod haproxy {
            use super::super::super::*;

            /// A server that starts again has them, and the one user need not go to the provider again.
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn tokens_are_stored_by_the_next_start() {
                let (database, proxy) = tokio::task::spawn_blocking(|| {
                    let database = postgres::fresh_server();
                    let proxy = HaProxy::before(&database);
                    (database, proxy)
                })
                .await
                .expect("servers");
                let mut server = TestServer::start_on(database, |config| {
                    config.database.url = SecretUrl::new(proxy.url().to_owned());
                    config.database.acquire_timeout = Duration::from_secs(1);
                })
                .await;
                let world = World::new(&server).await;
                let (session, brought) = world.visited("ada").await;
                world.provider.system.hold();
                let journal = server.data_dir().join("journal/authorizations");
                let files = || std::fs::read_dir(&journal).unwrap().count();
                let (client, completion) = (world.client.clone(), brought.completion("ada"));
                let call = tokio::spawn(async move { complete(&client, completion).await });
                world.provider.system.requests(1).await;
                tokio::task::block_in_place(|| proxy.lead_nowhere());
                world.provider.system.release();
                while files() == 0 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                server.crash();
                assert!(call.await.unwrap().is_err());
                assert_eq!(files(), 1);

                tokio::task::block_in_place(|| proxy.lead_to(0, server.postgres()));
                server.restart().await;
                let client = server.client("alpha");
                let session = get(&client, &session.id).await.unwrap();
                assert_eq!(session.state(), State::Completed, "{session:?}");
                assert!(steps::credential_now(&client, &session.credential).await.refreshable);
                assert_eq!((files(), world.provider.redeemed().len()), (0, 1));
            }
        }
    }
}
