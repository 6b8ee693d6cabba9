//! Authorisations: a user permits a connection to act for them, with a server that others wrote. What must not succeed is in the modules
//! below.

mod attacks;
mod bound;
pub(crate) mod callback;
mod chromium;
mod client_key;
pub(crate) mod device;
mod ends;
mod faults;
mod journal;
mod keycloak;
mod linked;
mod npm;
mod openid;
mod optional;
mod planted;
mod returns;
mod start;

use std::time::Duration;

use futures::StreamExt as _;
use jackfield_api::v1;
use jackfield_testkit::oauth::query_of;
use jackfield_testkit::{Brought, Client, OAuthProvider, TestServer, expect_status, fixture, on_both};
use tonic::{Code, Status};

use crate::{login, steps};

/// The redirect URI of the application.
pub(crate) const BACK: &str = "https://app.example/back";

/// A tenant with a connection to an authorisation server.
pub(crate) struct World {
    pub(crate) provider: OAuthProvider,
    pub(crate) client: Client,
    pub(crate) connection: v1::Connection,
}

// === impl World ===

impl World {
    pub(crate) async fn new(server: &TestServer) -> Self {
        Self::with(server, |_| {}).await
    }

    /// A world in which something of the connection is different.
    pub(crate) async fn with(server: &TestServer, change: impl FnOnce(&mut v1::Connection)) -> Self {
        // The certificate of the connector goes to the servers that it names itself.
        let keys = |provider: &OAuthProvider| v1::OAuth2Connector {
            jwks_url: Some(provider.system.url("/jwks")),
            ..Default::default()
        };
        Self::on(server, keys, |_, connection| change(connection)).await
    }

    /// A world whose connector has these endpoints.
    pub(crate) async fn on(
        server: &TestServer,
        endpoints: impl FnOnce(&OAuthProvider) -> v1::OAuth2Connector,
        change: impl FnOnce(&OAuthProvider, &mut v1::Connection),
    ) -> Self {
        Self::of(server.client("alpha"), endpoints, change).await
    }

    /// The same for another caller.
    async fn of(
        client: Client,
        endpoints: impl FnOnce(&OAuthProvider) -> v1::OAuth2Connector,
        change: impl FnOnce(&OAuthProvider, &mut v1::Connection),
    ) -> Self {
        Self::named(client, ["provider", "login"], endpoints, change).await
    }

    /// One of several in a tenant, by the names of its connector and its connection.
    async fn named(
        client: Client,
        [connector, name]: [&str; 2],
        endpoints: impl FnOnce(&OAuthProvider) -> v1::OAuth2Connector,
        change: impl FnOnce(&OAuthProvider, &mut v1::Connection),
    ) -> Self {
        let provider = OAuthProvider::start(&[BACK]).await;
        let connector = v1::Connector {
            kind: Some(v1::connector::Kind::Oauth2(endpoints(&provider))),
            ..login::connector(&client, &provider.system, connector).await
        };
        let connector = steps::connector(&client, connector).await.id;
        let mut connection =
            v1::Connection { redirect_uris: vec![BACK.to_owned()], ..provider.connection(name, &connector) };
        change(&provider, &mut connection);
        let request = v1::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
        let connection =
            client.connections().create_connection(request).await.unwrap().into_inner().connection.unwrap();
        World { provider, client, connection }
    }

    pub(crate) fn request(&self, user_id: &str) -> v1::StartAuthorizationRequest {
        let (connection, user_id) = (self.connection.id.clone(), user_id.to_owned());
        v1::StartAuthorizationRequest { connection, user_id, ..Default::default() }
    }

    pub(crate) async fn start(&self, request: v1::StartAuthorizationRequest) -> (v1::AuthorizationSession, String) {
        let started = self.client.connections().start_authorization(request).await.unwrap().into_inner();
        (started.authorization.unwrap(), started.authorization_url)
    }

    /// Starts a session for a user, who decides.
    pub(crate) async fn visited(&self, user_id: &str) -> (v1::AuthorizationSession, Brought) {
        let (session, url) = self.start(self.request(user_id)).await;
        (session, self.provider.visit(&url).await)
    }

    /// Authorises a user.
    pub(crate) async fn authorized(&self, user_id: &str) -> v1::AuthorizationSession {
        let brought = self.visited(user_id).await.1;
        let session = complete(&self.client, brought.completion(user_id)).await.unwrap();
        assert_eq!(session.state(), v1::AuthorizationState::Completed, "{session:?}");
        session
    }

    /// Authorises the user of a credential again, as far as the provider lets it happen.
    pub(crate) async fn again(&self, credential: &v1::Credential) -> v1::AuthorizationSession {
        self.again_with(credential, false).await
    }

    /// The same, perhaps with another account.
    pub(crate) async fn again_with(
        &self,
        credential: &v1::Credential,
        allow_account_change: bool,
    ) -> v1::AuthorizationSession {
        let request = v1::StartAuthorizationRequest {
            credential: credential.id.clone(),
            allow_account_change,
            ..self.request(&credential.user_id)
        };
        let brought = self.provider.visit(&self.start(request).await.1).await;
        complete(&self.client, brought.completion(&credential.user_id)).await.unwrap()
    }
}

pub(crate) async fn complete(
    client: &Client,
    request: v1::CompleteAuthorizationRequest,
) -> Result<v1::AuthorizationSession, Status> {
    let completed = client.connections().complete_authorization(request).await?;
    Ok(completed.into_inner().authorization.expect("a session"))
}

pub(crate) async fn get(client: &Client, id: &str) -> Result<v1::AuthorizationSession, Status> {
    let request = v1::GetAuthorizationRequest { reference: id.to_owned() };
    Ok(client.connections().get_authorization(request).await?.into_inner().authorization.expect("a session"))
}

async fn issue(client: &Client, credential: &str) -> v1::IssueAccessTokenResponse {
    let request = v1::IssueAccessTokenRequest { reference: credential.to_owned(), ..Default::default() };
    client.credentials().issue_access_token(request).await.unwrap().into_inner()
}

fn tokens(material: v1::CredentialMaterial) -> v1::OAuth2Material {
    match material.material {
        Some(v1::credential_material::Material::Oauth2(tokens)) => tokens,
        other => panic!("{other:?}"),
    }
}

on_both! {
    async fn a_user_authorises_once_and_a_token_is_issued(server) {
        let world = World::new(&server).await;
        let (session, url) = world.start(world.request("ada")).await;
        assert_eq!(session.state(), v1::AuthorizationState::Started);
        assert_eq!((&*session.redirect_uri, &*session.return_uri, &*session.principal), (BACK, "", "alpha"));
        assert_eq!(session.completion_mode(), v1::CompletionMode::Confirmed);
        assert_eq!(session.scopes, ["read", "write"]);
        let asked = query_of(&url);
        for (name, value) in [("response_type", "code"), ("client_id", "c1"), ("code_challenge_method", "S256")] {
            assert_eq!(asked[name], value, "{url}");
        }
        assert!(asked["state"].len() >= 43 && asked["code_challenge"].len() == 43 && !asked.contains_key("nonce"));

        let request = v1::WatchAuthorizationRequest { reference: session.id.clone() };
        let mut watching = world.client.connections().watch_authorization(request).await.unwrap().into_inner();
        let first = watching.next().await.unwrap().unwrap().authorization.unwrap();
        assert_eq!(first, session);
        let brought = world.provider.visit(&url).await;
        assert_eq!(get(&world.client, &session.id).await.unwrap(), session, "nothing happens before the application calls");
        let completed = complete(&world.client, brought.completion("ada")).await.unwrap();
        assert_eq!(completed.state(), v1::AuthorizationState::Completed, "{completed:?}");
        assert_eq!(completed.granted_scopes, ["read", "write"]);
        assert_eq!(get(&world.client, &session.id).await.unwrap(), completed);
        let mut last = first;
        while let Some(next) = watching.next().await {
            last = next.unwrap().authorization.unwrap();
        }
        assert_eq!(last, completed, "the stream ends with the last state");

        let credential = steps::credential_now(&world.client, &completed.credential).await;
        assert_eq!((&*credential.user_id, &*credential.connection), ("ada", &*world.connection.id));
        assert_eq!(credential.state(), v1::CredentialState::Valid);
        assert!(credential.is_default() && credential.refreshable);
        let issued = issue(&world.client, &credential.id).await;
        assert_eq!((&*issued.token_type, issued.scopes.len()), ("Bearer", 2));
        assert!(issued.expire_time.is_some());
        assert!(!tokens(steps::revealed(&world.client, &credential.id).await).refresh_token.is_empty());
        let redeemed = world.provider.redeemed();
        assert_eq!(redeemed.len(), 1, "a code is sent once");
        assert!(redeemed[0].contains("grant_type=authorization_code") && redeemed[0].contains("code_verifier="));
    }

    async fn a_watch_ends_when_the_server_stops(backend: Backend) {
        let mut server =
            TestServer::start_with(backend, |config| config.drain.grace = Duration::from_secs(120)).await;
        let world = World::new(&server).await;
        let (session, _) = world.start(world.request("ada")).await;
        let watch = async |deadline: Option<Duration>| {
            let mut request = tonic::Request::new(v1::WatchAuthorizationRequest { reference: session.id.clone() });
            deadline.into_iter().for_each(|deadline| request.set_timeout(deadline));
            let mut watching = world.client.connections().watch_authorization(request).await.unwrap().into_inner();
            assert_eq!(watching.next().await.unwrap().unwrap().authorization.unwrap(), session);
            watching
        };
        let watching = [watch(None).await, watch(Some(Duration::from_secs(600))).await];
        let stopped = tokio::time::timeout(Duration::from_secs(60), server.stop()).await;
        assert!(stopped.expect("it does not wait for the session"));
        for mut watching in watching {
            let ended = watching.next().await.unwrap().map(tonic::Response::new);
            expect_status(ended, Code::Unavailable, "SERVER_UNAVAILABLE");
            assert!(watching.next().await.is_none());
        }
    }

    async fn a_credential_is_authorised_again_in_place(server) {
        let world = World::new(&server).await;
        let credential = world.authorized("ada").await.credential;
        let configuration = fixture::a_configuration(&credential, "Team A");
        let configuration = steps::configuration(&world.client, configuration).await;
        let before = steps::credential_now(&world.client, &credential).await;
        let old = tokens(steps::revealed(&world.client, &credential).await);
        let again = world.again(&before).await;
        assert_eq!((again.state(), &again.credential), (v1::AuthorizationState::Completed, &credential));
        let after = steps::credential_now(&world.client, &credential).await;
        assert!(after.etag != before.etag && after.default_configuration == before.default_configuration);
        let new = tokens(steps::revealed(&world.client, &credential).await);
        assert!(new.access_token != old.access_token && new.refresh_token != old.refresh_token);
        assert_eq!(issue(&world.client, &credential).await.access_token, new.access_token);
        let request = v1::GetConfigurationRequest { reference: configuration.id.clone(), credential };
        let kept = world.client.configurations().get_configuration(request).await.unwrap().into_inner();
        assert_eq!(kept.configuration.unwrap(), configuration);

        // The refresh token before belongs to another grant, perhaps of another account.
        world.provider.reply(Some(jackfield_testkit::Reply::new(200, r#"{"access_token": "alone"}"#)));
        let now = steps::credential_now(&world.client, &before.id).await;
        assert_eq!(world.again(&now).await.state(), v1::AuthorizationState::Completed);
        let alone = tokens(steps::revealed(&world.client, &before.id).await);
        assert_eq!((&*alone.access_token, &*alone.refresh_token, &*alone.id_token), ("alone", "", ""));
        assert!(!steps::credential_now(&world.client, &before.id).await.refreshable);
        world.provider.reply(None);

        // Without naming it, another credential is made, and the default stays.
        let other = world.authorized("ada").await.credential;
        assert_ne!(other, before.id);
        assert!(!steps::credential_now(&world.client, &other).await.is_default());
    }

    async fn a_nonce_belongs_to_openid(server) {
        let world = World::with(&server, |connection| connection.scope = Some("openid read".to_owned())).await;
        let url = world.start(world.request("ada")).await.1;
        assert_eq!(query_of(&url)["nonce"].len(), 43, "{url}");
    }

    async fn another_secret_is_tried_only_if_the_client_is_refused(server) {
        let wrong = v1::ClientSecret { secret_id: "old".to_owned(), value: "wrong".to_owned(), ..Default::default() };
        let world = World::with(&server, |connection| connection.client_secrets.insert(0, wrong)).await;
        world.authorized("ada").await;
        assert_eq!(world.provider.redeemed().len(), 2);
        world.provider.reply(Some(jackfield_testkit::Reply::new(500, "{\"error\": \"invalid_client\"}")));
        let brought = world.visited("ada").await.1;
        let failed = complete(&world.client, brought.completion("ada")).await.unwrap();
        assert_eq!(failed.state(), v1::AuthorizationState::Failed);
        assert_eq!(world.provider.redeemed().len(), 3, "the code may be spent");
    }

    async fn a_client_can_authenticate_in_the_body_or_not_at_all(server) {
        let world = World::with(&server, |connection| {
            connection.client_authentication = v1::ClientAuthentication::ClientSecretPost.into();
            connection.token_parameters = fixture::strings([("audience", "https://api.example")]);
        })
        .await;
        world.authorized("ada").await;
        let redeemed = world.provider.redeemed();
        assert!(redeemed[0].contains("client_secret=") && redeemed[0].contains("audience="), "{redeemed:?}");
        let update = v1::Connection {
            client_authentication: v1::ClientAuthentication::None.into(),
            ..Default::default()
        };
        let request = v1::UpdateConnectionRequest {
            reference: world.connection.id.clone(),
            connection: Some(update),
            update_mask: fixture::mask(["client_authentication"]),
            ..Default::default()
        };
        world.client.connections().update_connection(request).await.unwrap();
        let brought = world.visited("ada").await.1;
        let refused = complete(&world.client, brought.completion("ada")).await.unwrap();
        assert_eq!(refused.failure(), v1::AuthorizationFailure::ClientRefused, "the server knows no public client");
        assert!(!world.provider.redeemed()[1].contains("client_secret"));
    }
}
