//! The policy of an installation: the rules, and what its operator allows in spite of them.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use jackfield_domain::value::url::HttpUrl;
use url::Host;

use super::address::Rule;
use super::target::{Target, UrlFault};

/// The egress policy. The default refuses everything that is not a public host.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    hosts: HashSet<String>,
    networks: Vec<AllowedNetwork>,
    ports: Vec<u16>,
    development: bool,
}

/// An entry of the allow list that is an address or a range.
#[derive(Clone, Debug)]
struct AllowedNetwork {
    network: IpNet,
    /// The entry as it is written.
    entry: String,
}

/// The reason why an address or a name is permitted that a rule refuses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Allowance {
    Development,
    /// An entry of the allow list.
    Entry(String),
}

/// The reason why an entry of the allow list cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("{0:?} is neither a host, nor an address, nor a range of addresses")]
    Entry(String),
    #[error("{0} has bits after its prefix: write {1}")]
    HostBits(IpNet, IpNet),
    #[error("{0} is an IPv4 range in IPv6 form: write it as IPv4")]
    Mapped(IpNet),
}

/// A refusal by the policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Url(#[from] UrlFault),
    /// The host is this address, or resolved to it. The message does not have the address: it would tell the caller what
    /// the internal resolver knows.
    #[error("the address is refused by the rule {}: the operator has to allow it", rule.as_str())]
    Address { rule: Rule, address: IpAddr },
    /// The proxy would resolve the name, so only the name could be checked.
    #[error("the name is refused by the rule {}; the proxy resolves names, so only the name was checked", rule.as_str())]
    ProxiedName { rule: Rule },
    /// A name for http resolved to another machine.
    #[error("http is for loopback in development mode only, and the name resolved to another address")]
    PlainHttpAddress { address: IpAddr },
    #[error("only https goes through a proxy")]
    ProxiedHttp,
    #[error("the connection has another address than the one that was dialled")]
    Peer,
}

/// Names below these are private by definition or by habit (RFC 6761, RFC 6762 appendix G, RFC 8375, ICANN's "internal"); those below
/// "svc" are the services of a Kubernetes cluster.
const LOCAL_SUFFIXES: [&str; 11] =
    ["localhost", "local", "internal", "home.arpa", "localdomain", "lan", "corp", "home", "intranet", "private", "svc"];

// === impl Policy ===

impl Policy {
    /// Allows an entry: the exact name of a host, an address, or a range in CIDR notation. A metadata address is allowed
    /// only by an entry of its own.
    ///
    /// # Errors
    /// The entry is none of these.
    pub fn allow(mut self, entry: &str) -> Result<Self, PolicyError> {
        let network = match entry.parse::<IpAddr>() {
            Ok(address) => Some(IpNet::from(address)),
            Err(_) if entry.contains('/') => Some(entry.parse().map_err(|_| PolicyError::Entry(entry.to_owned()))?),
            Err(_) => None,
        };
        match network {
            Some(network) if network != network.trunc() => {
                return Err(PolicyError::HostBits(network, network.trunc()));
            }
            Some(IpNet::V6(network)) if network.addr().to_ipv4_mapped().is_some() => {
                return Err(PolicyError::Mapped(network.into()));
            }
            Some(network) => self.networks.push(AllowedNetwork { network, entry: entry.to_owned() }),
            None => {
                self.hosts.insert(host_name(entry).ok_or_else(|| PolicyError::Entry(entry.to_owned()))?);
            }
        }
        Ok(self)
    }

    /// Permits a port below 1024.
    pub fn allow_port(mut self, port: u16) -> Self {
        self.ports.push(port);
        self
    }

    /// Permits http and https to this machine. It is for development.
    pub fn with_development(mut self) -> Self {
        self.development = true;
        self
    }

    /// Checks a URL, without asking a resolver.
    ///
    /// # Errors
    /// The URL can never be called under this policy.
    pub fn check_url(&self, url: &HttpUrl) -> Result<Target, Refusal> {
        let target = Target::parse(url)?;
        let may_be_http = self.development && target.is_loopback();
        if !(target.is_https() || may_be_http) {
            return Err(UrlFault::PlainHttp.into());
        }
        self.check_port(&target)?;
        if let Some(address) = target.address() {
            self.check_addresses(&target, &[address])?;
        }
        Ok(target)
    }

    /// Checks the addresses of a target: all that its name resolved to. One that is refused is enough, because the owner of
    /// the name chose it.
    ///
    /// # Errors
    /// The first address that is refused.
    pub fn check_addresses(&self, target: &Target, addresses: &[IpAddr]) -> Result<(), Refusal> {
        match addresses.iter().find(|address| !(target.is_https() || address.to_canonical().is_loopback())) {
            Some(address) => Err(Refusal::PlainHttpAddress { address: *address }),
            None => self.check_rules(target, addresses),
        }
    }

    /// Checks the URL of a proxy, without asking a resolver.
    ///
    /// # Errors
    /// The proxy can never be called under this policy.
    pub fn check_proxy_url(&self, url: &HttpUrl) -> Result<Target, Refusal> {
        let proxy = Target::parse(url)?;
        self.check_port(&proxy)?;
        if let Some(address) = proxy.address() {
            self.check_proxy(&proxy, &[address])?;
        }
        Ok(proxy)
    }

    /// Checks the addresses of a proxy, which speaks http.
    ///
    /// # Errors
    /// The first address that is refused.
    pub fn check_proxy(&self, proxy: &Target, addresses: &[IpAddr]) -> Result<(), Refusal> {
        self.check_port(proxy)?;
        self.check_rules(proxy, addresses)
    }

    /// Checks a target that a proxy will resolve.
    ///
    /// # Errors
    /// The scheme or the name is refused.
    pub fn check_proxied(&self, target: &Target) -> Result<(), Refusal> {
        if !target.is_https() {
            return Err(Refusal::ProxiedHttp);
        }
        match target.host() {
            Host::Domain(name) if is_local(name) && !self.hosts.contains(name) => {
                Err(Refusal::ProxiedName { rule: Rule::LocalName })
            }
            Host::Domain(_) => Ok(()),
            Host::Ipv4(address) => self.check_addresses(target, &[(*address).into()]),
            Host::Ipv6(address) => self.check_addresses(target, &[(*address).into()]),
        }
    }

    /// The allowances without which a target with these addresses would be refused. Empty: no rule refuses it.
    pub fn allowances(&self, target: &Target, addresses: &[IpAddr]) -> BTreeSet<Allowance> {
        let mut allowances = self.allowances_of_rules(target, addresses);
        if !target.is_https() {
            allowances.insert(Allowance::Development);
        }
        allowances
    }

    /// The allowances without which a proxy with these addresses would be refused.
    pub fn proxy_allowances(&self, proxy: &Target, addresses: &[IpAddr]) -> BTreeSet<Allowance> {
        self.allowances_of_rules(proxy, addresses)
    }

    /// The allowances without which a target that a proxy will resolve would be refused.
    pub fn proxied_allowances(&self, target: &Target) -> BTreeSet<Allowance> {
        match target.host() {
            Host::Domain(name) if is_local(name) => self.host_allowance(target).into_iter().collect(),
            _ => self.allowances_of_rules(target, target.address().as_slice()),
        }
    }

    /// An allowance in words, for callers. The entries are the operator's configuration: they say which networks there are. So only
    /// development mode shows which one it is.
    pub fn shown(&self, allowance: &Allowance) -> String {
        match allowance {
            Allowance::Entry(_) if !self.development => "egress.allow has an entry for it".to_owned(),
            allowance => allowance.to_string(),
        }
    }

    fn check_port(&self, target: &Target) -> Result<(), Refusal> {
        let (port, usual) = (target.port(), target.usual_port());
        match port == usual || port >= 1024 || self.ports.contains(&port) {
            true => Ok(()),
            false => Err(UrlFault::Port { port, usual }.into()),
        }
    }

    fn check_rules(&self, target: &Target, addresses: &[IpAddr]) -> Result<(), Refusal> {
        addresses.iter().try_for_each(|address| match self.allowances_of_address(target, *address) {
            Ok(_) => Ok(()),
            Err(rule) => Err(Refusal::Address { rule, address: address.to_canonical() }),
        })
    }

    fn allowances_of_rules(&self, target: &Target, addresses: &[IpAddr]) -> BTreeSet<Allowance> {
        let allowances = addresses.iter().filter_map(|address| self.allowances_of_address(target, *address).ok());
        allowances.flatten().collect()
    }

    /// The allowances of all that the rules refuse of an address, or the first rule without one. An entry that is this address alone
    /// allows it wherever it leads.
    fn allowances_of_address(&self, target: &Target, address: IpAddr) -> Result<Vec<Allowance>, Rule> {
        let refused = Rule::all_of(address);
        let alone = IpNet::from(address.to_canonical());
        match self.network_allowance(|network| *network == alone) {
            Some(allowance) if !refused.is_empty() => Ok(vec![allowance]),
            _ => refused.into_iter().map(|(part, rule)| self.allowance(target, part, rule).ok_or(rule)).collect(),
        }
    }

    /// The allowance of an address that a rule refuses, if there is one. An entry of the allow list goes before development mode.
    fn allowance(&self, target: &Target, address: IpAddr, rule: Rule) -> Option<Allowance> {
        if rule == Rule::Metadata {
            return self.network_allowance(|network| *network == IpNet::from(address));
        }
        let listed =
            self.network_allowance(|network| network.contains(&address)).or_else(|| self.host_allowance(target));
        listed.or_else(|| (self.development && rule == Rule::Loopback).then_some(Allowance::Development))
    }

    /// The first entry of the allow list that is a network of a kind.
    fn network_allowance(&self, permits: impl Fn(&IpNet) -> bool) -> Option<Allowance> {
        let found = self.networks.iter().find(|allowed| permits(&allowed.network));
        found.map(|allowed| Allowance::Entry(allowed.entry.clone()))
    }

    /// The entry of the allow list that is the name of a target.
    fn host_allowance(&self, target: &Target) -> Option<Allowance> {
        let Host::Domain(name) = target.host() else { return None };
        self.hosts.get(name).map(|name| Allowance::Entry(name.clone()))
    }
}

// === impl Allowance ===

impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Allowance::Development => f.write_str("development mode allows loopback"),
            Allowance::Entry(entry) => write!(f, "egress.allow has {entry:?}"),
        }
    }
}

/// The name of a host as it is called, if the text is one.
fn host_name(text: &str) -> Option<String> {
    let url = HttpUrl::parse("host", &format!("https://{text}/"), 512).ok()?;
    match Target::parse(&url).ok()?.host() {
        Host::Domain(name) if name.eq_ignore_ascii_case(text) => Some(name.clone()),
        _ => None,
    }
}

fn is_local(name: &str) -> bool {
    let within = |suffix: &&str| name.strip_suffix(*suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    !name.contains('.') || LOCAL_SUFFIXES.iter().any(within)
}

#[cfg(test)]
mod tests;
