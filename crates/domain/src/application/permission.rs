//! Permissions: the vocabulary of an application, and what users may do in companies.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Application;
use crate::error::{Violation, Violations};
use crate::value::id::{ApplicationId, PermissionGrantId};
use crate::value::meta::Meta;
use crate::value::text::{CompanyId, PermissionSlug, UserId, bounded_text};

/// A permission of the vocabulary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    pub slug: PermissionSlug,
    pub description: String,
}

/// The permissions that a user has in a company, in an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionGrant {
    pub id: PermissionGrantId,
    pub application: ApplicationId,
    pub company_id: CompanyId,
    pub company_name: String,
    pub user_id: UserId,
    pub permissions: BTreeSet<PermissionSlug>,
    pub meta: Meta,
}

/// The permissions that a user is to have in a company; none removes the grant.
#[derive(Clone, Debug)]
pub struct PermissionChange {
    pub company_id: CompanyId,
    /// `None` keeps the name of the grant; a new grant then has the id as its name.
    pub company_name: Option<String>,
    pub user_id: UserId,
    pub permissions: BTreeSet<PermissionSlug>,
}

/// The permissions of a user in one company, as an application gets them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompanyPermissions {
    pub company_id: CompanyId,
    pub company_name: String,
    pub permissions: BTreeSet<PermissionSlug>,
}

/// All permissions of a user in an application. Every company in it has [`USE_APP`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionPermissions(Vec<CompanyPermissions>);

/// The permission to use an application at all. A company without it is left out of answers.
pub const USE_APP: &str = "use_app";
/// The most permissions in a vocabulary.
pub const MAX_PERMISSIONS: usize = 100;
/// The most companies in which a user has permissions, for each application. With [`MAX_PERMISSIONS`] it keeps answers below
/// the 4 MiB that clients accept.
pub const MAX_COMPANIES: u64 = 400;

const MAX_PERMISSION_DESCRIPTION: usize = 256;

/// Parses a vocabulary of slugs and descriptions.
pub fn parse_vocabulary(field: &str, given: Vec<(String, String)>) -> Result<Vec<Permission>, Vec<Violation>> {
    let mut violations = Violations::default();
    if given.len() > MAX_PERMISSIONS {
        violations.push(Violation::field(field, format!("must have at most {MAX_PERMISSIONS} entries")));
        return Err(violations.into_vec());
    }
    let (mut known, mut parsed) = (BTreeSet::new(), Vec::new());
    for (index, (slug, description)) in given.into_iter().enumerate() {
        let path = format!("{field}[{index}]");
        let slug = violations.check(PermissionSlug::parse(&format!("{path}.slug"), &slug));
        let text = bounded_text(&format!("{path}.description"), &description, MAX_PERMISSION_DESCRIPTION, true);
        let Some((slug, description)) = slug.zip(violations.check(text)) else { continue };
        if !known.insert(slug.clone()) {
            violations.push(Violation::field(format!("{path}.slug"), "is in the list twice"));
        }
        parsed.push(Permission { slug, description });
    }
    violations.into_whole(parsed)
}

// === impl Application ===

impl Application {
    /// Returns true if a permission is in the vocabulary.
    pub fn knows(&self, slug: &PermissionSlug) -> bool {
        slug.as_str() == USE_APP || self.permissions.iter().any(|known| known.slug == *slug)
    }

    /// Checks that permissions are in the vocabulary. There is a violation for each that is not.
    pub fn check_known(&self, field: &str, permissions: &BTreeSet<PermissionSlug>) -> Result<(), Vec<Violation>> {
        let mut violations = Violations::default();
        for slug in permissions.iter().filter(|slug| !self.knows(slug)) {
            let description = format!("\"{slug}\" is not in the vocabulary of the application");
            violations.push(Violation::field(field, description));
        }
        violations.into_whole(())
    }

    /// The permissions that grants of this application give. Those that the vocabulary no longer has are left out.
    pub fn granted(&self, grants: Vec<PermissionGrant>) -> SessionPermissions {
        self.permitted(grants.into_iter().map(|grant| {
            let PermissionGrant { company_id, company_name, permissions, .. } = grant;
            CompanyPermissions { company_id, company_name, permissions }
        }))
    }

    /// The permissions in companies. Those that the vocabulary does not have are left out.
    pub fn permitted(&self, companies: impl IntoIterator<Item = CompanyPermissions>) -> SessionPermissions {
        SessionPermissions::of(companies.into_iter().map(|mut company| {
            company.permissions.retain(|slug| self.knows(slug));
            company
        }))
    }
}

// === impl SessionPermissions ===

impl SessionPermissions {
    /// The permissions in companies, ordered by the ids of the companies. Those without [`USE_APP`] are left out.
    pub fn of(companies: impl IntoIterator<Item = CompanyPermissions>) -> Self {
        let may_use = |company: &CompanyPermissions| company.permissions.iter().any(|slug| slug.as_str() == USE_APP);
        let mut companies: Vec<_> = companies.into_iter().filter(may_use).collect();
        companies.sort_unstable_by(|one, other| one.company_id.cmp(&other.company_id));
        SessionPermissions(companies)
    }

    /// The companies.
    pub fn companies(&self) -> &[CompanyPermissions] {
        &self.0
    }

    /// The companies by themselves.
    pub fn into_companies(self) -> Vec<CompanyPermissions> {
        self.0
    }

    /// The permissions that the user has in at least one company, each once.
    pub fn flat(&self) -> BTreeSet<&PermissionSlug> {
        self.0.iter().flat_map(|company| &company.permissions).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::id::ApplicationId;
    use crate::value::text::Name;
    use crate::value::time::Timestamp;

    const META: Meta = Meta::new(Timestamp(1));

    fn slugs(slugs: &[&str]) -> BTreeSet<PermissionSlug> {
        slugs.iter().map(|slug| PermissionSlug::parse("permissions", slug).unwrap()).collect()
    }

    fn application(vocabulary: &[&str]) -> Application {
        let given = vocabulary.iter().map(|slug| ((*slug).to_owned(), String::new())).collect();
        let mut application =
            Application::blank(ApplicationId::generate(), Name::parse("name", "Gallery", 99).unwrap(), META);
        application.permissions = parse_vocabulary("application.permissions", given).unwrap();
        application
    }

    fn grant(application: &Application, company: &str, permissions: &[&str]) -> PermissionGrant {
        PermissionGrant {
            id: PermissionGrantId::generate(),
            application: application.id,
            company_id: CompanyId::parse("company_id", company).unwrap(),
            company_name: company.to_uppercase(),
            user_id: UserId::stored("ada".to_owned()),
            permissions: slugs(permissions),
            meta: META,
        }
    }

    #[test]
    fn a_company_without_use_app_is_left_out_and_so_is_what_the_vocabulary_lacks() {
        let application = application(&["read", "write"]);
        let granted = application.granted(vec![
            grant(&application, "b", &["use_app", "write", "gone"]),
            grant(&application, "c", &["read"]),
            grant(&application, "a", &["use_app"]),
        ]);
        let companies: Vec<_> =
            granted.companies().iter().map(|it| (it.company_id.as_str(), &it.permissions)).collect();
        assert_eq!(companies, [("a", &slugs(&["use_app"])), ("b", &slugs(&["use_app", "write"]))]);
        assert_eq!(granted.flat(), slugs(&["use_app", "write"]).iter().collect());
    }

    #[test]
    fn slugs_outside_the_vocabulary_are_named() {
        let application = application(&["read"]);
        assert_eq!(application.check_known("permissions", &slugs(&["use_app", "read"])), Ok(()));
        let refused = application.check_known("permissions", &slugs(&["use_app", "Read", "write"])).unwrap_err();
        let described: Vec<_> = refused.iter().map(|it| (&*it.field, &*it.description)).collect();
        let outside = |slug: &str| format!("\"{slug}\" is not in the vocabulary of the application");
        assert_eq!(described, [("permissions", &*outside("Read")), ("permissions", &*outside("write"))]);
    }

    #[test]
    fn all_faults_of_a_vocabulary_are_named_by_their_place() {
        let given = |entries: &[(&str, &str)]| entries.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
        let long = "x".repeat(257);
        let faulty = given(&[("read", ""), ("", ""), ("re ad", &long), ("read", "again")]);
        let fields: Vec<_> = parse_vocabulary("p", faulty).unwrap_err().into_iter().map(|it| it.field).collect();
        assert_eq!(fields, ["p[1].slug", "p[2].slug", "p[2].description", "p[3].slug"]);
        let many: Vec<_> = (0..=MAX_PERMISSIONS).map(|n| (format!("p{n}"), String::new())).collect();
        assert!(parse_vocabulary("p", many[1..].to_vec()).is_ok());
        assert_eq!(parse_vocabulary("p", many).unwrap_err()[0].description, "must have at most 100 entries");
    }
}
