//! Many definitions for one host, whose identities are swapped while calls are made: each call has the certificate of its
//! definition, of the revision that it asked for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jackfield_upstream::client::{Definition, DefinitionError};
use jackfield_upstream::clients::{ClientId, Clients, Revision};

use crate::pki::{Authority, Leaf};
use crate::server::{Server, header};
use crate::support::{client_id, definition, development, request};

const DEFINITIONS: usize = 20;
const REVISIONS: i64 = 8;
const CALLERS: usize = 3;

/// Each certificate, as DER, with the text that a request with it must have.
type Certificates = HashMap<Vec<u8>, String>;

fn mark(index: usize, revision: i64) -> String {
    format!("{index}-{revision}")
}

/// A server that compares the certificate of each request with its text. It counts requests, and those that are wrong.
async fn comparing(authority: &Authority, certificates: Certificates) -> (Server, Arc<[AtomicUsize; 2]>) {
    let counts: Arc<[AtomicUsize; 2]> = Arc::default();
    let (certificates, counted) = (Arc::new(certificates), counts.clone());
    let server = Server::tls(authority.server("localhost", Some(authority)), move |mut peer| {
        let (certificates, counts) = (certificates.clone(), counted.clone());
        async move {
            let expected = &certificates[peer.certificate.as_ref().unwrap()];
            while let Some(request) = peer.request().await {
                counts[0].fetch_add(1, Ordering::SeqCst);
                if header(&request, "x-mark") != Some(expected.as_str()) {
                    counts[1].fetch_add(1, Ordering::SeqCst);
                }
                peer.respond("").await;
            }
        }
    });
    (server.await, counts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_certificate_travels_on_a_connection_of_another_definition_or_revision() {
    let authority = Authority::new("authority");
    let mut leaves: HashMap<(usize, i64), Leaf> = HashMap::new();
    let mut certificates = Certificates::new();
    for index in 0..DEFINITIONS {
        for revision in 0..REVISIONS {
            let leaf = authority.client(&mark(index, revision));
            certificates.insert(leaf.der().to_vec(), mark(index, revision));
            leaves.insert((index, revision), leaf);
        }
    }
    let (server, counts) = comparing(&authority, certificates).await;
    let url = format!("https://localhost:{}/", server.port());
    let clients = Clients::new(development(), 1000, 1000);
    let ids: Vec<ClientId> = (0..DEFINITIONS).map(|_| client_id()).collect();
    let revisions: Vec<AtomicI64> = (0..DEFINITIONS).map(|_| AtomicI64::new(0)).collect();
    let done = AtomicBool::new(false);
    let caller = |index: usize| {
        let (clients, revisions, leaves, authority) = (&clients, &revisions, &leaves, &authority);
        let (ids, url, done) = (&ids, &url, &done);
        async move {
            while !done.load(Ordering::SeqCst) {
                let revision = revisions[index].load(Ordering::SeqCst);
                let make = || {
                    let identity = Some(leaves[&(index, revision)].identity());
                    Ok(Definition { identity, trust: authority.trust(), ..definition(url) })
                };
                let client = clients.get_or_insert(ids[index], Revision::of([(ids[index].1, revision)]), make).unwrap();
                let mut request = request(url);
                request.headers.insert("x-mark", mark(index, revision).parse().unwrap());
                client.send(request).await.unwrap();
            }
        }
    };
    let swaps = async {
        for revision in 1..REVISIONS {
            tokio::time::sleep(Duration::from_millis(100)).await;
            revisions.iter().for_each(|current| current.store(revision, Ordering::SeqCst));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        done.store(true, Ordering::SeqCst);
    };
    let callers = (0..DEFINITIONS * CALLERS).map(|number| caller(number % DEFINITIONS));
    futures::future::join(futures::future::join_all(callers), swaps).await;
    let [requests, wrong] = [0, 1].map(|index: usize| counts[index].load(Ordering::SeqCst));
    assert_eq!(wrong, 0);
    assert!(requests > DEFINITIONS * REVISIONS as usize, "{requests} requests");
    assert!(server.accepted() < requests, "connections are reused: {} for {requests}", server.accepted());
    assert_eq!(clients.len(), DEFINITIONS);
}

#[tokio::test]
async fn a_client_is_made_once_for_a_revision_and_replaced_by_the_next() {
    let clients = Clients::new(development(), 10, 10);
    let (id, made) = (client_id(), AtomicUsize::new(0));
    let revision = |version| Revision::of([(id.1, version)]);
    let get = |version| {
        let make = || {
            made.fetch_add(1, Ordering::SeqCst);
            Ok(definition("https://login.example/"))
        };
        clients.get_or_insert(id, revision(version), make).unwrap()
    };
    assert!(clients.get(id, &revision(1)).is_none());
    let first = get(1);
    assert!(Arc::ptr_eq(&first, &get(1)) && Arc::ptr_eq(&first, &clients.get(id, &revision(1)).unwrap()));
    let second = get(2);
    assert!(!Arc::ptr_eq(&first, &second) && clients.get(id, &revision(1)).is_none());
    assert_eq!((made.load(Ordering::SeqCst), clients.len()), (2, 1));
    let failed = clients.get_or_insert(id, revision(3), || Err(DefinitionError::ProxyScheme));
    assert_eq!(failed.unwrap_err(), DefinitionError::ProxyScheme);
    assert!(clients.get(id, &revision(3)).is_none());
    clients.remove(id);
    assert!(clients.is_empty());
}

#[tokio::test]
async fn clients_are_bounded_and_idle_connections_end_with_them() {
    let open: Arc<Mutex<isize>> = Arc::default();
    let count = open.clone();
    let server = Server::plain(move |peer| {
        let count = count.clone();
        async move {
            *count.lock().unwrap() += 1;
            peer.serve("").await;
            *count.lock().unwrap() -= 1;
        }
    })
    .await;
    let url = format!("http://localhost:{}/", server.port());
    let clients = Clients::new(development(), 10, 1000);
    for _ in 0..200 {
        let id = client_id();
        let client = clients.get_or_insert(id, Revision::of([(id.1, 1)]), || Ok(definition(&url))).unwrap();
        client.send(request(&url)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(clients.len() <= 10, "{}", clients.len());
    assert!(*open.lock().unwrap() <= 10, "{}", open.lock().unwrap());
}
