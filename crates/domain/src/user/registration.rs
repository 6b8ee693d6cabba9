//! Registrations: the applications that a user may use, with the roles of the user there.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::error::{Violation, Violations};
use crate::value::text::{identifier, readable};

/// The registration of a user for an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    pub application_id: String,
    pub roles: Vec<String>,
}

/// The most registrations of a user.
pub const MAX_REGISTRATIONS: usize = 64;
/// The longest id of an application, in characters.
pub const MAX_APPLICATION_ID: usize = 128;
/// The most roles of a registration.
pub const MAX_ROLES: usize = 64;
/// The longest role, in characters.
pub const MAX_ROLE: usize = 128;

/// Checks the registrations of a user. Each application and each of its roles may be given once.
pub fn registrations(field: &str, given: Vec<Registration>) -> Result<Vec<Registration>, Vec<Violation>> {
    let mut violations = Violations::default();
    if given.len() > MAX_REGISTRATIONS {
        violations.push(Violation::field(field, format!("must have at most {MAX_REGISTRATIONS} entries")));
    }
    let mut applications = BTreeSet::new();
    for (number, registration) in given.iter().take(MAX_REGISTRATIONS).enumerate() {
        let Registration { application_id, roles } = registration;
        // Names of fields are made for violations alone.
        let field = |name: &str| format!("{field}[{number}].{name}");
        let id = identifier("", application_id, MAX_APPLICATION_ID, false);
        let id = id.map_err(|violation| Violation { field: field("application_id"), ..violation });
        let is_new = violations.check(id).is_none_or(|id| applications.insert(id));
        if !is_new {
            let description = format!("\"{}\" is given twice", readable(application_id));
            violations.push(Violation::field(field("application_id"), description));
        }
        check_roles(|| field("roles"), roles, &mut violations);
    }
    violations.into_whole(given)
}

fn check_roles(field: impl Fn() -> String, roles: &[String], violations: &mut Violations) {
    if roles.len() > MAX_ROLES {
        violations.push(Violation::field(field(), format!("must have at most {MAX_ROLES} entries")));
    }
    let mut known = BTreeSet::new();
    for role in roles.iter().take(MAX_ROLES) {
        let role_of = identifier("", role, MAX_ROLE, false);
        let role_of = role_of.map_err(|violation| Violation { field: field(), ..violation });
        let is_new = violations.check(role_of).is_none_or(|role| known.insert(role));
        if !is_new {
            violations.push(Violation::field(field(), format!("\"{}\" is given twice", readable(role))));
        }
    }
}
