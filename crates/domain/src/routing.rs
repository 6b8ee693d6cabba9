//! The routing policy of a tenant: which connector checks the log-in of a user, or which connection the user logs in with.

use serde::{Deserialize, Serialize};
use url::Host;

use crate::error::Violation;
use crate::request::reference::Ref;
use crate::value::id::{ConnectionId, ConnectorId};
use crate::value::meta::Meta;

/// The policy of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutingPolicy {
    pub rules: Vec<RoutingRule>,
    /// `None` until the policy is set for the first time.
    pub meta: Option<Meta>,
}

/// A rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutingRule {
    pub email_domains: Vec<EmailDomain>,
    pub target: RouteTarget,
}

/// A rule whose target is not looked up yet.
#[derive(Clone, Debug)]
pub struct RuleDraft {
    pub email_domains: Vec<EmailDomain>,
    pub target: TargetRef,
}

/// The reference to the target of a rule.
#[derive(Clone, Debug)]
pub enum TargetRef {
    Connector(Ref),
    Connection(Ref),
}

/// The target of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteTarget {
    Connector(ConnectorId),
    Connection(ConnectionId),
}

/// The domain of email addresses in lower case, or `*` for every login id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EmailDomain(String);

/// A route of a login id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub target: RouteTarget,
    pub reason: RouteReason,
}

/// The reason of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteReason {
    /// The connector has accepted the user before.
    Pinned,
    /// A rule applies, because of one of its domains.
    Rule { index: usize, email_domain: EmailDomain },
}

/// The most rules of a policy.
pub const MAX_RULES: usize = 100;
/// The most domains of a rule.
pub const MAX_DOMAINS: usize = 100;

const ANY: &str = "*";
/// The longest name (RFC 1035 2.3.4), without the dot at its end.
const MAX_DOMAIN: usize = 253;
const MAX_LABEL: usize = 63;

// === impl RoutingPolicy ===

impl RoutingPolicy {
    /// The policy before it is set for the first time.
    pub const fn unset() -> Self {
        RoutingPolicy { rules: Vec::new(), meta: None }
    }

    /// The entity tag; empty if the policy was never set.
    pub fn etag(&self) -> String {
        self.meta.map(|meta| meta.etag()).unwrap_or_default()
    }

    /// The routes of a login id by the rules, in their order. Each target is there once.
    pub fn routes(&self, login_id: &str) -> Vec<Route> {
        let domain = login_id.rsplit_once('@').and_then(|(_, domain)| ascii_domain(domain.trim_end()));
        let applies = |email_domain: &&EmailDomain| email_domain.0 == ANY || Some(&email_domain.0) == domain.as_ref();
        let mut routes: Vec<Route> = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            let Some(email_domain) = rule.email_domains.iter().find(applies).cloned() else { continue };
            if routes.iter().all(|route| route.target != rule.target) {
                routes.push(Route { target: rule.target, reason: RouteReason::Rule { index, email_domain } });
            }
        }
        routes
    }
}

/// The ASCII form of a domain as people write it, in lower case; `None` if it is no domain name.
fn ascii_domain(domain: &str) -> Option<String> {
    // Percent signs stand for other characters in the host of a URL.
    let is_plain = !domain.contains('%');
    match is_plain.then(|| Host::parse(domain.strip_suffix('.').unwrap_or(domain)))? {
        Ok(Host::Domain(name)) => Some(name),
        Ok(Host::Ipv4(_) | Host::Ipv6(_)) | Err(_) => None,
    }
}

// === impl EmailDomain ===

impl EmailDomain {
    /// Parses a name of the domain name system in its ASCII form, or `*`.
    pub fn parse(field: &str, text: &str) -> Result<Self, Violation> {
        let is_label = |label: &str| {
            let inner = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            (1..=MAX_LABEL).contains(&label.len()) && inner && !label.starts_with('-') && !label.ends_with('-')
        };
        let is_name = text.len() <= MAX_DOMAIN && text.split('.').all(is_label);
        match text == ANY || is_name {
            true => Ok(EmailDomain(text.to_ascii_lowercase())),
            false => {
                let description = "must be a domain name in its ASCII form, such as \"example.com\", or \"*\"";
                Err(Violation::field(field, description))
            }
        }
    }

    /// The name, or `*`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks the domains of a rule together.
pub fn check_domains(field: &str, domains: &[EmailDomain]) -> Result<(), Violation> {
    let refuse = |description: &str| Err(Violation::field(field, description));
    match domains {
        [] => refuse("is required"),
        [_] => Ok(()),
        domains if domains.len() > MAX_DOMAINS => refuse("must have at most 100 entries"),
        domains if domains.iter().any(|domain| domain.0 == ANY) => refuse("must not have \"*\" beside other domains"),
        domains => match (1..domains.len()).any(|index| domains[..index].contains(&domains[index])) {
            true => refuse("must not have a domain twice"),
            false => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(text: &str) -> EmailDomain {
        EmailDomain::parse("d", text).unwrap()
    }

    #[test]
    fn rules_apply_in_their_order_by_the_domain_of_the_address() {
        let target = |n: u128| RouteTarget::Connector(ConnectorId(uuid::Uuid::from_u128(n)));
        let rule = |domains: &[&str], n| RoutingRule {
            email_domains: domains.iter().map(|text| domain(text)).collect(),
            target: target(n),
        };
        let rules = vec![rule(&["a.example", "B.example"], 1), rule(&["*"], 2), rule(&["b.example"], 3)];
        let policy = RoutingPolicy { rules, meta: None };
        let targets = |login: &str| policy.routes(login).into_iter().map(|route| route.target).collect::<Vec<_>>();
        assert_eq!(targets("ada@B.EXAMPLE"), [target(1), target(2), target(3)]);
        assert_eq!(targets("\"a@b.example\"@c.example"), [target(2)]);
        assert_eq!(targets("x@sub.b.example"), [target(2)]);
        assert_eq!(targets("ada"), [target(2)]);
        assert_eq!(targets("ada@b.example."), [target(1), target(2), target(3)]);
        assert_eq!(targets("ada@B\u{ff0e}example"), [target(1), target(2), target(3)]);
        for no_domain in ["ada@%62.example", "ada@b.example..", "ada@", "ada@b .example"] {
            assert_eq!(targets(no_domain), [target(2)], "{no_domain}");
        }
        let international =
            RoutingPolicy { rules: vec![rule(&["xn--mnchen-3ya.example"], 1), rule(&["*"], 1)], meta: None };
        let routes = international.routes("ada@M\u{fc}nchen.example");
        assert_eq!(routes.len(), 1, "each target is asked once");
        assert_eq!(routes[0].reason, RouteReason::Rule { index: 0, email_domain: domain("xn--mnchen-3ya.example") });
        let reason = policy.routes("ada@b.example").remove(0).reason;
        assert_eq!(reason, RouteReason::Rule { index: 0, email_domain: domain("b.example") });
    }

    #[test]
    fn domains_are_names_in_ascii_or_any() {
        for wrong in ["", "a..b", ".a", "a.", "*.a", "a b", "münchen.example", "-a.b", "a@b", &"a".repeat(64)] {
            assert!(EmailDomain::parse("d", wrong).is_err(), "{wrong}");
        }
        assert!(check_domains("d", &[domain("a"), domain("*")]).is_err());
        assert!(check_domains("d", &[domain("a"), domain("A")]).is_err());
        assert!(check_domains("d", &[]).is_err());
        assert!(check_domains("d", &[domain("a"), domain("b")]).is_ok());
    }
}
