//! Lists while rows are added and removed: rows that stay are read exactly once, however often the stream breaks.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use jackfield_api::v1;
use jackfield_testkit::fill::fill;
use jackfield_testkit::list::Row;
use jackfield_testkit::{Ask, Client, List, fixture, on_both};
use tokio_stream::StreamExt;
use uuid::Uuid;

use super::{orders, sorted, tenant_id};

/// The number of rows that stay.
const STAYING: usize = 120;
/// The number of temporary rows at one time.
const PASSING: usize = 30;
/// The number of times that streams are cut, over all orders of a list.
const CUTS: usize = 200;
/// The least number of rows added or removed meanwhile.
const CHANGES: usize = 100;

on_both! {
    async fn a_stream_cut_anywhere_continues_without_loss_or_repetition(server) {
        fill(&server.store().await, tenant_id(&server).await, STAYING).await;
        let client = server.client("alpha");
        for (list, seed) in [(List::Connectors, 1), (List::UserConnectors, 2)] {
            let staying: HashSet<String> = ids(&list.rows(&client, &Ask::default()).await.unwrap()).into_iter().collect();
            assert_eq!(staying.len(), STAYING);
            let ended = Arc::new(AtomicBool::new(false));
            let changes = Arc::new(AtomicUsize::new(0));
            let churn = tokio::spawn(churn(client.clone(), Numbers(seed + 100), ended.clone(), changes.clone()));

            let mut numbers = Numbers(seed);
            let mut cuts = 0;
            let orders = orders(list);
            for scan in 0.. {
                let order_by = &orders[scan % orders.len()];
                cuts += scan_with_cuts(list, &client, "", order_by, &staying, &mut numbers).await;
                if cuts >= CUTS && scan >= orders.len() && changes.load(Ordering::Relaxed) >= CHANGES {
                    break;
                }
            }
            ended.store(true, Ordering::Relaxed);
            churn.await.unwrap();
            let left: HashSet<String> = ids(&list.rows(&client, &Ask::default()).await.unwrap()).into_iter().collect();
            assert_eq!(left, staying, "the temporary rows are gone");
        }
    }
}

/// Reads a whole list, dropping the stream now and then, sometimes with an unread page. Returns the number of cuts.
pub(super) async fn scan_with_cuts(
    list: List,
    client: &Client,
    filter: &str,
    order_by: &str,
    staying: &HashSet<String>,
    numbers: &mut Numbers,
) -> usize {
    let mut read: Vec<Row> = Vec::new();
    let mut token = String::new();
    let mut cuts = 0;
    'streams: loop {
        let ask = Ask { page_size: numbers.below(12) as i32 + 1, page_token: token.clone(), ..Ask::filter(filter) };
        let mut pages = list.open(client, &Ask { order_by: order_by.to_owned(), ..ask }).await.unwrap();
        let whole_pages = numbers.below(4);
        for _ in 0..whole_pages {
            let page = pages.next().await.expect("a page, or the last one before").unwrap();
            read.extend(page.rows);
            token = page.next_page_token;
            if token.is_empty() {
                assert!(pages.next().await.is_none(), "something follows the end");
                break 'streams;
            }
        }
        if numbers.below(2) == 0 {
            // This page is lost in transit.
            let _ = pages.next().await;
        }
        cuts += 1;
    }

    let mut seen = HashMap::new();
    for row in &read {
        *seen.entry(row.id.clone()).or_insert(0) += 1;
    }
    let repeated: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
    assert!(repeated.is_empty(), "{list:?} by {order_by:?}: read more than once: {repeated:?}");
    let lost: Vec<_> = staying.iter().filter(|id| !seen.contains_key(*id)).collect();
    assert!(lost.is_empty(), "{list:?} by {order_by:?}: lost: {lost:?}");
    assert!(ids(&sorted(read.clone(), order_by)) == ids(&read), "{list:?} by {order_by:?}: out of order");
    cuts
}

/// Adds and removes connectors, each with a link, all over the orders of their lists, and removes all of them in the
/// end.
pub(super) async fn churn(client: Client, mut numbers: Numbers, ended: Arc<AtomicBool>, changes: Arc<AtomicUsize>) {
    let mut passing = VecDeque::new();
    while !ended.load(Ordering::Relaxed) || !passing.is_empty() {
        let full = passing.len() >= PASSING || ended.load(Ordering::Relaxed);
        if full || (!passing.is_empty() && numbers.below(2) == 0) {
            let reference: String = passing.pop_front().unwrap();
            let request = v1::DeleteConnectorRequest { reference, cascade: true, ..Default::default() };
            assert!(client.connectors().delete_connector(request).await.unwrap().into_inner().deleted);
        } else {
            let id = numbers.id();
            let name = format!("{}{}", ["a", "B", "ç", "Z", "zz"][numbers.below(5)], numbers.id());
            let connector = Some(fixture::a_connector(&name));
            let request = v1::CreateConnectorRequest { connector, id: id.clone(), ..Default::default() };
            client.connectors().create_connector(request).await.unwrap();
            let user_id = format!("user-{:05}x", numbers.below(200));
            let (connector, link) = (id.clone(), numbers.id());
            let request = v1::AddUserConnectorRequest { user_id, connector, id: link, ..Default::default() };
            client.user_connectors().add_user_connector(request).await.unwrap();
            passing.push_back(id);
        }
        changes.fetch_add(1, Ordering::Relaxed);
    }
}

fn ids(rows: &[Row]) -> Vec<String> {
    rows.iter().map(|row| row.id.clone()).collect()
}

/// A generator of random numbers, the same in every run (SplitMix64).
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> usize {
        usize::try_from(self.next() % end).unwrap()
    }

    /// An id anywhere in the order of ids.
    fn id(&mut self) -> String {
        Uuid::from_u64_pair(self.next(), self.next()).to_string()
    }
}
