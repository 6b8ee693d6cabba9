//! The routing policy: which connector checks a log-in, and what keeps a user with it.

use std::sync::atomic::{AtomicUsize, Ordering};

use jackfield_api::v1;
use jackfield_api::v1::route::Target;
use jackfield_api::v1::routing_rule::Target as RuleTarget;
use jackfield_domain::connection::Connection;
use jackfield_domain::connector::Connector;
use jackfield_domain::request::reference::Ref;
use jackfield_testkit::{Backend, Client, Reply, System, TestServer, expect_status, fixture, logs, on_both};
use tonic::{Code, Response, Status};

use crate::login::{a_login, a_system, a_user, connector, create, log_in};
use crate::steps;
use crate::storage::eventually;

pub(crate) fn rule(domains: &[&str], target: RuleTarget) -> v1::RoutingRule {
    v1::RoutingRule { email_domains: domains.iter().map(|&it| it.to_owned()).collect(), target: Some(target) }
}

pub(crate) fn to(connector: &str) -> RuleTarget {
    RuleTarget::Connector(connector.to_owned())
}

async fn try_replace(client: &Client, etag: &str, rules: Vec<v1::RoutingRule>) -> Result<v1::RoutingPolicy, Status> {
    let routing_policy = Some(v1::RoutingPolicy { rules, ..Default::default() });
    let request = v1::ReplaceRoutingPolicyRequest { routing_policy, etag: etag.to_owned(), ..Default::default() };
    let answer = client.connectors().replace_routing_policy(request).await.map(Response::into_inner)?;
    Ok(answer.routing_policy.unwrap())
}

pub(crate) async fn replace(client: &Client, rules: Vec<v1::RoutingRule>) -> v1::RoutingPolicy {
    try_replace(client, "", rules).await.unwrap()
}

async fn policy(client: &Client) -> v1::RoutingPolicy {
    let request = v1::GetRoutingPolicyRequest {};
    client.connectors().get_routing_policy(request).await.unwrap().into_inner().routing_policy.unwrap()
}

async fn resolve(client: &Client, login_id: &str) -> Result<Vec<v1::Route>, Status> {
    let request = v1::ResolveRouteRequest { login_id: login_id.to_owned() };
    Ok(client.connectors().resolve_route(request).await?.into_inner().routes)
}

async fn unpin(client: &Client, login_id: &str) -> bool {
    let request = v1::UnpinUserRequest { login_id: login_id.to_owned(), ..Default::default() };
    client.connectors().unpin_user(request).await.unwrap().into_inner().unpinned
}

async fn delete_connector(
    client: &Client,
    reference: &str,
    cascade: bool,
) -> Result<v1::DeleteConnectorResponse, Status> {
    let request = v1::DeleteConnectorRequest { reference: reference.to_owned(), cascade, ..Default::default() };
    client.connectors().delete_connector(request).await.map(Response::into_inner)
}

on_both! {
    async fn a_policy_is_replaced_as_a_whole(server) {
        let alpha = server.client("alpha");
        assert_eq!(policy(&alpha).await, v1::RoutingPolicy::default());
        let first = create(&alpha, fixture::a_connector("first")).await.id;
        let link = create(&alpha, fixture::an_oauth2_connector("provider")).await;
        let request = v1::CreateConnectionRequest {
            connection: Some(fixture::a_connection("login", &link.id)),
            ..Default::default()
        };
        let connection = alpha.connections().create_connection(request).await.unwrap().into_inner().connection.unwrap();
        let given = vec![
            rule(&["Example.com", "b.example"], to("name:FIRST")),
            rule(&["*"], RuleTarget::Connection("name:login".to_owned())),
        ];
        let stored = replace(&alpha, given.clone()).await;
        let expected = vec![
            rule(&["example.com", "b.example"], to(&first)),
            rule(&["*"], RuleTarget::Connection(connection.id.clone())),
        ];
        assert_eq!(stored.rules, expected);
        assert_eq!(policy(&alpha).await, stored);
        assert_eq!(policy(&server.client("beta")).await, v1::RoutingPolicy::default());

        // The same rules change nothing, and a stale etag is refused.
        assert_eq!(replace(&alpha, given).await, stored);
        let shorter = try_replace(&alpha, &stored.etag, vec![rule(&["*"], to(&first))]).await.unwrap();
        assert_ne!(shorter.etag, stored.etag);
        let stale = try_replace(&alpha, &stored.etag, Vec::new()).await.map(Response::new);
        expect_status(stale, Code::Aborted, "ETAG_MISMATCH");
        let emptied = try_replace(&alpha, &shorter.etag, Vec::new()).await.unwrap();
        assert_eq!(emptied.rules, Vec::new());
        let none = resolve(&alpha, "ada@example.com").await.map(Response::new);
        expect_status(none, Code::NotFound, "ROUTING_RULE_NOT_FOUND");
    }

    async fn a_route_says_which_rule_decided(server) {
        let alpha = server.client("alpha");
        let first = create(&alpha, fixture::a_connector("first")).await.id;
        let second = create(&alpha, fixture::a_connector("second")).await.id;
        replace(&alpha, vec![rule(&["a.example", "b.example"], to(&first)), rule(&["*"], to(&second))]).await;
        let route = |connector: &str, rule, domain: &str| v1::Route {
            target: Some(Target::Connector(connector.to_owned())),
            reason: v1::RouteReason::Rule.into(),
            rule,
            email_domain: domain.to_owned(),
        };
        let (one, two) = (route(&first, 0, "b.example"), route(&second, 1, "*"));
        assert_eq!(resolve(&alpha, "Ada@B.example").await.unwrap(), [one, two.clone()]);
        assert_eq!(resolve(&alpha, "ada").await.unwrap(), [two]);
    }

    async fn a_user_stays_with_the_connector_that_accepted_the_log_in(server) {
        let alpha = server.client("alpha");
        let (never, knows) = (System::start(|_| Reply::new(404, "")).await, a_system().await);
        let first = create(&alpha, connector(&alpha, &never, "never").await).await.id;
        let second = create(&alpha, connector(&alpha, &knows, "knows").await).await.id;
        replace(&alpha, vec![rule(&["*"], to(&first)), rule(&["*"], to(&second))]).await;
        let rejected = log_in(&alpha, a_login("", "ada", "wrong")).await;
        assert_eq!((rejected.outcome(), never.received().len(), knows.received().len()), (v1::LoginOutcome::Rejected, 1, 1));
        let accepted = log_in(&alpha, a_login("", "ada", "right")).await;
        assert_eq!((accepted.outcome(), accepted.connector.as_str()), (v1::LoginOutcome::Accepted, &*second));
        assert_eq!(never.received().len(), 2);

        // From now on only the second is asked, whatever the rules say.
        let pinned = v1::Route {
            target: Some(Target::Connector(second.clone())),
            reason: v1::RouteReason::Pinned.into(),
            ..Default::default()
        };
        replace(&alpha, vec![rule(&["*"], to(&first))]).await;
        assert_eq!(resolve(&alpha, "ADA").await.unwrap(), [pinned]);
        log_in(&alpha, a_login("", "ada", "right")).await;
        assert_eq!(never.received().len(), 2);

        // Without the pin the rules count again, and so they do without the connector.
        assert!(unpin(&alpha, "Ada").await);
        assert!(!unpin(&alpha, "Ada").await);
        assert_eq!(resolve(&alpha, "ada").await.unwrap()[0].target, Some(Target::Connector(first.clone())));
        replace(&alpha, vec![rule(&["*"], to(&second)), rule(&["*"], to(&first))]).await;
        log_in(&alpha, a_login("", "ada", "right")).await;
        assert!(delete_connector(&alpha, &second, true).await.unwrap().deleted);
        assert_eq!(resolve(&alpha, "ada").await.unwrap()[0].target, Some(Target::Connector(first)));
    }

    async fn a_fault_is_not_hidden_by_a_later_rejection(server) {
        let alpha = server.client("alpha");
        let (broken, knows) = (System::start(|_| Reply::new(500, "")).await, a_system().await);
        let first = create(&alpha, connector(&alpha, &broken, "broken").await).await.id;
        let second = create(&alpha, connector(&alpha, &knows, "knows").await).await.id;
        replace(&alpha, vec![rule(&["*"], to(&first)), rule(&["*"], to(&second))]).await;
        let outcome = async |password| log_in(&alpha, a_login("", "ada", password)).await.outcome();
        assert_eq!(outcome("wrong").await, v1::LoginOutcome::UpstreamFault);
        assert_eq!(outcome("right").await, v1::LoginOutcome::Accepted);
        // The system that could not be asked may be the one of the user.
        assert_eq!(resolve(&alpha, "ada").await.unwrap().len(), 2, "no pin");
    }

    async fn a_disabled_connector_keeps_no_other_one_from_being_asked(server) {
        let alpha = server.client("alpha");
        let (never, knows) = (a_system().await, a_system().await);
        let disabled = v1::Connector { enabled: Some(false), ..connector(&alpha, &never, "disabled").await };
        let first = create(&alpha, disabled).await.id;
        let second = create(&alpha, connector(&alpha, &knows, "knows").await).await.id;
        replace(&alpha, vec![rule(&["*"], to(&first)), rule(&["*"], to(&second))]).await;
        let accepted = log_in(&alpha, a_login("", "ada", "right")).await;
        assert_eq!((accepted.outcome(), accepted.connector.as_str()), (v1::LoginOutcome::Accepted, &*second));
        replace(&alpha, vec![rule(&["*"], to(&first))]).await;
        let fault = v1::AuthenticateUserResponse { outcome: v1::LoginOutcome::UpstreamFault.into(), ..Default::default() };
        assert_eq!(log_in(&alpha, a_login("", "bob", "right")).await, fault);
        assert_eq!(never.received().len(), 0);
        // The caller who names it learns why.
        let refused = alpha.connectors().authenticate_user(a_login(&first, "ada", "right")).await;
        expect_status(refused, Code::FailedPrecondition, "CONNECTOR_DISABLED");
    }

    async fn other_spellings_of_a_login_id_do_not_evade_its_pin(server) {
        let alpha = server.client("alpha");
        let (knows, other) = (a_system().await, a_system().await);
        let first = create(&alpha, connector(&alpha, &knows, "knows").await).await.id;
        let second = create(&alpha, connector(&alpha, &other, "other").await).await.id;
        replace(&alpha, vec![rule(&["*"], to(&first))]).await;
        log_in(&alpha, a_login("", "ada", "right")).await;
        replace(&alpha, vec![rule(&["*"], to(&second))]).await;
        for spelling in ["ADA", " ada ", "\u{ff41}da", "\u{24d0}DA", "a\u{ad}da", "ad\u{200d}a", "ada\u{fe0f}"] {
            let [route] = &resolve(&alpha, spelling).await.unwrap()[..] else { panic!("{spelling:?}: several routes") };
            assert_eq!(route.reason(), v1::RouteReason::Pinned, "{spelling:?}");
            log_in(&alpha, a_login("", spelling, "right")).await;
        }
        assert_eq!(other.received().len(), 0);
        assert!(unpin(&alpha, "\u{ff21}DA").await);
        assert_eq!(resolve(&alpha, "ada").await.unwrap()[0].reason(), v1::RouteReason::Rule);
    }

    /// Their keys distinguish spellings.
    async fn pins_of_an_older_program_count(server) {
        let mut server = server;
        let alpha = server.client("alpha");
        let system = a_system().await;
        let first = create(&alpha, connector(&alpha, &system, "first").await).await.id;
        let second = create(&alpha, connector(&alpha, &system, "second").await).await.id;
        replace(&alpha, vec![rule(&["*"], to(&first))]).await;
        log_in(&alpha, a_login("", "ada", "right")).await;
        server.stop().await;
        let older = [
            ("\u{ff41}da", "second"),
            ("\u{ff42}ob", "second"),
            ("bo\u{ff42}", "first"),
            ("\u{e9}va", "second"),
            ("dan  dee", "first"),
            ("fay@example.com.", "second"),
        ];
        for (create_time, (login_key, name)) in older.into_iter().enumerate() {
            let pin = format!("SELECT tenant_id, '{login_key}', id, {create_time} FROM connector WHERE name_key = '{name}'");
            server.sql(&format!("INSERT INTO user_pin (tenant_id, login_key, connector_id, create_time) {pin}")).await;
        }
        server.sql("DELETE FROM seaql_migrations WHERE version = 'm0014_pin_keys'").await;

        server.restart().await;
        let alpha = server.client("alpha");
        for (login_id, connector) in [("\u{ff21}da", &first), ("BOB", &second), ("\u{c9}va", &second), ("Dan Dee", &first), ("fay@example.com", &second)] {
            let [route] = &resolve(&alpha, login_id).await.unwrap()[..] else { panic!("{login_id}: several routes") };
            let expected = (v1::RouteReason::Pinned, Some(Target::Connector(connector.clone())));
            assert_eq!((route.reason(), route.target.clone()), expected, "{login_id}");
        }
        let mut pins = server.sql("SELECT login_key FROM user_pin").await;
        pins.sort_unstable();
        assert_eq!(pins, ["ada", "bob", "dan dee", "fay@example.com", "\u{e9}va"]);
    }

    /// The way in which a user may log in depends on the rules alone.
    async fn a_rule_to_a_connection_does_not_show_who_is_pinned(server) {
        let alpha = server.client("alpha");
        let system = a_system().await;
        let directory = create(&alpha, connector(&alpha, &system, "directory").await).await.id;
        replace(&alpha, vec![rule(&["*"], to(&directory))]).await;
        assert_eq!(log_in(&alpha, a_login("", "ada", "right")).await.connector, directory);
        let asked = system.received().len();
        let provider = create(&alpha, fixture::an_oauth2_connector("provider")).await.id;
        let request = v1::CreateConnectionRequest {
            connection: Some(fixture::a_connection("login", &provider)),
            ..Default::default()
        };
        let connection = alpha.connections().create_connection(request).await.unwrap().into_inner().connection.unwrap();
        let through = rule(&["*"], RuleTarget::Connection(connection.id));
        for (rules, code, reason) in [
            (vec![through.clone()], Code::FailedPrecondition, "CONNECTION_REQUIRED"),
            (vec![through, rule(&["*"], to(&directory))], Code::FailedPrecondition, "CONNECTION_REQUIRED"),
            (Vec::new(), Code::NotFound, "ROUTING_RULE_NOT_FOUND"),
        ] {
            replace(&alpha, rules).await;
            let mut routes = Vec::new();
            for login_id in ["ada", "stranger"] {
                for password in ["right", "wrong"] {
                    let refused = alpha.connectors().authenticate_user(a_login("", login_id, password)).await;
                    expect_status(refused, code, reason);
                }
                routes.push(resolve(&alpha, login_id).await.map_err(|status| status.code()));
            }
            assert_eq!(routes[0], routes[1]);
        }
        assert_eq!(system.received().len(), asked, "no password leaves");
        // With a rule to any connector, the pin counts again.
        let other = create(&alpha, fixture::a_connector("other")).await.id;
        replace(&alpha, vec![rule(&["*"], to(&other))]).await;
        assert_eq!(resolve(&alpha, "ada").await.unwrap()[0].target, Some(Target::Connector(directory)));
    }

    /// A rejection says nothing about the connector that knows the user, and no system gets the password twice.
    async fn a_rejection_does_not_show_who_is_pinned(server) {
        let alpha = server.client("alpha");
        let (knows, never) = (a_system().await, System::start(|_| Reply::new(404, "")).await);
        let first = create(&alpha, connector(&alpha, &knows, "knows").await).await.id;
        let second = create(&alpha, connector(&alpha, &never, "never").await).await.id;
        let rules = vec![rule(&["*"], to(&first)), rule(&["*"], to(&second)), rule(&["*"], to(&first))];
        replace(&alpha, rules).await;
        assert_eq!(log_in(&alpha, a_login("", "ada", "right")).await.connector, first);
        let pinned = log_in(&alpha, a_login("", "ada", "wrong")).await;
        let unknown = log_in(&alpha, a_login("", "bob", "wrong")).await;
        let rejected = v1::AuthenticateUserResponse { outcome: v1::LoginOutcome::Rejected.into(), ..Default::default() };
        assert_eq!((pinned, unknown), (rejected.clone(), rejected));
        assert_eq!((knows.received().len(), never.received().len()), (3, 1));
    }

    /// Without a policy there is no row to lock.
    async fn the_first_policy_is_set_once(server) {
        let alpha = server.client("alpha");
        for round in 0..4 {
            let connectors: Vec<_> = futures::future::join_all((0..8).map(async |number| {
                create(&alpha, fixture::a_connector(&format!("c {round} {number}"))).await.id
            })).await;
            let set = connectors.iter().map(|id| replace(&alpha, vec![rule(&["*"], to(id))]));
            let mut etags: Vec<_> = futures::future::join_all(set).await.into_iter().map(|policy| policy.etag).collect();
            etags.sort();
            etags.dedup();
            assert_eq!(etags.len(), 8, "each replacement has a version of its own");
        }
    }

    async fn pins_of_a_deleted_user_are_gone(server) {
        let alpha = server.client("alpha");
        let system = a_system().await;
        let mut directory = connector(&alpha, &system, "directory").await;
        if let Some(v1::connector::Kind::Generic(generic)) = &mut directory.kind {
            generic.migrate_users = Some(true);
        }
        let directory = create(&alpha, directory).await.id;
        replace(&alpha, vec![rule(&["*"], to(&directory))]).await;
        log_in(&alpha, a_login("", "ada", "right")).await;
        assert_eq!(resolve(&alpha, "ada").await.unwrap()[0].reason(), v1::RouteReason::Pinned);
        let delete = v1::DeleteUserRequest { reference: "ext:11111111-1111-4111-8111-111111111111".to_owned(), ..Default::default() };
        alpha.users().delete_user(delete).await.unwrap();
        assert_eq!(resolve(&alpha, "ada").await.unwrap()[0].reason(), v1::RouteReason::Rule);
    }

    async fn a_target_of_a_rule_is_in_use(server) {
        let alpha = server.client("alpha");
        let kept = create(&alpha, fixture::a_connector("kept")).await.id;
        let provider = create(&alpha, fixture::an_oauth2_connector("provider")).await.id;
        let request = v1::CreateConnectionRequest {
            connection: Some(fixture::a_connection("login", &provider)),
            ..Default::default()
        };
        let connection = alpha.connections().create_connection(request).await.unwrap().into_inner().connection.unwrap();
        let through = || RuleTarget::Connection(connection.id.clone());
        replace(&alpha, vec![rule(&["a.example"], to(&kept)), rule(&["*"], through())]).await;
        let refused = delete_connector(&alpha, &kept, false).await.map(Response::new);
        expect_status(refused, Code::FailedPrecondition, "IN_USE");
        let request = v1::DeleteConnectionRequest { reference: connection.id.clone(), ..Default::default() };
        let refused = alpha.connections().delete_connection(request).await;
        expect_status(refused, Code::FailedPrecondition, "IN_USE");

        // A log-in with a password does not go to a connection.
        let refused = alpha.connectors().authenticate_user(a_login("", "ada", "right")).await;
        expect_status(refused, Code::FailedPrecondition, "CONNECTION_REQUIRED");

        let deleted = delete_connector(&alpha, &provider, true).await.unwrap();
        assert_eq!((deleted.connections_deleted, deleted.routing_rules_removed), (1, 1));
        let left = policy(&alpha).await;
        assert_eq!(left.rules, [rule(&["a.example"], to(&kept))]);
        assert_eq!(delete_connector(&alpha, &kept, true).await.unwrap().routing_rules_removed, 1);
        assert_eq!(policy(&alpha).await.rules, Vec::new());
    }

    async fn a_policy_says_all_that_is_wrong_with_it(server) {
        let alpha = server.client("alpha");
        let wrong = vec![
            rule(&[], to("name:a")),
            rule(&["a b"], to(" ")),
            rule(&["a.example", "*"], to("name:a")),
            v1::RoutingRule { email_domains: vec!["a.example".to_owned()], target: None },
        ];
        let refused = try_replace(&alpha, "", wrong).await.map(Response::new);
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&[
            "routing_policy.rules[0].email_domains",
            "routing_policy.rules[1].email_domains[0]",
            "routing_policy.rules[1].connector",
            "routing_policy.rules[2].email_domains",
            "routing_policy.rules[3].target",
        ]);
        let many = vec![rule(&["*"], to("name:a")); 101];
        let refused = try_replace(&alpha, "", many).await.map(Response::new);
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["routing_policy.rules"]);
        let generic = create(&alpha, fixture::a_connector("generic")).await.id;
        let rules = vec![rule(&["*"], to(&generic)), rule(&["*"], to("name:none"))];
        let missing = try_replace(&alpha, "", rules).await.map(Response::new);
        assert_eq!(expect_status(missing, Code::NotFound, "CONNECTOR_NOT_FOUND").metadata("rule"), "1");
        let oauth2 = create(&alpha, fixture::an_oauth2_connector("provider")).await.id;
        let rules = vec![rule(&["*"], to(&oauth2)), rule(&["a.example"], to(&generic)), rule(&["b.example"], to(&oauth2))];
        let of_another_kind = try_replace(&alpha, "", rules).await.map(Response::new);
        expect_status(of_another_kind, Code::InvalidArgument, "FIELD_INVALID")
            .expect_fields(&["routing_policy.rules[0].connector", "routing_policy.rules[2].connector"]);
    }
}

mod postgres {
    use super::*;

    /// Two replicas accept a user at once, through different connectors. The user stays with one of them.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_two_replicas_that_pin_a_user_at_once_one_does() {
        let server = TestServer::start(Backend::Postgres).await;
        let replica = server.replica().await.unwrap();
        let callers = [&server, &replica].map(|server| server.client("alpha"));
        let [alpha, _] = &callers;
        // It does not know the user who comes first.
        let asked = AtomicUsize::new(0);
        let sometimes = System::start(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
            0 => Reply::new(404, ""),
            _ => Reply::new(200, a_user().to_string()),
        });
        let (sometimes, knows) = (sometimes.await, a_system().await);
        let first = create(alpha, connector(alpha, &sometimes, "sometimes").await).await.id;
        let second = create(alpha, connector(alpha, &knows, "knows").await).await.id;
        replace(alpha, vec![rule(&["*"], to(&first)), rule(&["*"], to(&second))]).await;

        // Another client of the database lets no pin be written until both are about to.
        let sql = |statement: &str| server.postgres().run(statement).trim().to_owned();
        let hold = "BEGIN; LOCK TABLE user_pin IN EXCLUSIVE MODE; SELECT pg_sleep(60)";
        let mut holder = std::process::Command::new("psql");
        let holder = holder.args(["--quiet", "--command", hold, &server.postgres().url()]);
        let mut holder = holder.stderr(std::process::Stdio::null()).spawn().unwrap();
        let held = "FROM pg_locks WHERE mode = 'ExclusiveLock' AND granted AND relation = 'user_pin'::regclass";
        eventually("the table is locked", async || sql(&format!("SELECT count(*) {held}")) == "1").await;
        let log_ins = callers
            .clone()
            .map(|client| tokio::spawn(async move { log_in(&client, a_login("", "ada", "right")).await }));
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'user_pin'::regclass";
        eventually("both wait", async || sql(waits) == "2").await;
        sql(&format!("SELECT pg_terminate_backend(pid) {held}"));
        holder.wait().unwrap();

        let mut accepted_by = Vec::new();
        for log_in in log_ins {
            let accepted = log_in.await.unwrap();
            assert_eq!(accepted.outcome(), v1::LoginOutcome::Accepted);
            accepted_by.push(accepted.connector);
        }
        accepted_by.sort();
        let mut both = vec![first, second];
        both.sort();
        assert_eq!(accepted_by, both);
        assert_eq!(sql("SELECT count(*) FROM user_pin"), "1");
        let [here, there] = [resolve(alpha, "ada").await.unwrap(), resolve(&callers[1], "ada").await.unwrap()];
        assert_eq!((here[0].reason(), &here), (v1::RouteReason::Pinned, &there));
        // A pin that fails is logged, and is no error of the call.
        let log = logs::text();
        let failed = log.lines().filter(|line| line.contains("could not be pinned"));
        assert_eq!(failed.filter(|line| both.iter().any(|id| line.contains(id))).collect::<Vec<_>>(), [""; 0]);
    }

    /// Locks are taken from the top down, whatever the order of the rules: a connector before its connections.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn connectors_are_locked_before_connections() {
        let server = TestServer::start(Backend::Postgres).await;
        let (alpha, tenant) = (server.client("alpha"), steps::tenant_id(&server, "alpha").await);
        let directory = create(&alpha, fixture::a_connector("directory")).await.id;
        let provider = create(&alpha, fixture::an_oauth2_connector("provider")).await.id;
        let connection = Some(fixture::a_connection("login", &provider));
        let request = v1::CreateConnectionRequest { connection, ..Default::default() };
        let connection = alpha.connections().create_connection(request).await.unwrap().into_inner().connection.unwrap();
        let store = server.store().await;
        let txn = store.write().await.unwrap();
        // As the deletion of a connector does.
        let locked = |id: &str| Ref::Id(id.parse().unwrap());
        txn.find_for_update::<Connector>(tenant, &locked(&directory)).await.unwrap().unwrap();
        let rules =
            vec![rule(&["a.example"], RuleTarget::Connection(connection.id.clone())), rule(&["*"], to(&directory))];
        let replacing = tokio::spawn(async move { try_replace(&alpha, "", rules).await });
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        eventually("it waits for the connector", async || server.sql(waiting).await == ["1"]).await;
        txn.find_for_update::<Connection>(tenant, &locked(&connection.id)).await.unwrap().unwrap();
        txn.rollback().await.unwrap();
        store.close().await;
        assert_eq!(replacing.await.unwrap().unwrap().rules.len(), 2);
    }
}
