//! Filters. Each table lists the items of the [`World`] that a filter matches, the same on both databases.

mod fields;
mod refused;
mod words;
mod world;

use std::collections::BTreeSet;

use jackfield_testkit::{Ask, List, Refusal, on_both};
use tonic::Code;

use world::World;

on_both! {
    /// A word matches where any text of an item contains it.
    async fn words_search_every_text(server) {
        let world = World::create(&server).await;
        world.check(List::Connectors, &[
            ("Gmail", &["gmail"]),
            ("gMAIL", &["gmail"]),
            ("mail", &["gmail"]),
            ("mail.example.com/login", &["gmail"]),
            ("GENERIC", &["gmail", "quotes"]),
            ("owner", &["gmail"]),
            ("team-a", &["gmail"]),
            ("nothing", &[]),
            // Letter case is ignored everywhere, beyond ASCII too.
            ("ärzte", &["gmail"]),
            ("ÄRZTE", &["gmail"]),
            ("A\u{308}rzte", &["gmail"]),
            ("LOGIN", &["gmail"]),
            ("postmaster", &["gmail"]),
            ("sso.EXAMPLE.net/authorize", &["giants"]),
            ("/certs", &["giants"]),
            ("api_token", &["decoy"]),
            ("gallery", &["street"]),
            ("licence.example", &["street"]),
            ("x-region", &["quotes"]),
            ("europe", &["quotes"]),
            ("x-hush", &["quotes"]),
            ("whisper", &[]),
            ("große", &["street"]),
            ("STRASSE", &["street"]),
            // Consecutive words must all match, quoted ones literally.
            ("York New", &["giants"]),
            ("\"New York\"", &["giants"]),
            ("\"York New\"", &[]),
            ("york gmail", &[]),
            ("york AND giants", &["giants"]),
            // A match does not extend from one field into the next.
            ("\"Giants OAUTH2\"", &[]),
        ]).await;
        world.check(List::Connections, &[("client-X", &["saml", "plain"]), ("SAML2", &["saml"]), ("app.example.org/callback", &["saml"]), ("ch", &["saml"]), ("offline", &["plain"])]).await;
        world.check(List::Credentials, &[("ÉVÉ", &["stale"]), ("cred-é1", &["valid"]), ("ada", &["valid", "expired"])]).await;
        world.check(List::Configurations, &[("TEAM", &["team"]), ("sync", &["team"]), ("évé", &["of stale"])]).await;
        world.check(List::Keys, &[("trust_bundle", &["bundle"]), ("\"test root\"", &[]), ("BUNDLE", &["bundle"])]).await;
        world.check(List::Users, &[("example.COM", &["ann"]), ("ÄNN", &["ann"]), ("seller", &[]), ("BUYER", &["ann"]), ("shop", &["ann"]), ("4917", &["ann"]), ("émile", &["ann"]), ("platform-é1", &["ann"]), ("b%", &["bob"])]).await;
        world.check(List::Applications, &[("use_app", &["gallery", "vault"]), ("ÄRZTE", &["gallery"]), ("app-é1", &["gallery"])]).await;
        world.check(List::Permissions, &[("GRÖSSE", &["ada at acme"]), ("initech", &["ada at initech"]), ("use_app évé", &["évé at acme"])]).await;
        world.check(List::Sessions, &[("évé", &["évé in vault"]), ("gallery", &[])]).await;
        world.check(List::ConnectorEvents, &[("évé", &["fault of évé"]), ("STATUS_unexpected", &["fault of évé"]), ("größe", &["fault of évé"]), ("gallery", &["ada unknown"]), ("REJECTED", &["ada unknown"])]).await;
        world.check(List::Tenants, &[("ALPHA", &["alpha"]), ("ümlaut", &["beta-2"]), ("ÜMLAUT", &["beta-2"])]).await;
        world.check(List::UserConnectors, &[("ada", &["ada gmail", "ada percent"]), ("ÉVÉ", &["évé quotes"]), ("gmail", &[])]).await;
    }

    /// Characters with a meaning in a database or in the filter grammar are literal.
    async fn words_are_literal(server) {
        let world = World::create(&server).await;
        world.check(List::Connectors, &[
            ("100%", &["percent"]),
            ("\"100% sure\"", &["percent"]),
            ("%", &["percent"]),
            ("%%", &[]),
            ("sure_thing", &["percent"]),
            ("s_re", &[]),
            ("back\\slash", &["percent"]),
            ("\"back\\\\slash\"", &["percent"]),
            ("\"back\\slash\"", &[]),
            ("\\", &["percent"]),
            ("O'Brien", &["quotes"]),
            ("\"o'brien\"", &["quotes"]),
            ("'O\\'Brien'", &["quotes"]),
            ("\"\\\"the\\\"\"", &["quotes"]),
            ("a*b", &["quotes"]),
            ("\"a\\*b\"", &["quotes"]),
            ("a?b", &[]),
            ("a.c", &[]),
            ("\"(c)\"", &["quotes"]),
            ("*mail*", &["gmail"]),
            ("[a-z]", &[]),
            ("\"OR\"", &["giants"]),
        ]).await;
    }

    /// OR binds tighter than AND, and NOT tighter than both (AIP-160).
    async fn connectives_bind_as_in_aip_160(server) {
        let world = World::create(&server).await;
        let all = &["decoy", "giants", "gmail", "percent", "quotes", "street"];
        let but_gmail = &["decoy", "giants", "percent", "quotes", "street"];
        world.check(List::Connectors, &[
            ("", all),
            ("  ", all),
            ("york OR mail", &["giants", "gmail"]),
            ("york OR 100 AND sure", &["decoy", "percent"]),
            ("york OR 100 sure", &["decoy", "percent"]),
            ("sure AND york OR 100", &["decoy", "percent"]),
            ("york OR (100 AND decoy)", &["giants"]),
            ("(york OR 100) AND new", &["giants"]),
            ("NOT gmail", but_gmail),
            ("-gmail", but_gmail),
            ("NOT gmail OR york", but_gmail),
            ("NOT (gmail OR york)", &["decoy", "percent", "quotes", "street"]),
            ("-(gmail OR york) -sure", &["quotes", "street"]),
            ("NOT gmail AND NOT york NOT sure", &["quotes", "street"]),
            ("NOT (NOT gmail)", &["gmail"]),
            ("gmail enabled = true", &["gmail"]),
            ("gmail enabled = false", &[]),
            ("enabled = false OR debug = true", &["giants", "quotes"]),
            ("enabled = true labels:env OR debug = true", &["gmail", "quotes", "street"]),
            ("labels:env AND NOT labels.env = prod", &["giants", "street"]),
        ]).await;
    }

    async fn not_equal_is_the_negation_of_equal(server) {
        let world = World::create(&server).await;
        for list in List::ALL {
            let all = ids(&world, list, "").await.unwrap();
            for field in fields(&world, list).await {
                // A field accepts some of these values, and refuses those of another type.
                let mut compared = 0;
                for value in samples(&world, list, &field).await {
                    let Some(equal) = ids(&world, list, &format!("{field} = {value}")).await else { continue };
                    let different = ids(&world, list, &format!("{field} != {value}")).await.unwrap();
                    let negated = ids(&world, list, &format!("NOT {field} = {value}")).await.unwrap();
                    let missing: BTreeSet<_> = all.difference(&equal).cloned().collect();
                    assert_eq!((&different, &negated), (&missing, &missing), "{list:?} {field} {value}");
                    compared += 1;
                }
                assert!(compared > 0, "{list:?} {field}: no value was accepted");
            }
        }
    }

    async fn ids_and_times_compare(server) {
        let world = World::create(&server).await;
        for list in List::ALL {
            let all: Vec<_> = list.rows(world.client(list), &Ask::default()).await.unwrap();
            let row = &all[all.len() / 2];
            let id = &row.id;
            let count = async |filter: String| {
                let rows = list.rows(world.client(list), &Ask::filter(filter)).await.unwrap();
                (rows.len(), rows.iter().any(|found| found.id == *id))
            };
            assert_eq!(count(format!("id = {id}")).await, (1, true), "{list:?}");
            assert_eq!(count(format!("id:\"{}\"", id.to_uppercase())).await, (1, true), "{list:?}");
            assert_eq!(count(format!("id != {id}")).await, (all.len() - 1, false), "{list:?}");
            assert_eq!(count(format!("NOT id = {id}")).await, (all.len() - 1, false), "{list:?}");
            assert_eq!(count("id:*".to_owned()).await, (all.len(), true), "{list:?}");
            assert_eq!(count("id = 00000000-0000-0000-0000-000000000000".to_owned()).await, (0, false), "{list:?}");

            let time = jackfield_domain::Timestamp(row.create_time).to_string();
            let before = all.iter().filter(|other| other.create_time < row.create_time).count();
            let same = all.iter().filter(|other| other.create_time == row.create_time).count();
            let after = all.len() - before - same;
            for (op, expected, found) in [
                ("=", same, true),
                (":", same, true),
                ("!=", before + after, false),
                ("<", before, false),
                ("<=", before + same, true),
                (">", after, false),
                (">=", after + same, true),
            ] {
                assert_eq!(count(format!("create_time {op} \"{time}\"")).await, (expected, found), "{list:?} {op}");
            }
            // Another offset is the same time.
            assert_eq!(count("create_time > 2001-01-01T00:00:00+14:00".to_owned()).await, (all.len(), true), "{list:?}");
            if matches!(list, List::ConnectorEvents | List::Sessions) {
                // These never change, so they have no other time.
                continue;
            }
            assert_eq!(count("update_time < 0001-01-01T00:00:00Z".to_owned()).await, (0, false), "{list:?}");
            assert_eq!(count("update_time <= 9999-12-31T23:59:59Z".to_owned()).await, (all.len(), true), "{list:?}");
        }
    }
}

/// The ids that a filter matches; `None` if it is refused.
async fn ids(world: &World, list: List, filter: &str) -> Option<BTreeSet<String>> {
    let rows = list.rows(world.client(list), &Ask::filter(filter)).await.ok()?;
    Some(rows.into_iter().map(|row| row.id).collect())
}

/// The server's description of a refused filter.
async fn refusal(world: &World, list: List, filter: &str) -> String {
    let status = list.rows(world.client(list), &Ask::filter(filter)).await.unwrap_err();
    Refusal::check(status, Code::InvalidArgument, "FILTER_INVALID").description("filter").to_owned()
}

/// The fields that a list can be filtered by, according to the server, with the key "env" for maps.
async fn fields(world: &World, list: List) -> Vec<String> {
    let said = refusal(world, list, "no_such_field = 1").await;
    let (_, names) = said.split_once("there are ").unwrap();
    names
        .split(", ")
        .map(|name| if matches!(name, "labels" | "tags") { format!("{name}.env") } else { name.into() })
        .collect()
}

/// Values to compare a field with: some of any type, values from rows, and the names of an enum.
async fn samples(world: &World, list: List, field: &str) -> Vec<String> {
    let some = ["x", "\"\"", "prod", "gmail", "a*", "true", "false", "ada", "404", "2001-01-01T00:00:00Z"];
    let mut samples: Vec<_> = some.iter().map(|&sample| sample.to_owned()).collect();
    samples.extend(world.ids());
    if !field.contains('.')
        && let Err(status) = list.rows(world.client(list), &Ask::filter(format!("{field} = no_such_value"))).await
    {
        let said = Refusal::check(status, Code::InvalidArgument, "FILTER_INVALID").description("filter").to_owned();
        if let Some((_, names)) = said.split_once("expected one of ") {
            let (names, _) = names.rsplit_once(" for ").unwrap();
            samples.extend(names.split(", ").map(str::to_owned));
        }
    }
    samples
}
