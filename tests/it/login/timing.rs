//! The time of a rejection: on each way to a password, an unknown user and a wrong password take equally many intervals.

use std::time::{Duration, Instant};

use jackfield_api::v1;
use jackfield_testkit::{Backend, Client, Reply, System, TestServer, fixture, on_both};

use super::{a_login, a_system, connector, create, log_in, migrate};
use crate::{routing, steps};

/// Far above the time of a hash of a password, on a busy machine, too.
const INTERVAL: Duration = Duration::from_millis(500);
/// Attempts of each kind on each way.
const ATTEMPTS: usize = 15;

/// A log-in, and where it goes.
#[derive(Clone)]
enum Way {
    Connector(&'static str, v1::AuthenticateUserRequest),
    Application(v1::AuthenticateApplicationUserRequest),
}

impl Way {
    /// The time of a rejection.
    async fn rejection(&self, client: &Client) -> Duration {
        let start = Instant::now();
        let outcome = match self.clone() {
            Way::Connector(_, request) => log_in(client, request).await.outcome(),
            Way::Application(request) => {
                client.applications().authenticate_application_user(request).await.unwrap().into_inner().outcome()
            }
        };
        assert_eq!(outcome, v1::LoginOutcome::Rejected);
        start.elapsed()
    }

    fn name(&self) -> &'static str {
        match self {
            Way::Connector(name, _) => name,
            Way::Application(_) => "a user of an application",
        }
    }

    fn with(self, login_id: &str) -> Self {
        match self {
            Way::Connector(name, request) => {
                Way::Connector(name, v1::AuthenticateUserRequest { login_id: login_id.to_owned(), ..request })
            }
            Way::Application(request) => {
                Way::Application(v1::AuthenticateApplicationUserRequest { username: login_id.to_owned(), ..request })
            }
        }
    }
}

/// A server that counts no attempts.
async fn unlimited(backend: Backend, interval: Duration) -> TestServer {
    TestServer::start_with(backend, |config| {
        config.login.rejection_interval = interval;
        config.login.attempts_per_user_and_source = 0;
        config.login.attempts_per_user = 0;
        config.login.attempts_per_source = 0;
    })
    .await
}

/// The ways to a password. On each of them "ada" is a user with another password, and "stranger" is none.
async fn ways(client: &Client, system: &System, other: &System) -> [Way; 4] {
    let directory = create(client, connector(client, system, "named").await).await.id;
    let named = Way::Connector("a named connector", a_login(&directory, "ada", "wrong"));

    // Two systems are asked for a stranger, and one for a user who stays with it.
    let first = create(client, connector(client, other, "first").await).await.id;
    routing::replace(
        client,
        vec![routing::rule(&["*"], routing::to(&first)), routing::rule(&["*"], routing::to(&directory))],
    )
    .await;
    assert_eq!(log_in(client, a_login("", "ada", "right")).await.outcome(), v1::LoginOutcome::Accepted);
    let routed = Way::Connector("the routing policy", a_login("", "ada", "wrong"));

    // The stored password of the user is compared, and the system is asked for a stranger.
    let migrating =
        create(client, v1::Connector { name: "migrating".to_owned(), ..migrate::migrating(client, system).await })
            .await
            .id;
    assert_eq!(log_in(client, a_login(&migrating, "ada", "right")).await.outcome(), v1::LoginOutcome::Accepted);
    let migrated = Way::Connector("a migrated user", a_login(&migrating, "ada", "wrong"));

    // Users without a connector, among them the migrated one.
    let application = steps::application(client, fixture::an_application("Gallery")).await.id;
    let local = Way::Application(v1::AuthenticateApplicationUserRequest {
        application,
        username: "ada".to_owned(),
        password: "wrong".to_owned(),
        ..Default::default()
    });
    [named, routed, migrated, local]
}

/// The times of rejections of a known and of an unknown user, in turns.
async fn measured(client: &Client, way: Way) -> [Vec<Duration>; 2] {
    let kinds = [way.clone(), way.with("stranger")];
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ATTEMPTS {
        for (kind, times) in kinds.iter().zip(&mut times) {
            times.push(kind.rejection(client).await);
        }
    }
    times
}

/// The median of times, in intervals to the nearest one.
fn intervals(times: &[Duration]) -> f64 {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2].div_duration_f64(INTERVAL).round()
}

on_both! {
    async fn unknown_users_and_wrong_passwords_take_equally_many_intervals(backend: Backend) {
        let server = unlimited(backend, INTERVAL).await;
        let client = server.client("alpha");
        let (system, other) = (a_system().await, System::start(|_| Reply::new(404, "")).await);
        let ways = ways(&client, &system, &other).await;
        let measured = ways.clone().map(|way| measured(&client, way));
        for (way, times) in ways.iter().zip(futures::future::join_all(measured).await) {
            let name = way.name();
            // No answer comes early, however slow the machine is.
            assert!(times.iter().flatten().all(|time| *time >= INTERVAL), "{name}: {times:?}");
            let [wrong, unknown] = times.each_ref().map(|times| intervals(times));
            assert_eq!(wrong, unknown, "{name}: {times:?}");
        }
    }
}
