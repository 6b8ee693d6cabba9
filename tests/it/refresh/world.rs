//! A provider, a connection to it, and credentials of its grants.

use std::fmt::Debug;
use std::time::Duration;

use jackfield_api::v1::{self, credential_material::Material};
use jackfield_testkit::provider::FamilyId;
use jackfield_testkit::{Callers, Client, Provider, ProviderOptions, Refusal, expect_status, fixture};
use tokio::time::{Instant, sleep};
use tonic::{Code, Response, Status};

use crate::steps;

pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) provider: Provider,
    pub(crate) connector: String,
    pub(crate) connection: v1::Connection,
}

/// A grant of the provider, and the credential that has its tokens.
pub(crate) struct Grant {
    pub(crate) family: FamilyId,
    pub(crate) access_token: String,
    pub(crate) credential: String,
}

// === impl World ===

impl World {
    pub(crate) async fn on(server: &impl Callers, options: ProviderOptions) -> Self {
        Self::with(server, options, |_| {}).await
    }

    /// As [`World::on`], with another connection.
    pub(crate) async fn with(
        server: &impl Callers,
        options: ProviderOptions,
        change: impl FnOnce(&mut v1::Connection),
    ) -> Self {
        let client = server.client("alpha");
        let secrets = options.client_secrets.iter().enumerate().map(|(number, secret)| v1::ClientSecret {
            secret_id: number.to_string(),
            value: secret.clone(),
            create_time: None,
        });
        let (client_id, client_secrets) = (Some(options.client_id.clone()), secrets.collect());
        let provider = Provider::start(options).await;
        let connector = steps::connector(&client, fixture::an_oauth2_connector("Provider")).await.id;
        let mut connection = v1::Connection {
            token_url: Some(provider.token_url()),
            client_id,
            client_secrets,
            ..fixture::a_connection("Provider", &connector)
        };
        change(&mut connection);
        let request = v1::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
        let created = client.connections().create_connection(request).await.unwrap().into_inner();
        World { client, provider, connector, connection: created.connection.unwrap() }
    }

    /// A credential whose access token has expired.
    pub(crate) async fn expired(&self, user: &str) -> Grant {
        self.granted(user, -60).await
    }

    /// A credential whose access token is good.
    pub(crate) async fn good(&self, user: &str) -> Grant {
        self.granted(user, 0).await
    }

    /// A credential whose access token expires a number of seconds from now; 0: when that of the provider does.
    pub(crate) async fn granted(&self, user: &str, seconds: i64) -> Grant {
        let issued = self.provider.grant(user, &["read", "write"]);
        let expiry = match seconds {
            0 => prost_types::Timestamp { seconds: issued.expire_time.seconds(), nanos: 0 },
            seconds => fixture::seconds_from_now(seconds),
        };
        let credential = self.store(user, &issued.access_token, &issued.refresh_token, Some(expiry)).await;
        Grant { family: issued.family, access_token: issued.access_token, credential }
    }

    pub(crate) async fn store(
        &self,
        user: &str,
        access_token: &str,
        refresh_token: &str,
        expire_time: Option<prost_types::Timestamp>,
    ) -> String {
        let material = v1::OAuth2Material {
            access_token: access_token.to_owned(),
            refresh_token: refresh_token.to_owned(),
            expire_time,
            scopes: vec!["read".to_owned(), "write".to_owned()],
            ..Default::default()
        };
        self.store_material(user, Material::Oauth2(material)).await
    }

    pub(crate) async fn store_material(&self, user: &str, material: Material) -> String {
        steps::link(&self.client, user, &self.connector).await;
        let facts =
            v1::Credential { connection: self.connection.id.clone(), ..fixture::a_credential(user, &self.connector) };
        let material = v1::CredentialMaterial { material: Some(material) };
        steps::credential(&self.client, facts, material).await.id
    }

    pub(crate) async fn issue(&self, credential: &str) -> Result<v1::IssueAccessTokenResponse, Status> {
        self.issue_by(&self.client, credential).await
    }

    pub(crate) async fn issue_by(
        &self,
        client: &Client,
        credential: &str,
    ) -> Result<v1::IssueAccessTokenResponse, Status> {
        let request = v1::IssueAccessTokenRequest { reference: credential.to_owned(), ..Default::default() };
        client.credentials().issue_access_token(request).await.map(Response::into_inner)
    }

    pub(crate) async fn issue_of(
        &self,
        connection: &str,
        user: &str,
        scopes: &[&str],
    ) -> Result<v1::IssueAccessTokenResponse, Status> {
        let request = v1::GetUserConnectionCredentialsRequest {
            connection: connection.to_owned(),
            user_id: user.to_owned(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            ..Default::default()
        };
        let issued = self.client.connections().get_user_connection_credentials(request).await?;
        Ok(issued.into_inner().issued.unwrap())
    }

    pub(crate) async fn refresh(&self, credential: &str) -> Result<v1::Credential, Status> {
        let request = v1::RefreshCredentialRequest { reference: credential.to_owned() };
        let refreshed = self.client.credentials().refresh_credential(request).await?;
        Ok(refreshed.into_inner().credential.unwrap())
    }

    pub(crate) async fn report(
        &self,
        credential: &str,
        credential_version: i64,
    ) -> Result<v1::ReportTokenRejectedResponse, Status> {
        self.report_with(credential, credential_version, 401, "").await
    }

    /// Reports that an API rejected a token, with a status and a challenge.
    pub(crate) async fn report_with(
        &self,
        credential: &str,
        credential_version: i64,
        status: i32,
        challenge: &str,
    ) -> Result<v1::ReportTokenRejectedResponse, Status> {
        let (reference, challenge) = (credential.to_owned(), challenge.to_owned());
        let request = v1::ReportTokenRejectedRequest { reference, credential_version, status, challenge };
        self.client.credentials().report_token_rejected(request).await.map(Response::into_inner)
    }

    pub(crate) async fn explain(&self, credential: &str) -> v1::ExplainCredentialResponse {
        explain_by(&self.client, credential).await.unwrap()
    }

    pub(crate) async fn facts(&self, credential: &str) -> v1::Credential {
        let request = v1::GetCredentialRequest { reference: credential.to_owned() };
        self.client.credentials().get_credential(request).await.unwrap().into_inner().credential.unwrap()
    }

    /// The facts of a credential once something holds of them: a refresh may go on after a token that is good was issued.
    pub(crate) async fn facts_when(&self, credential: &str, holds: impl Fn(&v1::Credential) -> bool) -> v1::Credential {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let facts = self.facts(credential).await;
            if holds(&facts) {
                return facts;
            }
            assert!(Instant::now() < until, "{facts:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The facts of a credential once a refresh of it has failed.
    pub(crate) async fn failed(&self, credential: &str) -> v1::Credential {
        self.facts_when(credential, |facts| facts.failure_class() != v1::FailureClass::Unspecified).await
    }

    pub(crate) async fn relabel(&self, credential: &str, number: u64) {
        self.client.credentials().update_credential(relabelled(credential, number)).await.unwrap();
    }

    /// Replaces the access token of a credential.
    pub(crate) async fn replace(&self, credential: &str, access_token: &str) {
        let request = v1::UpdateCredentialRequest {
            reference: credential.to_owned(),
            credential: Some(v1::Credential::default()),
            material: Some(fixture::oauth2_material(access_token, "")),
            ..Default::default()
        };
        self.client.credentials().update_credential(request).await.unwrap();
    }

    /// Replaces the tokens of a credential.
    pub(crate) async fn replace_all(&self, credential: &str, access_token: &str, refresh_token: &str) {
        let request = v1::UpdateCredentialRequest {
            reference: credential.to_owned(),
            credential: Some(v1::Credential::default()),
            material: Some(fixture::oauth2_material(access_token, refresh_token)),
            ..Default::default()
        };
        self.client.credentials().update_credential(request).await.unwrap();
    }

    /// Gives the connection other client secrets.
    pub(crate) async fn set_secrets(&self, secrets: &[&str]) {
        let secrets = secrets.iter().enumerate().map(|(number, secret)| v1::ClientSecret {
            secret_id: number.to_string(),
            value: (*secret).to_owned(),
            create_time: None,
        });
        let connection = v1::Connection { client_secrets: secrets.collect(), ..Default::default() };
        let request = v1::UpdateConnectionRequest {
            reference: self.connection.id.clone(),
            connection: Some(connection),
            ..Default::default()
        };
        self.client.connections().update_connection(request).await.unwrap();
    }

    /// The tokens of a credential as they are stored.
    pub(crate) async fn reveal(&self, credential: &str) -> v1::OAuth2Material {
        reveal_by(&self.client, credential).await.unwrap()
    }

    pub(crate) async fn delete(&self, credential: &str) {
        let request = v1::DeleteCredentialRequest { reference: credential.to_owned(), ..Default::default() };
        self.client.credentials().delete_credential(request).await.unwrap();
    }

    /// Waits until the provider has read a number of requests.
    pub(crate) async fn sent(&self, count: usize) {
        eventually("the provider is asked", || self.provider.requests().len() >= count).await;
    }
}

pub(crate) async fn explain_by(client: &Client, credential: &str) -> Result<v1::ExplainCredentialResponse, Status> {
    let request = v1::ExplainCredentialRequest { reference: credential.to_owned() };
    client.credentials().explain_credential(request).await.map(Response::into_inner)
}

/// The tokens of a credential as they are stored.
pub(crate) async fn reveal_by(client: &Client, credential: &str) -> Result<v1::OAuth2Material, Status> {
    let (reference, purpose) = (credential.to_owned(), "test of refreshes".to_owned());
    let request = v1::RevealCredentialRequest { reference, purpose };
    let revealed = client.credentials().reveal_credential(request).await?.into_inner();
    match revealed.material.unwrap().material.unwrap() {
        Material::Oauth2(tokens) => Ok(tokens),
        other => panic!("{other:?}"),
    }
}

/// A change of the labels of a credential.
pub(crate) fn relabelled(credential: &str, number: u64) -> v1::UpdateCredentialRequest {
    let labels = fixture::strings([("number", &*number.to_string())]);
    v1::UpdateCredentialRequest {
        reference: credential.to_owned(),
        credential: Some(v1::Credential { labels, ..Default::default() }),
        ..Default::default()
    }
}

/// Asserts that a call was refused.
pub(crate) fn refused<T: Debug>(answer: Result<T, Status>, code: Code, reason: &str) -> Refusal {
    expect_status(answer.map(Response::new), code, reason)
}

pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        sleep(Duration::from_millis(20)).await;
    }
}
