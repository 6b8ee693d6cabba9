//! A real server in the test process: its own data, its own port, mutual TLS.

mod running;

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jackfield_api::v1;
use jackfield_domain::{Clock, SystemClock};
use jackfield_server::{Surroundings, config::Config};
use jackfield_store::{PoolSettings, Store};
use jackfield_transport::{Server, telemetry::Meters};
use tokio::{runtime, sync::oneshot};

use self::running::ServerRuntime;
use crate::{
    backend::Backend,
    client::{Callers, Client},
    data::Data,
    fixture,
    http2::Http2,
    logs,
    pki::{Identity, Leaf, Pki},
    postgres::Database,
};

/// A running server. It ends abruptly when this value is dropped; [`TestServer::stop`] shuts it down in order.
///
/// It has the tenants `default`, `alpha` and `beta` and the [`PRINCIPALS`](crate::data::PRINCIPALS).
pub struct TestServer {
    data: Arc<Data>,
    config: Config,
    surroundings: Surroundings,
    running: Option<Running>,
    /// One connection for each caller.
    clients: Mutex<HashMap<String, Client>>,
}

/// The time that threads of a server that crashed may take to end what they had begun: until then they may have its database open. The end
/// of a process would end them.
const AFTERMATH: Duration = Duration::from_secs(10);

/// A server in a runtime of its own.
struct Running {
    address: SocketAddr,
    license_api: Option<SocketAddr>,
    callback: Option<SocketAddr>,
    meters: Meters,
    shutdown: oneshot::Sender<()>,
    /// Receives whether every call could finish.
    ended: oneshot::Receiver<bool>,
    runtime: ServerRuntime,
}

// === impl TestServer ===

impl TestServer {
    fn new(data: Arc<Data>, config: Config, surroundings: Surroundings) -> Self {
        TestServer { data, config, surroundings, running: None, clients: Mutex::default() }
    }

    /// Starts a server on an empty database.
    ///
    /// # Panics
    /// Panics if it does not start.
    pub async fn start(backend: Backend) -> Self {
        Self::start_with(backend, |_| {}).await
    }

    /// Starts a server on an empty database, with changes to its configuration.
    ///
    /// # Panics
    /// Panics if it does not start.
    pub async fn start_with(backend: Backend, change: impl FnOnce(&mut Config)) -> Self {
        Self::start_at(backend, Arc::new(SystemClock), change).await
    }

    /// As [`TestServer::start_with`], on an existing PostgreSQL database whose server the test manipulates.
    ///
    /// # Panics
    /// Panics if it does not start.
    pub async fn start_on(database: Database, change: impl FnOnce(&mut Config)) -> Self {
        logs::install();
        let data = tokio::task::spawn_blocking(move || Data::on(database)).await.expect("data of the server");
        let mut config = data.config();
        change(&mut config);
        let mut server = Self::new(Arc::new(data), config, Surroundings::default());
        server.run().await;
        server.create_tenants().await;
        server
    }

    /// As [`TestServer::start_with`], with a clock that the test provides. Certificates still use the clock of the
    /// machine.
    ///
    /// # Panics
    /// Panics if it does not start.
    pub async fn start_at(backend: Backend, clock: Arc<dyn Clock>, change: impl FnOnce(&mut Config)) -> Self {
        logs::install();
        let data = tokio::task::spawn_blocking(move || Data::create(backend)).await.expect("data of the server");
        let mut config = data.config();
        change(&mut config);
        let mut server = Self::new(Arc::new(data), config, Surroundings { clock, ..Surroundings::default() });
        server.run().await;
        server.create_tenants().await;
        server
    }

    /// Starts several replicas at once on one empty PostgreSQL database.
    ///
    /// # Panics
    /// Panics if one of them does not start.
    pub async fn start_at_once(count: usize) -> Vec<Self> {
        logs::install();
        let data = tokio::task::spawn_blocking(|| Arc::new(Data::create(Backend::Postgres))).await;
        let data = data.expect("data of the servers");
        let start = || async {
            let config = data.config();
            let mut server = Self::new(Arc::clone(&data), config, Surroundings::default());
            server.run().await;
            server
        };
        let servers = futures::future::join_all((0..count).map(|_| start())).await;
        servers[0].create_tenants().await;
        servers
    }

    /// Starts another server on the same database, keyring and certificates, as a replica. `None` on SQLite, whose file
    /// belongs to one server: its lock has no queue, so a server that misses it too often fails.
    ///
    /// # Panics
    /// Panics if it does not start.
    pub async fn replica(&self) -> Option<Self> {
        if self.data.backend() == Backend::Sqlite {
            return None;
        }
        let mut server = Self::new(Arc::clone(&self.data), self.config.clone(), self.surroundings.clone());
        server.run().await;
        Some(server)
    }

    /// The caller of that name among [`PRINCIPALS`](crate::data::PRINCIPALS), or one that the test's configuration
    /// knows by [`Identity::of`] this name.
    pub fn client(&self, principal: &str) -> Client {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let connect = || self.client_with(&self.data.pki().client(Identity::of(principal)));
        clients.entry(principal.to_owned()).or_insert_with(connect).clone()
    }

    /// A caller with a certificate that the test chooses.
    pub fn client_with(&self, leaf: &Leaf) -> Client {
        Client::new(self.address(), &self.data.pki().ca_pem(), Some(leaf))
    }

    /// The caller of that name, on a separate connection whose windows hold this many bytes of unread answers.
    pub fn client_with_window(&self, principal: &str, bytes: u32) -> Client {
        let leaf = self.data.pki().client(Identity::of(principal));
        Client::tuned(self.address(), &self.data.pki().ca_pem(), Some(&leaf), |endpoint| {
            endpoint.initial_stream_window_size(bytes).initial_connection_window_size(16 * 1024 * 1024)
        })
    }

    /// A connection of the caller of that name, which reads only what the test reads; see [`Http2`].
    pub async fn http2(&self, principal: &str, window: u32) -> Http2 {
        let leaf = self.data.pki().client(Identity::of(principal));
        Http2::connect(self.address(), &self.data.pki().ca_pem(), (&leaf.certificate_pem, &leaf.key_pem), window).await
    }

    /// A caller without a certificate.
    pub fn anonymous(&self) -> Client {
        Client::new(self.address(), &self.data.pki().ca_pem(), None)
    }

    /// The address at which it listens.
    ///
    /// # Panics
    /// Panics if the server is stopped.
    pub fn address(&self) -> SocketAddr {
        self.running.as_ref().expect("the server is stopped").address
    }

    /// The address at which it serves the licence API.
    ///
    /// # Panics
    /// Panics if the server is stopped, or does not serve it.
    pub fn license_api_address(&self) -> SocketAddr {
        let running = self.running.as_ref().expect("the server is stopped");
        running.license_api.expect("the server serves the licence API")
    }

    /// The address of its callback listener.
    ///
    /// # Panics
    /// Panics if the server is stopped, or has none.
    pub fn callback_address(&self) -> SocketAddr {
        let running = self.running.as_ref().expect("the server is stopped");
        running.callback.expect("the server has a callback listener")
    }

    /// Its runtime, for tasks that find out how busy it is.
    ///
    /// # Panics
    /// Panics if the server is stopped.
    pub fn runtime(&self) -> runtime::Handle {
        self.running.as_ref().expect("the server is stopped").runtime.handle().clone()
    }

    /// The URL below which it serves the licence API in plaintext.
    ///
    /// # Panics
    /// As [`TestServer::license_api_address`].
    pub fn license_api_base(&self) -> String {
        format!("http://{}/api/v1", self.license_api_address())
    }

    /// Its authority.
    pub fn pki(&self) -> &Pki {
        self.data.pki()
    }

    /// The database it runs on.
    pub fn backend(&self) -> Backend {
        self.data.backend()
    }

    /// Its PostgreSQL database.
    ///
    /// # Panics
    /// Panics if it runs on SQLite.
    pub fn postgres(&self) -> &Database {
        self.data.database().expect("the server runs on SQLite")
    }

    /// The store of the server, opened a second time.
    ///
    /// # Panics
    /// Panics if it does not open.
    pub async fn store(&self) -> Store {
        let database = match self.data.database() {
            Some(database) => jackfield_store::Database::Postgres(database.url()),
            None => jackfield_store::Database::Sqlite(self.sqlite_file()),
        };
        let settings = PoolSettings { max_connections: 2, acquire_timeout: Duration::from_secs(5) };
        Store::connect(&database, settings).await.expect("the store does not open")
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.config.data_dir
    }

    /// Its SQLite file.
    pub fn sqlite_file(&self) -> PathBuf {
        self.data_dir().join("jackfield.sqlite3")
    }

    /// Its configuration; changes take effect with the next [`TestServer::restart`].
    pub fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// Its surroundings; changes take effect with the next [`TestServer::restart`].
    pub fn surroundings_mut(&mut self) -> &mut Surroundings {
        &mut self.surroundings
    }

    /// Everything that its database has written, as bytes to search. The keyring is not part of it.
    pub fn stored_bytes(&self) -> Vec<u8> {
        match self.data.database() {
            Some(database) => database.stored_bytes(),
            None => {
                let files = ["", "-wal", "-shm", "-journal"].map(|suffix| {
                    let mut path = self.sqlite_file().into_os_string();
                    path.push(suffix);
                    std::fs::read(path).unwrap_or_default()
                });
                files.concat()
            }
        }
    }

    /// Drains the server, waits until it has ended, and returns whether every call could finish.
    ///
    /// # Panics
    /// Panics if it is not running, or has failed.
    pub async fn stop(&mut self) -> bool {
        let Running { shutdown, ended, runtime: _runtime, .. } = self.running.take().expect("the server is stopped");
        self.forget_clients();
        shutdown.send(()).expect("the server has failed");
        ended.await.expect("the server has failed")
    }

    /// Drops the server at once, as in a crash.
    pub fn crash(&mut self) {
        self.forget_clients();
        self.running = None;
    }

    /// As [`TestServer::crash`], and waits until its threads have ended.
    ///
    /// # Panics
    /// Panics if they do not end.
    pub async fn crash_and_wait(&mut self) {
        self.forget_clients();
        if let Some(Running { runtime, .. }) = self.running.take() {
            runtime.end(AFTERMATH).await;
        }
    }

    /// Stops the server if it runs, and starts it on the same data, on another port.
    ///
    /// # Panics
    /// Panics if it does not start.
    pub async fn restart(&mut self) {
        if self.running.is_some() {
            self.stop().await;
        }
        let until = Instant::now() + AFTERMATH;
        while let Err(error) = self.try_run().await {
            assert!(Instant::now() < until, "the server does not start: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Stops the server if it runs, and tries to start it on the same data.
    ///
    /// # Errors
    /// The reason that the service does not open, as the operator reads it.
    pub async fn try_restart(&mut self) -> Result<(), String> {
        if self.running.is_some() {
            self.stop().await;
        }
        self.try_run().await
    }

    /// The metrics page.
    ///
    /// # Panics
    /// Panics if the server is stopped.
    pub fn metrics_page(&self) -> String {
        self.running.as_ref().expect("the server is stopped").meters.page().expect("a metrics page")
    }

    /// The value of the series with this name and these labels on the metrics page, if there is one.
    ///
    /// # Panics
    /// Panics if the server is stopped, or if there are several such series.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        Self::metric_on(&self.metrics_page(), name, labels)
    }

    /// As [`TestServer::metric`], on a page fetched before: everything may have changed from one page to the next.
    ///
    /// # Panics
    /// Panics if there are several such series.
    pub fn metric_on(page: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels: Vec<_> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let is_it = |line: &str| {
            let of_name = line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
            of_name && labels.iter().all(|label| line.contains(label))
        };
        let mut lines = page.lines().filter(|line| is_it(line));
        let line = lines.next()?;
        assert_eq!(lines.next(), None, "{name} with {labels:?} is one series");
        line.rsplit(' ').next().and_then(|value| value.parse().ok())
    }

    /// Runs a statement directly on the database, as someone with access to it but not to the keys could. Returns a
    /// line for each row: columns separated by "|", bytes in hexadecimal.
    ///
    /// # Panics
    /// Panics if the database refuses it.
    pub async fn sql(&self, statement: &str) -> Vec<String> {
        if let Some(database) = self.data.database() {
            return database.run(statement).lines().map(str::to_owned).collect();
        }
        let store = self.store().await;
        let rows = store.raw_write(statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        store.close().await;
        rows
    }

    async fn run(&mut self) {
        self.try_run().await.unwrap_or_else(|error| panic!("the server does not start: {error}"));
    }

    async fn try_run(&mut self) -> Result<(), String> {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        logs::adopt(runtime.handle());
        let (config, surroundings) = (self.config.clone(), self.surroundings.clone());
        let (bound, address) = oneshot::channel();
        let (shutdown, stopped) = oneshot::channel();
        let (ending, ended) = oneshot::channel();
        runtime.spawn(async move {
            let server = match bind(config, surroundings).await {
                Ok(server) => server,
                Err(error) => {
                    let _ = bound.send(Err(error));
                    return;
                }
            };
            let address = server.local_addr().expect("the server listens on TCP");
            // There is no receiver any more if the test has ended.
            let http = (server.http_addr("license_api"), server.http_addr("callback"));
            let _ = bound.send(Ok((address, http, server.meters())));
            let complete = server.serve(async move { drop(stopped.await) }).await;
            let _ = ending.send(complete);
        });
        let runtime = ServerRuntime::of(runtime);
        let (address, (license_api, callback), meters) = address.await.expect("the server panics at its start")?;
        self.running = Some(Running { address, license_api, callback, meters, shutdown, ended, runtime });
        Ok(())
    }

    async fn create_tenants(&self) {
        for name in ["alpha", "beta"] {
            let request = v1::CreateTenantRequest { tenant: Some(fixture::a_tenant(name)), ..Default::default() };
            self.client("operator").admin().create_tenant(request).await.expect("a tenant of the test server");
        }
    }

    fn forget_clients(&self) {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Callers for TestServer {
    fn client(&self, principal: &str) -> Client {
        TestServer::client(self, principal)
    }

    fn client_with(&self, leaf: &Leaf) -> Client {
        TestServer::client_with(self, leaf)
    }

    fn pki(&self) -> &Pki {
        TestServer::pki(self)
    }
}

impl fmt::Debug for TestServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.running.as_ref().map(|running| running.address);
        f.debug_struct("TestServer").field("backend", &self.data.backend()).field("address", &address).finish()
    }
}

/// A server with the real service.
async fn bind(config: Config, surroundings: Surroundings) -> Result<Server, String> {
    let backend = jackfield_server::open_in(&config, surroundings).await.map_err(|error| chain(&error))?;
    Server::bind(config.transport(), backend).await.map_err(|error| chain(&error))
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    causes.collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{collect, on_both, pki::Flaw};

    on_both! {
        async fn only_known_callers_are_answered(server) {
            let list = |client: Client| async move {
                collect::items(client.connectors().list_connectors(v1::ListConnectorsRequest::default()).await).await
            };
            assert_eq!(list(server.client("alpha")).await.unwrap(), []);
            let replica = server.replica().await;
            assert_eq!(list(replica.as_ref().unwrap_or(&server).client("beta")).await.unwrap(), []);
            list(server.anonymous()).await.unwrap_err();
            list(server.client_with(&server.pki().client(Identity::of("unknown")))).await.unwrap_err();
            let stranger = server.pki().flawed_client(Identity::of("alpha"), Flaw::WrongAuthority);
            list(server.client_with(&stranger)).await.unwrap_err();
        }

        async fn data_survives_a_stop_and_a_crash(server) {
            let mut server = server;
            let connector = Some(fixture::a_connector("kept"));
            let request = v1::CreateConnectorRequest { connector, ..Default::default() };
            server.client("alpha").connectors().create_connector(request).await.unwrap();
            assert!(crate::canary::contains(&server.stored_bytes(), b"kept"));
            server.restart().await;
            server.crash();
            server.restart().await;
            let request = v1::GetConnectorRequest { reference: "name:kept".to_owned() };
            server.client("alpha").connectors().get_connector(request).await.unwrap();
        }
    }
}
