//! IssueAccessToken: a usable token, from the cache if nothing that it depends on has changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jackfield_domain::connection::Connection;
use jackfield_domain::connector::Connector;
use jackfield_domain::credential::{
    Credential, CredentialRef, CredentialState, IssuedToken, LEAST_VALIDITY, Material, OAuth2Material,
};
use jackfield_domain::error::Precondition;
use jackfield_domain::principal::right::CredentialsIssue;
use jackfield_domain::{CredentialId, Error, Resource, Result, Secret, TenantId, Timestamp};
use jackfield_store::IssuableCredential;
use tokio::time::Instant;
use uuid::Uuid;

use super::deadline::answer_by;
use crate::cache::freshness::ReadStart;
use crate::caller::Caller;
use crate::change::missing;
use crate::refresh::{ExpectedRefresh, Patience, RefreshError, runs_out};
use crate::services::Services;
use crate::user_connector::pair;

/// A credential with its material.
struct OpenedCredential {
    credential: Credential,
    material: Material,
    /// The time before both were read.
    start: ReadStart,
}

/// The most refreshes that a call waits for, and the most of them that bring tokens: a provider whose tokens are not good for long enough is not
/// asked over and over again.
const MOST_WAITS: usize = 5;
const MOST_EXCHANGES: usize = 2;
/// The most attempts to read rows that change in between.
pub(super) const READ_ATTEMPTS: usize = 5;
/// The longest time from the beginning of a refresh for which callers wait who can do without it: those whose token is good for as long as
/// they need it, although not for long. Most refreshes take less, and callers who ask later do not wait at all.
const MOMENT: Duration = Duration::from_secs(1);
/// The validity that a token must have left to be issued without a refresh before, in microseconds.
const LEAST_VALIDITY_MICROS: i64 = LEAST_VALIDITY.as_micros() as i64;
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(500);
/// The wait before a caller asks again for whom several refreshes have brought no token that is good for long enough.
const RENEWED_RETRY_AFTER: Duration = Duration::from_secs(5);

// === impl Services ===

impl Services {
    /// Hands out a usable token. One that is good for as long as the caller needs it is never held back for a refresh; one that is not is an
    /// error, however long it is good.
    pub async fn access_token_issue(
        &self,
        caller: &Caller<CredentialsIssue>,
        reference: &CredentialRef,
        min_validity_micros: i64,
        scopes: &[String],
        deadline: Option<Instant>,
    ) -> Result<Arc<IssuedToken>> {
        let tenant = caller.tenant();
        if let Some(issued) = self.shared.tokens.get(tenant, reference, self.now())
            && !runs_out(issued.expire_time, self.now().plus_micros(min_validity_micros.max(LEAST_VALIDITY_MICROS)))
        {
            check_scopes(issued.credential, &issued.scopes, scopes)?;
            return Ok(issued);
        }
        // On the heap, because most calls do without: it would make the future of every call many times as large.
        Box::pin(self.access_token_open(tenant, reference, min_validity_micros, scopes, deadline)).await
    }

    /// Reads and opens a usable token.
    pub(super) async fn access_token_open(
        &self,
        tenant: TenantId,
        reference: &CredentialRef,
        min_validity_micros: i64,
        scopes: &[String],
        deadline: Option<Instant>,
    ) -> Result<Arc<IssuedToken>> {
        let (mut waits, mut exchanges, mut refreshed) = (0, 0, None);
        loop {
            let opened = self.credential_opened(tenant, reference).await?;
            let credential = &opened.credential;
            exchanges += usize::from(waits > 0 && credential.last_refresh_time != refreshed);
            refreshed = credential.last_refresh_time;
            // Those of a refresh token alone are known when it was exchanged.
            if credential.has_token() || !credential.refreshes() {
                check_scopes(credential.id, &credential.scopes, scopes)?;
            }
            let expected = ExpectedRefresh::of(credential);
            let until = self.now().plus_micros(min_validity_micros);
            let is_enough = waits == MOST_WAITS || exchanges == MOST_EXCHANGES;
            if is_enough || !self.is_to_be_refreshed(credential, min_validity_micros) {
                // What the provider issues is not known if callers have stored other tokens all the time.
                let is_known = exchanges == MOST_EXCHANGES;
                let is_undecided = is_enough && !is_known && !expected.is_good(until);
                match credential.refreshes() {
                    true if is_undecided || (!is_known && runs_out(credential.expire_time, self.now())) => {
                        let still = RefreshError::InProgress { retry_after: RENEWED_RETRY_AFTER };
                        return Err(still.to_error(&expected));
                    }
                    true => check_lifetime(credential.id, credential.expire_time, until, self.now())?,
                    false => check_expiry(credential.id, credential.expire_time, until)?,
                }
                return self.token_keep(tenant, reference, opened);
            }
            // Thousands may wait for one refresh, and few of them have a use for what is stored.
            let present = match expected.is_good(until) {
                true => Some(self.token_keep(tenant, reference, opened)?),
                false => {
                    drop(opened);
                    None
                }
            };
            waits += 1;
            match self.refreshed_for(tenant, expected, min_validity_micros, answer_by(deadline)).await {
                Ok(issued) if !runs_out(issued.expire_time, self.now().plus_micros(min_validity_micros)) => {
                    check_scopes(issued.credential, &issued.scopes, scopes)?;
                    return Ok(issued);
                }
                // It may be one that a caller has stored meanwhile, or an earlier one, and not the best that the provider issues.
                Ok(_) => {}
                // A failed refresh does not make a token worse that is still good.
                Err(error) => {
                    let is_good = expected.is_good(self.now().plus_micros(min_validity_micros));
                    let refused = || with_present(error.to_error(&expected), &expected, self.now());
                    return present.filter(|_| is_good).ok_or_else(refused);
                }
            }
        }
    }

    /// The token of an opened credential, which is kept for the callers to come.
    fn token_keep(
        &self,
        tenant: TenantId,
        reference: &CredentialRef,
        OpenedCredential { credential, material, start }: OpenedCredential,
    ) -> Result<Arc<IssuedToken>> {
        let parents = [credential.user_connector.0, credential.connector.0];
        let rows = parents.into_iter().chain(credential.connection.map(Uuid::from)).chain([credential.id.0]);
        let issued = self.token_issued(credential, material)?;
        self.shared.tokens.put(tenant, reference, &issued, start, rows);
        Ok(issued)
    }

    /// Waits for the refresh of a credential, but only for a moment if its token is good for as long as the caller needs it.
    async fn refreshed_for(
        &self,
        tenant: TenantId,
        expected: ExpectedRefresh,
        min_validity_micros: i64,
        answer_by: Option<Instant>,
    ) -> Result<Arc<IssuedToken>, Arc<RefreshError>> {
        let ExpectedRefresh { identity, version, .. } = expected;
        let needed_until = self.now().plus_micros(min_validity_micros);
        if expected.is_good(needed_until) {
            let spare = expected.expire_time.map_or(0, |expiry| expiry.0.saturating_sub(needed_until.0));
            // It must still be good for as long when it is issued.
            let end = Instant::now() + Duration::from_micros(u64::try_from(spare / 2).unwrap_or_default());
            let until = Some(answer_by.map_or(end, |answer| answer.min(end)));
            let refreshed = self.refreshed(tenant, identity, version, Patience { until, longest: Some(MOMENT) }).await;
            if refreshed.is_ok() || expected.is_good(self.now().plus_micros(min_validity_micros)) {
                return refreshed;
            }
        }
        self.refreshed(tenant, identity, version, Patience::until(answer_by)).await
    }

    /// Returns whether a token has to be replaced before it is issued. One that was got a short time ago and is not good for longer would
    /// only be replaced by another one like it.
    fn is_to_be_refreshed(&self, credential: &Credential, min_validity_micros: i64) -> bool {
        let now = self.now();
        let until = now.plus_micros(min_validity_micros.max(LEAST_VALIDITY_MICROS));
        if !credential.refreshes() || ExpectedRefresh::of(credential).is_good(until) {
            return false;
        }
        match (credential.last_refresh_time, credential.expire_time) {
            // The clock of the replica that got it may be ahead.
            (Some(got), Some(expiry)) if got < expiry && now < expiry => {
                let (lifetime, age) = (expiry.0 - got.0, now.0 - got.0);
                lifetime > min_validity_micros.max(LEAST_VALIDITY_MICROS) || age > lifetime / 2
            }
            _ => true,
        }
    }

    /// The token of a credential as it is stored.
    pub(crate) async fn token_open(&self, tenant: TenantId, reference: &CredentialRef) -> Result<Arc<IssuedToken>> {
        let OpenedCredential { credential, material, start: _ } = self.credential_opened(tenant, reference).await?;
        self.token_issued(credential, material)
    }

    /// The token that leaves the server. One that refreshes nothing by itself tells no time at which a newer token is there.
    pub(crate) fn token_issued(&self, credential: Credential, material: Material) -> Result<Arc<IssuedToken>> {
        let next_refresh_time = credential.next_refresh_time.filter(|_| self.shared.refreshes.is_ahead());
        token_of(Credential { next_refresh_time, ..credential }, material).map(Arc::new)
    }

    /// Fetches a credential that may be used, and opens its material.
    async fn credential_opened(&self, tenant: TenantId, reference: &CredentialRef) -> Result<OpenedCredential> {
        let mut failed = None;
        for _ in 0..READ_ATTEMPTS {
            let start = self.shared.tokens.start_read();
            let Some(usable) = self.shared.store.read().credential_fetch_issuable(tenant, reference).await? else {
                return Err(self.credential_missing(tenant, reference).await?);
            };
            check_usable(&usable)?;
            let IssuableCredential { credential, material, .. } = usable;
            let sealed = material.ok_or_else(|| Error::not_found(Resource::Credential, credential.id))?;
            match self.shared.secrets.open_material(tenant, credential.id, &sealed).await {
                Ok((material, version)) if version == credential.material_version => {
                    return Ok(OpenedCredential { credential, material, start });
                }
                Ok(_) => return Err(Error::internal("the material is not of its credential's version")),
                // A re-wrap may have resealed it and destroyed the earlier data key since it was read. Material that does
                // not open although it did not change is broken.
                Err(Error::DecryptFailed { .. }) if failed.as_ref() != Some(&sealed) => failed = Some(sealed),
                Err(error) => return Err(error),
            }
        }
        Err(Error::ServerUnavailable { retry_after: RETRY_AFTER })
    }

    /// Finds out which of the resources that a reference names is missing.
    async fn credential_missing(&self, tenant: TenantId, reference: &CredentialRef) -> Result<Error> {
        let read = self.shared.store.read();
        let (user_id, connector) = match reference {
            CredentialRef::Ref(reference) => return Ok(Error::not_found(Resource::Credential, reference)),
            CredentialRef::DefaultOf { user_id, connector } => (user_id, connector),
            CredentialRef::OfConnection { user_id, connection } => {
                if read.find::<Connection>(tenant, connection).await?.is_none() {
                    return Ok(missing::<Connection>(connection));
                }
                let by = [("user_id", user_id.as_str().to_owned()), ("connection", connection.to_string())];
                return Ok(Error::not_found_by(Resource::Credential, None, by));
            }
        };
        let Some(found) = read.find::<Connector>(tenant, connector).await? else {
            return Ok(Error::not_found(Resource::Connector, connector));
        };
        let link = read.user_connector_fetch_pair(tenant, user_id, found.id, self.now()).await?;
        let resource = if link.is_some() { Resource::Credential } else { Resource::UserConnector };
        Ok(Error::not_found_by(resource, None, pair(user_id, connector)))
    }
}

/// Refuses a credential whose connector or connection is switched off, or that has no material to issue.
fn check_usable(usable: &IssuableCredential) -> Result<()> {
    let IssuableCredential { credential, connector_enabled, connection_active, material: _ } = usable;
    if *connector_enabled != Some(true) {
        let message = "the connector of the credential is disabled";
        let id = credential.connector;
        return Err(Error::precondition(Precondition::ConnectorDisabled, Resource::Connector, id, message));
    }
    match credential.connection {
        Some(id) if *connection_active != Some(true) => {
            let message = "the connection of the credential is not active";
            return Err(Error::precondition(Precondition::ConnectionInactive, Resource::Connection, id, message));
        }
        _ => {}
    }
    match credential.state {
        CredentialState::Revoked | CredentialState::Pending => Err(not_valid(credential)),
        CredentialState::Valid
        | CredentialState::Expired
        | CredentialState::NeedsReauth
        | CredentialState::Indeterminate => Ok(()),
    }
}

/// The error for a credential that has no material in its state.
pub(super) fn not_valid(credential: &Credential) -> Error {
    let message = format!("the credential is {}", credential.state.as_str());
    refusal(Precondition::CredentialNotValid, credential.id, message)
}

fn check_scopes(id: CredentialId, present: &[String], asked: &[String]) -> Result<()> {
    let missing: Vec<_> = asked.iter().filter(|scope| !present.contains(scope)).map(String::as_str).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!("the credential lacks scopes: {}", missing.join(" "));
    Err(refusal(Precondition::ScopeMissing, id, message))
}

/// Refuses a token that another one would not be better than.
fn check_lifetime(id: CredentialId, expiry: Option<Timestamp>, until: Timestamp, now: Timestamp) -> Result<()> {
    match expiry.filter(|_| runs_out(expiry, until)) {
        Some(expiry) if expiry <= now => {
            let message = format!(
                "the tokens of the provider have expired when its answers are there: the last one was good until {expiry}"
            );
            Err(refusal(Precondition::CredentialNotValid, id, message))
        }
        Some(expiry) => {
            let message =
                format!("the provider issues no token for as long as min_validity: this one is good until {expiry}");
            Err(refusal(Precondition::CredentialNotValid, id, message))
        }
        None => Ok(()),
    }
}

fn check_expiry(id: CredentialId, expiry: Option<Timestamp>, until: Timestamp) -> Result<()> {
    match expiry.filter(|_| runs_out(expiry, until)) {
        Some(expiry) => {
            let message = format!("the access token is good until {expiry}, which is not long enough");
            Err(refusal(Precondition::ReauthRequired, id, message))
        }
        None => Ok(()),
    }
}

/// Adds to the reason for which there is no new token that there is one which is not good for long enough.
fn with_present(error: Error, expected: &ExpectedRefresh, now: Timestamp) -> Error {
    let present = expected.expire_time.filter(|expiry| expected.has_token && *expiry > now);
    let Some(expiry) = present else { return error };
    let with = |message: String| format!("{message}; the present token is good until {expiry}, less than min_validity");
    match error {
        Error::Precondition { reason, resource, id, message } => {
            Error::Precondition { reason, resource, id, message: with(message) }
        }
        Error::RefreshDelayed { cause, resource, id, retry_after, message } => {
            Error::RefreshDelayed { cause, resource, id, retry_after, message: with(message) }
        }
        error => error,
    }
}

/// The usable part of the material.
fn token_of(credential: Credential, material: Material) -> Result<IssuedToken> {
    let id = credential.id;
    let (token, token_type, fields) = match material {
        Material::OAuth2(OAuth2Material { access_token: Some(token), token_type, .. }) => {
            (token, token_type, BTreeMap::new())
        }
        Material::OAuth2(_) => {
            let message = "no access token is stored: the user has to authorise".to_owned();
            return Err(refusal(Precondition::ReauthRequired, id, message));
        }
        Material::ApiKey(api_key) => (api_key, "ApiKey".to_owned(), BTreeMap::new()),
        Material::Basic { username, password } => (basic(&username, &password), "Basic".to_owned(), BTreeMap::new()),
        Material::Custom(fields) => (Secret::new(String::new()), "Custom".to_owned(), fields),
        Material::ClientCredentials { .. } | Material::ClientCertificate { .. } => {
            let message = format!("a credential of kind {} holds no token", credential.kind.as_str());
            return Err(refusal(Precondition::CredentialNotValid, id, message));
        }
    };
    Ok(IssuedToken {
        credential: id,
        material_version: credential.material_version,
        token,
        token_type,
        expire_time: credential.expire_time,
        missing_scopes: credential.missing_scopes(),
        scopes: credential.scopes,
        next_refresh_time: credential.next_refresh_time,
        fields,
    })
}

fn refusal(reason: Precondition, id: CredentialId, message: String) -> Error {
    Error::precondition(reason, Resource::Credential, id, message)
}

/// The text after "Basic " (RFC 7617).
fn basic(username: &Secret, password: &Secret) -> Secret {
    let pair = Secret::new(format!("{}:{}", username.expose(), password.expose()));
    Secret::new(STANDARD.encode(pair.expose()))
}
