//! The end of a server: refreshes that begin meanwhile keep no thread of it from ending.

use std::time::Duration;

use futures::future::join_all;
use jackfield_testkit::{ProviderOptions, Rng, on_both};
use tokio::time::timeout;

use super::world::World;

/// The times that a server ends, and the callers who come at once before.
const ENDS: usize = 10;
const CALLERS: usize = 30;

on_both! {
    /// A thread that does not end would have the database open.
    async fn threads_end_while_refreshes_begin(server) {
        let (mut server, mut rng) = (server, Rng::new(1));
        let mut world = World::on(&server, ProviderOptions::default()).await;
        for number in 0..ENDS {
            world.client = server.client("alpha");
            let (world, users) = (&world, (0..CALLERS).map(|user| format!("user-{number}-{user}")));
            let grants = join_all(users.map(|user| async move { world.expired(&user).await })).await;
            let callers = join_all(grants.iter().map(|grant| world.issue(&grant.credential)));
            let _ = timeout(Duration::from_millis(rng.below(25)), callers).await;
            server.crash_and_wait().await;
            server.restart().await;
        }
    }
}
