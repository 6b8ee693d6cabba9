//! Opening database and keyring.

use std::path::Path;
use std::sync::Arc;

use jackfield_domain::value::text::TenantName;
use jackfield_domain::{Clock, SystemClock};
use jackfield_service::{Database, PoolSettings, PublicRoots, Services, Settings, TokenCacheSettings};

use super::backend::ServiceBackend;
use super::database_file::{self, DatabaseLock};
use super::error::StartupError;
use super::keyring::{ReadKeyring, ensure_keyring, refuse_second_keyring};
use crate::config::{self, Config, VaultProvider};
use jackfield_transport::backend::Backend;

/// The surroundings of a server, which it does not read from its configuration.
#[derive(Clone)]
pub struct Surroundings {
    pub clock: Arc<dyn Clock>,
    /// The authorities whose client certificates have a warning.
    pub public_roots: PublicRoots,
}

// === impl Surroundings ===

impl Default for Surroundings {
    fn default() -> Self {
        Surroundings { clock: Arc::new(SystemClock), public_roots: PublicRoots::default() }
    }
}

/// Checks database and keyring as far as possible without writing anything. Claims an SQLite file that is there already for this
/// process, for as long as the claim is kept. Returns the keyring as well, if there is one already.
///
/// # Errors
/// The file is on a network file system or another process has it, or what [`open`] would refuse later.
pub async fn claim(config: &Config) -> Result<(Option<DatabaseLock>, Option<ReadKeyring>), StartupError> {
    let database = config.database()?;
    let claim = match &database {
        Database::Sqlite(path) => Some(claim_existing(path)?),
        Database::Postgres(_) => None,
    };
    let keyring = config.keyring_file();
    let in_file = config.vault.provider == VaultProvider::File;
    if in_file {
        refuse_second_keyring(config, &keyring)?;
        if !keyring.exists() && !config.development() {
            return Err(StartupError::KeyringMissing(keyring));
        }
    }
    // Development makes the first one.
    let mut keyring = if in_file && !keyring.exists() { None } else { Some(ReadKeyring::read(config)?) };
    if let (Database::Sqlite(path), Some(claim), Some(keyring)) = (&database, &claim, &mut keyring)
        && claim.has_file()
        && std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0)
    {
        keyring.preflight.check(path).await?;
    }
    Ok((claim, keyring))
}

/// Takes an SQLite file for this process also if it is not there yet. It is the first step of a start that writes: it makes the
/// data directory.
///
/// # Errors
/// The directory cannot be made, or another process was faster.
pub fn take(config: &Config, claim: Option<&mut DatabaseLock>) -> Result<(), StartupError> {
    if let (Database::Sqlite(path), Some(claim)) = (config.database()?, claim) {
        make_data_directory(&config.data_dir)?;
        claim.take_lock(&path)?;
    }
    Ok(())
}

fn claim_existing(path: &Path) -> Result<DatabaseLock, StartupError> {
    database_file::refuse_network(path)?;
    database_file::refuse_mount(path)?;
    database_file::refuse_second_name(path)?;
    Ok(DatabaseLock::take_existing(path)?)
}

/// Opens database and keyring, which [`claim`] may have read already. A database file that is created here is added to the
/// claim.
///
/// # Errors
/// Something is missing or does not match. In development a keyring is created if there is neither a keyring nor a
/// database.
pub async fn open(
    config: &Config,
    claim: Option<&mut DatabaseLock>,
    keyring: Option<ReadKeyring>,
) -> Result<Arc<dyn Backend>, StartupError> {
    open_as_of(config, claim, keyring, Surroundings::default()).await
}

/// Opens the backend in other surroundings.
///
/// # Errors
/// The same as those of [`open`].
pub async fn open_in(config: &Config, surroundings: Surroundings) -> Result<Arc<dyn Backend>, StartupError> {
    open_as_of(config, None, None, surroundings).await
}

async fn open_as_of(
    config: &Config,
    claim: Option<&mut DatabaseLock>,
    keyring: Option<ReadKeyring>,
    Surroundings { clock, public_roots }: Surroundings,
) -> Result<Arc<dyn Backend>, StartupError> {
    make_data_directory(&config.data_dir)?;
    let settings = settings(config, public_roots)?;
    let keyring_file = match config.vault.provider {
        VaultProvider::File => Some(config.keyring_file()),
        VaultProvider::Environment => None,
    };
    let made = match (&keyring, &keyring_file) {
        (None, Some(path)) => ensure_keyring(config, path)?,
        _ => false,
    };
    let ReadKeyring { preflight, stamp } = match keyring {
        Some(keyring) => keyring,
        None => ReadKeyring::read(config)?,
    };
    make_database_file(&settings.database, claim)?;
    let services = match Services::open(settings, preflight, clock).await {
        Ok(services) => services,
        Err(error) => {
            // A fresh key cannot open what is there. If it were left behind, it would keep the right one out.
            if let (true, Some(path), jackfield_service::OpenError::Keyring(_)) = (made, &keyring_file, &error) {
                let _ = std::fs::remove_file(path);
            }
            return Err(error.into());
        }
    };
    let keyring_file = keyring_file.map(|path| (path, stamp));
    Ok(Arc::new(ServiceBackend { services, keyring_file, config: config.clone() }))
}

/// Brings the schema of the database up to date; returns the newest migration.
///
/// # Errors
/// The database cannot be reached, or is newer than this program.
pub async fn migrate(config: &Config) -> Result<String, StartupError> {
    let database = config.database()?;
    let mut claim = match &database {
        Database::Sqlite(path) => {
            let mut claim = claim_existing(path)?;
            make_data_directory(&config.data_dir)?;
            claim.take_lock(path)?;
            Some(claim)
        }
        Database::Postgres(_) => None,
    };
    make_database_file(&database, claim.as_mut())?;
    let newest = Services::migrate(&database, pool(config)).await?;
    if let Some(claim) = claim {
        claim.unsign();
    }
    Ok(newest)
}

/// The directory of everything in files, for the owner only. The log says where a new one was made: the path may be mistyped.
///
/// # Errors
/// It cannot be made.
pub fn make_data_directory(path: &Path) -> Result<(), StartupError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let is_new = !path.exists();
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| StartupError::DataDirectory { path: path.to_owned(), source })?;
    if is_new {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        tracing::info!(data_dir.path = %path.display(), "a new data directory was made");
    }
    Ok(())
}

/// An empty SQLite file for the owner only, if there is none: its directory may be open to others. SQLite gives the files
/// that it makes beside it the same mode. The file is added to the claim before SQLite opens it.
fn make_database_file(database: &Database, claim: Option<&mut DatabaseLock>) -> Result<(), StartupError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let Database::Sqlite(path) = database else { return Ok(()) };
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(StartupError::DatabaseFile { path: path.clone(), source });
        }
        _ => {}
    }
    Ok(claim.map_or(Ok(()), |claim| claim.take_file(path))?)
}

fn settings(config: &Config, public_roots: PublicRoots) -> Result<Settings, StartupError> {
    let bootstrap_tenant = match config.bootstrap.tenant.as_str() {
        "" => None,
        name => Some(
            TenantName::parse("bootstrap.tenant", name)
                .map_err(|violation| StartupError::BootstrapTenant(violation.description))?,
        ),
    };
    Ok(Settings {
        database: config.database()?,
        pool: pool(config),
        migrate: config.database.migrate,
        bootstrap_tenant,
        reveal_enabled: config.reveal.enabled,
        token_cache: token_cache(config),
        outbound: config.egress.settings(config.development()).map_err(StartupError::Egress)?,
        login: config.login.settings(),
        refresh: config.refresh.settings(&config.data_dir),
        callback_url: config.callback.url(),
        callback_tenant: config.callback.login_tenant(),
        public_roots,
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
