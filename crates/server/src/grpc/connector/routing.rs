//! Messages of routing.

use jackfield_api::v1 as pb;
use jackfield_domain::login::LoginId;
use jackfield_domain::request::reference::{Ref, ReferenceForms};
use jackfield_domain::routing::{
    EmailDomain, MAX_RULES, Route, RouteReason, RouteTarget, RoutingPolicy, RoutingRule, RuleDraft, TargetRef,
    check_domains,
};
use jackfield_domain::{Violation, Violations};

use crate::grpc::{parse, render};

const POLICY: &str = "routing_policy";

/// The rules and the etag that a replacement names.
pub(super) fn parse(
    violations: &mut Violations,
    policy: Option<pb::RoutingPolicy>,
    etag: String,
) -> Option<(String, Vec<RuleDraft>)> {
    let policy = parse::required(violations, POLICY, policy)?;
    let pb::RoutingPolicy { rules, create_time: _, update_time: _, etag: inner } = policy;
    if !etag.is_empty() && !inner.is_empty() && etag != inner {
        violations.push(Violation::field("etag", "differs from routing_policy.etag"));
        violations.push(Violation::field("routing_policy.etag", "differs from etag"));
    }
    if rules.len() > MAX_RULES {
        let description = format!("must have at most {MAX_RULES} entries");
        violations.push(Violation::field("routing_policy.rules", description));
        return None;
    }
    let rules: Vec<_> =
        rules.into_iter().enumerate().map(|(index, rule)| self::rule(violations, index, rule)).collect();
    let etag = if etag.is_empty() { inner } else { etag };
    Some((etag, rules.into_iter().collect::<Option<_>>()?))
}

pub(super) fn login_id(violations: &mut Violations, text: &str) -> Option<LoginId> {
    violations.check(LoginId::parse("login_id", text))
}

pub(super) fn policy_to_message(policy: RoutingPolicy) -> pb::RoutingPolicy {
    let etag = policy.etag();
    let RoutingPolicy { rules, meta } = policy;
    pb::RoutingPolicy {
        rules: rules.into_iter().map(rule_to_message).collect(),
        create_time: meta.map(|meta| render::timestamp(meta.create_time)),
        update_time: meta.map(|meta| render::timestamp(meta.update_time)),
        etag,
    }
}

pub(super) fn route_to_message(route: Route) -> pb::Route {
    use pb::route::Target;
    let Route { target, reason } = route;
    let target = match target {
        RouteTarget::Connector(id) => Target::Connector(id.to_string()),
        RouteTarget::Connection(id) => Target::Connection(id.to_string()),
    };
    let (reason, rule, email_domain) = match reason {
        RouteReason::Pinned => (pb::RouteReason::Pinned, 0, String::new()),
        RouteReason::Rule { index, email_domain } => {
            let rule = i32::try_from(index).unwrap_or(i32::MAX);
            (pb::RouteReason::Rule, rule, email_domain.as_str().to_owned())
        }
    };
    pb::Route { target: Some(target), reason: reason.into(), rule, email_domain }
}

fn rule(violations: &mut Violations, index: usize, rule: pb::RoutingRule) -> Option<RuleDraft> {
    use pb::routing_rule::Target;
    let field = |name: &str| format!("{POLICY}.rules[{index}].{name}");
    let pb::RoutingRule { email_domains, target } = rule;
    let domains: Vec<_> = email_domains
        .iter()
        .enumerate()
        .map(|(index, text)| {
            violations.check(EmailDomain::parse(&format!("{}[{index}]", field("email_domains")), text))
        })
        .collect();
    let domains = domains.into_iter().collect::<Option<Vec<_>>>();
    let domains = domains.and_then(|domains| {
        let checked = check_domains(&field("email_domains"), &domains);
        violations.check(checked).map(|()| domains)
    });
    let target = match target {
        None => Err(Violation::field(field("target"), "is required: a connector or a connection")),
        Some(Target::Connector(text)) => {
            Ref::parse(&field("connector"), &text, ReferenceForms::ID_NAME).map(TargetRef::Connector)
        }
        Some(Target::Connection(text)) => {
            Ref::parse(&field("connection"), &text, ReferenceForms::ID_NAME_EXTERNAL).map(TargetRef::Connection)
        }
    };
    let target = violations.check(target);
    Some(RuleDraft { email_domains: domains?, target: target? })
}

fn rule_to_message(rule: RoutingRule) -> pb::RoutingRule {
    use pb::routing_rule::Target;
    let RoutingRule { email_domains, target } = rule;
    pb::RoutingRule {
        email_domains: email_domains.iter().map(|domain| domain.as_str().to_owned()).collect(),
        target: Some(match target {
            RouteTarget::Connector(id) => Target::Connector(id.to_string()),
            RouteTarget::Connection(id) => Target::Connection(id.to_string()),
        }),
    }
}
