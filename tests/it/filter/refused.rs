//! Invalid filters and malicious filters.

use jackfield_testkit::{Ask, List, Refusal, on_both};
use tonic::Code;

use super::World;

/// Texts that have broken databases, shells and parsers.
const ATTACKS: [&str; 15] = [
    "' OR '1'='1",
    "'; DROP TABLE connector; --",
    "x' UNION SELECT doc FROM credential --",
    "\") OR 1=1 --",
    "1; DELETE FROM label",
    "%' ESCAPE '",
    "%",
    "%%__%%",
    "\\",
    "\\%",
    "$1",
    "?1",
    ":value",
    "{{7*7}}",
    "\u{202e}\u{0}\u{ffff}",
];

/// The text fields of each list that can be compared.
const TEXTS: [(List, &[&str]); 12] = [
    (List::Applications, &["name", "external_id", "labels.env", "labels.`KEY`"]),
    (List::Configurations, &["external_id", "user_id"]),
    (List::Connections, &["name", "external_id", "client_id", "issuer_url", "token_url", "tags.team", "tags.`KEY`"]),
    (List::ConnectorEvents, &["reason", "login_id", "application_id"]),
    (List::Connectors, &["name", "description", "url", "labels.env", "labels.`KEY`"]),
    (List::Credentials, &["external_id", "user_id", "provider_account_id", "labels.env", "labels.`KEY`"]),
    (List::Keys, &["name", "labels.env", "labels.`KEY`"]),
    (List::Permissions, &["company_id", "company_name", "user_id"]),
    (List::Sessions, &["user_id"]),
    (List::Tenants, &["name", "display_name"]),
    (List::UserConnectors, &["user_id"]),
    (
        List::Users,
        &["user_id", "username", "email", "phone_number", "first_name", "last_name", "labels.env", "labels.`KEY`"],
    ),
];

on_both! {
    async fn the_refusal_of_a_filter_names_the_position(server) {
        let world = World::create(&server).await;
        let everywhere = [
            ("nope = 1", "at position 1: unknown field \"nope\"; there are id, "),
            ("ä ö nope:1", "at position 5: unknown field \"nope\""),
            ("id = 7", "at position 6: expected a UUID for id"),
            ("id < 01890a5d-ac96-774b-bcce-b302099a8057", "at position 6: id has no order; use =, != or :"),
            ("create_time > yesterday", "at position 15: expected a time such as 2026-01-31T12:00:00Z for create_time"),
            ("create_time > 2026-02-30T00:00:00Z", "at position 15: expected a time"),
            ("create_time = *x", "at position 15: expected a time"),
            ("create_time.year = 1", "at position 13: create_time has no members"),
            ("a AND", "at position 6: expected a word or a field, found the end"),
            ("a OR OR b", "at position 6: "),
            ("(a", "at position 3: expected \")\""),
            ("a)", "at position 2: this \")\" closes nothing"),
            ("\"a", "at position 1: the quote \" is not closed"),
            ("a, b", "at position 2: "),
            ("id =", "at position 5: expected a value after \"=\""),
            ("= a", "at position 1: "),
            ("count(a)", "at position 1: functions are not supported"),
            ("*", "at position 1: "),
            ("a \u{0}", "at position 3: "),
            ("\"a\u{0}\"", "at position 3: "),
        ];
        for list in List::ALL {
            for (filter, description) in everywhere {
                refused(&world, list, filter, description).await;
            }
            refused(&world, list, &"a ".repeat(101), "at position 201: there are more than 100 words").await;
            refused(&world, list, &"a".repeat(2_001), "must be at most 2000 characters long").await;
            refused(&world, list, &format!("{}a", "(".repeat(33)), "at position 34: parentheses nest deeper").await;
        }
        for (list, filter, description) in [
            (List::Connectors, "kind = GENERIC", "at position 8: expected one of api_key, client_certificate, generic, "),
            (List::Connectors, "kind = CONNECTION_TYPE_SAML2", "at position 8: expected one of "),
            (List::Connectors, "enabled = yes", "at position 11: expected true or false for enabled"),
            (List::Connectors, "enabled > false", "at position 11: enabled has no order"),
            (List::Connectors, "name < a", "at position 8: name has no order"),
            (List::Connectors, "name = a*b", "at position 8: a * counts only at the beginning and the end"),
            (List::Connectors, "labels = env", "at position 10: labels is a map"),
            (List::Connectors, "labels.a.b = c", "at position 10: put a key with dots in backquotes"),
            (List::Connectors, "labels.a > b", "at position 12: the values of labels have no order"),
            (List::Connectors, "headers:x", "at position 1: unknown field \"headers\""),
            (List::Connectors, "generic.http_authentication_password:x", "at position 1: unknown field \"generic\""),
            (List::ConnectorEvents, "outcome = FAILED", "at position 11: expected one of ACCEPTED, REJECTED, UPSTREAM_FAULT"),
            (List::ConnectorEvents, "operation = CREATE", "at position 13: expected one of AUTHENTICATE_USER, "),
            (List::ConnectorEvents, "http_status = ok", "at position 15: expected a whole number for http_status"),
            (List::ConnectorEvents, "cause:x", "at position 1: unknown field"),
            (List::Connections, "type = SAML", "at position 8: expected one of OAUTH2, SAML2, WEBAUTHN, PASSWORD"),
            (List::Connections, "client_secrets:x", "at position 1: unknown field"),
            (List::Credentials, "state = OK", "at position 9: expected one of PENDING, VALID, EXPIRED"),
            (List::Credentials, "refreshable = 1", "at position 15: expected true or false"),
            (List::Credentials, "access_token:x", "at position 1: unknown field"),
            (List::Configurations, "shared_settings:x", "at position 1: unknown field"),
            (List::Keys, "type = KEY", "at position 8: expected one of CLIENT_IDENTITY, TRUST_BUNDLE"),
            (List::Applications, "permissions:x", "at position 1: unknown field"),
            (List::Permissions, "permissions:x", "at position 1: unknown field"),
            (List::Sessions, "token_digest:x", "at position 1: unknown field"),
            (List::Tenants, "labels:x", "at position 1: unknown field"),
            (List::Users, "password:x", "at position 1: unknown field"),
            (List::Users, "password_set = 1", "at position 16: expected true or false for password_set"),
            (List::UserConnectors, "state = LINKED", "at position 9: expected one of ATTACHED, AUTHENTICATED"),
        ] {
            refused(&world, list, filter, description).await;
        }
    }

    /// The largest allowed filters are answered, on every field with its own kind of condition.
    async fn the_largest_filters_are_answered(server) {
        let world = World::create(&server).await;
        for (list, term, per_filter) in [
            (List::Connectors, "a", 100),
            (List::Connectors, "labels.e:a", 100),
            (List::Connectors, "name=a*", 100),
            (List::Credentials, "state:VALID", 100),
            (List::UserConnectors, "state:DISABLED", 100),
        ] {
            for joint in [" ", " OR ", " AND -"] {
                let filter = vec![term; per_filter].join(joint);
                assert!(filter.chars().count() <= 2_000, "{filter}");
                list.rows(world.client(list), &Ask::filter(filter)).await.unwrap();
            }
            let deep = format!("{}{term}{}", "NOT (".repeat(32), ")".repeat(32));
            let rows = list.rows(world.client(list), &Ask::filter(deep)).await.unwrap();
            let plain = list.rows(world.client(list), &Ask::filter(term)).await.unwrap();
            assert!(rows == plain, "{list:?}: an even number of NOTs cancels out");
        }
    }

    async fn nothing_in_a_filter_is_sql(server) {
        let world = World::create(&server).await;
        let count = async |list: List| list.rows(world.client(list), &Ask::default()).await.unwrap();
        for (list, texts) in TEXTS {
            let before = count(list).await;
            for attack in ATTACKS {
                let quoted = format!("\"{}\"", attack.replace('\\', "\\\\").replace('"', "\\\"").replace('*', "\\*"));
                let mut filters = vec![quoted.clone()];
                for text in texts {
                    let text = text.replace("KEY", &attack.replace('`', ""));
                    for op in ["=", ":", "!="] {
                        filters.push(format!("{text} {op} {quoted}"));
                    }
                    filters.push(format!("{text} = \"*{}*\"", &quoted[1..quoted.len() - 1]));
                }
                for filter in filters {
                    match list.rows(world.client(list), &Ask::filter(&filter)).await {
                        // Different from every row, so it can match all of them but no more.
                        Ok(rows) if filter.contains(" != ") => assert!(rows.len() <= before.len(), "{list:?} {filter}"),
                        Ok(rows) => {
                            let literal = rows.iter().all(|row| holds(&row.message, attack));
                            assert!(literal, "{list:?} {filter} matches rows without it: {rows:?}");
                        }
                        Err(status) => {
                            let refusal = Refusal::check(status, Code::InvalidArgument, "FILTER_INVALID");
                            assert!(attack.contains('\0'), "{list:?} {filter}: {refusal:?}");
                        }
                    }
                }
                let order_by = Ask { order_by: format!("id {attack}"), ..Ask::default() };
                let status = list.rows(world.client(list), &order_by).await.unwrap_err();
                Refusal::check(status, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["order_by"]);
            }
            assert!(count(list).await == before, "{list:?} has changed");
        }
    }
}

async fn refused(world: &World, list: List, filter: &str, description: &str) {
    let Err(status) = list.open(world.client(list), &Ask::filter(filter)).await else {
        panic!("{list:?} {filter:?} is answered");
    };
    let refusal = Refusal::check(status, Code::InvalidArgument, "FILTER_INVALID");
    refusal.expect_fields(&["filter"]);
    let found = refusal.description("filter");
    assert!(found.starts_with(description), "{list:?} {filter:?}\n  expected {description}\n  found    {found}");
}

/// Returns whether a message contains a text, literally or as a word of a name.
fn holds(message: &[u8], text: &str) -> bool {
    jackfield_testkit::canary::contains(message, text.as_bytes())
}
