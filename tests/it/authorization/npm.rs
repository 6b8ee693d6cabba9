//! Authorisations and refreshes at OAuth servers that others wrote (npm). The test command skips this module by name if Node.js or the
//! packages are missing.

/// Tests whose logic does not depend on the database.
macro_rules! on_sqlite {
    ($($(#[$meta:meta])* async fn $name:ident($server:ident) $body:block)*) => { $(
        $(#[$meta])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            jackfield_testkit::backend::in_time(async {
                let $server = TestServer::start(Backend::Sqlite).await;
                $body
            })
            .await;
        }
    )* };
}

mod chromium;
mod clients;
mod mutated;
mod oidc;
mod rotation;

use jackfield_api::v1;
use jackfield_api::v1::{AuthorizationState as State, RevocationOutcome as Outcome, RevokedTokenKind as Token};
use jackfield_testkit::npm::{Browser, Decision, Http, Landed};
use jackfield_testkit::{Brought, Client, NpmPackage, NpmProvider, TestServer, fixture};
use serde_json::{Value, json};
use tonic::{Response, Status};

use super::{BACK, complete};
use crate::refresh::world::explain_by;
use crate::steps;

/// The client that is registered, and its secret, which has to be encoded.
const CLIENT: (&str, &str) = ("c1", "s:1 %+ of the client");

/// A tenant with a connection to a server. The connector has what the server publishes of itself.
pub(super) struct World<P = NpmProvider> {
    pub(super) provider: P,
    http: Http,
    metadata: Value,
    pub(super) client: Client,
    pub(super) connection: v1::Connection,
}

// === impl World ===

impl World {
    /// A world with a server of `oidc-provider` that replaces refresh tokens.
    async fn rotating(server: &TestServer) -> Self {
        let settings = json!({ "clients": [registration()], "rotates": true });
        World::on(server, NpmPackage::OidcProvider, &settings, |_| {}).await
    }

    async fn on(
        server: &TestServer,
        package: NpmPackage,
        settings: &Value,
        change: impl FnOnce(&mut v1::Connection),
    ) -> Self {
        World::with(server, package, settings, |_, connection| change(connection)).await
    }

    /// The same with changes of the connector, too.
    async fn with(
        server: &TestServer,
        package: NpmPackage,
        settings: &Value,
        change: impl FnOnce(&mut v1::Connector, &mut v1::Connection),
    ) -> Self {
        let provider = NpmProvider::start(package, settings).await;
        let issuer = provider.issuer().to_owned();
        World::connected(server, provider, &issuer, change).await
    }

    /// The kind of a token at a server of `oidc-provider`; `null` if it is not good.
    async fn find(&self, token: &str) -> Value {
        self.provider.tell("find", json!({ "token": token })).await
    }

    /// The requests of a grant type to the token endpoint of `oidc-provider` so far: how many were answered with tokens, and the errors of
    /// the others.
    async fn outcomes(&self, grant_type: &str) -> (usize, Vec<Value>) {
        let told = self.provider.tell("outcomes", json!({})).await;
        let all = told["outcomes"].as_array().unwrap().iter().filter(|outcome| outcome["grant_type"] == grant_type);
        let (good, refused): (Vec<&Value>, Vec<&Value>) = all.partition(|outcome| outcome["error"].is_null());
        (good.len(), refused.into_iter().cloned().collect())
    }
}

impl<P> World<P> {
    /// A world with a server that runs, and publishes its metadata as an issuer.
    pub(super) async fn connected(
        server: &TestServer,
        provider: P,
        issuer: &str,
        change: impl FnOnce(&mut v1::Connector, &mut v1::Connection),
    ) -> Self {
        let http = Http::default();
        let metadata = http.metadata(issuer).await;
        let url = |name: &str| metadata[name].as_str().map(str::to_owned);
        let endpoints = v1::OAuth2Connector {
            issuer_url: url("issuer"),
            authorization_url: url("authorization_endpoint"),
            token_url: url("token_endpoint"),
            revocation_url: url("revocation_endpoint"),
            device_authorization_url: url("device_authorization_endpoint"),
            ..Default::default()
        };
        let client = server.client("alpha");
        let kind = Some(v1::connector::Kind::Oauth2(endpoints));
        let mut connector = v1::Connector { kind, ..fixture::an_oauth2_connector("npm") };
        let mut connection = v1::Connection {
            name: "npm".to_owned(),
            iss_parameter_supported: Some(true),
            client_id: Some(CLIENT.0.to_owned()),
            client_secrets: vec![v1::ClientSecret { value: CLIENT.1.to_owned(), ..Default::default() }],
            supported_content_type: v1::TokenContentType::Form.into(),
            redirect_uris: vec![BACK.to_owned()],
            scope: Some("openid offline_access".to_owned()),
            // Without it, no client gets offline access (OpenID Connect Core 1.0 11).
            parameters: fixture::strings([("prompt", "consent")]),
            ..Default::default()
        };
        change(&mut connector, &mut connection);
        connection.connector = steps::connector(&client, connector).await.id;
        let request = v1::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
        let created = client.connections().create_connection(request).await.unwrap().into_inner();
        World { provider, http, metadata, client, connection: created.connection.unwrap() }
    }

    /// A URL of the metadata.
    pub(super) fn url(&self, name: &str) -> &str {
        self.metadata[name].as_str().unwrap()
    }

    pub(super) fn request(&self, user: &str) -> v1::StartAuthorizationRequest {
        let (connection, user_id) = (self.connection.id.clone(), user.to_owned());
        v1::StartAuthorizationRequest { connection, user_id, ..Default::default() }
    }

    /// Starts a session, and has the user decide in a browser, where they log in by the name `account`.
    pub(super) async fn brought(
        &self,
        request: v1::StartAuthorizationRequest,
        account: &str,
        decision: Decision,
    ) -> Brought {
        let started = self.client.connections().start_authorization(request).await.unwrap().into_inner();
        match Browser::default().visit(&started.authorization_url, account, decision).await {
            Landed::Elsewhere(url) => Brought::at(&url),
            Landed::Page(page) => panic!("{page}"),
        }
    }

    /// Authorises a user, as far as the server lets it happen. Their name is that of their account, too.
    pub(super) async fn session(&self, request: v1::StartAuthorizationRequest) -> v1::AuthorizationSession {
        let user = request.user_id.clone();
        let brought = self.brought(request, &user, Decision::Permit).await;
        complete(&self.client, brought.completion(&user)).await.unwrap()
    }

    /// Authorises a user. Returns the credential.
    pub(super) async fn authorized(&self, user: &str) -> v1::Credential {
        let session = self.session(self.request(user)).await;
        assert_eq!(session.state(), State::Completed, "{session:?}");
        self.facts(&session.credential).await
    }

    /// Authorises the user of a credential again.
    pub(super) async fn again(&self, credential: &v1::Credential) -> v1::AuthorizationSession {
        let request = self.request(&credential.user_id);
        self.session(v1::StartAuthorizationRequest { credential: credential.id.clone(), ..request }).await
    }

    pub(super) async fn facts(&self, credential: &str) -> v1::Credential {
        steps::credential_now(&self.client, credential).await
    }

    /// The tokens of a credential as they are stored.
    pub(super) async fn tokens(&self, credential: &str) -> v1::OAuth2Material {
        super::tokens(steps::revealed(&self.client, credential).await)
    }

    pub(super) async fn issue(&self, credential: &str) -> Result<v1::IssueAccessTokenResponse, Status> {
        let request = v1::IssueAccessTokenRequest { reference: credential.to_owned(), ..Default::default() };
        self.client.credentials().issue_access_token(request).await.map(Response::into_inner)
    }

    pub(super) async fn refresh(&self, credential: &str) -> Result<v1::Credential, Status> {
        let request = v1::RefreshCredentialRequest { reference: credential.to_owned() };
        let refreshed = self.client.credentials().refresh_credential(request).await?.into_inner();
        Ok(refreshed.credential.unwrap())
    }

    /// The status and the body of the profile for which an access token stands.
    pub(super) async fn profile(&self, access_token: &str) -> (u16, Value) {
        self.http.profile(self.url("userinfo_endpoint"), access_token).await
    }

    /// Spends a refresh token of a client, as another program does that has it. Returns the error of the server.
    pub(super) async fn spend(&self, (client, secret): (&str, &str), refresh_token: &str) -> Value {
        let members = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token),
            ("client_id", client),
            ("client_secret", secret),
        ];
        self.http.ask(self.url("token_endpoint"), &members).await.1["error"].take()
    }

    /// Revokes a credential, both of whose tokens the server takes back.
    pub(super) async fn revoke(&self, reference: String) {
        let request = v1::RevokeCredentialRequest { reference, ..Default::default() };
        let answer = self.client.credentials().revoke_credential(request).await.unwrap().into_inner();
        let outcomes: Vec<(Token, Outcome)> =
            answer.revocations.iter().map(|revocation| (revocation.kind(), revocation.outcome())).collect();
        let expected = [(Token::RefreshToken, Outcome::Revoked), (Token::AccessToken, Outcome::Revoked)];
        assert_eq!(outcomes, expected, "{answer:?}");
    }

    pub(super) async fn explain(&self, credential: &str) -> v1::ExplainCredentialResponse {
        explain_by(&self.client, credential).await.unwrap()
    }
}

/// The registration of the client at `oidc-provider`.
fn registration() -> Value {
    json!({
        "client_id": CLIENT.0,
        "client_secret": CLIENT.1,
        "redirect_uris": [BACK],
        "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
    })
}

/// The registration with other members; `null` removes one.
fn registered_with(members: &Value) -> Value {
    let mut registration = registration();
    for (name, value) in members.as_object().unwrap() {
        match value {
            Value::Null => registration.as_object_mut().unwrap().remove(name),
            value => registration.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    registration
}
