//! Log-ins, sessions and routes of the programs, and the system that checks the passwords.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jackfield_api::v1;
use jackfield_testkit::pki::Leaf;
use jackfield_testkit::{Config, Identity, Received, Reply, System, fixture};
use serde_json::{Value, json};

use super::program::{CHOSEN, EXTERNAL, Player, REQUESTS, unknown};
use super::wire::{Outcome, Wire};

/// A system that all tenants use. It tells them apart by their client certificates.
pub(super) struct LoginSystem {
    system: System,
    leaves: BTreeMap<String, Leaf>,
}

/// The way of a tenant to the system.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) url: String,
    authority_pem: String,
    leaf: Leaf,
}

/// Login ids of users that the system knows, each with its UUID there. The second is also one of users of UserService.
pub(super) const LOGINS: [(&str, &str); 2] =
    [("ada", "11111111-1111-4111-8111-111111111111"), ("ada@example.com", "22222222-2222-4222-8222-222222222222")];
pub(super) const PASSWORD: &str = "correct horse battery staple";

/// The limit of attempts in all programs: so few that it is reached. Those of a login id and an address have delays, whose end depends
/// on the time.
const ATTEMPTS: u32 = 2;
/// The address of end users.
const SOURCE: &str = "192.0.2.1";
/// The time in which an event has to be written.
const EVENT_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) fn limit_attempts(config: &mut Config) {
    config.login.attempts_per_user_and_source = 0;
    config.login.attempts_per_user = ATTEMPTS;
    config.login.attempts_per_source = ATTEMPTS;
}

// === impl LoginSystem ===

impl LoginSystem {
    /// Starts a system for the tenants of these principals.
    pub(super) async fn start(principals: impl IntoIterator<Item = String>) -> Self {
        let system = System::start(checked).await;
        let leaf = |name: String| {
            let leaf = system.pki().client(Identity::of(&name));
            (name, leaf)
        };
        let leaves = principals.into_iter().map(leaf).collect();
        LoginSystem { system, leaves }
    }

    pub(super) fn access(&self, principal: &str) -> Access {
        let (url, authority_pem) = (self.system.url("/login"), self.system.pki().ca_pem());
        Access { url, authority_pem, leaf: self.leaves[principal].clone() }
    }
}

/// The response to a log-in. Data of the user show whose certificate was presented.
fn checked(request: &Received) -> Reply {
    let login: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let known = LOGINS.into_iter().find(|(login_id, _)| login["loginId"] == *login_id);
    match known {
        Some((login_id, id)) if login["password"] == PASSWORD => {
            // The end of its signature.
            let certificate = format!("{:?}", &request.certificate[request.certificate.len() - 8..]);
            let user = json!({ "id": id, "username": login_id, "data": { "certificate": certificate } });
            Reply::new(200, json!({ "user": user }).to_string())
        }
        _ => Reply::new(404, ""),
    }
}

// === impl Player ===

impl Player {
    /// Creates a connector to the system and an application that uses it. The keys of the connector are the first ones.
    pub(super) async fn prepare(&mut self, wire: &Wire) {
        let import = |name: &str, certificate_pem: &str, private_key_pem: &str| v1::ImportKeyRequest {
            key: Some(v1::Key {
                name: name.to_owned(),
                certificate_pem: certificate_pem.to_owned(),
                ..Default::default()
            }),
            private_key_pem: private_key_pem.to_owned(),
            ..Default::default()
        };
        let Access { authority_pem, leaf, .. } = self.access.clone();
        for key in [import("Identity", &leaf.certificate_pem, &leaf.key_pem), import("Authority", &authority_pem, "")] {
            let outcome = wire.call(&self.client, "ImportKey", &key).await;
            self.record("ImportKey", &outcome, [0; 5]);
        }
        let (connector, request_id) = (Some(self.connector("Directory")), String::new());
        let request = v1::CreateConnectorRequest { connector, request_id, ..Default::default() };
        let outcome = wire.call(&self.client, "CreateConnector", &request).await;
        self.record("CreateConnector", &outcome, [0; 5]);
        let connector = Some("name:Directory".to_owned());
        let application = Some(v1::Application { connector, ..fixture::an_application("Directory") });
        let request = v1::CreateApplicationRequest { application, ..Default::default() };
        let outcome = wire.call(&self.client, "CreateApplication", &request).await;
        self.record("CreateApplication", &outcome, [0; 5]);
    }

    /// A connector to the system. All connectors debug.
    pub(super) fn connector(&self, name: &str) -> v1::Connector {
        let key = |at: usize| self.nth("key", at);
        let generic = v1::GenericConnector { authentication_url: self.access.url.clone(), ..Default::default() };
        v1::Connector {
            kind: Some(v1::connector::Kind::Generic(generic)),
            client_identity_key: key(0),
            trust_bundle_key: key(1),
            debug: Some(true),
            ..fixture::a_connector(name)
        }
    }

    /// Makes a call about log-ins, sessions or routes.
    pub(super) async fn log_in(
        &self,
        wire: &Wire,
        method: &str,
        [a, b, c, d, e]: [usize; 5],
        other: &Player,
    ) -> Outcome {
        let client = &self.client;
        let login_id = || LOGINS[a % LOGINS.len()].0.to_owned();
        let password = || if b % 3 == 0 { "battery staple".to_owned() } else { PASSWORD.to_owned() };
        let event_info =
            (b % 2 == 0).then(|| v1::LoginEventInfo { ip_address: SOURCE.to_owned(), ..Default::default() });
        // As in other calls, a repeated request names nothing of the other.
        let request_id = || if d % 6 == 0 { REQUESTS[d / 6 % REQUESTS.len()].to_owned() } else { String::new() };
        let validate_only = d % 7 == 0;
        let own_only = |number: usize| if d % 6 == 0 { number - number % 10 + number % 10 % 8 } else { number };
        let pick = |kind, number| self.pick(kind, own_only(number), other);
        match method {
            "AuthenticateUser" => {
                let request = v1::AuthenticateUserRequest {
                    connector: if c % 3 == 0 { String::new() } else { self.pick("connector", e, other) },
                    login_id: login_id(),
                    password: password(),
                    application_id: EXTERNAL[d % EXTERNAL.len()].to_owned(),
                    event_info,
                    ..Default::default()
                };
                let outcome = wire.call(client, method, &request).await;
                if outcome.answered
                    && (!request.connector.is_empty() || self.routed_was_asked(wire, &outcome, &request.login_id).await)
                {
                    self.await_event(wire).await;
                }
                outcome
            }
            "TestConnector" => {
                let definition = if c % 3 == 0 {
                    let client_identity_key = Some(self.pick("key", d, other));
                    let connector = v1::Connector { client_identity_key, ..self.connector("tested") };
                    v1::test_connector_request::Definition::Connector(connector)
                } else {
                    v1::test_connector_request::Definition::Reference(self.pick("connector", e, other))
                };
                let (login_id, password) =
                    if c % 2 == 0 { (login_id(), password()) } else { (String::new(), String::new()) };
                let request = v1::TestConnectorRequest { definition: Some(definition), login_id, password };
                wire.call(client, method, &request).await
            }
            "AuthenticateApplicationUser" => {
                let request = v1::AuthenticateApplicationUserRequest {
                    application: self.pick("application", e, other),
                    username: login_id(),
                    password: password(),
                    event_info,
                };
                let outcome = wire.call(client, method, &request).await;
                if outcome.answered && self.application_has_connector(wire, &request.application).await {
                    self.await_event(wire).await;
                }
                outcome
            }
            "GetSessionUser" => {
                let (application, session_token) = self.session(b, c, e, other);
                wire.call(client, method, &v1::GetSessionUserRequest { application, session_token }).await
            }
            "GetSessionPermissions" => {
                let (application, session_token) = self.session(b, c, e, other);
                wire.call(client, method, &v1::GetSessionPermissionsRequest { application, session_token }).await
            }
            "EndSession" => {
                let mut request =
                    v1::EndSessionRequest { request_id: request_id(), validate_only, ..Default::default() };
                if a % 2 == 0 {
                    request.id = pick("session", c);
                } else {
                    (request.application, request.session_token) = self.session(own_only(b), c, own_only(e), other);
                }
                wire.call(client, method, &request).await
            }
            "GetRoutingPolicy" => wire.call(client, method, &v1::GetRoutingPolicyRequest {}).await,
            "ReplaceRoutingPolicy" => {
                let rule = |domain: &str, target| v1::RoutingRule {
                    email_domains: vec![domain.to_owned()],
                    target: Some(target),
                };
                // At most one connector is asked.
                let mut rules = vec![rule("*", v1::routing_rule::Target::Connector(pick("connector", e)))];
                if b % 3 == 0 {
                    rules.insert(0, rule("example.com", v1::routing_rule::Target::Connection(pick("connection", c))));
                }
                let routing_policy = Some(v1::RoutingPolicy { rules, ..Default::default() });
                let (request_id, etag) = (request_id(), String::new());
                let request = v1::ReplaceRoutingPolicyRequest { routing_policy, etag, request_id, validate_only };
                wire.call(client, method, &request).await
            }
            "ResolveRoute" => wire.call(client, method, &v1::ResolveRouteRequest { login_id: login_id() }).await,
            "UnpinUser" => {
                let (login_id, request_id) = (login_id(), request_id());
                wire.call(client, method, &v1::UnpinUserRequest { login_id, request_id, validate_only }).await
            }
            _ => panic!("{method} is not a method of the programs"),
        }
    }

    /// An application and a token: mostly of a session of its own, otherwise of one of the other, or a token that is unknown.
    fn session(&self, number: usize, at: usize, application: usize, other: &Player) -> (String, String) {
        let of = |player: &Player| player.sessions.get(at % player.sessions.len().max(1)).cloned();
        let pick = || self.pick("application", application, other);
        // An application with a chosen id may be one of its own.
        let theirs = of(other).filter(|(application, _)| !CHOSEN.contains(&application.as_str()));
        let unknown_token = || "a".repeat(43);
        match (number % 10, of(self), theirs) {
            (0..=6, Some((own, token)), _) if !application.is_multiple_of(4) => (own, token),
            (0..=6, Some((_, token)), _) | (8, _, Some((_, token))) => (pick(), token),
            (9, _, theirs) => theirs.unwrap_or_else(|| (unknown(), unknown_token())),
            _ => (pick(), unknown_token()),
        }
    }

    /// Returns whether a log-in that followed the routing policy was checked by a connector.
    async fn routed_was_asked(&self, wire: &Wire, outcome: &Outcome, login_id: &str) -> bool {
        if outcome.value[0]["outcome"] != "LOGIN_OUTCOME_UPSTREAM_FAULT" {
            return true;
        }
        let request = v1::ResolveRouteRequest { login_id: login_id.to_owned() };
        let routes = wire.call(&self.client, "ResolveRoute", &request).await;
        let reference = routes.value[0]["routes"][0]["connector"].as_str().unwrap_or_default().to_owned();
        let request = v1::GetConnectorRequest { reference };
        let connector = wire.call(&self.client, "GetConnector", &request).await;
        connector.value[0]["connector"]["enabled"] == true
    }

    async fn application_has_connector(&self, wire: &Wire, reference: &str) -> bool {
        let request = v1::GetApplicationRequest { reference: reference.to_owned() };
        let application = wire.call(&self.client, "GetApplication", &request).await;
        application.value[0]["application"]["connector"].is_string()
    }

    /// Waits until there is an event that was not there before.
    async fn await_event(&self, wire: &Wire) {
        let start = Instant::now();
        while self.new_events(wire).await.is_empty() {
            assert!(start.elapsed() < EVENT_TIMEOUT, "a log-in has no event");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The ids of its events since the newest that it knows, in their order.
    pub(super) async fn new_events(&self, wire: &Wire) -> Vec<String> {
        let (order_by, limit) = ("id desc".to_owned(), 3);
        let request = v1::ListConnectorEventsRequest { order_by, limit, ..Default::default() };
        let listed = wire.call(&self.client, "ListConnectorEvents", &request).await;
        assert!(listed.answered, "{listed:?}");
        let pages = listed.value.as_array().into_iter().flatten();
        let events = pages.flat_map(|page| page["connectorEvents"].as_array().into_iter().flatten());
        let mut ids: Vec<_> = events.filter_map(|event| event["id"].as_str()).map(str::to_owned).collect();
        ids.retain(|id| *id > self.newest_event);
        ids.sort();
        ids
    }
}
