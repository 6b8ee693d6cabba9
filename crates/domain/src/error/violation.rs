//! Violations: the faults of a request, field by field.

/// One fault of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field in snake case, as in the proto.
    pub field: String,
    /// The fault, for people.
    pub description: String,
    /// The kind of the fault.
    pub kind: ViolationKind,
}

/// Kinds of violations; each has a reason of its own on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViolationKind {
    Field,
    Filter,
    Malformed,
    PageToken,
    Placeholder,
    Reference,
}

/// Violations that are kept of one request.
const MAX_VIOLATIONS: usize = 100;

/// Collects violations, so that a caller learns all of them at once.
#[derive(Debug, Default)]
pub struct Violations(Vec<Violation>);

// === impl ViolationKind ===

impl ViolationKind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            ViolationKind::Field => "FIELD_INVALID",
            ViolationKind::Filter => "FILTER_INVALID",
            ViolationKind::Malformed => "MESSAGE_MALFORMED",
            ViolationKind::PageToken => "PAGE_TOKEN_INVALID",
            ViolationKind::Placeholder => "PLACEHOLDER_SECRET",
            ViolationKind::Reference => "REFERENCE_INVALID",
        }
    }
}

// === impl Violation ===

impl Violation {
    fn new(kind: ViolationKind, field: impl Into<String>, description: impl Into<String>) -> Self {
        Violation { field: field.into(), description: description.into(), kind }
    }

    /// Makes the violation for a wrong value of a field.
    pub fn field(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::new(ViolationKind::Field, field, description)
    }

    /// Makes the violation for a filter that does not parse or does not fit the resource. The description names the position.
    pub fn filter(description: impl Into<String>) -> Self {
        Self::new(ViolationKind::Filter, "filter", description)
    }

    /// Makes the violation for a message, or a header of the call, that is not well-formed.
    pub fn malformed(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::new(ViolationKind::Malformed, field, description)
    }

    /// Makes the violation for a page token that cannot be used here. It does not say why: a token is opaque.
    pub fn page_token() -> Self {
        let description = "is not a token of this list with this filter and order, or has expired";
        Self::new(ViolationKind::PageToken, "page_token", description)
    }

    /// Makes the violation for a masked placeholder that was sent as a secret.
    pub fn placeholder(field: impl Into<String>) -> Self {
        let description =
            "is a masked placeholder, not a secret; an update keeps the stored secret if the field is left out";
        Self::new(ViolationKind::Placeholder, field, description)
    }

    /// Makes the violation for a reference of a wrong form.
    pub fn reference(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::new(ViolationKind::Reference, field, description)
    }
}

// === impl Violations ===

impl Violations {
    /// Adds a violation.
    pub fn push(&mut self, violation: Violation) {
        // A request can have very many faults, but an answer has room for only a few.
        if self.0.len() < MAX_VIOLATIONS {
            self.0.push(violation);
        }
    }

    /// Takes the value out of a result, or adds its violation.
    pub fn check<T>(&mut self, result: std::result::Result<T, Violation>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(violation) => {
                self.push(violation);
                None
            }
        }
    }

    /// Returns true if there is no violation so far.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the value out of a result, or adds all its violations.
    pub fn check_all<T>(&mut self, result: Result<T, Vec<Violation>>) -> Option<T> {
        result.map_err(|violations| self.extend(violations)).ok()
    }

    /// Returns the value if there is no violation.
    pub fn into_whole<T>(self, value: T) -> Result<T, Vec<Violation>> {
        if self.0.is_empty() { Ok(value) } else { Err(self.0) }
    }

    /// Returns all violations.
    pub fn into_vec(self) -> Vec<Violation> {
        self.0
    }

    /// Adds several violations.
    pub fn extend(&mut self, violations: impl IntoIterator<Item = Violation>) {
        violations.into_iter().for_each(|violation| self.push(violation));
    }
}
