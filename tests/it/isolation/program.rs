//! Random programs of a tenant's calls, with so few names, ids and users that everything collides.

use std::collections::{BTreeMap, BTreeSet};

use jackfield_testkit::Client;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;
use uuid::Uuid;

use super::logins::Access;
use super::wire::{Names, Outcome, Wire};

/// The player whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Alpha,
    Beta,
}

/// One call. The numbers choose among the existing resources.
#[derive(Clone)]
pub(super) struct Op {
    method: usize,
    numbers: [usize; 5],
}

/// A tenant in action.
pub(super) struct Player {
    pub(super) client: Client,
    /// A certificate as PEM.
    pub(super) bundle: String,
    /// The ids that the server has returned, by kind.
    ids: BTreeMap<&'static str, Vec<String>>,
    /// The page tokens that the server has returned, with their lists and questions.
    tokens: Vec<(usize, usize, String)>,
    /// The way to the system that checks log-ins.
    pub(super) access: Access,
    /// Its sessions: application and token.
    pub(super) sessions: Vec<(String, String)>,
    /// The states of its authorisations.
    pub(super) states: Vec<String>,
    /// The id of the newest event that it knows.
    pub(super) newest_event: String,
    names: Names,
    pub(super) transcript: Vec<Value>,
    pub(super) answered: usize,
}

/// Methods, listed more often the more depends on them.
pub(super) const METHODS: [&str; 100] = [
    "CreateApplication",
    "CreateApplication",
    "GetApplication",
    "UpdateApplication",
    "DeleteApplication",
    "ListApplications",
    "SetPermissions",
    "ListPermissions",
    "AuthenticateApplicationUser",
    "AuthenticateApplicationUser",
    "AuthenticateApplicationUser",
    "GetSessionUser",
    "GetSessionUser",
    "GetSessionPermissions",
    "GetSessionPermissions",
    "EndSession",
    "ListSessions",
    "ListSessions",
    "ImportKey",
    "GenerateKey",
    "UpdateKey",
    "RotateKey",
    "GetKey",
    "DeleteKey",
    "ListKeys",
    "CreateConnector",
    "CreateConnector",
    "CreateConnector",
    "GetConnector",
    "UpdateConnector",
    "PatchConnector",
    "DeleteConnector",
    "ListConnectors",
    "ListConnectors",
    "ListConnectorEvents",
    "ListConnectorEvents",
    "AuthenticateUser",
    "AuthenticateUser",
    "TestConnector",
    "GetRoutingPolicy",
    "ReplaceRoutingPolicy",
    "ResolveRoute",
    "UnpinUser",
    "CreateConnection",
    "CreateConnection",
    "GetConnection",
    "UpdateConnection",
    "RotateConnectionSecret",
    "TestConnection",
    "DeleteConnection",
    "ListConnections",
    "StartAuthorization",
    "StartAuthorization",
    "CompleteAuthorization",
    "CompleteAuthorization",
    "GetAuthorization",
    "WatchAuthorization",
    "CancelAuthorization",
    "AddUserConnector",
    "AddUserConnector",
    "AddUserConnector",
    "AddUserConnector",
    "RemoveUserConnector",
    "AuthenticateUserConnector",
    "GetUserConnector",
    "SetCredentialSource",
    "SetCredentialSource",
    "GetCredentialSource",
    "DeleteCredentialSource",
    "ListUserConnectors",
    "ListUserConnectors",
    "CreateCredential",
    "CreateCredential",
    "CreateCredential",
    "CreateCredential",
    "GetCredential",
    "UpdateCredential",
    "DeleteCredential",
    "ListCredentials",
    "IssueAccessToken",
    "GetUserConnectionCredentials",
    "ExplainCredential",
    "RefreshCredential",
    "RevokeCredential",
    "ReportTokenRejected",
    "RevealCredential",
    "CreateConfiguration",
    "CreateConfiguration",
    "GetConfiguration",
    "UpdateConfiguration",
    "DestroyConfiguration",
    "ListConfigurations",
    "ListConfigurations",
    "ListCredentials",
    "CreateUser",
    "CreateUser",
    "GetUser",
    "UpdateUser",
    "DeleteUser",
    "ListUsers",
];

/// The average number of operations of one tenant in a program.
const LENGTH: usize = 32;

pub(super) const NAMES: [&str; 4] = ["Gmail", "gMAIL", "Drive", "Örtlich"];
pub(super) const EXTERNAL: [&str; 3] = ["ext-1", "ext-2", "Ext-1"];
pub(super) const USERS: [&str; 3] = ["ada", "bob", "Ada"];
/// Ids that callers choose: before, among and after those of the server.
pub(super) const CHOSEN: [&str; 3] = [
    "00000000-0000-7000-8000-000000000001",
    "5e5e5e5e-0000-4000-8000-000000000002",
    "ffffffff-0000-7000-8000-000000000003",
];
pub(super) const REQUESTS: [&str; 2] = ["aaaaaaaa-0000-4000-8000-000000000001", "aaaaaaaa-0000-4000-8000-000000000002"];
pub(super) const LISTS: [&str; 11] = [
    "ListKeys",
    "ListConnectors",
    "ListConnections",
    "ListUserConnectors",
    "ListCredentials",
    "ListConfigurations",
    "ListUsers",
    "ListApplications",
    "ListPermissions",
    "ListConnectorEvents",
    "ListSessions",
];

pub(super) fn program() -> impl Strategy<Value = Vec<(Who, Op)>> {
    let who = prop_oneof![Just(Who::Alpha), Just(Who::Beta)];
    let op = (0..METHODS.len(), prop::array::uniform5(0..10_000_usize));
    vec((who, op.prop_map(|(method, numbers)| Op { method, numbers })), 2 * LENGTH)
}

impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", METHODS[self.method], self.numbers)
    }
}

// === impl Player ===

impl Player {
    pub(super) fn new(client: Client, bundle: String, access: Access) -> Self {
        let mut names = Names::default();
        for id in CHOSEN.into_iter().chain(REQUESTS) {
            names.name(id, id[..8].to_owned());
        }
        Player {
            client,
            bundle,
            ids: BTreeMap::new(),
            tokens: Vec::new(),
            access,
            sessions: Vec::new(),
            states: Vec::new(),
            newest_event: String::new(),
            names,
            transcript: Vec::new(),
            answered: 0,
        }
    }

    /// Makes one call and records its answer.
    pub(super) async fn step(&mut self, wire: &Wire, op: &Op, other: &Player) {
        let method = METHODS[op.method];
        let outcome = self.call(wire, method, op.numbers, other).await;
        if outcome.answered && matches!(method, "AuthenticateUser" | "AuthenticateApplicationUser") {
            for event in self.new_events(wire).await {
                self.own("event", &event, true);
                self.newest_event = event;
            }
        }
        self.record(method, &outcome, op.numbers);
    }

    /// Records the answer to a call.
    pub(super) fn record(&mut self, method: &str, outcome: &Outcome, numbers: [usize; 5]) {
        if outcome.answered {
            self.answered += 1;
            self.learn(method, &outcome.value, numbers);
        }
        let line = serde_json::json!({ "method": method, "answer": self.names.even_out(&outcome.value) });
        self.transcript.push(line);
    }

    /// The ids of everything that it can list.
    pub(super) async fn listed_all(&self, wire: &Wire) -> BTreeSet<String> {
        let mut listed = BTreeSet::new();
        for list in LISTS {
            let outcome = wire.call_encoded(&self.client, list, Vec::new()).await;
            assert!(outcome.answered, "{outcome:?}");
            collect_ids(&outcome.value, &mut listed);
        }
        listed
    }

    /// The ids that the server generated for it.
    pub(super) fn made(&self) -> BTreeSet<String> {
        let chosen = |id: &&String| !CHOSEN.contains(&id.as_str());
        self.ids.values().flatten().filter(chosen).cloned().collect()
    }

    /// A reference to something of a kind: mostly its own, sometimes the other's or an unknown one.
    pub(super) fn pick(&self, kind: &'static str, number: usize, other: &Player) -> String {
        let rest = number / 10;
        match number % 10 {
            0..=4 => match self.ids.get(kind) {
                Some(own) => own[rest % own.len()].clone(),
                None => unknown(),
            },
            5 if matches!(kind, "connection" | "credential" | "configuration" | "user" | "application") => {
                format!("ext:{}", EXTERNAL[rest % EXTERNAL.len()])
            }
            5 | 6 if matches!(kind, "key" | "connector" | "connection" | "application") => {
                format!("name:{}", NAMES[rest % NAMES.len()])
            }
            5..=7 => CHOSEN[rest % CHOSEN.len()].to_owned(),
            _ => self.pick_id(rest, other),
        }
    }

    /// The id of a kind that it got as the first, the second and so on.
    pub(super) fn nth(&self, kind: &str, at: usize) -> Option<String> {
        self.ids.get(kind)?.get(at).cloned()
    }

    /// An id of the other, of any kind; an unknown one if the other has none.
    pub(super) fn pick_id(&self, number: usize, other: &Player) -> String {
        let foreign: Vec<_> = other.made().into_iter().collect();
        if foreign.is_empty() { unknown() } else { foreign[number % foreign.len()].clone() }
    }

    /// A page token: mostly none, otherwise one of its own for this question or one of the other, which is invalid.
    pub(super) fn token(&self, list: usize, question: usize, number: usize, other: &Player) -> String {
        let of = |player: &Player| -> Vec<String> {
            let fitting = player.tokens.iter().filter(|(of, asked, _)| (*of, *asked) == (list, question));
            fitting.map(|(_, _, token)| token.clone()).collect()
        };
        let (own, foreign) = (of(self), of(other));
        match number % 4 {
            // The last question contains an id of the other, so without the other it would not be the same question.
            0 if !own.is_empty() && question + 1 < QUESTIONS => own[number / 4 % own.len()].clone(),
            1 => foreign.last().cloned().unwrap_or_else(|| "bm90aGluZw".to_owned()),
            _ => String::new(),
        }
    }

    /// Keeps the ids and tokens of an answer.
    fn learn(&mut self, method: &str, answer: &Value, [a, ..]: [usize; 5]) {
        let made = ["Create", "Import", "Generate", "Add", "Set", "Start"].iter().any(|verb| method.starts_with(verb));
        for message in answer.as_array().into_iter().flatten() {
            if let (Some(token), Some(id)) = (message["sessionToken"].as_str(), message["session"]["id"].as_str()) {
                let application = message["session"]["application"].as_str().unwrap_or_default();
                self.sessions.push((application.to_owned(), token.to_owned()));
                self.own("session", id, true);
            }
            if let Some(url) = message["authorizationUrl"].as_str() {
                self.states.push(jackfield_testkit::oauth::query_of(url)["state"].clone());
            }
            for (field, resource) in message.as_object().into_iter().flatten() {
                let Some(kind) = KINDS.iter().find(|(known, _)| known == field).map(|(_, kind)| *kind) else {
                    continue;
                };
                let id = resource["id"].as_str().unwrap_or_default().to_owned();
                self.own(kind, &id, made);
                if let Some(default) = resource["defaultConfiguration"].as_str() {
                    self.own("configuration", default, made);
                }
            }
            if let (Some(list), Some(token)) = (
                LISTS.iter().position(|list| *list == method),
                message["nextPageToken"].as_str().filter(|token| !token.is_empty()),
            ) {
                self.tokens.push((list, a % QUESTIONS, token.to_owned()));
            }
        }
    }

    fn own(&mut self, kind: &'static str, id: &str, made: bool) {
        let ids = self.ids.entry(kind).or_default();
        if made && !ids.iter().any(|known| known == id) {
            ids.push(id.to_owned());
        }
        let count = ids.len();
        if ids.is_empty() {
            self.ids.remove(kind);
        }
        if made {
            self.names.name(id, format!("{kind} {count}"));
        }
    }
}

/// Fields of answers that hold a resource, and its kind.
const KINDS: [(&str, &str); 10] = [
    ("authorization", "authorization"),
    ("application", "application"),
    ("grant", "permission_grant"),
    ("key", "key"),
    ("connector", "connector"),
    ("connection", "connection"),
    ("userConnector", "user_connector"),
    ("credential", "credential"),
    ("configuration", "configuration"),
    ("user", "user"),
];

/// The number of different questions for lists.
pub(super) const QUESTIONS: usize = 4;

/// An unknown id.
pub(super) fn unknown() -> String {
    Uuid::now_v7().to_string()
}

fn collect_ids(value: &Value, ids: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            ids.extend(fields.get("id").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| collect_ids(value, ids));
        }
        Value::Array(values) => values.iter().for_each(|value| collect_ids(value, ids)),
        _ => {}
    }
}
