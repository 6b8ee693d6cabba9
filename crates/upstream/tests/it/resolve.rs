//! The resolver of the machine, with a hosts file and a DNS server of the test's own.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use jackfield_upstream::egress::Policy;
use jackfield_upstream::error::Fault;
use jackfield_upstream::resolve::{Files, Resolver as _, SystemResolver};
use tokio::time::{Instant, sleep, timeout};

use crate::dns::{Answer, DnsServer, address, alias};
use crate::support::{client, definition, fault, network};

/// The time after which changed files must be noticed.
const NOTICE: Duration = Duration::from_millis(1_100);

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// A server that knows a few names.
async fn server() -> DnsServer {
    DnsServer::start(|question| {
        let name = question.name.as_str();
        let of_type = |a: &[&str], aaaa: &[&str]| match question.kind {
            RecordType::A => addresses(a),
            _ => addresses(aaaa),
        };
        let records = |addresses: Vec<IpAddr>| addresses.into_iter().map(|found| address(name, 300, found)).collect();
        match name {
            "both.example" => Answer::Records(records(of_type(&["192.0.2.1", "192.0.2.2"], &["2001:db8::1"]))),
            "short.example" => {
                let last = 1 + question.before;
                let found = of_type(&[&format!("192.0.2.{last}")], &[]);
                Answer::Records(found.into_iter().map(|found| address(name, 0, found)).collect())
            }
            "alias.example" => {
                Answer::Records(vec![alias(name, 300, "middle.example"), alias("middle.example", 300, "both.example")])
            }
            "large.example" => {
                let all: Vec<_> = (0..1000_u32).map(|n| std::net::Ipv4Addr::from(0xc633_6400 + n).into()).collect();
                if question.kind == RecordType::A { Answer::OverTcp(records(all)) } else { Answer::Records(Vec::new()) }
            }
            "empty.example" => Answer::Records(Vec::new()),
            "broken.example" => Answer::Code(ResponseCode::ServFail),
            "forbidden.example" => Answer::Code(ResponseCode::Refused),
            "ipv4-only.example" if question.kind == RecordType::AAAA => Answer::Code(ResponseCode::ServFail),
            "ipv6-only.example" if question.kind == RecordType::A => Answer::Code(ResponseCode::ServFail),
            "ipv4-only.example" | "ipv6-only.example" => {
                Answer::Records(records(of_type(&["192.0.2.1"], &["2001:db8::1"])))
            }
            "broken-ipv6.example" if question.kind == RecordType::AAAA => Answer::Code(ResponseCode::ServFail),
            "broken-ipv4.example" if question.kind == RecordType::A => Answer::Code(ResponseCode::ServFail),
            "broken-ipv6.example" | "broken-ipv4.example" => Answer::Records(Vec::new()),
            "silent.example" => Answer::Silence,
            _ => Answer::Code(ResponseCode::NXDomain),
        }
    })
    .await
}

#[tokio::test]
async fn all_addresses_of_a_name_are_found_and_kept_for_their_ttl() {
    let server = server().await;
    let resolver = server.resolver();
    let both = addresses(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
    let find = async |name: &str| resolver.resolve(name).await.unwrap();
    let mut found = find("both.example").await;
    found.sort();
    assert_eq!(found, both);
    assert_eq!((find("both.example").await.len(), server.asked()), (3, 2), "one question for each type");
    assert_eq!(find("alias.example").await.len(), 3, "aliases are followed");
    assert_eq!(find("large.example").await.len(), 1000, "a truncated answer is asked for over TCP");
    assert_eq!(find("short.example").await, addresses(&["192.0.2.1"]));
    assert_eq!(find("short.example").await, addresses(&["192.0.2.2"]), "a TTL of 0 is honoured");
    for name in ["empty.example", "unknown.example"] {
        assert_eq!(find(name).await, [] as [IpAddr; 0], "{name}");
    }
}

#[tokio::test]
async fn a_name_without_addresses_is_not_a_failure_of_name_servers() {
    let server = server().await;
    for (name, expected) in [
        ("unknown.example", Fault::Unresolved),
        ("empty.example", Fault::Unresolved),
        ("broken.example", Fault::NameServersFailed),
        ("forbidden.example", Fault::NameServersFailed),
        ("broken-ipv4.example", Fault::NameServersFailed),
        ("broken-ipv6.example", Fault::NameServersFailed),
    ] {
        let url = format!("https://{name}/");
        let client = client(network(Policy::default(), server.resolver()), definition(&url));
        assert_eq!(fault(&client, &url).await, expected, "{name}");
    }
}

#[tokio::test]
async fn addresses_of_one_type_are_used_if_the_other_type_cannot_be_found() {
    let server = server().await;
    let resolver = server.resolver();
    assert_eq!(resolver.resolve("ipv4-only.example").await.unwrap(), addresses(&["192.0.2.1"]));
    assert_eq!(resolver.resolve("ipv6-only.example").await.unwrap(), addresses(&["2001:db8::1"]));
}

#[tokio::test]
async fn look_ups_of_a_silent_name_server_end_with_their_callers() {
    let server = server().await;
    let resolver = server.resolver();
    let start = Instant::now();
    let abandoned = (0..1000).map(|_| timeout(Duration::from_millis(100), resolver.resolve("silent.example")));
    assert!(futures::future::join_all(abandoned).await.iter().all(Result::is_err), "there is no answer");
    assert_eq!(resolver.resolve("both.example").await.unwrap().len(), 3);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test]
async fn the_hosts_file_comes_first_and_its_changes_are_noticed() {
    let server = server().await;
    let directory = tempfile::tempdir().unwrap();
    let files = Files { hosts: directory.path().join("hosts"), resolv_conf: directory.path().join("resolv.conf") };
    let resolver = SystemResolver::new(files.clone(), vec![server.address]);
    let find = async |name: &str| resolver.resolve(name).await.unwrap();
    assert_eq!(find("both.example").await.len(), 3);
    let asked = server.asked();
    // The file was missing until now.
    fs::write(&files.hosts, "# comment\n10.0.0.1  first Both.example # alias\n::1 first\n").unwrap();
    sleep(NOTICE).await;
    assert_eq!(find("both.example").await, addresses(&["10.0.0.1"]), "DNS is not asked for the other type");
    assert_eq!(find("first").await, addresses(&["10.0.0.1", "::1"]));
    assert_eq!(server.asked(), asked);
    fs::write(&files.hosts, "10.0.0.2 both.example\n").unwrap();
    sleep(NOTICE).await;
    assert_eq!(find("both.example").await, addresses(&["10.0.0.2"]));
    fs::remove_file(&files.hosts).unwrap();
    sleep(NOTICE).await;
    assert_eq!(find("both.example").await.len(), 3);
    assert_eq!(server.asked(), asked + 2, "answers from before a change are not used");
}
