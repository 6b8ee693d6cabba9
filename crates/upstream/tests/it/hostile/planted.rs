//! Clients with the faults that such clients usually have. The canary has to see what they do: otherwise the tests beside this one would
//! also pass with such a fault.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use jackfield_domain::kek::BoxFuture;
use jackfield_domain::value::url::HttpUrl;
use jackfield_upstream::client::Client;
use jackfield_upstream::egress::{Policy, Rule};
use jackfield_upstream::resolve::{Resolver, SystemResolver};

use super::lures::{ADDRESSES, LURES, OWN, answer};
use super::{Canary, call, caller, disguised, redirected};
use crate::dns::DnsServer;

/// A resolver that has the policy in place of the client.
struct Filtering(SystemResolver);

impl Resolver for Filtering {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let addresses = self.0.resolve(name).await?;
            match addresses.iter().any(|address| Rule::of(*address).is_some()) {
                true => Err(io::Error::other("refused")),
                false => Ok(addresses),
            }
        })
    }
}

/// A client that may call this machine, whose addresses are all that such a client can reach without harm.
fn without_policy(resolver: impl Resolver) -> Client {
    caller(OWN.iter().try_fold(Policy::default(), |policy, address| policy.allow(address)).unwrap(), resolver)
}

#[tokio::test]
async fn a_policy_in_the_resolver_alone_is_found() {
    let (canary, dns) = (Canary::start().await, DnsServer::start(answer).await);
    let client = without_policy(Filtering(dns.resolver()));
    let parse = |text: &str| HttpUrl::parse("url", text, 2048);
    // Names do not find it.
    for address in ADDRESSES {
        for lure in LURES {
            call(&client, parse(&lure.url(address.parse().unwrap(), "a", canary.port)).unwrap()).await;
        }
    }
    assert_eq!(canary.seen().await, [] as [IpAddr; 0]);
    for url in disguised("https", &OWN, canary.port).iter().filter_map(|text| parse(text).ok()) {
        call(&client, url).await;
    }
    let seen: BTreeSet<_> = canary.seen().await.into_iter().collect();
    let expected = ["127.0.0.1", "127.8.9.1"].map(|address| address.parse::<IpAddr>().unwrap());
    assert_eq!(seen, BTreeSet::from(expected), "0.0.0.0 is the first of them");
}

#[tokio::test]
async fn a_redirect_that_is_followed_without_the_policy_is_found() {
    let (canary, dns) = (Canary::start().await, DnsServer::start(answer).await);
    let follow = without_policy(dns.resolver());
    redirected(&canary, &dns, &OWN, Some(&follow)).await;
    assert_ne!(canary.seen().await, [] as [IpAddr; 0]);
}
