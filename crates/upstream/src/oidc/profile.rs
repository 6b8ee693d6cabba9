//! Profiles of users: what a provider says about the owner of an access token (OpenID Connect Core 1.0 5.3, and others like it).

use std::fmt;

use jackfield_domain::Secret;
use jackfield_domain::value::url::HttpUrl;
use serde_json::{Map, Value};

use super::documents::Fetcher;
use super::fault::ProfileFault;
use super::members::Members;
use crate::client::{Purpose, secret_value};

/// The members of a profile. They are personal, so `Debug` prints none.
#[derive(Clone, Default, PartialEq)]
pub struct Profile(pub Map<String, Value>);

/// The need for a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileNeed {
    /// Nothing goes on without it.
    Required,
    /// It can be done without. So it is not asked for if no place for a call is free, and given up if another call waits for its place.
    Optional,
}

/// Asks a provider for the profile of the owner of an access token. If there is an ID token, the profile must be that of its subject.
///
/// # Errors
/// There is none, or it is that of another user.
pub async fn fetch_profile(
    fetcher: &Fetcher<'_>,
    (url, need): (&HttpUrl, ProfileNeed),
    access_token: &Secret,
    subject: Option<&str>,
) -> Result<Profile, ProfileFault> {
    let header = Secret::new(format!("Bearer {}", access_token.expose()));
    let header = secret_value(header.expose()).ok_or(ProfileFault::AccessTokenUnusable)?;
    let Members(profile) = fetcher.fetch_with(need.purpose(), url, header).await?;
    match subject {
        Some(subject) if profile.get("sub").and_then(Value::as_str) != Some(subject) => Err(ProfileFault::SubjectWrong),
        _ => Ok(Profile(profile)),
    }
}

// === impl ProfileNeed ===

impl ProfileNeed {
    /// Each has a circuit of its own: profiles that can be done without get less time, so they may fail where others do not.
    fn purpose(self) -> Purpose {
        match self {
            ProfileNeed::Required => Purpose::Profile,
            ProfileNeed::Optional => Purpose::OptionalProfile,
        }
    }
}

// === impl Profile ===

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile").field("members", &self.0.len()).finish_non_exhaustive()
    }
}
