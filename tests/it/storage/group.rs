//! Writers that share a transaction on SQLite. Their guarantees also hold on PostgreSQL.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use jackfield_domain::attempts::AttemptCount;
use jackfield_domain::tenant::Tenant;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::value::text::TenantName;
use jackfield_domain::{Clock as _, Result, SystemClock, TenantId, Timestamp};
use jackfield_testkit::store::{IdempotencyClaim, IdempotencyKey, Store, Writer};
use jackfield_testkit::{Backend, TestServer, on_both};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::{counts, create_connector, names_of_connectors};

/// The longest wait for the row of a count.
const PATIENCE: Duration = Duration::from_secs(5);

fn tenant(name: &str, filler: usize) -> Tenant {
    Tenant {
        id: TenantId::generate(),
        name: TenantName::parse("name", name).unwrap(),
        display_name: "x".repeat(filler),
        meta: Meta::new(SystemClock.now()),
    }
}

async fn try_insert(txn: &Writer, tenant: &Tenant) -> Result<()> {
    txn.insert(tenant.id, tenant).await
}

async fn insert(txn: &Writer, name: &str) {
    try_insert(txn, &tenant(name, 0)).await.unwrap();
}

async fn is_there(store: &Store, name: &str) -> bool {
    store.read().tenant_id_by_name(name).await.unwrap().is_some()
}

/// Spawns a writer that waits for its turn, adds a row and commits.
fn writer(store: &Store, name: &'static str) -> JoinHandle<Result<()>> {
    let store = store.clone();
    tokio::spawn(async move {
        let txn = store.write().await?;
        try_insert(&txn, &tenant(name, 0)).await?;
        txn.commit().await
    })
}

/// The store of a server whose groups do not end by age, so that the test determines their members, however slow the
/// machine is.
async fn patient_store(server: &TestServer) -> Store {
    let store = server.store().await;
    store.set_longest_group(Duration::from_secs(30));
    store
}

/// Waits until this many writers wait for their turn.
async fn waiting(store: &Store, writers: usize) {
    while store.writers_waiting() < writers {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Starts a writer that has its turn and one that waits, and lets the first commit. The commit then waits until the
/// second, which now has its turn, is done.
async fn first_and_second(store: &Store) -> (JoinHandle<Result<()>>, Writer) {
    let first = store.write().await.unwrap();
    insert(&first, "first").await;
    let second = {
        let store = store.clone();
        tokio::spawn(async move { store.write().await.unwrap() })
    };
    waiting(store, 1).await;
    let first = tokio::spawn(first.commit());
    (first, second.await.unwrap())
}

on_both! {
    async fn acknowledged_concurrent_writes_are_there(server) {
        let mut server = server;
        let creates = (0..64).map(|number| {
            let server = &server;
            async move {
                let name = format!("c{number}");
                create_connector(server, "alpha", &name).await.map(|_| name)
            }
        });
        let answered: BTreeSet<String> = join_all(creates).await.into_iter().map(Result::unwrap).collect();
        server.crash();
        server.restart().await;
        let names: BTreeSet<String> = names_of_connectors(&server, "alpha").await.into_iter().collect();
        assert_eq!(names, answered);
    }

    /// The second waits for the first, in its group or on its row, and gets a durable answer.
    async fn a_repeat_at_the_same_time_finds_the_answer_of_the_first(server) {
        let store = server.store().await;
        let (tenant, request_id, now) = (TenantId::generate(), Uuid::now_v7(), SystemClock.now());
        let key = IdempotencyKey { tenant, principal: "a principal", method: "Create", request_id };
        let claim = async |txn: &Writer| txn.request_claim(key, b"same", now, now.plus_micros(1_000_000)).await.unwrap();
        let first = store.write().await.unwrap();
        assert!(matches!(claim(&first).await, IdempotencyClaim::New));
        first.request_answer(key, "the answer".to_owned()).await.unwrap();
        let second = async {
            let txn = store.write().await.unwrap();
            let IdempotencyClaim::Repeated { fingerprint, answer } = claim(&txn).await else { panic!("executed twice") };
            assert_eq!((&*fingerprint, &*answer), (&b"same"[..], "the answer"));
            txn.rollback().await.unwrap();
            assert_eq!(server.sql("select count(*) from idempotency").await, ["1"]);
        };
        let (first, ()) = tokio::join!(first.commit(), second);
        first.unwrap();

        // It has expired, so it is executed again. Expired requests are purged in batches.
        let later = now.plus_micros(1_000_000);
        let txn = store.write().await.unwrap();
        assert_eq!(txn.requests_purge(now, 10).await.unwrap(), 0);
        let again = txn.request_claim(key, b"other", later, later.plus_micros(1)).await.unwrap();
        assert!(matches!(again, IdempotencyClaim::New));
        for _ in 0..3 {
            let key = IdempotencyKey { request_id: Uuid::now_v7(), ..key };
            assert!(matches!(txn.request_claim(key, b"", now, later).await.unwrap(), IdempotencyClaim::New));
        }
        txn.commit().await.unwrap();
        let txn = store.write_long().await.unwrap();
        assert_eq!(txn.requests_purge(later, 2).await.unwrap(), 2);
        assert_eq!(txn.requests_purge(later, 2).await.unwrap(), 1, "the one that was renewed stays");
        txn.commit().await.unwrap();
        assert_eq!(server.sql("select count(*) from idempotency").await, ["1"]);
        store.close().await;
    }

    /// Every third fails on a taken name, every third rolls back, and every third is abandoned by its caller.
    async fn a_failing_or_abandoned_writer_affects_no_other(server) {
        let store = server.store().await;
        let txn = store.write().await.unwrap();
        insert(&txn, "taken").await;
        txn.commit().await.unwrap();
        let all = join_all((0..60).map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let txn = store.write().await.unwrap();
                let name = format!("t{number}");
                insert(&txn, &name).await;
                match number % 6 {
                    0 => {
                        let error = try_insert(&txn, &tenant("taken", 0)).await.unwrap_err();
                        assert_eq!(error.reason(), "NAME_TAKEN");
                        drop(txn);
                    }
                    1 => txn.rollback().await.unwrap(),
                    2 => {
                        // Abandoned in the middle of a statement.
                        let more = tenant(&format!("{name}-more"), 0);
                        let insert = try_insert(&txn, &more);
                        let _ = tokio::time::timeout(Duration::ZERO, insert).await;
                        drop(txn);
                    }
                    _ => {
                        txn.commit().await.unwrap();
                        return Some(name);
                    }
                }
                None
            })
        }))
        .await;
        let kept: BTreeSet<String> = all.into_iter().filter_map(Result::unwrap).collect();
        assert_eq!(kept.len(), 30);
        let there = server.sql("select name_key from tenant where name_key like 't%' and name_key <> 'taken'").await;
        assert_eq!(there.into_iter().collect::<BTreeSet<_>>(), kept);
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_writers_commit_together_and_a_single_writer_at_once() {
    let server = TestServer::start(Backend::Sqlite).await;
    let store = patient_store(&server).await;
    for number in 0..5 {
        let txn = store.write().await.unwrap();
        insert(&txn, &format!("lone{number}")).await;
        txn.commit().await.unwrap();
    }
    assert_eq!(store.group_counts(), (5, 5));

    let first = store.write().await.unwrap();
    insert(&first, "first").await;
    let others: Vec<_> = ["a", "b", "c", "d"].map(|name| writer(&store, name)).into();
    waiting(&store, 4).await;
    first.commit().await.unwrap();
    for other in others {
        other.await.unwrap().unwrap();
    }
    assert_eq!(store.group_counts(), (6, 10));

    // An exclusive writer has its own transaction, and those after it form a new group.
    let first = store.write().await.unwrap();
    insert(&first, "second").await;
    let long = {
        let store = store.clone();
        tokio::spawn(async move {
            let txn = store.write_long().await?;
            insert(&txn, "long").await;
            txn.commit().await
        })
    };
    waiting(&store, 1).await;
    let last = writer(&store, "last");
    waiting(&store, 2).await;
    first.commit().await.unwrap();
    long.await.unwrap().unwrap();
    last.await.unwrap().unwrap();
    assert_eq!(store.group_counts(), (9, 13));
    store.close().await;
}

/// The wait of a group's first member is bounded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_past_its_age_limit_accepts_no_more_members() {
    let server = TestServer::start(Backend::Sqlite).await;
    let store = server.store().await;
    store.set_longest_group(Duration::ZERO);
    let first = store.write().await.unwrap();
    insert(&first, "first").await;
    let others: Vec<_> = ["a", "b", "c"].map(|name| writer(&store, name)).into();
    waiting(&store, 3).await;
    first.commit().await.unwrap();
    for other in others {
        other.await.unwrap().unwrap();
    }
    assert_eq!(store.group_counts(), (4, 4));
    store.close().await;
}

/// Not even a call that changed nothing: its answer may depend on another member's write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_member_is_answered_before_the_group_is_durable() {
    let server = TestServer::start(Backend::Sqlite).await;
    let store = patient_store(&server).await;
    let (first, second) = first_and_second(&store).await;
    assert!(second.tenant_id_by_name("first").await.unwrap().is_some(), "members see earlier writes of the group");
    let third = {
        let store = store.clone();
        tokio::spawn(async move { store.write().await.unwrap() })
    };
    waiting(&store, 1).await;
    let second = tokio::spawn(second.rollback());
    let third = third.await.unwrap();
    insert(&third, "third").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!first.is_finished() && !second.is_finished(), "answered too early");
    assert!(!is_there(&store, "first").await);
    third.commit().await.unwrap();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    assert!(is_there(&store, "first").await && is_there(&store, "third").await);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_writer_is_rolled_back_before_its_commit_and_committed_after_it() {
    let server = TestServer::start(Backend::Sqlite).await;
    let store = patient_store(&server).await;
    let (first, second) = first_and_second(&store).await;
    insert(&second, "second").await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let third = writer(&store, "third");
    waiting(&store, 1).await;
    drop(second);
    third.await.unwrap().unwrap();
    assert!(is_there(&store, "first").await, "its commit had begun");
    assert!(!is_there(&store, "second").await, "its commit had not begun");
    assert_eq!(store.group_counts(), (1, 2));

    // A writer that is abandoned while it waits for its turn is skipped.
    let txn = store.write().await.unwrap();
    let left = writer(&store, "left");
    waiting(&store, 1).await;
    let stays = writer(&store, "stays");
    waiting(&store, 2).await;
    left.abort();
    assert!(left.await.unwrap_err().is_cancelled());
    drop(txn);
    stays.await.unwrap().unwrap();
    assert!(is_there(&store, "stays").await && !is_there(&store, "left").await);
    store.close().await;
}

/// SQLite then rolls back the whole transaction, so nothing of any member may remain, whatever it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_database_fails_the_whole_group() {
    let server = TestServer::start(Backend::Sqlite).await;
    // If the word index has no room, SQLite undoes only one statement, and the group continues.
    for change in ["insert", "update", "delete"] {
        server.sql(&format!("drop trigger tenant_search_{change}")).await;
    }
    let before = counts(&server).await;
    let store = patient_store(&server).await;
    let pages: u32 = store.raw_write("PRAGMA page_count").await.unwrap()[0].parse().unwrap();
    for goes_on in [false, true] {
        store.raw_write(&format!("PRAGMA max_page_count = {}", pages + 3)).await.unwrap();
        let (first, second) = first_and_second(&store).await;
        let mut failed = None;
        for number in 0..50 {
            if let Err(error) = try_insert(&second, &tenant(&format!("t{number}"), 900)).await {
                failed = Some(error);
                break;
            }
        }
        let failed = failed.expect("the limit does not work");
        assert!(failed.retryable() && failed.reason() == "STORE_UNAVAILABLE", "{failed:?}");
        // There is no transaction any more, so the next statement would be committed on its own.
        let third = writer(&store, "third");
        waiting(&store, 1).await;
        if goes_on {
            let error = try_insert(&second, &tenant("more", 0)).await.unwrap_err();
            assert_eq!(error.reason(), "STORE_UNAVAILABLE");
            assert_eq!(second.commit().await.unwrap_err().reason(), "STORE_UNAVAILABLE");
        } else {
            drop(second);
        }
        assert_eq!(first.await.unwrap().unwrap_err().reason(), "STORE_UNAVAILABLE");
        // The next group is separate, on another connection.
        third.await.unwrap().unwrap();
        assert!(is_there(&store, "third").await);
        assert_eq!(counts(&server).await["tenant"], before["tenant"] + 1, "{goes_on}");
        server.sql("delete from tenant where name_key = 'third'").await;
    }
    store.close().await;
}

on_both! {
    /// Only the commits of volatile transactions do not wait for the disk.
    async fn a_volatile_transaction_changes_nothing_for_those_after_it(server) {
        let store = patient_store(&server).await;
        let is_sqlite = server.backend() == Backend::Sqlite;
        let waits = async || {
            let setting = if is_sqlite { "PRAGMA synchronous" } else { "SHOW synchronous_commit" };
            store.raw_write(setting).await.unwrap().concat()
        };
        let durable = if is_sqlite { "2" } else { "on" };
        assert_eq!(waits().await, durable);
        let key = (TenantId::generate(), [7; 32]);
        for is_kept in [true, false] {
            let txn = store.write_volatile().await.unwrap();
            txn.login_attempts_lock(&[key], PATIENCE).await.unwrap();
            if is_kept { txn.commit().await.unwrap() } else { txn.rollback().await.unwrap() }
            // SQLite has one setting for the connection; the next transaction sets it.
            assert_eq!(waits().await, if is_sqlite { "1" } else { "on" });
            let txn = store.write().await.unwrap();
            insert(&txn, if is_kept { "first" } else { "second" }).await;
            txn.commit().await.unwrap();
            assert_eq!(waits().await, durable);
        }
        store.close().await;
    }

    async fn a_volatile_transaction_shares_its_commit_with_no_other(server) {
        let store = patient_store(&server).await;
        let first = store.write().await.unwrap();
        insert(&first, "first").await;
        let volatile = {
            let store = store.clone();
            tokio::spawn(async move {
                let txn = store.write_volatile().await?;
                txn.login_attempts_lock(&[(TenantId::generate(), [7; 32])], PATIENCE).await?;
                txn.commit().await
            })
        };
        if server.backend() == Backend::Sqlite {
            waiting(&store, 1).await;
            assert!(!volatile.is_finished());
        }
        first.commit().await.unwrap();
        volatile.await.unwrap().unwrap();
        writer(&store, "second").await.unwrap().unwrap();
        if server.backend() == Backend::Sqlite {
            assert_eq!(store.group_counts(), (3, 3));
        }
        store.close().await;
    }

    async fn a_statement_on_its_own_is_written_between_transactions(server) {
        let store = patient_store(&server).await;
        let (key, now) = ((TenantId::generate(), [7; 32]), Timestamp(1_000));
        let count = |attempts, expire_time| AttemptCount { attempts, expire_time, ..AttemptCount::default() };
        let added = |attempts, expire_time| BTreeMap::from([(key, count(attempts, expire_time))]);
        let first = store.write().await.unwrap();
        insert(&first, "first").await;
        let waits = tokio::spawn({
            let (store, added) = (store.clone(), added(2, 2_000));
            async move { store.login_attempts_add(&added, now, PATIENCE).await }
        });
        if server.backend() == Backend::Sqlite {
            waiting(&store, 1).await;
            assert!(!waits.is_finished());
        }
        first.commit().await.unwrap();
        assert_eq!(waits.await.unwrap().unwrap(), added(2, 2_000));
        // Within its window, at its end, and when nothing is counted.
        assert_eq!(store.login_attempts_add(&added(3, 3_000), now, PATIENCE).await.unwrap(), added(5, 2_000));
        let txn = store.write_volatile().await.unwrap();
        let failed = AttemptCount { failures: 4, failure_time: 999, ..count(5, 2_000) };
        txn.login_attempts_put(&BTreeMap::from([(key, failed)])).await.unwrap();
        txn.commit().await.unwrap();
        let counted = store.login_attempts_add(&added(1, 3_000), now, PATIENCE).await.unwrap();
        assert_eq!(counted, BTreeMap::from([(key, AttemptCount { attempts: 6, ..failed })]));
        let counted = store.login_attempts_add(&added(1, 4_000), Timestamp(2_000), PATIENCE).await.unwrap();
        assert_eq!(counted, added(1, 4_000));
        let txn = store.write_volatile().await.unwrap();
        txn.login_attempts_put(&added(0, 4_000)).await.unwrap();
        txn.commit().await.unwrap();
        assert_eq!(store.login_attempts_add(&added(2, 5_000), now, PATIENCE).await.unwrap(), added(2, 5_000));
        // The next transaction waits for the disk again.
        writer(&store, "second").await.unwrap().unwrap();
        let (setting, durable) = match server.backend() {
            Backend::Sqlite => ("PRAGMA synchronous", "2"),
            Backend::Postgres => ("SHOW synchronous_commit", "on"),
        };
        assert_eq!(store.raw_write(setting).await.unwrap().concat(), durable);
        store.close().await;
    }
}
