//! The metric of the expiry of keys.

use std::time::{Duration, Instant};

use jackfield_api::v1;
use jackfield_testkit::pki::Leaf;
use jackfield_testkit::{Client, Identity, ManualClock, TestServer, on_both};

use super::rotate::{given, in_minutes, of, rotate};
use super::{delete, import};
use crate::steps;

/// A certificate that began an hour ago, for a connector.
fn valid_for(server: &TestServer, seconds: u64) -> Leaf {
    server.pki().client_for(Identity::of("a connector"), Duration::from_secs(seconds))
}

async fn import_leaf(client: &Client, name: &str, leaf: &Leaf) -> v1::Key {
    let key = v1::Key { name: name.to_owned(), certificate_pem: leaf.certificate_pem.clone(), ..Default::default() };
    let private_key_pem = leaf.key_pem.clone();
    import(client, v1::ImportKeyRequest { key: Some(key), private_key_pem, ..Default::default() }).await
}

/// The series of keys that expire, by tenant and key: a line has these two labels, and the value is the time in whole seconds.
fn series(server: &TestServer) -> Vec<(String, String, i64)> {
    let page = server.metrics_page();
    let lines = page.lines().filter_map(|line| line.strip_prefix("jackfield_keys_valid_until_seconds{"));
    let parsed = lines.map(|line| {
        let (labels, value) = line.split_once("} ").unwrap();
        let labels = labels.split(',').map(|label| label.split_once('=').unwrap());
        let value_of = |name: &str| {
            let found = labels.clone().find(|(label, _)| *label == name);
            found.unwrap_or_else(|| panic!("no {name}: {line}")).1.trim_matches('"').to_owned()
        };
        assert!(labels.clone().all(|(label, _)| ["tenant", "key", "otel_scope_name"].contains(&label)), "{line}");
        (value_of("tenant"), value_of("key"), value.parse().unwrap())
    });
    let mut parsed: Vec<_> = parsed.collect();
    parsed.sort();
    parsed
}

/// The series after the next maintenance, which is at the start.
async fn after_restart(server: &mut TestServer) -> Vec<(String, String, i64)> {
    server.restart().await;
    let start = Instant::now();
    loop {
        // One key is always due, and all series come at once.
        match series(server) {
            none if none.is_empty() => assert!(start.elapsed() < Duration::from_secs(20), "{}", server.metrics_page()),
            series => return series,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The series of a key, of which the current certificate has this end.
async fn expected(server: &TestServer, tenant: &str, key: &v1::Key) -> (String, String, i64) {
    let tenant = steps::tenant_id(server, tenant).await.0.to_string();
    (tenant, key.id.clone(), key.not_after.unwrap().seconds)
}

on_both! {
    async fn keys_are_counted_by_the_rest_of_their_lifetime(backend: Backend) {
        const HOUR: u64 = 3_600;
        const END: &str = "-----END CERTIFICATE-----\n";
        let clock = ManualClock::at_present();
        let mut server = TestServer::start_at(backend, clock.clone(), |_| {}).await;
        let alpha = server.client("alpha");
        // Twenty days later, the first one has half of its lifetime left, and the last one nothing.
        let counts = [("", 40 * 24), ("third", 25 * 24), ("tenth", 21 * 24 + 12), ("day", 20 * 24 + 12), ("none", 19 * 24)];
        for (count, (remaining, hours)) in counts.into_iter().enumerate() {
            for number in 0..=count {
                let mut leaf = valid_for(&server, hours * HOUR);
                // The authority that comes after it ends sooner.
                leaf.certificate_pem.truncate(leaf.certificate_pem.find(END).unwrap() + END.len());
                import_leaf(&alpha, &format!("{remaining} {number}"), &leaf).await;
            }
        }
        clock.advance(Duration::from_secs(20 * 24 * HOUR));
        assert_eq!(after_restart(&mut server).await.len(), 2 + 3 + 4 + 5);
        let page = server.metrics_page();
        for (index, (remaining, _)) in counts.into_iter().enumerate().skip(1) {
            let count = TestServer::metric_on(&page, "jackfield_keys_expiring", &[("remaining", remaining)]);
            assert_eq!(count, Some(index as f64 + 1.0), "{remaining}");
        }
    }

    async fn it_has_the_end_of_each_key_whose_renewal_is_due(server) {
        let mut server = server;
        let (alpha, beta) = (server.client("alpha"), server.client("beta"));
        let other = import_leaf(&beta, "other", &valid_for(&server, 1_200)).await;
        let mine = import_leaf(&alpha, "mine", &valid_for(&server, 600)).await;
        import_leaf(&alpha, "fresh", &valid_for(&server, 24 * 3_600)).await;
        let other = expected(&server, "beta", &other).await;
        let first = expected(&server, "alpha", &mine).await;
        let sorted = |mut series: Vec<_>| {
            series.sort();
            series
        };
        assert_eq!(after_restart(&mut server).await, sorted(vec![first.clone(), other.clone()]));

        // Another certificate that is due has another end.
        let alpha = server.client("alpha");
        let next = valid_for(&server, 300);
        let rotated = rotate(&alpha, given(&mine.id, of(&next), None)).await.unwrap();
        let second = expected(&server, "alpha", &rotated).await;
        assert_ne!(second, first);
        assert_eq!(after_restart(&mut server).await, sorted(vec![second, other.clone()]));

        // Next material that comes in time counts in place of the current one, and is not due.
        let alpha = server.client("alpha");
        let next = valid_for(&server, 24 * 3_600);
        rotate(&alpha, given(&mine.id, of(&next), in_minutes(&jackfield_domain::SystemClock, 3))).await.unwrap();
        assert_eq!(after_restart(&mut server).await, std::slice::from_ref(&other));
        let alpha = server.client("alpha");
        let again = rotate(&alpha, given(&mine.id, of(&valid_for(&server, 900)), None)).await.unwrap();
        let third = expected(&server, "alpha", &again).await;
        assert_eq!(after_restart(&mut server).await, sorted(vec![third, other.clone()]));

        assert!(delete(&server.client("alpha"), &mine.id).await.unwrap());
        assert_eq!(after_restart(&mut server).await, [other]);
    }
}
