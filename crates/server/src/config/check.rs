//! The rules for a configuration as a whole. Everything that is wrong is reported at once.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use jackfield_domain::principal::Rights;
use jackfield_domain::value::text::TenantName;
use jackfield_domain::value::url::HttpUrl;
use jackfield_transport::call::fair_semaphore::share;
use tracing_subscriber::EnvFilter;

use super::load::ConfigError;
use super::sections::{Config, OPERATOR_SPIFFE};

/// The longest interval that a rejected log-in may take. End users wait for it.
const MAX_REJECTION_INTERVAL: Duration = Duration::from_secs(5);
/// The bounds of the time for which attempts are counted. There is a row for each login id in it.
const MIN_ATTEMPT_WINDOW: Duration = Duration::from_secs(1);
const MAX_ATTEMPT_WINDOW: Duration = Duration::from_secs(24 * 3_600);
/// The longest staleness that can be configured.
const MAX_STALENESS: Duration = Duration::from_secs(60);
const MAX_ENDPOINT: usize = 2_048;
/// A client may cancel all calls that it may have open, and as many again each time, before the server can react: the limit
/// on cancelled calls must be well above the limit on open ones.
const RESETS_PER_STREAM: u32 = 5;

impl Config {
    /// Checks what types cannot express.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        self.check_listen(&mut problems);
        self.check_bounds(&mut problems);
        self.check_identity(&mut problems);
        self.check_texts(&mut problems);
        problems.extend(self.egress.settings(self.development()).err().unwrap_or_default());
        problems.extend(self.license_api.problems(&self.principals()));
        problems.extend(self.callback.problems());
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(problems)) }
    }

    fn check_listen(&self, problems: &mut Vec<String>) {
        let listen = &self.listen;
        let mut addresses = HashSet::new();
        for (key, address) in [
            ("listen.address", &listen.address),
            ("listen.health_address", &listen.health_address),
            ("telemetry.prometheus_address", &self.telemetry.prometheus_address),
            ("license_api.address", &self.license_api.address),
            ("callback.address", &self.callback.address),
        ] {
            if !address.is_empty() && address.parse::<SocketAddr>().is_err() {
                problems.push(format!("{key}: {} is not an IP address and port", quoted(address)));
            }
            let fixed = address.parse().ok().filter(|address: &SocketAddr| address.port() != 0);
            if fixed.is_some_and(|address| !addresses.insert(address)) {
                problems.push(format!("{key}: another listener has {address} already"));
            }
        }
        if listen.address.is_empty() && listen.unix_socket.as_os_str().is_empty() {
            problems.push("listen.address and listen.unix_socket are both empty".into());
        }
        let public = listen.tcp_address().is_some_and(|address| !address.ip().is_loopback());
        if listen.plaintext && public && !listen.allow_plaintext_public {
            problems.push(format!(
                "listen.plaintext: {} is not loopback; set listen.allow_plaintext_public to serve it without TLS",
                listen.address
            ));
        }
        if listen.socket_mode().is_none() {
            problems
                .push(format!("listen.unix_socket_mode: {} is not an octal mode", quoted(&listen.unix_socket_mode)));
        }
        let named = |name: &String| self.principals().iter().any(|principal| principal.name == *name);
        if !listen.plaintext_principal.is_empty() && !named(&listen.plaintext_principal) {
            let name = quoted(&listen.plaintext_principal);
            problems.push(format!("listen.plaintext_principal: {name} is not in identity.principals"));
        }
    }

    fn check_bounds(&self, problems: &mut Vec<String>) {
        self.refresh.check(problems);
        let Config { tls, database, limits, streams, deadlines, vault, token_cache, .. } = self;
        for (key, value) in [
            ("tls.max_handshakes", tls.max_handshakes),
            ("tls.max_handshakes_per_ip", tls.max_handshakes_per_ip),
            ("database.max_connections", database.max_connections),
            ("limits.max_connections", limits.max_connections),
            ("limits.max_connections_per_ip", limits.max_connections_per_ip),
            ("limits.max_connections_per_identity", limits.max_connections_per_identity),
            ("limits.max_connections_per_tenant", limits.max_connections_per_tenant),
            ("limits.max_concurrent_streams", limits.max_concurrent_streams),
            ("limits.max_local_error_reset_streams", limits.max_local_error_reset_streams),
            ("limits.max_pending_accept_reset_streams", limits.max_pending_accept_reset_streams),
            ("limits.max_control_frames_per_second", limits.max_control_frames_per_second),
            ("limits.max_calls", limits.max_calls),
            ("limits.max_calls_per_identity", limits.max_calls_per_identity),
            ("limits.max_calls_per_tenant", limits.max_calls_per_tenant),
            ("streams.max_open", streams.max_open),
            ("streams.max_open_per_identity", streams.max_open_per_identity),
            ("streams.max_open_per_tenant", streams.max_open_per_tenant),
            ("egress.max_clients", self.egress.max_clients),
            ("refresh.max_concurrent", self.refresh.max_concurrent),
            ("refresh.max_per_second", self.refresh.max_per_second),
        ] {
            if value == 0 {
                problems.push(format!("{key}: must be at least 1"));
            }
        }
        for (key, value) in [
            ("tls.reload_interval", tls.reload_interval),
            ("tls.handshake_timeout", tls.handshake_timeout),
            ("database.acquire_timeout", database.acquire_timeout),
            ("limits.connection_age", limits.connection_age),
            ("limits.connection_age_grace", limits.connection_age_grace),
            ("limits.connection_idle_timeout", limits.connection_idle_timeout),
            ("limits.write_stall_timeout", limits.write_stall_timeout),
            ("limits.keepalive_interval", limits.keepalive_interval),
            ("limits.keepalive_timeout", limits.keepalive_timeout),
            ("streams.idle_timeout", streams.idle_timeout),
            ("streams.total_timeout", streams.total_timeout),
            ("deadlines.default", deadlines.default),
            ("deadlines.max", deadlines.max),
            ("vault.reload_interval", vault.reload_interval),
            ("token_cache.max_staleness", token_cache.max_staleness),
        ] {
            if value == Duration::ZERO {
                problems.push(format!("{key}: must be longer than 0"));
            }
        }
        for (key, size, min, max) in [
            ("limits.max_header_list_size", limits.max_header_list_size, 4 << 10, 1 << 20),
            ("limits.stream_window", limits.stream_window, 16 << 10, i32::MAX as u32),
            ("limits.connection_window", limits.connection_window, 64 << 10, i32::MAX as u32),
            ("limits.max_frame_size", limits.max_frame_size, 16 << 10, (1 << 24) - 1),
            ("limits.send_buffer", limits.send_buffer, 16 << 10, 16 << 20),
            ("limits.max_request_message", limits.max_request_message, 64 << 10, 16 << 20),
            // A page takes up to 3 MiB, and more only if it is a single large row.
            ("streams.page_memory", streams.page_memory, 4 << 20, i32::MAX as u32),
            ("streams.page_memory_per_tenant", streams.page_memory_per_tenant, 4 << 20, i32::MAX as u32),
            ("token_cache.max_bytes", token_cache.max_bytes, 64 << 10, 1 << 30),
        ] {
            if !(min..=max).contains(&size.0) {
                problems.push(format!("{key}: {size} is not between {min} and {max} bytes"));
            }
        }
        let least = limits.max_concurrent_streams.saturating_mul(RESETS_PER_STREAM);
        for (key, value) in [
            ("limits.max_local_error_reset_streams", limits.max_local_error_reset_streams),
            ("limits.max_pending_accept_reset_streams", limits.max_pending_accept_reset_streams),
        ] {
            if value < least {
                problems.push(format!(
                    "{key}: {value} is less than {RESETS_PER_STREAM} times limits.max_concurrent_streams, which is {least}"
                ));
            }
        }
        let (calls, of_all) = (limits.max_calls, share(u32::MAX, limits.max_calls).min(limits.max_calls));
        for (key, least, value) in [
            ("limits.max_calls_per_identity", limits.max_calls_per_identity, limits.max_calls_per_identity.to_string()),
            ("limits.max_calls_per_tenant", limits.max_calls_per_tenant, limits.max_calls_per_tenant.to_string()),
            ("limits.max_calls", of_all, format!("the share of one client, {of_all} of {calls},")),
        ] {
            if least < limits.max_concurrent_streams {
                problems.push(format!(
                    "{key}: {value} is less than limits.max_concurrent_streams, which one connection may use"
                ));
            }
        }
        if streams.idle_timeout < limits.write_stall_timeout {
            problems.push("streams.idle_timeout: is shorter than limits.write_stall_timeout".into());
        }
        if streams.page_memory_per_tenant.0 > streams.page_memory.0 {
            problems.push("streams.page_memory_per_tenant: is larger than streams.page_memory".into());
        }
        if limits.connection_window.0 < limits.stream_window.0 {
            problems.push("limits.connection_window: is smaller than limits.stream_window".into());
        }
        if token_cache.max_staleness > MAX_STALENESS {
            problems.push("token_cache.max_staleness: must be at most a minute".into());
        }
        if self.login.rejection_interval > MAX_REJECTION_INTERVAL {
            problems.push("login.rejection_interval: must be at most 5 s".into());
        }
        for (key, window) in [
            ("login.user_and_source_window", self.login.user_and_source_window),
            ("login.user_window", self.login.user_window),
            ("login.source_window", self.login.source_window),
        ] {
            if !(MIN_ATTEMPT_WINDOW..=MAX_ATTEMPT_WINDOW).contains(&window) {
                problems.push(format!("{key}: must be from 1 s to 24 h"));
            }
        }
        if deadlines.default > deadlines.max {
            problems.push("deadlines.default: is later than deadlines.max".into());
        }
    }

    fn check_identity(&self, problems: &mut Vec<String>) {
        let (mut names, mut identities) = (HashSet::new(), HashSet::new());
        for (index, principal) in self.identity.principals.iter().enumerate() {
            let key = format!("identity.principals[{index}]");
            let known_by: Vec<_> =
                [("spiffe", &principal.spiffe), ("dns", &principal.dns), ("subject", &principal.subject)]
                    .into_iter()
                    .filter(|(_, value)| !value.is_empty())
                    .collect();
            if principal.name.is_empty() || !names.insert(&principal.name) {
                problems.push(format!("{key}.name: must be set and unique"));
            }
            if principal.tenant.is_empty() {
                problems.push(format!("{key}.tenant: must be set"));
            } else if let Err(violation) = TenantName::parse("tenant", &principal.tenant) {
                problems.push(format!("{key}.tenant: {}", violation.description));
            }
            match known_by.as_slice() {
                // Names in DNS are not case-sensitive.
                [("dns", name)] if identities.insert(("dns", name.to_ascii_lowercase())) => {}
                [(kind, value)] if *kind != "dns" && identities.insert((*kind, (*value).clone())) => {}
                [(kind, value)] => problems.push(format!("{key}.{kind}: {} is given twice", quoted(value))),
                _ => problems.push(format!("{key}: exactly one of spiffe, dns and subject must be set")),
            }
            if !principal.spiffe.is_empty() && !is_spiffe(&principal.spiffe) {
                problems
                    .push(format!("{key}.spiffe: {} is not spiffe://<trust domain>/<path>", quoted(&principal.spiffe)));
            }
            if principal.dns.contains('*') {
                problems.push(format!("{key}.dns: wildcards are not allowed"));
            }
            for right in &principal.rights {
                if Rights::default().with_pattern(right).is_none() {
                    problems.push(format!("{key}.rights: {} names no right", quoted(right)));
                }
            }
        }
    }
}

impl Config {
    /// Checks texts that are otherwise read only when the server starts, which would be too late.
    fn check_texts(&self, problems: &mut Vec<String>) {
        if let Err(error) = self.database() {
            problems.push(error.to_string());
        }
        if let Err(error) = EnvFilter::try_new(&self.telemetry.log_filter) {
            problems.push(format!("telemetry.log_filter: {error}"));
        }
        let endpoint = &self.telemetry.otlp_endpoint;
        if !endpoint.is_empty()
            && let Err(violation) = HttpUrl::parse("telemetry.otlp_endpoint", endpoint, MAX_ENDPOINT)
        {
            problems.push(format!("telemetry.otlp_endpoint: {}", violation.description));
        }
        match (endpoint.starts_with("https://"), self.telemetry.otlp_ca.as_os_str().is_empty()) {
            (true, true) => problems.push("telemetry.otlp_ca: must be set for an https endpoint".into()),
            (false, false) => {
                problems.push("telemetry.otlp_ca: has no effect, because telemetry.otlp_endpoint is not https".into());
            }
            _ => {}
        }
        if !(0.0..=1.0).contains(&self.telemetry.trace_ratio) {
            problems.push(format!("telemetry.trace_ratio: {} is not from 0 to 1", self.telemetry.trace_ratio));
        }
        match self.bootstrap.tenant.as_str() {
            "" if self
                .principals()
                .iter()
                .any(|principal| principal.spiffe == OPERATOR_SPIFFE && principal.tenant.is_empty()) =>
            {
                let message = "must be set in mode \"development\": the principal \"operator\" belongs to it";
                problems.push(format!("bootstrap.tenant: {message}"));
            }
            "" => {}
            name => {
                if let Err(violation) = TenantName::parse("bootstrap.tenant", name) {
                    problems.push(format!("bootstrap.tenant: {}", violation.description));
                }
            }
        }
    }
}

/// Returns whether a text is a SPIFFE id that a principal can be known by.
pub fn is_spiffe(uri: &str) -> bool {
    let rest = uri.strip_prefix("spiffe://").unwrap_or_default();
    rest.split_once('/').is_some_and(|(domain, path)| !domain.is_empty() && !path.is_empty())
}

/// A value as a message repeats it. One with an "@" may be a URL with a password at the wrong key.
fn quoted(value: &str) -> String {
    if value.contains('@') { "the value".to_owned() } else { format!("\"{value}\"") }
}
