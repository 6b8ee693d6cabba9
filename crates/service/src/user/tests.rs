//! Log-ins and migrations, which no method of UserService makes.

use std::sync::Arc;
use std::time::Duration;

use jackfield_domain::attempts::AttemptLimits;
use jackfield_domain::principal::{Principal, RightType, Rights};
use jackfield_domain::user::{EmailAddress, ExternalUser, PhoneNumber, Registration, UserOrigin, Username};
use jackfield_domain::value::text::TenantName;
use jackfield_domain::{ConnectorId, SystemClock, Timestamp};
use jackfield_store::{Database, PoolSettings};
use jackfield_vault::Keyring;
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::{
    LoginSettings, OutboundSettings, Policy, Preflight, PublicRoots, RefreshBudget, RefreshSettings, Settings,
    TokenCacheSettings,
};
use jackfield_domain::user::Password;

/// Services with one tenant, whose principal may do everything.
pub(crate) struct Fixture {
    pub(crate) services: Services,
    pub(crate) principal: Principal,
    _directory: TempDir,
}

impl Fixture {
    pub(crate) async fn open() -> Self {
        Self::open_with(Duration::ZERO).await
    }

    pub(crate) async fn open_with(rejection_interval: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings {
            database: Database::Sqlite(directory.path().join("test.sqlite3")),
            pool: PoolSettings { max_connections: 4, acquire_timeout: Duration::from_secs(5) },
            migrate: true,
            bootstrap_tenant: Some(TenantName::stored("default".to_owned())),
            reveal_enabled: false,
            token_cache: TokenCacheSettings { max_tokens: 0, max_bytes: 0, max_staleness: Duration::ZERO },
            outbound: OutboundSettings {
                policy: Policy::default().with_development(),
                dns_servers: Vec::new(),
                max_clients: 1,
                max_idle_connections: 1,
            },
            login: LoginSettings { rejection_interval, attempts: AttemptLimits::default() },
            refresh: RefreshSettings {
                timeout: Duration::from_secs(10),
                journal: directory.path().join("journal"),
                budget: RefreshBudget { concurrency: 1, rate: 1, ahead: false },
            },
            callback_url: None,
            callback_tenant: None,
            public_roots: PublicRoots::default(),
            development: true,
        };
        let preflight = Preflight::new(Keyring::generate().unwrap().0);
        let services = Services::open(settings, preflight, Arc::new(SystemClock)).await.unwrap();
        let tenant = services.store().read().tenant_id_by_name("default").await.unwrap().unwrap();
        let principal = Principal { name: "test".into(), tenant, rights: Rights::all() };
        Fixture { services, principal, _directory: directory }
    }

    pub(crate) fn caller<R: RightType>(&self) -> Caller<R> {
        Caller::authorize(self.principal.clone(), UserUuid::generate().0).unwrap()
    }

    pub(crate) async fn create(&self, patch: UserPatch) -> User {
        let request = RequestOptions { method: "CreateUser", request: None, validate_only: false };
        self.services.user_create(&self.caller(), &request, None, patch).await.unwrap()
    }

    async fn update(&self, user: &User, patch: UserPatch) {
        let request = RequestOptions { method: "UpdateUser", request: None, validate_only: false };
        let reference = Ref::Id(user.id.0);
        self.services.user_update(&self.caller(), &request, &reference, &Expected::default(), patch).await.unwrap();
    }

    async fn log_in(&self, login_id: &str, password: &str) -> Option<User> {
        self.services.authenticate_local(self.principal.tenant, login_id, &given(password)).await.unwrap()
    }

    async fn migrate(&self, origin: UserOrigin, user: ExternalUser, password: &str) -> Result<Migrated> {
        self.services.user_migrate(&self.caller::<UsersWrite>(), origin, user, &given(password)).await
    }
}

fn given(password: &str) -> Password {
    Password::given("password", password.to_owned()).unwrap()
}

/// The user "Ann" with all login ids.
pub(crate) fn ann() -> UserPatch {
    UserPatch {
        username: Some(Some(Username::parse("username", "Ann").unwrap())),
        email: Some(Some(EmailAddress::parse("email", "ann@example.com").unwrap())),
        phone_number: Some(Some(PhoneNumber::parse("phone_number", "+491701234567").unwrap())),
        password: SecretPatch::Set(given("p\u{e9}ssword of ann")),
        ..UserPatch::default()
    }
}

fn origin() -> UserOrigin {
    UserOrigin { connector: ConnectorId::generate(), create_time: Timestamp(1) }
}

fn external(id: &str, email: &str) -> ExternalUser {
    let registrations = vec![Registration { application_id: "shop".to_owned(), roles: vec!["buyer".to_owned()] }];
    ExternalUser { id: id.to_owned(), email: email.to_owned(), registrations, ..Default::default() }
}

#[tokio::test]
async fn a_user_logs_in_with_each_login_id_and_the_password() {
    let fixture = Fixture::open().await;
    let user = fixture.create(ann()).await;
    for login_id in ["Ann", "ANN", " ann ", "Ann@Example.com", "+491701234567", "+49 (170) 123 45-67"] {
        assert_eq!(fixture.log_in(login_id, "p\u{e9}ssword of ann").await, Some(user.clone()), "{login_id}");
    }
    assert_eq!(fixture.log_in("ann", "pe\u{301}ssword of ann").await, Some(user), "composed in another way");
    for (login_id, password) in [
        ("ann", "password of ann"),
        ("ann", "P\u{e9}ssword of ann"),
        ("ann", "x"),
        ("bob", "p\u{e9}ssword of ann"),
        ("", "p\u{e9}ssword of ann"),
        ("01701234567", "p\u{e9}ssword of ann"),
    ] {
        assert_eq!(fixture.log_in(login_id, password).await, None, "{login_id} {password}");
    }
}

#[tokio::test]
async fn a_user_who_is_disabled_or_has_no_password_does_not_log_in() {
    let fixture = Fixture::open().await;
    let user = fixture.create(ann()).await;
    let log_in = async || fixture.log_in("ann", "p\u{e9}ssword of ann").await.is_some();
    fixture.update(&user, UserPatch { enabled: Some(false), ..UserPatch::default() }).await;
    assert!(!log_in().await);
    fixture.update(&user, UserPatch { enabled: Some(true), ..UserPatch::default() }).await;
    assert!(log_in().await);
    fixture.update(&user, UserPatch { password: SecretPatch::Clear, ..UserPatch::default() }).await;
    assert!(!log_in().await);
    fixture.update(&user, UserPatch { password: SecretPatch::Set(given("another")), ..UserPatch::default() }).await;
    assert!(!log_in().await && fixture.log_in("ann", "another").await.is_some());
}

#[tokio::test]
async fn another_tenant_has_no_such_user() {
    let fixture = Fixture::open().await;
    fixture.create(ann()).await;
    let tenant = TenantId::generate();
    let found = fixture.services.authenticate_local(tenant, "ann", &given("p\u{e9}ssword of ann")).await.unwrap();
    assert_eq!(found, None);
}

/// The time of a log-in is that of a hash, so it must not depend on the user whether there is one.
#[tokio::test]
async fn every_log_in_takes_a_hash() {
    let fixture = Fixture::open().await;
    fixture.create(ann()).await;
    let login = |name: &str| UserPatch {
        username: Some(Some(Username::parse("username", name).unwrap())),
        ..UserPatch::default()
    };
    let password = || SecretPatch::Set(given("p\u{e9}ssword of ann"));
    fixture.create(UserPatch { enabled: Some(false), password: password(), ..login("disabled") }).await;
    fixture.create(login("without")).await;

    let mut taken = fixture.services.shared.passwords.turns.take_all(fixture.principal.tenant);
    let kinds = ["ann", "disabled", "without", "unknown"];
    for kind in kinds {
        let waits = timeout(Duration::from_millis(100), fixture.log_in(kind, "wrong password")).await;
        assert!(waits.is_err(), "{kind} is answered without a hash");
    }
    assert!(taken.pop().is_some());
    for kind in kinds {
        assert_eq!(timeout(Duration::from_secs(30), fixture.log_in(kind, "wrong password")).await, Ok(None), "{kind}");
    }
}

/// A request that only validates stores nothing, so it needs no hash.
#[tokio::test]
async fn a_request_that_only_validates_takes_no_hash() {
    let fixture = Fixture::open().await;
    let user = fixture.create(ann()).await;
    let taken = fixture.services.shared.passwords.turns.take_all(fixture.principal.tenant);
    let request = |method| RequestOptions { method, request: None, validate_only: true };
    let (services, caller) = (&fixture.services, fixture.caller());
    let bob = UserPatch {
        username: Some(Some(Username::parse("username", "bob").unwrap())),
        password: SecretPatch::Set(given("password of bob")),
        ..UserPatch::default()
    };
    let validate = async {
        assert!(services.user_create(&caller, &request("CreateUser"), None, bob).await.unwrap().password_set);
        let taken = services.user_create(&caller, &request("CreateUser"), None, ann()).await;
        assert!(matches!(taken, Err(Error::Taken { what: Taken::LoginId, .. })));
        let (reference, expected) = (Ref::Id(user.id.0), Expected::default());
        let patch = UserPatch { password: SecretPatch::Set(given("another one")), ..UserPatch::default() };
        services.user_update(&caller, &request("UpdateUser"), &reference, &expected, patch).await.unwrap();
    };
    timeout(Duration::from_secs(30), validate).await.expect("it takes no turn");
    drop(taken);
    assert!(fixture.log_in("ann", "p\u{e9}ssword of ann").await.is_some());
    assert!(fixture.log_in("bob", "password of bob").await.is_none());
}

#[tokio::test]
async fn a_migrated_user_is_stored_once_and_then_left_alone() {
    let fixture = Fixture::open().await;
    let origin = origin();
    let Migrated::Now(user) = fixture.migrate(origin, external("42", "ann@example.com"), "first").await.unwrap() else {
        panic!("the user is new");
    };
    assert_eq!((user.user_id.as_str(), user.connector, user.password_set), ("42", Some(origin.connector), true));
    assert_eq!(user.registrations, external("", "").registrations);
    assert_eq!(fixture.log_in("ann@example.com", "first").await, Some(user.clone()));
    let again = fixture.migrate(origin, external("42", "ann@example.org"), "second").await.unwrap();
    assert!(matches!(again, Migrated::Before(stored) if stored == user));
    assert!(fixture.log_in("ann@example.com", "first").await.is_some());
    assert!(fixture.log_in("ann@example.org", "second").await.is_none());
}

#[tokio::test]
async fn a_migrated_user_may_have_long_names() {
    let fixture = Fixture::open().await;
    let user = ExternalUser { first_name: "\u{e9}".repeat(256), ..external("42", "ann@example.com") };
    let Migrated::Now(user) = fixture.migrate(origin(), user, "first").await.unwrap() else {
        panic!("the user is new");
    };
    assert_eq!(user.first_name, "\u{e9}".repeat(128));
}

#[tokio::test]
async fn a_migration_takes_over_no_other_user() {
    let fixture = Fixture::open().await;
    let origin = origin();
    let local = fixture.create(ann()).await;
    let taken = |result: Result<Migrated>| match result.unwrap_err() {
        Error::Taken { resource: Resource::User, what, value } => (what, value),
        error => panic!("{error:?}"),
    };
    let same_id = fixture.migrate(origin, external(local.user_id.as_str(), "eve@example.com"), "x").await;
    assert_eq!(taken(same_id), (Taken::ExternalId, local.user_id.as_str().to_owned()));
    let same_email = fixture.migrate(origin, external("43", "ANN@example.com"), "x").await;
    assert_eq!(taken(same_email), (Taken::LoginId, "ANN@example.com".to_owned()));
    fixture.migrate(origin, external("44", "bob@example.com"), "x").await.unwrap();
    let recreated = UserOrigin { create_time: Timestamp(origin.create_time.0 + 1), ..origin };
    for other in [self::origin(), recreated] {
        let other_connector = fixture.migrate(other, external("44", "bob@example.com"), "y").await;
        assert_eq!(taken(other_connector), (Taken::ExternalId, "44".to_owned()));
    }
    assert!(fixture.log_in("bob@example.com", "x").await.is_some());
    assert!(matches!(fixture.migrate(origin, external("45", "no address"), "x").await, Err(Error::Invalid(_))));
    assert_eq!(fixture.log_in("ann", "p\u{e9}ssword of ann").await, Some(local));
}
