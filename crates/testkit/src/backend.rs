//! The two databases that Jackfield runs on, and the macro that makes one test run on both.

use std::time::Duration;

/// The time limit of one test. A test that hangs fails under its own name instead of hanging the whole run.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(180);

/// A kind of database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The embedded database, a file in the data directory.
    Sqlite,
    /// A separate database on the PostgreSQL server of the test process.
    Postgres,
}

/// Defines tests that run on both databases. From
///
/// ```ignore
/// on_both! {
///     async fn lists_stop_at_the_limit(server) { … }             // a running TestServer
///     async fn nothing_is_served_without_keys(backend: Backend) { … } // a Backend, to start servers on
/// }
/// ```
///
/// it generates `lists_stop_at_the_limit::sqlite`, `lists_stop_at_the_limit::postgres` and so on. Tests that need
/// PostgreSQL have the path segment `postgres` in their names, so the test command can skip them where there is none.
#[macro_export]
macro_rules! on_both {
    () => {};
    ($(#[$meta:meta])* async fn $name:ident($backend:ident: Backend) $body:block $($rest:tt)*) => {
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports, reason = "a test need not use all that its file imports")]
            use super::*;

            async fn test($backend: $crate::Backend) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                $crate::backend::in_time(test($crate::Backend::Sqlite)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                $crate::backend::in_time(test($crate::Backend::Postgres)).await;
            }
        }
        $crate::on_both! { $($rest)* }
    };
    ($(#[$meta:meta])* async fn $name:ident($server:ident) $body:block $($rest:tt)*) => {
        $crate::on_both! {
            $(#[$meta])*
            async fn $name(backend: Backend) {
                let $server = $crate::TestServer::start(backend).await;
                $body
            }
        }
        $crate::on_both! { $($rest)* }
    };
}

/// Runs a test within [`TEST_TIMEOUT`].
///
/// # Panics
/// Panics if the test takes longer than that.
pub async fn in_time(test: impl Future<Output = ()>) {
    tokio::time::timeout(TEST_TIMEOUT, test).await.expect("the test took too long");
}
