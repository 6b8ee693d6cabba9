//! The real service behind the transport: database, keyring, use cases.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use jackfield_domain::text::TenantName;
use jackfield_domain::{Clock, Result, SystemClock, TenantId};
use jackfield_service::{
    Database, Keyring, KeyringError, PoolSettings, Services, Settings, StoreError, TokenCacheSettings, Vault,
    keyring_provider, postgres_url,
};
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;

use crate::backend::{Backend, RouteContext};
use crate::config::{self, Config, VaultProvider};
use crate::gauges;
use crate::grpc::Api;
use crate::grpc::page_memory::PageMemory;
use crate::grpc::stream::StreamPolicy;
use crate::health::Readiness;
use crate::identity::Tenants;
use crate::metrics::Metrics;
use crate::permissions::PermissionError;
use crate::place::{self, Claim, PlaceError};
use crate::shares::Shares;
use crate::telemetry::Meters;

/// Why the service does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("database.url: must be \"\", sqlite:<path> or postgres://…")]
    DatabaseUrl,
    #[error("database.url: there are no parameters behind sqlite:<path>")]
    SqliteParameters,
    #[error("database.url: {0}")]
    PostgresUrl(#[from] postgres_url::UrlError),
    #[error("bootstrap.tenant: {0}")]
    BootstrapTenant(String),
    #[error("the environment variable {0} of vault.variable is not set")]
    KeyringVariable(String),
    #[error("there is no keyring {}: restore it, or make a new one with `jackfield keys new` if the database is empty", .0.display())]
    KeyringMissing(PathBuf),
    #[error("there is no keyring {}, but a database {}: restore the keyring, or, if the database holds nothing, make one with `jackfield keys new`", keyring.display(), database.display())]
    KeyringLost { keyring: PathBuf, database: PathBuf },
    #[error("cannot make the database {}: {source}", path.display())]
    DatabaseFile { path: PathBuf, source: std::io::Error },
    #[error("cannot make the data directory {}: {source}", path.display())]
    DataDirectory { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Permission(#[from] PermissionError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error(transparent)]
    Service(#[from] jackfield_service::OpenError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What changes when a file is replaced: its inode and when it was written. `None` = it is not there.
type Stamp = Option<(u64, i64, i64)>;

/// The use cases as the transport wants them.
struct ServiceBackend {
    services: Services,
    /// The file that is watched for other keys, as it was when it was read.
    keyring_file: Option<(PathBuf, Stamp)>,
    reload_interval: Duration,
}

/// Checks database and keyring as far as can be without writing anything, and then makes an SQLite file the own one of this
/// process, for as long as the claim is kept.
///
/// # Errors
/// The file is on a network file system or another process has it, or what [`open`] would refuse later.
pub async fn claim(config: &Config) -> Result<Option<Claim>, OpenError> {
    let database = database(config)?;
    let existing = match &database {
        Database::Sqlite(path) => claim_existing(path)?,
        Database::Postgres(_) => None,
    };
    let keyring = config.keyring_file();
    let in_file = config.vault.provider == VaultProvider::File;
    if in_file {
        refuse_second_keyring(config, &keyring)?;
        if !keyring.exists() && !config.development() {
            return Err(OpenError::KeyringMissing(keyring));
        }
    }
    // Development makes the first one.
    let vault = if in_file && !keyring.exists() { None } else { Some(Vault::new(load_keyring(config)?)) };
    let Database::Sqlite(path) = &database else { return Ok(None) };
    if let Some(vault) = vault
        && std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0)
    {
        Services::examine(path, &vault).await?;
    }
    claim_file(config, path, existing).map(Some)
}

fn claim_existing(path: &Path) -> Result<Option<Claim>, OpenError> {
    place::refuse_network(path)?;
    place::refuse_second_name(path)?;
    Ok(Claim::take_existing(path)?)
}

fn claim_file(config: &Config, path: &Path, existing: Option<Claim>) -> Result<Claim, OpenError> {
    match existing {
        Some(claim) => Ok(claim),
        None => {
            make_data_directory(&config.data_dir)?;
            Ok(Claim::take(path)?)
        }
    }
}

/// Opens database and keyring.
///
/// # Errors
/// Anything is missing or does not fit. In development a keyring is made when there is none and no database either.
pub async fn open(config: &Config) -> Result<Arc<dyn Backend>, OpenError> {
    open_with_clock(config, Arc::new(SystemClock)).await
}

/// As [`open`], with another idea of the time.
///
/// # Errors
/// As there.
pub async fn open_with_clock(config: &Config, clock: Arc<dyn Clock>) -> Result<Arc<dyn Backend>, OpenError> {
    make_data_directory(&config.data_dir)?;
    let settings = settings(config)?;
    let keyring_file = match config.vault.provider {
        VaultProvider::File => Some(config.keyring_file()),
        VaultProvider::Environment => None,
    };
    let made = match &keyring_file {
        Some(path) => ensure_keyring(config, path)?,
        None => false,
    };
    // Before it is read: a change in between shows later, and is not missed.
    let keyring_stamp = keyring_file.as_deref().map(stamp).unwrap_or_default();
    let vault = Vault::new(load_keyring(config)?);
    make_database_file(&settings.database)?;
    let services = match Services::open(settings, vault, clock).await {
        Ok(services) => services,
        Err(error) => {
            // A fresh key cannot open what is there; left behind it would stand in the way of the right one.
            if let (true, Some(path), jackfield_service::OpenError::Keyring(_)) = (made, &keyring_file, &error) {
                let _ = std::fs::remove_file(path);
            }
            return Err(error.into());
        }
    };
    let keyring_file = keyring_file.map(|path| (path, keyring_stamp));
    Ok(Arc::new(ServiceBackend { services, keyring_file, reload_interval: config.vault.reload_interval }))
}

/// Brings the schema of the database up to date; returns the newest migration.
///
/// # Errors
/// The database is away or newer than this program.
pub async fn migrate(config: &Config) -> Result<String, OpenError> {
    let database = database(config)?;
    let _claim = match &database {
        Database::Sqlite(path) => Some(claim_file(config, path, claim_existing(path)?)?),
        Database::Postgres(_) => None,
    };
    make_database_file(&database)?;
    Ok(Services::migrate(&database, pool(config)).await?)
}

/// Reads the keyring from where the configuration says.
///
/// # Errors
/// It is missing or wrong.
pub fn load_keyring(config: &Config) -> Result<Keyring, OpenError> {
    match config.vault.provider {
        VaultProvider::File => Ok(keyring_provider::file::load(&config.keyring_file())?),
        VaultProvider::Environment => {
            let name = &config.vault.variable;
            let value = config::variable(name).ok_or_else(|| OpenError::KeyringVariable(name.clone()))?;
            Ok(keyring_provider::env::load(&value)?)
        }
    }
}

/// The directory of everything in files, for the owner only.
///
/// # Errors
/// It cannot be made.
pub fn make_data_directory(path: &Path) -> Result<(), OpenError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| OpenError::DataDirectory { path: path.to_owned(), source })
}

/// An empty SQLite file for the owner only, if there is none: its directory may be open to others. SQLite gives the files
/// that it makes beside it the same mode.
fn make_database_file(database: &Database) -> Result<(), OpenError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let Database::Sqlite(path) = database else { return Ok(()) };
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(OpenError::DatabaseFile { path: path.clone(), source })
        }
        _ => Ok(()),
    }
}

/// Refuses to make a keyring beside a database whose keyring is gone: the fresh key could not open it.
///
/// # Errors
/// [`OpenError::KeyringLost`], or a database URL that cannot be read.
pub(crate) fn refuse_second_keyring(config: &Config, keyring: &Path) -> Result<(), OpenError> {
    // In this order: whoever starts beside us on nothing makes the keyring before the database.
    match database(config)? {
        Database::Sqlite(database) if database.exists() && !keyring.exists() => {
            Err(OpenError::KeyringLost { keyring: keyring.to_owned(), database })
        }
        _ => Ok(()),
    }
}

/// Whether a keyring was made because there was none.
fn ensure_keyring(config: &Config, path: &Path) -> Result<bool, OpenError> {
    refuse_second_keyring(config, path)?;
    if path.exists() {
        return Ok(false);
    }
    if !config.development() {
        return Err(OpenError::KeyringMissing(path.to_owned()));
    }
    match keyring_provider::file::create_new(path) {
        Ok(_) => Ok(true),
        // Somebody was faster, and the keys are theirs.
        Err(KeyringError::FileExists { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn settings(config: &Config) -> Result<Settings, OpenError> {
    let bootstrap_tenant = match config.bootstrap.tenant.as_str() {
        "" => None,
        name => Some(
            TenantName::parse("bootstrap.tenant", name)
                .map_err(|violation| OpenError::BootstrapTenant(violation.description))?,
        ),
    };
    Ok(Settings {
        database: database(config)?,
        pool: pool(config),
        migrate: config.database.migrate,
        bootstrap_tenant,
        reveal_enabled: config.reveal.enabled,
        token_cache: token_cache(config),
        development: config.development(),
    })
}

fn token_cache(config: &Config) -> TokenCacheSettings {
    let config::TokenCache { max_tokens, max_bytes, max_staleness } = config.token_cache;
    TokenCacheSettings { max_tokens, max_bytes: u64::from(max_bytes.0), max_staleness }
}

fn pool(config: &Config) -> PoolSettings {
    let config::Database { max_connections, acquire_timeout, .. } = config.database;
    PoolSettings { max_connections, acquire_timeout }
}

pub(crate) fn database(config: &Config) -> Result<Database, OpenError> {
    let url = config.database_url();
    match url.expose().split_once(':') {
        Some(("sqlite", path)) => {
            let path = path.strip_prefix("//").unwrap_or(path);
            // To SQLite these are not names of files.
            let special = path.starts_with(':') || path.starts_with("file:");
            if path.is_empty() || special { Err(OpenError::DatabaseUrl) } else { sqlite_file(config, path) }
        }
        Some(("postgres" | "postgresql", _)) => {
            postgres_url::check(url.expose())?;
            Ok(Database::Postgres(url.expose().to_owned()))
        }
        _ => Err(OpenError::DatabaseUrl),
    }
}

fn sqlite_file(config: &Config, path: &str) -> Result<Database, OpenError> {
    // A directory may have any name; a URL has parameters behind its question mark, and here there are none.
    let given = !config.database.url.expose().is_empty();
    if given && path.contains('?') { Err(OpenError::SqliteParameters) } else { Ok(Database::Sqlite(path.into())) }
}

// === impl ServiceBackend ===

impl Backend for ServiceBackend {
    fn add_routes(&self, context: &RouteContext, routes: &mut RoutesBuilder) {
        let streams = &context.config.streams;
        let places = Shares::new(streams.max_open, streams.max_open_per_identity, streams.max_open_per_tenant);
        let policy = StreamPolicy {
            places: Arc::new(places),
            memory: PageMemory::new(&context.config, context.metrics.clone()),
            tasks: context.tasks.clone(),
        };
        let max_request_message = context.config.limits.max_request_message.bytes();
        Api::new(self.services.clone(), policy).add_routes(routes, max_request_message);
        if let Some((path, seen)) = self.keyring_file.clone() {
            let (services, metrics, stop) = (self.services.clone(), context.metrics.clone(), context.drain.clone());
            context.tasks.spawn(watch_keyring(services, metrics, path, seen, self.reload_interval, stop));
        }
    }

    fn add_gauges(&self, meters: &Meters) {
        gauges::register_services(&meters.meter(), &self.services.gauges());
    }

    fn descriptor_set(&self) -> &'static [u8] {
        jackfield_api::FILE_DESCRIPTOR_SET
    }

    fn tenants(&self) -> Arc<dyn Tenants> {
        Arc::new(ServiceTenants(self.services.clone()))
    }

    fn probe(&self) -> BoxFuture<'static, Readiness> {
        let services = self.services.clone();
        async move {
            match services.ready().await {
                Ok(()) => Readiness::Ready,
                Err(error) => {
                    tracing::debug!(error.message = %error, "not ready");
                    Readiness::NotReady
                }
            }
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        self.services.clone().close().boxed()
    }
}

struct ServiceTenants(Services);

impl Tenants for ServiceTenants {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<TenantId>> {
        self.0.tenant_id_by_name(name).boxed()
    }
}

/// Puts changes of the keyring file in force until `stop`. A file that cannot be used leaves the keys as they are.
async fn watch_keyring(
    services: Services,
    metrics: Metrics,
    path: PathBuf,
    mut seen: Stamp,
    interval: Duration,
    stop: CancellationToken,
) {
    while stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
        let now = stamp(&path);
        if now == seen {
            continue;
        }
        let result = match keyring_provider::file::load(&path) {
            Ok(keyring) => services.keyring_replace(keyring).await.map_err(OpenError::from),
            Err(error) => Err(error.into()),
        };
        // Which keys are in use the database knows. While it is away the change is looked at again and again.
        if !matches!(result, Err(OpenError::Service(jackfield_service::OpenError::Bootstrap(_)))) {
            seen = now;
        }
        metrics.keyring_reloaded(result.is_ok());
        match result {
            Ok(_) => tracing::info!(keyring.path = %path.display(), "keyring reloaded"),
            Err(error) => tracing::error!(
                keyring.path = %path.display(),
                error.message = %error,
                "keyring not reloaded, the former stays in force"
            ),
        }
    }
}

fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
}
