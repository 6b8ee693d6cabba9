//! Thousands of URLs that disguise a forbidden address. None of them causes a packet.

use std::net::Ipv4Addr;

use jackfield_domain::value::url::HttpUrl;
use jackfield_upstream::egress::Policy;

use crate::server::Server;
use crate::support::{Answers, client, definition, network, request};

const ADDRESSES: [&str; 8] =
    ["127.0.0.1", "127.8.9.1", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "169.254.169.254"];

/// Every form of a host that some parser takes for this address, and names that resolve to a forbidden one.
fn hosts(address: Ipv4Addr) -> Vec<String> {
    let number = u32::from(address);
    let [a, b, c, d] = address.octets();
    let (high, low) = (number >> 16, number & 0xffff);
    let digits = |zero: u32| -> String {
        let digit = |c: char| c.to_digit(10).map_or(c, |digit| char::from_u32(zero + digit).unwrap());
        address.to_string().chars().map(digit).collect()
    };
    let text = address.to_string();
    vec![
        text.clone(),
        format!("{number}"),
        format!("{number:#x}"),
        format!("0{number:o}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("{a:#x}.{b:#x}.{c:#x}.{d:#x}"),
        format!("000{a:o}.{b}.{c:#X}.{d}"),
        format!("{a}.{}", number & 0xff_ffff),
        format!("{a}.{b}.{low}"),
        format!("{text}."),
        text.replace('.', "。"),
        text.replacen(&text[..1], &format!("%3{}", &text[..1]), 1),
        digits(0xff10),
        digits(0x1d7d8),
        format!("[::ffff:{text}]"),
        format!("[::ffff:{high:x}:{low:x}]"),
        format!("[0:0:0:0:0:ffff:{high:x}:{low:x}]"),
        format!("[::{text}]"),
        format!("[::ffff:0:{text}]"),
        format!("[64:ff9b::{text}]"),
        format!("[64:ff9b:1::{text}]"),
        format!("[2002:{high:x}:{low:x}::1]"),
        format!("[2001::{:x}:{:x}]", !high & 0xffff, !low & 0xffff),
        format!("login.example@{text}"),
        format!("login.example:443@{text}"),
        format!("login.example\\@{text}"),
        format!("{text}#@login.example"),
        format!("{text}%00.login.example"),
        format!("{text}.login.example"),
        "localhost".to_owned(),
        "LOCALHOST.".to_owned(),
        "a.localhost".to_owned(),
        "ｌocalhost".to_owned(),
        "login.example".to_owned(),
        "l\u{43e}gin.example".to_owned(),
    ]
}

#[tokio::test]
async fn no_disguise_of_a_forbidden_address_causes_a_packet() {
    let canary = Server::plain(|peer| peer.serve("reached")).await;
    let definition = definition("https://login.example/");
    let client = client(network(Policy::default(), Answers::of(&["8.8.8.8", "127.0.0.1"])), definition);
    let (mut called, mut unreadable) = (0, 0);
    for address in ADDRESSES {
        for host in hosts(address.parse().unwrap()) {
            for scheme in ["https", "http", "HTTPS", "hTTp"] {
                for rest in ["", "/", "/latest/meta-data", "?@login.example", "//login.example", "/%2e%2e/"] {
                    let text = format!("{scheme}://{host}:{}{rest}", canary.port());
                    let Ok(url) = HttpUrl::parse("url", &text, 2048) else {
                        unreadable += 1;
                        continue;
                    };
                    called += 1;
                    let call = jackfield_upstream::client::Request { url, ..request("https://login.example/") };
                    let error = client.send(call).await.expect_err(&text);
                    assert_eq!((error.fault.reason(), error.sent), ("EGRESS_REFUSED", false), "{text}");
                }
            }
        }
    }
    assert_eq!(canary.accepted(), 0);
    assert!(called > 5000, "{called} URLs were called, {unreadable} were refused by the domain");
}
