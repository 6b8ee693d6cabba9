//! `[egress]` and `[login]`: calls to other systems, and log-ins that they check.

use std::time::Duration;

use jackfield_domain::attempts::{AttemptLimits, AttemptQuota};
use jackfield_service::{LoginSettings, OutboundSettings, Policy, name_server};
use jackfield_transport::config::duration;
use serde::{Deserialize, Serialize};

/// Calls to other systems.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Egress {
    /// Names of hosts, addresses and ranges of addresses (CIDR) that may be called although a rule refuses them: private,
    /// loopback, link-local and other addresses that are not public. A metadata address of a cloud needs an entry of its own.
    pub allow: Vec<String>,
    /// Ports below 1024 that may be called in addition to 443.
    pub allow_ports: Vec<u16>,
    /// Name servers, with a port unless it is 53, that are asked in place of those of the machine (`/etc/resolv.conf`). Names are
    /// asked for as they are, without search domains. Empty: those of the machine.
    pub dns_servers: Vec<String>,
    /// The most clients that are kept, one for each connector that is used.
    pub max_clients: u32,
    /// The most connections that are kept for the next request, to all systems together.
    pub max_idle_connections: u32,
}

/// Log-ins that connectors check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Login {
    /// Log-ins that are not accepted are answered after a whole number of these intervals, so that the time of an answer
    /// does not tell an unknown user from a wrong password. It should be longer than the systems usually take. 0: at once.
    #[serde(with = "duration")]
    pub rejection_interval: Duration,
    /// The most attempts to log in with one login id from one address, through one connector (or to one application that has none).
    /// After half of them, there is a delay before the next one that doubles each time. 0: no limit.
    pub attempts_per_user_and_source: u32,
    /// The time from the first of them until they are counted from 0 again.
    #[serde(with = "duration")]
    pub user_and_source_window: Duration,
    /// The most attempts with one login id, through one connector, from all addresses. 0: no limit.
    pub attempts_per_user: u32,
    #[serde(with = "duration")]
    pub user_window: Duration,
    /// The most attempts from one address (in IPv6 a network of 64 bits), with all login ids. 0: no limit.
    pub attempts_per_source: u32,
    #[serde(with = "duration")]
    pub source_window: Duration,
}

// === impl Egress ===

impl Egress {
    /// Returns the settings of the clients, or the entries that cannot be used.
    ///
    /// # Errors
    /// Entries of `allow` are neither hosts nor addresses nor ranges, or name servers are no addresses.
    pub fn settings(&self, development: bool) -> Result<OutboundSettings, Vec<String>> {
        let Egress { allow, allow_ports, dns_servers, max_clients, max_idle_connections } = self;
        let mut policy = Policy::default();
        let mut problems = Vec::new();
        for entry in allow {
            match policy.clone().allow(entry) {
                Ok(allowed) => policy = allowed,
                Err(error) => problems.push(format!("egress.allow: {error}")),
            }
        }
        let mut servers = Vec::new();
        for entry in dns_servers {
            match name_server(entry) {
                Some(server) => servers.push(server),
                None => problems.push(format!(
                    "egress.dns_servers: {entry:?} is not an address, such as 10.0.0.53, 10.0.0.53:5353 or [2001:db8::53]:5353"
                )),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let policy = allow_ports.iter().fold(policy, |policy, port| policy.allow_port(*port));
        let policy = if development { policy.with_development() } else { policy };
        let [max_clients, max_idle_connections] = [*max_clients, *max_idle_connections].map(|max| max as usize);
        Ok(OutboundSettings { policy, dns_servers: servers, max_clients, max_idle_connections })
    }
}

impl Default for Egress {
    fn default() -> Self {
        Egress {
            allow: Vec::new(),
            allow_ports: Vec::new(),
            dns_servers: Vec::new(),
            max_clients: 10_000,
            max_idle_connections: 1_000,
        }
    }
}

// === impl Login ===

impl Login {
    /// The settings of log-ins.
    pub fn settings(&self) -> LoginSettings {
        let quota = |max, window| AttemptQuota { max, window };
        let attempts = AttemptLimits {
            user_and_source: quota(self.attempts_per_user_and_source, self.user_and_source_window),
            user: quota(self.attempts_per_user, self.user_window),
            source: quota(self.attempts_per_source, self.source_window),
        };
        LoginSettings { rejection_interval: self.rejection_interval, attempts }
    }
}

impl Default for Login {
    fn default() -> Self {
        let AttemptLimits { user_and_source, user, source } = AttemptLimits::default();
        Login {
            rejection_interval: Duration::from_millis(500),
            attempts_per_user_and_source: user_and_source.max,
            user_and_source_window: user_and_source.window,
            attempts_per_user: user.max,
            user_window: user.window,
            attempts_per_source: source.max,
            source_window: source.window,
        }
    }
}
