//! References: the names of resources in requests.

use std::hash::{Hash, Hasher};
use std::mem::discriminant;

use uuid::Uuid;

use crate::error::Violation;
use crate::value::id::parse_uuid;
use crate::value::text::{EXTERNAL_PREFIX, MAX_NAME, Name, bounded_text};

/// The name of a resource as a caller wrote it. References are equal if they find the same: those with names are compared by
/// [`Name::key`].
#[derive(Clone, Debug)]
pub enum Ref {
    /// A UUID.
    Id(Uuid),
    /// `name:<name>`.
    Name(Name),
    /// `ext:<external id>`, here without the prefix.
    External(String),
}

/// The forms that a reference may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReferenceForms {
    name: bool,
    external: bool,
}

const NAME_PREFIX: &str = "name:";
const MAX_EXTERNAL: usize = 191;

// === impl Ref ===

impl Ref {
    /// Parses a required reference. Blanks at the ends do not count.
    pub fn parse(field: &str, text: &str, forms: ReferenceForms) -> Result<Self, Violation> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Violation::reference(field, format!("must not be blank; it must be {forms}")));
        }
        let part = |part: Result<_, Violation>| part.map_err(|wrong| Violation::reference(field, wrong.description));
        if let Some(name) = text.strip_prefix(NAME_PREFIX).filter(|_| forms.name) {
            return part(Name::parse(field, name, MAX_NAME).map(Ref::Name));
        }
        if let Some(external) = text.strip_prefix(EXTERNAL_PREFIX).filter(|_| forms.external) {
            return part(bounded_text(field, external.trim(), MAX_EXTERNAL, false).map(Ref::External));
        }
        match parse_uuid(text) {
            Some(id) => Ok(Ref::Id(id)),
            None => Err(Violation::reference(field, format!("must be {forms}"))),
        }
    }

    /// Parses a reference that may be left out. Empty is left out; blank is wrong.
    pub fn parse_optional(field: &str, text: &str, forms: ReferenceForms) -> Result<Option<Self>, Violation> {
        if text.is_empty() { Ok(None) } else { Self::parse(field, text, forms).map(Some) }
    }
}

impl PartialEq for Ref {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Ref::Id(one), Ref::Id(other)) => one == other,
            // Most callers spell a name in one way.
            (Ref::Name(one), Ref::Name(other)) => one == other || one.key() == other.key(),
            (Ref::External(one), Ref::External(other)) => one == other,
            (Ref::Id(_) | Ref::Name(_) | Ref::External(_), _) => false,
        }
    }
}

impl Eq for Ref {}

impl Hash for Ref {
    fn hash<H: Hasher>(&self, state: &mut H) {
        discriminant(self).hash(state);
        match self {
            Ref::Id(id) => id.hash(state),
            Ref::Name(name) => name.key().hash(state),
            Ref::External(external) => external.hash(state),
        }
    }
}

impl From<Uuid> for Ref {
    fn from(id: Uuid) -> Self {
        Ref::Id(id)
    }
}

impl std::fmt::Display for Ref {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ref::Id(id) => id.fmt(f),
            Ref::Name(name) => write!(f, "{NAME_PREFIX}{name}"),
            Ref::External(external) => write!(f, "{EXTERNAL_PREFIX}{external}"),
        }
    }
}

// === impl ReferenceForms ===

impl ReferenceForms {
    /// A UUID only.
    pub const ID: ReferenceForms = ReferenceForms { name: false, external: false };
    /// A UUID or a name: connectors, keys, tenants.
    pub const ID_NAME: ReferenceForms = ReferenceForms { name: true, external: false };
    /// A UUID or an external id: credentials, configurations.
    pub const ID_EXTERNAL: ReferenceForms = ReferenceForms { name: false, external: true };
    /// All of them: connections.
    pub const ID_NAME_EXTERNAL: ReferenceForms = ReferenceForms { name: true, external: true };
}

impl std::fmt::Display for ReferenceForms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match (self.name, self.external) {
            (false, false) => "a UUID",
            (true, false) => "a UUID or \"name:<name>\"",
            (false, true) => "a UUID or \"ext:<external id>\"",
            (true, true) => "a UUID, \"name:<name>\" or \"ext:<external id>\"",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::error::ViolationKind;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    #[test]
    fn references_are_equal_if_they_find_the_same() {
        let all = |text: &str| Ref::parse("reference", text, ReferenceForms::ID_NAME_EXTERNAL).unwrap();
        let spellings = ["name:Caf\u{e9}", "name:CAFE\u{301}", "name: caf\u{c9} "].map(all);
        assert_eq!(HashSet::from(spellings).len(), 1);
        let others = ["name:cafe", "ext:cafe", "ext:Cafe", "ext:caf\u{e9}", "name:caf\u{e9}", ID].map(all);
        assert_eq!(HashSet::from(others).len(), 6);
    }

    #[test]
    fn each_form_is_read_where_it_is_allowed() {
        let id = Ref::Id(ID.parse().unwrap());
        for forms in
            [ReferenceForms::ID, ReferenceForms::ID_NAME, ReferenceForms::ID_EXTERNAL, ReferenceForms::ID_NAME_EXTERNAL]
        {
            assert_eq!(Ref::parse("reference", &format!(" {ID} "), forms), Ok(id.clone()));
            assert_eq!(Ref::parse("reference", &ID.to_uppercase(), forms), Ok(id.clone()));
            assert_eq!(Ref::parse("reference", "name: Gmail ", forms).is_ok(), forms.name);
            assert_eq!(Ref::parse("reference", "ext:Team A", forms).is_ok(), forms.external);
        }
        let all = ReferenceForms::ID_NAME_EXTERNAL;
        assert_eq!(Ref::parse("reference", "ext: Team A", all), Ok(Ref::External("Team A".into())));
        assert_eq!(Ref::parse("reference", "ext:name:x", all), Ok(Ref::External("name:x".into())));
        assert_eq!(Ref::parse("reference", &format!("ext:{ID}"), all), Ok(Ref::External(ID.into())));
        assert_eq!(Ref::parse("reference", "name:ext:x", all).unwrap().to_string(), "name:ext:x");
    }

    #[test]
    fn everything_else_is_refused_as_a_reference() {
        let long = format!("ext:{}", "x".repeat(192));
        let braced = format!("{{{ID}}}");
        let urn = format!("urn:uuid:{ID}");
        let simple = ID.replace('-', "");
        for text in [
            "", " ", "Gmail", "name:", "name: ", "ext:", "ext:\t", "ext:a\nb", "EXT:a", "id:1", &long, &braced, &urn,
            &simple,
        ] {
            let violation = Ref::parse("credential", text, ReferenceForms::ID_NAME_EXTERNAL).unwrap_err();
            assert_eq!((violation.kind, &*violation.field), (ViolationKind::Reference, "credential"), "{text:?}");
        }
        let violation = Ref::parse("reference", "Gmail", ReferenceForms::ID_NAME).unwrap_err();
        assert_eq!(violation.description, "must be a UUID or \"name:<name>\"");
    }

    #[test]
    fn left_out_is_not_blank() {
        assert_eq!(Ref::parse_optional("connector", "", ReferenceForms::ID_NAME), Ok(None));
        assert!(Ref::parse_optional("connector", " ", ReferenceForms::ID_NAME).is_err());
        assert!(matches!(Ref::parse_optional("connector", ID, ReferenceForms::ID_NAME), Ok(Some(Ref::Id(_)))));
    }
}
