//! Profiles of users: what a provider says about the owner of an access token (OpenID Connect Core 1.0 5.3, and others like it).

use std::fmt;

use jackfield_domain::Secret;
use jackfield_domain::value::url::HttpUrl;
use serde_json::{Map, Value};

use super::documents::Fetcher;
use super::fault::ProfileFault;
use crate::client::secret_value;

/// The members of a profile. They are personal, so `Debug` prints none.
#[derive(Clone, Default, PartialEq)]
pub struct Profile(pub Map<String, Value>);

/// Asks a provider for the profile of the owner of an access token. If there is an ID token, the profile must be that of its subject.
///
/// # Errors
/// There is none, or it is that of another user.
pub async fn fetch_profile(
    fetcher: &Fetcher<'_>,
    url: &HttpUrl,
    access_token: &Secret,
    subject: Option<&str>,
) -> Result<Profile, ProfileFault> {
    let header = Secret::new(format!("Bearer {}", access_token.expose()));
    let header = secret_value(header.expose()).ok_or(ProfileFault::AccessTokenUnusable)?;
    let profile: Map<String, Value> = fetcher.fetch(url, Some(header)).await?;
    match subject {
        Some(subject) if profile.get("sub").and_then(Value::as_str) != Some(subject) => Err(ProfileFault::SubjectWrong),
        _ => Ok(Profile(profile)),
    }
}

// === impl Profile ===

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile").field("members", &self.0.len()).finish_non_exhaustive()
    }
}
