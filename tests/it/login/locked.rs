//! Counts of log-in attempts that another replica has locked, and counts of which the database says nothing.

mod postgres {
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use jackfield_api::v1;
    use jackfield_testkit::{Backend, Client, Identity, Refusal, TestServer};
    use tokio::task::JoinHandle;
    use tonic::{Code, IntoRequest, Request, Status};

    use super::super::attempts::{REJECTED, from, limits};
    use super::super::{a_login, a_system, connector, create};
    use crate::storage::eventually;

    /// Another client of the database, which is in the middle of a transaction.
    struct Holder(Child);

    /// The sessions of the test's database that fit a condition. Other tests use the same server.
    fn sessions(what: &str, condition: &str) -> String {
        format!("SELECT {what} FROM pg_stat_activity WHERE datname = current_database() AND {condition}")
    }

    fn count(server: &TestServer, query: &str) -> u32 {
        server.postgres().run(query).trim().parse().unwrap()
    }

    impl Holder {
        const SLEEPS: &str = "wait_event = 'PgSleep'";

        /// Runs a statement, and stays in its transaction.
        async fn begin(server: &TestServer, statement: &str) -> Self {
            let hold = format!("BEGIN; {statement}; SELECT pg_sleep(60)");
            let mut holder = Command::new("psql");
            let holder = holder.args(["--quiet", "--command", &hold, &server.postgres().url()]);
            let holder = holder.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            eventually("it is locked", async || Self::is_in_the_middle(server)).await;
            Holder(holder)
        }

        fn is_in_the_middle(server: &TestServer) -> bool {
            count(server, &sessions("count(*)", Self::SLEEPS)) == 1
        }

        fn end(mut self, server: &TestServer) {
            assert!(Self::is_in_the_middle(server), "it was there all the time");
            server.postgres().run(&sessions("pg_terminate_backend(pid)", Self::SLEEPS));
            self.0.wait().unwrap();
        }
    }

    fn spawn(
        client: &Client,
        request: impl IntoRequest<v1::AuthenticateUserRequest>,
    ) -> JoinHandle<Result<v1::LoginOutcome, Status>> {
        let (client, request) = (client.clone(), request.into_request());
        tokio::spawn(async move {
            client.connectors().authenticate_user(request).await.map(|response| response.into_inner().outcome())
        })
    }

    fn check_unwritten(status: Status) {
        let refusal = Refusal::check(status, Code::Unavailable, "STORE_UNAVAILABLE");
        assert_eq!(refusal.status.message(), "the database is unavailable; nothing was written");
    }

    /// A replica that is frozen in the middle of a transaction has locked the counts of one user. Attempts of others wait in the same
    /// queue, with counts far from their limits and near them, and are counted before the lock is gone.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn counts_that_stay_locked_fail_no_log_in_of_others() {
        const EACH: u32 = 5;
        for (user, source) in [(50, 50), (6, 12)] {
            let server = TestServer::start_with(Backend::Postgres, limits(0, user, source)).await;
            let (alpha, beta) = (server.client("alpha"), server.client("beta"));
            let system = a_system().await;
            let ours = create(&alpha, connector(&alpha, &system, "directory").await).await.id;
            let theirs = create(&beta, connector(&beta, &system, "directory").await).await.id;
            // There is no count but that of this user.
            assert_eq!(spawn(&alpha, a_login(&ours, "ada", "wrong")).await.unwrap().unwrap(), REJECTED);
            let holder = Holder::begin(&server, "SELECT * FROM login_attempt FOR UPDATE").await;
            let (mut locked, mut others) = (Vec::new(), Vec::new());
            for _ in 0..EACH {
                locked.push(spawn(&alpha, from("192.0.2.1", &ours, "ada", "wrong")));
                others.extend([
                    spawn(&alpha, from("192.0.2.2", &ours, "bob", "wrong")),
                    // From the same source.
                    spawn(&alpha, from("192.0.2.1", &ours, "eve", "wrong")),
                    spawn(&beta, a_login(&theirs, "ada", "wrong")),
                ]);
            }
            for other in others {
                assert_eq!(other.await.unwrap().unwrap(), REJECTED);
            }
            holder.end(&server);
            let mut counted = 0;
            for locked in locked {
                // They wait for some time.
                match locked.await.unwrap() {
                    Ok(outcome) => {
                        assert_eq!(outcome, REJECTED);
                        counted += 1;
                    }
                    Err(status) => check_unwritten(status),
                }
            }
            // By user and source, or by user alone; each once.
            let attempts = 1 + 2 * counted + EACH * (2 + 2 + 1);
            assert_eq!(count(&server, "SELECT sum(attempts) FROM login_attempt"), attempts);
            assert_eq!(spawn(&alpha, a_login(&ours, "eve", "wrong")).await.unwrap().unwrap(), REJECTED);
        }
    }

    /// Very many users log in from a source whose count is locked. Each is refused when its patience ends, long before its deadline, and a
    /// log-in that was in a batch with them is not held back, nor is the next one of its user.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_source_that_stays_locked_holds_back_no_log_in_from_others() {
        // A client may have 250 calls, and 100 of them through one connection.
        const USERS: usize = 240;
        const EACH: usize = 80;
        let server = TestServer::start_with(Backend::Postgres, limits(0, 1000, 1000)).await;
        let alpha = server.client("alpha");
        let system = a_system().await;
        let directory = create(&alpha, connector(&alpha, &system, "directory").await).await.id;
        let login = |source: &str, login_id: &str| {
            let mut request = Request::new(from(source, &directory, login_id, "wrong"));
            request.set_timeout(Duration::from_secs(6));
            request
        };
        for source in ["192.0.2.1", "192.0.2.2"] {
            assert_eq!(spawn(&alpha, login(source, "zoe")).await.unwrap().unwrap(), REJECTED);
        }
        let holder = Holder::begin(&server, "SELECT * FROM login_attempt FOR UPDATE").await;
        // While this one waits, all others come together, and one that is not locked with them.
        let mut locked = vec![spawn(&alpha, login("192.0.2.2", "zoe"))];
        let bystander = spawn(&alpha, login("192.0.2.3", "bob"));
        for first in (0..USERS).step_by(EACH) {
            let client = server.client_with(&server.pki().client(Identity::of("alpha")));
            let login_ids = (first..first + EACH).map(|number| format!("user-{number}"));
            locked.extend(login_ids.map(|login_id| spawn(&client, login("192.0.2.1", &login_id))));
        }
        assert_eq!(bystander.await.unwrap().unwrap(), REJECTED);
        assert_eq!(spawn(&alpha, login("192.0.2.3", "bob")).await.unwrap().unwrap(), REJECTED);
        for locked in locked {
            check_unwritten(locked.await.unwrap().unwrap_err());
        }
        assert_eq!(spawn(&alpha, login("192.0.2.3", "bob")).await.unwrap().unwrap(), REJECTED);
        holder.end(&server);
        // By user, and by source; each once.
        assert_eq!(count(&server, "SELECT sum(attempts) FROM login_attempt"), 2 * (2 + 3));
        assert_eq!(spawn(&alpha, login("192.0.2.1", "user-0")).await.unwrap().unwrap(), REJECTED);
    }

    /// The connection is lost in the middle of a statement, which may have been the last that was needed.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_attempt_of_unknown_outcome_is_not_reported_as_unwritten() {
        let server = TestServer::start_with(Backend::Postgres, limits(0, 10, 0)).await;
        let alpha = server.client("alpha");
        let system = a_system().await;
        let directory = create(&alpha, connector(&alpha, &system, "directory").await).await.id;
        let holder = Holder::begin(&server, "LOCK TABLE login_attempt IN ACCESS EXCLUSIVE MODE").await;
        let attempt = spawn(&alpha, a_login(&directory, "ada", "wrong"));
        let lose = sessions("count(pg_terminate_backend(pid))", "wait_event_type = 'Lock'");
        eventually("its statement is lost", async || count(&server, &lose) == 1).await;
        let status = attempt.await.unwrap().unwrap_err();
        let refusal = Refusal::check(status, Code::Unavailable, "STORE_UNAVAILABLE");
        let message = "the database did not answer; nothing was checked, and the attempt may have been counted";
        assert_eq!(refusal.status.message(), message);
        assert!(refusal.details.retry_info().is_some());
        assert_eq!(system.received().len(), 0);
        holder.end(&server);
    }
}
