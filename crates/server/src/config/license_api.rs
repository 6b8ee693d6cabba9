//! `[license_api]`: the licence API, served to clients that speak HTTP.

use std::path::PathBuf;

use jackfield_domain::principal::Right;
use jackfield_domain::value::text::TenantName;
use jackfield_transport::config::{HttpListen, PrincipalConfig, TlsFiles};
use serde::{Deserialize, Serialize};

use super::http_section::HttpSection;

/// The licence API that is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LicenseApi {
    /// Address of the listener; port 0 takes a free one. Empty: the licence API is not served.
    pub address: String,
    /// Certificate chain of the listener, leaf first. Empty: that of `tls`.
    pub certificate: PathBuf,
    /// Private key of the listener. Empty: that of `tls`.
    pub private_key: PathBuf,
    /// Serves `address` without TLS. Refused on an address that is not loopback, unless `allow_plaintext_public` is set.
    pub plaintext: bool,
    /// Allows plaintext on an address that is not loopback, such as behind a proxy.
    pub allow_plaintext_public: bool,
    /// Name of the tenant whose applications are served.
    pub tenant: String,
    /// Name of the principal that all clients are, in logs and records.
    pub principal: String,
    /// Sends `error_code` in errors. Clients of the release 1.0.0 fail on it.
    pub error_codes: bool,
}

/// The name of the listener in logs and metrics.
pub(crate) const LISTENER: &str = "license_api";

impl Default for LicenseApi {
    fn default() -> Self {
        LicenseApi {
            address: String::new(),
            certificate: PathBuf::new(),
            private_key: PathBuf::new(),
            plaintext: false,
            allow_plaintext_public: false,
            tenant: String::new(),
            principal: LISTENER.to_owned(),
            error_codes: true,
        }
    }
}

// === impl LicenseApi ===

impl LicenseApi {
    /// The part that all HTTP listeners have.
    pub(super) fn http(&self) -> HttpSection<'_> {
        HttpSection {
            name: LISTENER,
            address: &self.address,
            certificate: &self.certificate,
            private_key: &self.private_key,
            plaintext: self.plaintext,
            allow_plaintext_public: self.allow_plaintext_public,
        }
    }

    /// Returns what is wrong with the section. Without an address nothing of it is used.
    pub(super) fn problems(&self, principals: &[PrincipalConfig]) -> Vec<String> {
        let mut problems = self.http().problems();
        if self.http().socket_address().is_none() {
            return problems;
        }
        if let Err(violation) = TenantName::parse("tenant", &self.tenant) {
            problems.push(format!("license_api.tenant: {}", violation.description));
        }
        if self.principal.is_empty() {
            problems.push("license_api.principal: must be set".to_owned());
        } else if principals.iter().any(|principal| principal.name == self.principal) {
            // It has another right and another tenant, and records would not say which of them it was.
            problems.push("license_api.principal: a principal in identity.principals has this name".to_owned());
        }
        problems
    }

    /// Returns the listener, if there is one.
    pub fn listener(&self, of_grpc: &TlsFiles) -> Option<HttpListen> {
        let principal = PrincipalConfig {
            name: self.principal.clone(),
            tenant: self.tenant.clone(),
            rights: vec![Right::ApplicationsAuthenticate.as_str().to_owned()],
            ..PrincipalConfig::default()
        };
        self.http().listener(of_grpc, principal)
    }
}
