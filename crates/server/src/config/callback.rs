//! `[callback]`: the listener to which providers send the browsers of users.

use std::path::PathBuf;

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE, HOST};
use jackfield_domain::value::text::TenantName;
use jackfield_domain::value::url::HttpUrl;
use jackfield_transport::config::{HttpListen, PrincipalConfig, TlsFiles};
use serde::{Deserialize, Serialize};

use super::http_section::HttpSection;

/// The callback listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Callback {
    /// Address of the listener; port 0 takes a free one. Empty: there is none.
    pub address: String,
    /// URL under which browsers reach it.
    pub public_url: String,
    /// Header in which the login in front of the listener names the user of a browser. Empty: there is no such login.
    pub user_header: String,
    /// Name of the tenant whose users that login names. Set with `user_header`, and only with it.
    pub tenant: String,
    /// Certificate chain of the listener, leaf first. Empty: that of `tls`.
    pub certificate: PathBuf,
    /// Private key of the listener. Empty: that of `tls`.
    pub private_key: PathBuf,
    /// Serves `address` without TLS. Refused on an address that is not loopback, unless `allow_plaintext_public` is set.
    pub plaintext: bool,
    /// Allows plaintext on an address that is not loopback, such as behind a proxy.
    pub allow_plaintext_public: bool,
}

const MAX_URL: usize = 1_024;

// === impl Callback ===

impl Callback {
    /// The name of the listener in logs and metrics, and of the section.
    pub const LISTENER: &str = "callback";

    /// The part that all HTTP listeners have.
    pub(super) fn http(&self) -> HttpSection<'_> {
        HttpSection {
            name: Self::LISTENER,
            address: &self.address,
            certificate: &self.certificate,
            private_key: &self.private_key,
            plaintext: self.plaintext,
            allow_plaintext_public: self.allow_plaintext_public,
        }
    }

    /// Returns what is wrong with the section. Without an address nothing of it is used.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = self.http().problems();
        if self.http().socket_address().is_some()
            && let Err(violation) = self.parse_url()
        {
            problems.push(format!("callback.public_url: {}", violation.description));
        }
        if !self.user_header.is_empty() && self.parse_user_header().is_none() {
            problems.push("callback.user_header: is not the name of a header that can name a user".to_owned());
        }
        match (self.user_header.is_empty(), self.parse_tenant()) {
            // Other tenants could start sessions for the ids of these users.
            (false, Err(violation)) => {
                let description = violation.description;
                problems.push(format!(
                    "callback.tenant: {description} (the tenant whose users callback.user_header names)"
                ));
            }
            (true, _) if !self.tenant.is_empty() => {
                problems.push("callback.tenant: has no effect without callback.user_header".to_owned());
            }
            (_, _) => {}
        }
        problems
    }

    /// Returns the tenant whose users the login in front of the listener names, if there are both.
    pub fn login_tenant(&self) -> Option<TenantName> {
        self.user_header()?;
        self.parse_tenant().ok()
    }

    fn parse_tenant(&self) -> Result<TenantName, jackfield_domain::Violation> {
        TenantName::parse("tenant", &self.tenant)
    }

    /// Returns the header that names the user of a browser, if there is a listener and a login in front of it.
    pub fn user_header(&self) -> Option<HeaderName> {
        self.http().socket_address()?;
        self.parse_user_header()
    }

    fn parse_user_header(&self) -> Option<HeaderName> {
        let name = HeaderName::from_bytes(self.user_header.as_bytes()).ok()?;
        // Browsers send these themselves.
        (![AUTHORIZATION, COOKIE, HOST].contains(&name)).then_some(name)
    }

    /// Returns the URL under which browsers reach the listener, if there is one.
    pub fn url(&self) -> Option<HttpUrl> {
        self.http().socket_address()?;
        self.parse_url().ok()
    }

    fn parse_url(&self) -> Result<HttpUrl, jackfield_domain::Violation> {
        let field = "callback.public_url";
        HttpUrl::parse(field, &self.public_url, MAX_URL)?.require_https_unless_loopback(field)?.require_base(field)
    }

    /// Returns the listener, if there is one. Its requests become no calls, so its principal has no right.
    pub fn listener(&self, of_grpc: &TlsFiles) -> Option<HttpListen> {
        let principal = PrincipalConfig { name: Self::LISTENER.to_owned(), ..PrincipalConfig::default() };
        self.http().listener(of_grpc, principal)
    }
}
