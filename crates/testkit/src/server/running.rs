//! The runtime of a server, and its end.

use std::time::{Duration, Instant};

use tokio::runtime::{Handle, Runtime};

/// A separate runtime. Dropping it drops every task of the server, as in a crash.
pub(super) struct ServerRuntime(Option<Runtime>);

// === impl ServerRuntime ===

impl ServerRuntime {
    pub(super) fn of(runtime: Runtime) -> Self {
        ServerRuntime(Some(runtime))
    }

    pub(super) fn handle(&self) -> &Handle {
        self.0.as_ref().expect("it runs").handle()
    }

    /// Drops every task of the server, and waits until its threads have ended, as they would with a process.
    ///
    /// # Panics
    /// Panics if that takes longer than a time.
    pub(super) async fn end(mut self, patience: Duration) {
        let Some(runtime) = self.0.take() else { return };
        let ending = tokio::task::spawn_blocking(move || {
            let begin = Instant::now();
            runtime.shutdown_timeout(patience);
            begin.elapsed()
        });
        let took = ending.await.expect("the end of the server");
        assert!(took < patience, "the threads of the server do not end");
    }
}

impl Drop for ServerRuntime {
    fn drop(&mut self) {
        // A runtime must not be dropped within another one, because that would block.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
