//! Work that takes time, such as a hash of a password. It is done before the transaction, because the writer must not wait for it, and
//! not for the repeat of a request.

use std::time::Duration;

use jackfield_domain::{Error, Result};

use super::{Change, Changes};

/// The result of work for a change. There is none if the change was made before, because it gets the answer of then.
pub(crate) struct Prepared<T>(Option<T>);

/// The wait before a request is tried again whose earlier answer was deleted at this moment.
const RETRY_AFTER: Duration = Duration::from_millis(500);

// === impl Changes ===

impl Changes {
    /// Does work for a change before its transaction, unless the change is the repeat of an earlier request. It only looks that up:
    /// [`Changes::run`] claims the request id, and gives the answer.
    pub(crate) async fn prepare<T>(
        &self,
        change: Change<'_>,
        work: impl Future<Output = Result<T>>,
    ) -> Result<Prepared<T>> {
        let repeat = self.repeat(change.actor, change.request).await?;
        if let Some(repeat) = &repeat
            && repeat.is_known(&self.store.read(), self.clock.now()).await?
        {
            return Ok(Prepared(None));
        }
        work.await.map(Prepared::from)
    }
}

// === impl Prepared ===

impl<T> Prepared<T> {
    /// The result, for a change that has to be made.
    ///
    /// # Errors
    /// There is none: the earlier request was known, and forgotten before its id was claimed.
    pub(crate) fn get(self) -> Result<T> {
        self.0.ok_or(Error::ServerUnavailable { retry_after: RETRY_AFTER })
    }
}

impl<T> From<T> for Prepared<T> {
    fn from(result: T) -> Self {
        Prepared(Some(result))
    }
}

#[cfg(test)]
mod tests {
    use jackfield_domain::key::{CertificateIssue, Key, KeyAlgorithm, KeyGeneration};
    use jackfield_domain::principal::right::KeysWrite;
    use jackfield_domain::user::User;
    use jackfield_domain::value::maps::Labels;
    use jackfield_domain::value::text::Name;
    use tokio::time::timeout;
    use uuid::Uuid;
    use zeroize::Zeroizing;

    use super::*;
    use crate::key::GeneratedKey;
    use crate::user::tests::{Fixture, ann};
    use crate::{RequestId, RequestOptions};

    fn request(method: &'static str, body: &str) -> RequestOptions {
        let request = RequestId { id: Uuid::from_u128(7), body: Zeroizing::new(body.as_bytes().to_vec()) };
        RequestOptions { method, request: Some(request), validate_only: false }
    }

    async fn create(fixture: &Fixture, body: &str) -> Result<User> {
        fixture.services.user_create(&fixture.caller(), &request("CreateUser", body), None, ann()).await
    }

    async fn generate(fixture: &Fixture, body: &str) -> Result<Key> {
        let generation = KeyGeneration {
            algorithm: KeyAlgorithm::EcP256,
            common_name: None,
            subject_alternative_names: Vec::new(),
            issue: CertificateIssue::SigningRequest,
        };
        let name = Name::parse("name", "mine", 191).unwrap();
        let draft = GeneratedKey { id: None, name, labels: Labels::default(), generation };
        fixture.services.key_generate(&fixture.caller::<KeysWrite>(), &request("GenerateKey", body), draft).await
    }

    /// A request for a key that takes long to generate, which only validates.
    async fn checked(fixture: &Fixture) -> Result<Key> {
        let generation = KeyGeneration {
            algorithm: KeyAlgorithm::Rsa4096,
            common_name: None,
            subject_alternative_names: Vec::new(),
            issue: CertificateIssue::SelfSigned { lifetime: Duration::from_secs(24 * 3_600) },
        };
        let name = Name::parse("name", "yours", 191).unwrap();
        let draft = GeneratedKey { id: None, name, labels: Labels::default(), generation };
        let request = RequestOptions { method: "GenerateKey", request: None, validate_only: true };
        fixture.services.key_generate(&fixture.caller::<KeysWrite>(), &request, draft).await
    }

    #[tokio::test]
    async fn a_repeat_waits_for_no_turn() {
        let fixture = Fixture::open().await;
        let user = create(&fixture, "first").await.unwrap();
        let key = generate(&fixture, "first").await.unwrap();

        let (shared, tenant) = (&fixture.services.shared, fixture.principal.tenant);
        let _taken = [&shared.passwords.turns, &shared.key_turns].map(|turns| turns.take_all(tenant));
        let repeats = async {
            assert_eq!(create(&fixture, "first").await.unwrap(), user);
            assert_eq!(generate(&fixture, "first").await.unwrap(), key);
            assert!(matches!(create(&fixture, "other").await, Err(Error::RequestIdConflict { .. })));
            assert!(matches!(generate(&fixture, "other").await, Err(Error::RequestIdConflict { .. })));
        };
        timeout(Duration::from_secs(30), repeats).await.expect("repeats take no turn");
        let (caller, fresh) = (fixture.caller(), RequestOptions { request: None, ..request("CreateUser", "") });
        let fresh = fixture.services.user_create(&caller, &fresh, None, ann());
        assert!(timeout(Duration::from_millis(200), fresh).await.is_err(), "a request that is new waits");

        let checked =
            timeout(Duration::from_secs(30), checked(&fixture)).await.expect("one that only validates takes none");
        assert_eq!(checked.unwrap().current.certificates[0].public_key_algorithm, "EC P-256");
    }
}
