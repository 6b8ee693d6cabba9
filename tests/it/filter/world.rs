//! The test data of the filters: some items of every kind, each with a handle.

use std::collections::HashMap;

use jackfield_api::v1;
use jackfield_domain::connector::{Cause, ConnectorEvent, EventOperation, EventOutcome};
use jackfield_testkit::{Ask, Client, Identity, List, TestServer, fixture};

use crate::steps;

/// Items with handles in the tenant alpha, and tenants.
pub(super) struct World {
    alpha: Client,
    operator: Client,
    /// The handles by id.
    handles: HashMap<String, String>,
}

impl World {
    pub(super) async fn create(server: &TestServer) -> Self {
        let mut world =
            World { alpha: server.client("alpha"), operator: server.client("operator"), handles: HashMap::new() };
        world.keys(server).await;
        world.connectors().await;
        world.connections().await;
        world.links_and_credentials().await;
        world.users().await;
        world.applications(server).await;
        world.events(server).await;
        world.tenants().await;
        world
    }

    /// The caller who can see this list.
    pub(super) fn client(&self, list: List) -> &Client {
        if list == List::Tenants { &self.operator } else { &self.alpha }
    }

    /// The id of an item.
    pub(super) fn id(&self, handle: &str) -> &str {
        self.handles.iter().find(|(_, known)| *known == handle).map(|(id, _)| id.as_str()).unwrap()
    }

    /// The ids of some items.
    pub(super) fn ids(&self) -> Vec<String> {
        ["bundle", "gmail", "saml", "valid", "bob giants"].iter().map(|handle| self.id(handle).to_owned()).collect()
    }

    /// Checks the matches of filters.
    pub(super) async fn check(&self, list: List, table: &[(&str, &[&str])]) {
        for (filter, expected) in table {
            self.check_one(list, filter, expected).await;
        }
    }

    pub(super) async fn check_one(&self, list: List, filter: &str, expected: &[&str]) {
        let rows = list.rows(self.client(list), &Ask::filter(filter)).await;
        let rows = rows.unwrap_or_else(|status| panic!("{list:?} {filter}: {status:?}"));
        let mut found: Vec<_> = rows.iter().map(|row| self.handles[&row.id].as_str()).collect();
        let mut expected = expected.to_vec();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{list:?}: {filter}");
    }

    fn named(&mut self, handle: &str, id: &str) {
        assert!(self.handles.insert(id.to_owned(), handle.to_owned()).is_none());
    }

    async fn keys(&mut self, server: &TestServer) {
        let leaf = server.pki().client(Identity::of("anyone"));
        for (handle, name, certificate_pem, private_key_pem, labels) in [
            ("bundle", "Bundle of Ärzte", server.pki().ca_pem(), String::new(), fixture::strings([("env", "prod")])),
            ("identity", "identity", leaf.certificate_pem, leaf.key_pem, [].into()),
        ] {
            let key = v1::Key { name: name.to_owned(), certificate_pem, labels, ..Default::default() };
            let request = v1::ImportKeyRequest { key: Some(key), private_key_pem, ..Default::default() };
            let key = self.alpha.keys().import_key(request).await.unwrap().into_inner().key.unwrap();
            self.named(handle, &key.id);
        }
    }

    async fn connectors(&mut self) {
        use v1::connector::Kind;
        let generic = v1::GenericConnector {
            authentication_url: "https://Mail.example.com/login".to_owned(),
            http_authentication_username: Some("Postmaster".to_owned()),
            ..Default::default()
        };
        let license = v1::LicenseConnector {
            base_url: "https://licence.example.com/v1".to_owned(),
            application_id: "gallery".to_owned(),
        };
        let oauth2 = v1::OAuth2Connector {
            authorization_url: Some("https://Sso.example.net/authorize".to_owned()),
            jwks_url: Some("https://sso.example.net/certs".to_owned()),
            ..Default::default()
        };
        let api_key = v1::ApiKeyConnector { query_parameter: Some("Api_Token".to_owned()), ..Default::default() };
        let description = |text: &str| v1::Connector { description: Some(text.to_owned()), ..Default::default() };

        for (handle, name, kind, rest) in [
            (
                "gmail",
                "Gmail",
                Kind::Generic(generic),
                v1::Connector {
                    labels: fixture::strings([("env", "prod"), ("owner", "team-a")]),
                    trust_bundle_key: Some("name:Bundle of Ärzte".to_owned()),
                    ..description("Reads MAIL of the Ärzte")
                },
            ),
            (
                "giants",
                "New York Giants",
                Kind::Oauth2(oauth2),
                v1::Connector {
                    labels: fixture::strings([("env", "dev"), ("a.b/c", "x")]),
                    enabled: Some(false),
                    ..Default::default()
                },
            ),
            ("percent", "100% sure_thing", Kind::ApiKey(v1::ApiKeyConnector::default()), description("back\\slash")),
            ("decoy", "100x sureXthing", Kind::ApiKey(api_key), Default::default()),
            (
                "quotes",
                "O'Brien \"the\" quote",
                fixture::a_connector("").kind.unwrap(),
                v1::Connector {
                    debug: Some(true),
                    headers: fixture::strings([("X-Region", "Europe")]),
                    secret_headers: fixture::strings([("X-Hush", "whisper")]),
                    ..description("a*b (c)")
                },
            ),
            (
                "street",
                "Große Straße",
                Kind::License(license),
                v1::Connector { labels: fixture::strings([("env", "Prod2")]), ..Default::default() },
            ),
        ] {
            let connector = v1::Connector { name: name.to_owned(), kind: Some(kind), ..rest };
            let connector = steps::connector(&self.alpha, connector).await;
            self.named(handle, &connector.id);
        }
    }

    async fn connections(&mut self) {
        for (handle, connection) in [
            (
                "saml",
                v1::Connection {
                    r#type: v1::ConnectionType::Saml2.into(),
                    external_id: Some("Ext-1".to_owned()),
                    client_id: Some("Client-X".to_owned()),
                    issuer_url: Some("urn:saml:Issuer".to_owned()),
                    active: Some(false),
                    user_data_location: Some("CH".to_owned()),
                    redirect_uris: vec!["https://App.example.org/Callback".to_owned()],
                    provider_tenant_id: Some("ÉCOLE".to_owned()),
                    parameters: [].into(),
                    tags: fixture::strings([("team", "Blue")]),
                    client_secrets: vec![],
                    ..fixture::a_connection("saml", "name:Gmail")
                },
            ),
            (
                "plain",
                v1::Connection {
                    client_id: Some("client-x".to_owned()),
                    ..fixture::a_connection("plain", "name:New York Giants")
                },
            ),
        ] {
            let request = v1::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
            let answer = self.alpha.connections().create_connection(request).await.unwrap().into_inner();
            self.named(handle, &answer.connection.unwrap().id);
        }
    }

    async fn links_and_credentials(&mut self) {
        for (user, handle) in
            [("ada", "gmail"), ("ada", "percent"), ("Évé", "quotes"), ("bob", "giants"), ("zoe", "gmail")]
        {
            let connector = self.id(handle).to_owned();
            let link = steps::link(&self.alpha, user, &connector).await;
            self.named(&format!("{} {handle}", user.to_lowercase()), &link.id);
        }
        let facts = |user: &str, connector: &str| fixture::a_credential(user, self.id(connector));
        let oauth2 = |expires_in: Option<i64>, refresh_token: &str| {
            let access_token = expires_in.map(|_| "access").unwrap_or_default();
            let mut material = fixture::oauth2_material(access_token, refresh_token);
            if let Some(v1::credential_material::Material::Oauth2(oauth2)) = &mut material.material {
                oauth2.expire_time = expires_in.map(fixture::seconds_from_now);
            }
            material
        };
        let credentials = [
            (
                "valid",
                v1::Credential {
                    external_id: Some("Cred-É1".to_owned()),
                    provider_account_id: Some("Account ÄÖ".to_owned()),
                    connection: self.id("saml").to_owned(),
                    ..facts("ada", "gmail")
                },
                oauth2(Some(3_600), "refresh"),
            ),
            ("expired", facts("ada", "percent"), oauth2(Some(-3_600), "")),
            ("stale", facts("Évé", "quotes"), oauth2(None, "")),
            (
                "key",
                v1::Credential { labels: fixture::strings([("env", "prod"), ("tier", "1")]), ..facts("bob", "giants") },
                fixture::api_key_material("key"),
            ),
        ];
        for (handle, facts, material) in credentials {
            let credential = steps::credential(&self.alpha, facts, material).await;
            self.named(handle, &credential.id);
            self.named(&format!("of {handle}"), &credential.default_configuration);
        }
        let team = fixture::a_configuration(self.id("valid"), "Team A");
        let team = steps::configuration(&self.alpha, team).await;
        self.named("team", &team.id);
    }

    async fn users(&mut self) {
        let registrations =
            vec![v1::UserRegistration { application_id: "shop".to_owned(), roles: vec!["buyer".to_owned()] }];
        let ann = v1::User {
            user_id: "Platform-É1".to_owned(),
            email: Some("Ann@Example.com".to_owned()),
            phone_number: Some("+49 170 1234567".to_owned()),
            first_name: Some("Ann".to_owned()),
            last_name: Some("Émile".to_owned()),
            registrations,
            labels: fixture::strings([("env", "prod")]),
            ..fixture::a_user("Änn")
        };
        let bob = v1::User { enabled: Some(false), username: Some("bob%".to_owned()), ..Default::default() };
        for (handle, user) in [("ann", ann), ("bob", bob)] {
            let id = steps::user(&self.alpha, user).await.id;
            self.named(handle, &id);
        }
    }

    async fn applications(&mut self, server: &TestServer) {
        for (handle, application) in [
            (
                "gallery",
                v1::Application {
                    external_id: Some("App-É1".to_owned()),
                    connector: Some("name:Gmail".to_owned()),
                    labels: fixture::strings([("env", "prod")]),
                    ..fixture::an_application("Gallery of Ärzte")
                },
            ),
            ("vault", v1::Application { enabled: Some(false), ..fixture::an_application("Vault") }),
        ] {
            let application = steps::application(&self.alpha, application).await;
            self.named(handle, &application.id);
        }
        for (handle, application, company_id, company_name, user_id) in [
            ("ada at acme", "gallery", "Acme-1", "Acme Größe", "ada"),
            ("ada at initech", "gallery", "initech", "", "ada"),
            ("évé at acme", "vault", "Acme-1", "", "Évé"),
        ] {
            let request = v1::SetPermissionsRequest {
                application: self.id(application).to_owned(),
                company_id: company_id.to_owned(),
                company_name: company_name.to_owned(),
                user_id: user_id.to_owned(),
                permissions: vec!["use_app".to_owned()],
                ..Default::default()
            };
            let answer = self.alpha.applications().set_permissions(request).await.unwrap().into_inner();
            self.named(handle, &answer.grant.unwrap().id);
        }
        for (handle, application, user_id) in [("ada in gallery", "gallery", "ada"), ("évé in vault", "vault", "Évé")]
        {
            let application = self.id(application).to_owned();
            steps::session(server, "alpha", &application, user_id).await;
            let of_user = Ask { application, user_id: user_id.to_owned(), ..Ask::default() };
            let rows = List::Sessions.rows(&self.alpha, &of_user).await.unwrap();
            self.named(handle, &rows[0].id);
        }
    }

    async fn events(&mut self, server: &TestServer) {
        let gallery = ConnectorEvent { application_id: "Gallery-1".to_owned(), ..steps::an_event(self.id("gmail")) };
        let fault = ConnectorEvent {
            operation: EventOperation::AuthenticateApplicationUser,
            outcome: EventOutcome::UpstreamFault,
            reason: "STATUS_UNEXPECTED".to_owned(),
            cause: Cause::of(&std::io::Error::other("Größe")),
            http_status: Some(500),
            login_id: "Évé".to_owned(),
            ..steps::an_event(self.id("street"))
        };
        let unanswered = ConnectorEvent {
            outcome: EventOutcome::Accepted,
            reason: "PASSWORD_RIGHT".to_owned(),
            http_status: None,
            login_id: "bob".to_owned(),
            ..steps::an_event(self.id("street"))
        };
        for (handle, event) in [("ada unknown", gallery), ("fault of évé", fault), ("bob accepted", unanswered)] {
            self.named(handle, &event.id.to_string());
            steps::event(server, "alpha", event).await;
        }
    }

    async fn tenants(&mut self) {
        let tenant = v1::Tenant { display_name: "Ümlaut & Co".to_owned(), ..fixture::a_tenant("beta-2") };
        let request = v1::CreateTenantRequest { tenant: Some(tenant), ..Default::default() };
        self.operator.admin().create_tenant(request).await.unwrap();
        for name in ["default", "alpha", "beta", "beta-2"] {
            let request = v1::GetTenantRequest { reference: format!("name:{name}") };
            let tenant = self.operator.admin().get_tenant(request).await.unwrap().into_inner().tenant.unwrap();
            self.named(name, &tenant.id);
        }
    }
}
