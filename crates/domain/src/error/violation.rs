//! Violations: what is wrong with a request, field by field.

/// One thing that is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field in snake case, as in the proto.
    pub field: String,
    /// Why it is wrong, for people.
    pub description: String,
    /// What kind of wrong it is.
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

    /// For a field whose value is wrong.
    pub fn field(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::new(ViolationKind::Field, field, description)
    }

    /// For a filter that does not parse or does not fit the resource; the description names the position.
    pub fn filter(description: impl Into<String>) -> Self {
        Self::new(ViolationKind::Filter, "filter", description)
    }

    /// For what is not well-formed: a message, or a header that belongs to the call.
    pub fn malformed(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::new(ViolationKind::Malformed, field, description)
    }

    /// For a page token that cannot be used here. Why exactly is not said: a token is opaque.
    pub fn page_token() -> Self {
        let description = "is not a token of this list with this filter and order, or has expired";
        Self::new(ViolationKind::PageToken, "page_token", description)
    }

    /// For a masked placeholder sent as a secret.
    pub fn placeholder(field: impl Into<String>) -> Self {
        let description =
            "is a masked placeholder, not a secret; an update keeps the stored secret if the field is left out";
        Self::new(ViolationKind::Placeholder, field, description)
    }

    /// For a reference of a wrong form.
    pub fn reference(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::new(ViolationKind::Reference, field, description)
    }
}

// === impl Violations ===

impl Violations {
    /// Notes one more.
    pub fn push(&mut self, violation: Violation) {
        // More than fit into an answer help nobody, and a request can be wrong in very many places.
        if self.0.len() < MAX_VIOLATIONS {
            self.0.push(violation);
        }
    }

    /// Takes the value out of a result, or notes its violation.
    pub fn check<T>(&mut self, result: std::result::Result<T, Violation>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(violation) => {
                self.push(violation);
                None
            }
        }
    }

    /// Whether nothing was noted so far.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the value out of a result, or adds all its violations.
    pub fn check_all<T>(&mut self, result: Result<T, Vec<Violation>>) -> Option<T> {
        result.map_err(|violations| self.extend(violations)).ok()
    }

    /// The value if there is no violation.
    pub fn into_whole<T>(self, value: T) -> Result<T, Vec<Violation>> {
        if self.0.is_empty() { Ok(value) } else { Err(self.0) }
    }

    /// All that was noted.
    pub fn into_vec(self) -> Vec<Violation> {
        self.0
    }

    /// Notes several more.
    pub fn extend(&mut self, violations: impl IntoIterator<Item = Violation>) {
        violations.into_iter().for_each(|violation| self.push(violation));
    }
}
