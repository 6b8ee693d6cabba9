//! The resolution of names.

use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::Arc;

use jackfield_domain::kek::BoxFuture;
use tokio::sync::Semaphore;

/// A source of addresses. It is asked once for each connection, and its answer is dialled as it is.
pub trait Resolver: Send + Sync + 'static {
    /// Finds all addresses of a name. An empty answer is that there are none.
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// The resolver of the operating system.
#[derive(Debug)]
pub struct SystemResolver {
    threads: Arc<Semaphore>,
}

/// The most look-ups at a time. Each blocks a thread until the system answers, even if the caller is gone.
const MAX_LOOKUPS: usize = 64;

// === impl SystemResolver ===

impl Default for SystemResolver {
    fn default() -> Self {
        SystemResolver { threads: Arc::new(Semaphore::new(MAX_LOOKUPS)) }
    }
}

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let permit = self.threads.clone().acquire_owned().await.map_err(io::Error::other)?;
            let name = name.to_owned();
            let lookup = move || {
                let _permit = permit;
                let addresses = (name.as_str(), 0).to_socket_addrs()?;
                Ok(addresses.map(|address| address.ip()).collect())
            };
            tokio::task::spawn_blocking(lookup).await.map_err(io::Error::other)?
        })
    }
}
