//! The word index compared with its model: a row has a word if its folded texts contain the folded word, whatever the
//! index contains and whatever happened to the row.

use std::collections::BTreeSet;

use jackfield_api::v1;
use jackfield_domain::value::text::fold;
use jackfield_testkit::{Ask, Backend, Client, List, TestServer, fixture, on_both};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use prost::Message;

use crate::steps;

/// The number of rows before all others, with few words: enough of them for the index to be used.
const PADDING: usize = 1_500;
/// The number of rows with texts of all kinds.
const ROWS: usize = 120;
/// The number of words to search for.
const WORDS: usize = 150;

/// Pieces of texts and words: letters of one to four bytes, letters that fold to others or to several, and everything
/// with a meaning to a database, to FTS5 or to LIKE.
const PIECES: [&str; 44] = [
    "a",
    "b",
    "ab",
    "abc",
    "bca",
    "zz",
    "Zz",
    "1",
    "12",
    "007",
    " ",
    "  ",
    "\"",
    "'",
    "*",
    "^",
    "%",
    "_",
    "\\",
    "\\\\",
    "(",
    ")",
    "+",
    "-",
    ":",
    "{",
    "}",
    ",",
    ".",
    "NEAR",
    "OR",
    "AND",
    "NOT",
    "near(a b, 2)",
    "ß",
    "SS",
    "Σ",
    "ς",
    "İ",
    "ärger",
    "Éclair",
    "日本",
    "\u{1f511}",
    "\u{fffd}",
];

on_both! {
    async fn words_are_found_exactly(server) {
        let client = server.client("alpha");
        pad(&server, &client).await;
        let mut random = Random::default();
        for i in 0..ROWS {
            create(&client, i, &mut random).await;
        }
        let words: Vec<String> = (0..WORDS).map(|_| random.word()).collect();
        check(&client, &words).await;
        check_filters(&client, &words).await;
        // The largest possible filters.
        let any = (0..100).map(|i| format!("absent{i:03}")).collect::<Vec<_>>();
        for filter in [any.join(" OR "), any.join(" "), "absent".repeat(330), format!("{}absent{}", "(".repeat(32), ")".repeat(32))] {
            assert_eq!(names(&client, &filter).await, [""; 0], "{filter}");
        }

        // Changed and deleted rows lose their words.
        let rows = all(&client).await;
        for (i, row) in rows.iter().filter(|row| !row.name.starts_with("pad")).enumerate() {
            let reference = row.id.clone();
            match i % 3 {
                0 => {
                    let request = v1::DeleteConnectorRequest { reference, cascade: true, ..Default::default() };
                    client.connectors().delete_connector(request).await.unwrap();
                }
                1 => {
                    let connector = v1::Connector { description: Some(random.description()), ..Default::default() };
                    let request = v1::UpdateConnectorRequest {
                        reference,
                        connector: Some(connector),
                        update_mask: fixture::mask(["description"]),
                        ..Default::default()
                    };
                    client.connectors().update_connector(request).await.unwrap();
                }
                _ => {}
            }
        }
        check(&client, &words).await;

        // A vacuum, which moves rows, changes nothing, nor do later rows.
        server.sql("VACUUM").await;
        for i in ROWS..ROWS + 20 {
            create(&client, i, &mut random).await;
        }
        check(&client, &words).await;
        if server.backend() == Backend::Sqlite {
            server.sql("INSERT INTO search_index (search_index) VALUES ('integrity-check')").await;
        }
    }

    /// Tenants do not see each other's words.
    async fn words_of_another_tenant_are_not_found(server) {
        let (alpha, beta) = (server.client("alpha"), server.client("beta"));
        pad(&server, &alpha).await;
        pad(&server, &beta).await;
        for (client, tenant) in [(&alpha, "alpha"), (&beta, "beta")] {
            for name in ["shared needle".to_owned(), format!("needle of {tenant}")] {
                steps::connector(client, fixture::a_connector(&name)).await;
            }
        }
        for (client, own, other) in [(&alpha, "alpha", "beta"), (&beta, "beta", "alpha")] {
            assert_eq!(names(client, "needle").await, ["shared needle".to_owned(), format!("needle of {own}")]);
            assert_eq!(names(client, &format!("\"needle of {other}\"")).await, [""; 0]);
        }
    }

    /// A removed link takes the words of its credentials and configurations along, a deleted tenant those of everything
    /// in it.
    async fn cascaded_deletions_leave_no_words(backend: Backend) {
        let server = TestServer::start(backend).await;
        let (client, operator) = (server.client("alpha"), server.client("operator"));
        let before = vocabulary(&server).await;
        let request = v1::CreateTenantRequest { tenant: Some(fixture::a_tenant("short-lived")), ..Default::default() };
        let tenant = operator.admin().create_tenant(request).await.unwrap().into_inner().tenant.unwrap();
        let connector = steps::connector(&client, fixture::a_connector("dependent")).await;
        let link = steps::link(&client, "someone", &connector.id).await;
        steps::api_key(&client, &link, "key").await;
        assert_ne!(vocabulary(&server).await, before);

        let store = server.store().await;
        jackfield_testkit::fill::fill(&store, jackfield_domain::TenantId(tenant.id.parse().unwrap()), 60).await;
        let request = v1::DeleteTenantRequest { reference: tenant.id, cascade: true, ..Default::default() };
        operator.admin().delete_tenant(request).await.unwrap();
        let request = v1::DeleteConnectorRequest { reference: connector.id, cascade: true, ..Default::default() };
        client.connectors().delete_connector(request).await.unwrap();
        assert_eq!(vocabulary(&server).await, before);
    }

    /// The index includes rows from before it, and an existing extension is used.
    async fn the_index_is_built_from_existing_rows(server) {
        let mut server = server;
        let client = server.client("alpha");
        pad(&server, &client).await;
        steps::connector(&client, fixture::a_connector("old needle")).await;
        server.stop().await;
        let tables = ["tenant", "key", "connector", "connection", "user_connector", "credential", "configuration"];
        match server.backend() {
            Backend::Sqlite => {
                for table in tables {
                    for event in ["insert", "update", "delete"] {
                        server.sql(&format!("DROP TRIGGER {table}_search_{event}")).await;
                    }
                    server.sql(&format!("DROP INDEX {table}_search_number_idx")).await;
                    server.sql(&format!("ALTER TABLE {table} DROP COLUMN search_number")).await;
                }
                server.sql("DROP TABLE search_index").await;
            }
            Backend::Postgres => {
                for table in tables {
                    server.sql(&format!("DROP INDEX {table}_search_idx")).await;
                }
            }
        }
        server.sql("DELETE FROM seaql_migrations WHERE version = 'm0004_search'").await;
        server.restart().await;
        let client = server.client("alpha");
        assert_eq!(names(&client, "needle").await, ["old needle"]);
        steps::connector(&client, fixture::a_connector("new needle")).await;
        assert_eq!(names(&client, "needle").await, ["old needle", "new needle"]);
    }
}

/// The terms of SQLite's index with their row counts. PostgreSQL maintains its index itself.
async fn vocabulary(server: &TestServer) -> Vec<String> {
    if server.backend() == Backend::Postgres {
        return server.sql("SELECT search_text FROM connector UNION ALL SELECT search_text FROM configuration").await;
    }
    let store = server.store().await;
    store.raw_write("CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab(main, search_index, row)").await.unwrap();
    store.raw_write("SELECT term, doc FROM temp.vocabulary ORDER BY term").await.unwrap()
}

/// A generator of random texts and words, the same in every run.
struct Random {
    runner: TestRunner,
}

impl Default for Random {
    fn default() -> Self {
        Self { runner: TestRunner::deterministic() }
    }
}

impl Random {
    fn pieces(&mut self, count: std::ops::Range<usize>) -> String {
        let pieces = prop::collection::vec(prop::sample::select(&PIECES[..]), count);
        pieces.new_tree(&mut self.runner).unwrap().current().concat()
    }

    fn description(&mut self) -> String {
        (0..3).map(|_| self.pieces(0..6)).collect::<Vec<_>>().join("\n")
    }

    /// A word of one or more letters, not blank.
    fn word(&mut self) -> String {
        let breaks = prop::sample::select(&["", "", "", "\n", "\na"][..]).new_tree(&mut self.runner).unwrap().current();
        let word = format!("{}{breaks}{}", self.pieces(1..3), self.pieces(0..3));
        if word.trim().is_empty() { self.word() } else { word }
    }
}

async fn create(client: &Client, i: usize, random: &mut Random) {
    let name = format!("{}#{i}", random.pieces(0..4).trim_start());
    let connector = v1::Connector { description: Some(random.description()), ..fixture::a_connector(&name) };
    steps::connector(client, connector).await;
}

/// Inserts copies of a connector with ids before all others.
async fn pad(server: &TestServer, client: &Client) {
    let first = steps::connector(client, fixture::a_connector("pad")).await;
    let (id, new_id, hex, padded, set, numbers) = match server.backend() {
        Backend::Sqlite => (
            format!("x'{}'", first.id.replace('-', "")),
            "unhex(replace(made, '-', ''))",
            "printf('%08x', i)",
            "printf('%06d', i)",
            "json_set(doc, '$.id', made, '$.name', name)",
            format!(
                "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {PADDING}) SELECT i FROM n)"
            ),
        ),
        Backend::Postgres => (
            format!("'{}'", first.id),
            "made::uuid",
            "lpad(to_hex(i), 8, '0')",
            "lpad(i::text, 6, '0')",
            "(doc::jsonb || jsonb_build_object('id', made, 'name', name))::text",
            format!("(SELECT i FROM generate_series(1, {PADDING}) AS i)"),
        ),
    };
    let same = "tenant_id, version, create_time, update_time, kind, enabled, debug, description, url";
    server
        .sql(&format!(
            "INSERT INTO connector ({same}, id, doc, name_key, search_text) SELECT {same}, {new_id}, {set}, name, \
             replace(search_text, 'pad', name) FROM (SELECT p.*, {hex} || '-0000-7000-8000-000000000000' AS made, \
             'pad' || {padded} AS name FROM connector p CROSS JOIN {numbers} AS n WHERE p.id = {id}) AS made_rows"
        ))
        .await;
}

async fn all(client: &Client) -> Vec<v1::Connector> {
    connectors(client, "").await
}

async fn connectors(client: &Client, filter: &str) -> Vec<v1::Connector> {
    let ask = Ask { page_size: 1_000, ..Ask::filter(filter) };
    let rows = List::Connectors.rows(client, &ask).await.unwrap_or_else(|status| panic!("{filter}: {status:?}"));
    rows.iter().map(|row| v1::Connector::decode(&*row.message).unwrap()).collect()
}

/// The names of the matching rows, without the padding.
async fn names(client: &Client, filter: &str) -> Vec<String> {
    let found = connectors(client, filter).await.into_iter().map(|connector| connector.name);
    found.filter(|name| !name.starts_with("pad")).collect()
}

/// The folded texts of a connector that the contract says are searched.
fn texts(connector: &v1::Connector) -> String {
    let Some(v1::connector::Kind::Generic(generic)) = &connector.kind else { panic!("{connector:?}") };
    fold(&[connector.name.as_str(), connector.description(), "GENERIC", generic.authentication_url.as_str()].join("\n"))
}

/// A word as a filter: in quotes, with special characters escaped.
fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"").replace('*', "\\*"))
}

async fn check(client: &Client, words: &[String]) {
    let all = all(client).await;
    assert!(all.len() > PADDING);
    let mut found_some = 0;
    for word in words {
        let expected: BTreeSet<_> = all
            .iter()
            .filter(|connector| texts(connector).contains(&fold(word)))
            .map(|connector| &connector.name)
            .collect();
        let found = connectors(client, &quoted(word)).await;
        assert!(found.iter().map(|connector| &connector.name).collect::<BTreeSet<_>>() == expected, "{word:?}");
        assert_eq!(found.len(), expected.len(), "{word:?}");
        found_some += usize::from(!found.is_empty() && found.len() < PADDING);
    }
    assert!(found_some > words.len() / 10, "{found_some}: the words are too rare to be conclusive");
}

/// Checks filters for all of several words, any of them, and none of them.
async fn check_filters(client: &Client, words: &[String]) {
    let all = all(client).await;
    for three in words.chunks_exact(3) {
        let [a, b, c] = [0, 1, 2].map(|i| quoted(&three[i]));
        let has = |connector: &v1::Connector, i: usize| texts(connector).contains(&fold(&three[i]));
        type Holds = fn([bool; 3]) -> bool;
        let cases: [(String, Holds); 5] = [
            (format!("{a} {b}"), |[a, b, _]| a && b),
            (format!("{a} OR {b}"), |[a, b, _]| a || b),
            (format!("{a} AND NOT {b}"), |[a, b, _]| a && !b),
            (format!("({a} OR {b}) {c}"), |[a, b, c]| (a || b) && c),
            (format!("({a} {b}) OR ({c} -pad)"), |[a, b, c]| (a && b) || c),
        ];
        for (filter, holds) in cases {
            let expected = all.iter().filter(|row| holds([0, 1, 2].map(|i| has(row, i)))).map(|row| &row.name);
            let expected: BTreeSet<_> = expected.filter(|name| !name.starts_with("pad")).collect();
            let found = names(client, &filter).await;
            assert!(found.iter().collect::<BTreeSet<_>>() == expected, "{filter}: {found:?}");
        }
    }
}
