//! A writer: it owns its objects, changes one after the other, and records what it knows of each.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use jackfield_api::v1;
use jackfield_testkit::fixture::{a_configuration, a_connector, api_key_material, mask, strings};
use jackfield_testkit::{Client, Ledger, Rng, reason_name};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use super::change::{Answer, Change, Configuration, Connector, Credential, Object, Request};

/// The time limit of a call.
const PATIENCE: Duration = Duration::from_secs(20);
/// The pause after the server reported the database as unavailable.
const PAUSE: Duration = Duration::from_millis(50);

/// The most objects of each kind that a writer has at once.
const MOST: usize = 2;

/// One of many concurrent writers.
pub(crate) struct Writer {
    /// The prefix of the names of its objects.
    pub(crate) prefix: String,
    pub(crate) ledger: Ledger<Object>,
    /// Objects with a request since they were last checked.
    pub(crate) touched: BTreeSet<String>,
    /// Ids and etags of objects and configurations, as last answered or found.
    pub(crate) known: HashMap<String, Answer>,
    /// An uncertain change with a request id, which is sent again.
    pub(crate) repeat: Option<Change>,
    /// Repeats that were answered with success.
    pub(crate) repeated: u64,
    /// Changes whose outcome the server itself called unknown.
    pub(crate) outcome_unknown: u64,
    /// Faults of the server.
    pub(crate) wrong: Vec<String>,
    /// The connector of its credentials.
    parent: String,
    rng: Rng,
    next: u64,
}

// === impl Writer ===

impl Writer {
    pub(crate) fn new(index: usize, parent: &str, rng: Rng) -> Self {
        Self {
            prefix: format!("w{index:03}"),
            ledger: Ledger::default(),
            touched: BTreeSet::new(),
            known: HashMap::new(),
            repeat: None,
            repeated: 0,
            outcome_unknown: 0,
            wrong: Vec::new(),
            parent: parent.to_owned(),
            rng,
            next: 0,
        }
    }

    /// Writes until an answer is missing. Changes that the server promises not to have written are recorded as refused,
    /// and the writer continues.
    pub(crate) async fn run(mut self, client: Client) -> Self {
        if let Some(repeat) = self.repeat.take()
            && !self.send_again(&client, repeat).await
        {
            return self;
        }
        loop {
            let change = self.choose();
            self.ledger.send(&change.name, change.after.clone());
            if !self.send(&client, change).await {
                return self;
            }
        }
    }

    /// Sends a recorded change. Returns whether the answer says what happened.
    async fn send(&mut self, client: &Client, change: Change) -> bool {
        self.touched.insert(change.name.clone());
        match self.call(client, &change).await {
            Ok(answer) => {
                self.ledger.acknowledge(&change.name);
                self.learn(&change, answer);
                true
            }
            Err(status) if reason(&status) == Some("STORE_UNAVAILABLE") => {
                self.ledger.refuse(&change.name);
                tokio::time::sleep(PAUSE).await;
                true
            }
            Err(status) if is_definite(&status) => {
                self.ledger.refuse(&change.name);
                self.wrong.push(format!("refused: {}: {}", change.describe(), status.message()));
                false
            }
            Err(status) => {
                self.ledger.doubt(&change.name);
                if reason(&status) == Some("OUTCOME_UNKNOWN") {
                    self.outcome_unknown += 1;
                    if status.get_details_retry_info().is_some() != change.is_repeatable() {
                        self.wrong
                            .push(format!("RetryInfo does not say whether a repeat is safe: {}", change.describe()));
                    }
                }
                self.repeat = Some(change).filter(Change::is_repeatable);
                false
            }
        }
    }

    /// Repeats a change whose outcome was unknown and which has been checked since. The repeat has to succeed whether
    /// or not the change was carried out, and the change has to be carried out once.
    async fn send_again(&mut self, client: &Client, change: Change) -> bool {
        if self.ledger.present(&change.name) != change.after.as_ref() {
            self.ledger.send(&change.name, change.after.clone());
            let acknowledged = self.ledger.figures.acknowledged;
            let answered = self.send(client, change).await;
            self.repeated += self.ledger.figures.acknowledged - acknowledged;
            return answered;
        }
        self.touched.insert(change.name.clone());
        match self.call(client, &change).await {
            Ok(answer) => {
                self.learn(&change, answer);
                self.repeated += 1;
                true
            }
            Err(status) if is_definite(&status) && reason(&status) != Some("STORE_UNAVAILABLE") => {
                self.wrong.push(format!(
                    "carried out, and its repeat refused: {}: {}",
                    change.describe(),
                    status.message()
                ));
                false
            }
            Err(_) => {
                self.repeat = Some(change);
                false
            }
        }
    }

    async fn call(&self, client: &Client, change: &Change) -> Result<Answer, Status> {
        tokio::time::timeout(PATIENCE, change.send(client))
            .await
            .unwrap_or_else(|_| panic!("no end: {}", change.describe()))
    }

    fn learn(&mut self, change: &Change, answer: Answer) {
        if !answer.etag.is_empty() {
            self.known.insert(change.part.clone(), answer);
        }
    }

    /// Chooses any change that is possible now.
    fn choose(&mut self) -> Change {
        loop {
            let choice = self.rng.below(100);
            let connector = self.any_of(|object| matches!(object, Object::Connector(_)));
            let credential = self.any_of(|object| matches!(object, Object::Credential(_)));
            let change = match (choice, connector, credential) {
                (0..10, connectors, _) if connectors.len() < MOST => Some(self.create_connector()),
                (10..22, connectors, _) => self.with_one(&connectors, Self::update_connector),
                (22..28, connectors, _) => self.with_one(&connectors, Self::delete_connector),
                (28..42, _, credentials) if credentials.len() < MOST => Some(self.create_credential()),
                (42..58, _, credentials) => self.with_one(&credentials, Self::update_credential),
                (58..66, _, credentials) => self.with_one(&credentials, Self::delete_credential),
                (66..80, _, credentials) => self.with_one(&credentials, Self::create_configuration),
                (80..93, _, credentials) => self.with_one(&credentials, Self::update_configuration),
                (93.., _, credentials) => self.with_one(&credentials, Self::destroy_configuration),
                _ => None,
            };
            if let Some(change) = change {
                return change;
            }
        }
    }

    fn any_of(&self, kind: impl Fn(&Object) -> bool) -> Vec<String> {
        self.ledger.names().filter(|name| self.ledger.present(name).is_some_and(&kind)).map(str::to_owned).collect()
    }

    fn with_one(&mut self, names: &[String], make: impl Fn(&mut Self, String) -> Option<Change>) -> Option<Change> {
        if names.is_empty() {
            return None;
        }
        let name = self.rng.pick(names).clone();
        make(self, name)
    }

    fn create_connector(&mut self) -> Change {
        let (name, round) = (self.fresh("connector"), self.round());
        let headers: Vec<_> = (0..self.rng.below(3)).map(|number| format!("x-key-{number}")).collect();
        let connector = v1::Connector {
            labels: strings([("round", &round)]),
            secret_headers: headers.iter().map(|header| (header.clone(), format!("value of {header}"))).collect(),
            ..a_connector(&name)
        };
        let request = v1::CreateConnectorRequest {
            connector: Some(connector),
            id: self.id(),
            request_id: self.id(),
            ..Default::default()
        };
        let after = Connector { round, secret_headers: headers, version: 1 };
        change(&name, Some(Object::Connector(after)), &name, Request::CreateConnector(request))
    }

    fn update_connector(&mut self, name: String) -> Option<Change> {
        let Some(Object::Connector(mut after)) = self.ledger.present(&name).cloned() else { return None };
        let round = self.round();
        let connector = v1::Connector { labels: strings([("round", &round)]), ..Default::default() };
        let request = v1::UpdateConnectorRequest {
            reference: format!("name:{name}"),
            connector: Some(connector),
            update_mask: mask(["labels"]),
            etag: self.etag(&name),
            request_id: self.id(),
            validate_only: false,
        };
        (after.round, after.version) = (round, after.version + 1);
        Some(change(&name, Some(Object::Connector(after)), &name, Request::UpdateConnector(request)))
    }

    fn delete_connector(&mut self, name: String) -> Option<Change> {
        let request = v1::DeleteConnectorRequest {
            reference: format!("name:{name}"),
            etag: self.etag(&name),
            request_id: self.id(),
            // Nothing depends on it, but it is another kind of transaction all the same.
            cascade: self.rng.percent(50),
            ..Default::default()
        };
        Some(change(&name, None, &name, Request::DeleteConnector(request)))
    }

    fn create_credential(&mut self) -> Change {
        let (name, round, user) = (self.fresh("credential"), self.round(), self.free_user());
        let token = format!("token of {name} in {round}");
        let credential = v1::Credential {
            user_id: user.clone(),
            connector: self.parent.clone(),
            labels: strings([("name", &name), ("round", &round)]),
            ..Default::default()
        };
        let request = v1::CreateCredentialRequest {
            credential: Some(credential),
            material: Some(api_key_material(&token)),
            id: self.id(),
            request_id: self.id(),
            validate_only: false,
        };
        let default = Configuration { round: String::new(), version: 1 };
        let after = Credential { user, round, token, version: 1, configurations: [(String::new(), default)].into() };
        change(&name, Some(Object::Credential(after)), &name, Request::CreateCredential(request))
    }

    fn update_credential(&mut self, name: String) -> Option<Change> {
        let mut after = self.credential(&name)?;
        after.round = self.round();
        after.version += 1;
        let material = self.rng.percent(60).then(|| {
            after.token = format!("token of {name} in {}", after.round);
            api_key_material(&after.token)
        });
        let labels = strings([("name", &name), ("round", &after.round)]);
        let request = v1::UpdateCredentialRequest {
            reference: self.known[&name].id.clone(),
            credential: Some(v1::Credential { labels, ..Default::default() }),
            update_mask: mask(["labels"]),
            material,
            etag: self.etag(&name),
            request_id: self.id(),
            validate_only: false,
        };
        Some(change(&name, Some(Object::Credential(after)), &name, Request::UpdateCredential(request)))
    }

    fn delete_credential(&mut self, name: String) -> Option<Change> {
        let request = v1::DeleteCredentialRequest {
            reference: self.known[&name].id.clone(),
            etag: self.etag(&name),
            request_id: self.id(),
            ..Default::default()
        };
        Some(change(&name, None, &name, Request::DeleteCredential(request)))
    }

    fn create_configuration(&mut self, name: String) -> Option<Change> {
        let mut after = self.credential(&name)?;
        if after.configurations.len() > MOST {
            return None;
        }
        let (external_id, round) = (self.fresh("configuration"), self.round());
        let configuration = v1::Configuration {
            shared_settings: Some(jackfield_testkit::fixture::object([("round", &round)])),
            ..a_configuration(&self.known[&name].id, &external_id)
        };
        let request = v1::CreateConfigurationRequest {
            configuration: Some(configuration),
            id: self.id(),
            request_id: self.id(),
            validate_only: false,
        };
        after.configurations.insert(external_id.clone(), Configuration { round, version: 1 });
        Some(change(&name, Some(Object::Credential(after)), &external_id, Request::CreateConfiguration(request)))
    }

    fn update_configuration(&mut self, name: String) -> Option<Change> {
        let mut after = self.credential(&name)?;
        let external_id = self.named_configuration(&after)?;
        let round = self.round();
        let configuration = v1::Configuration {
            shared_settings: Some(jackfield_testkit::fixture::object([("round", &round)])),
            ..Default::default()
        };
        let request = v1::UpdateConfigurationRequest {
            reference: format!("ext:{external_id}"),
            credential: self.known[&name].id.clone(),
            configuration: Some(configuration),
            update_mask: mask(["shared_settings"]),
            etag: self.etag(&external_id),
            request_id: self.id(),
            validate_only: false,
        };
        let written = after.configurations.get_mut(&external_id)?;
        (written.round, written.version) = (round, written.version + 1);
        Some(change(&name, Some(Object::Credential(after)), &external_id, Request::UpdateConfiguration(request)))
    }

    fn destroy_configuration(&mut self, name: String) -> Option<Change> {
        let mut after = self.credential(&name)?;
        let external_id = self.named_configuration(&after)?;
        let request = v1::DestroyConfigurationRequest {
            reference: format!("ext:{external_id}"),
            credential: self.known[&name].id.clone(),
            etag: self.etag(&external_id),
            request_id: self.id(),
            ..Default::default()
        };
        after.configurations.remove(&external_id);
        Some(change(&name, Some(Object::Credential(after)), &external_id, Request::DestroyConfiguration(request)))
    }

    fn credential(&self, name: &str) -> Option<Credential> {
        match self.ledger.present(name) {
            Some(Object::Credential(credential)) => Some(credential.clone()),
            _ => None,
        }
    }

    /// The ids of all its users.
    pub(crate) fn users(&self) -> Vec<String> {
        (0..=MOST).map(|number| format!("{}-user-{number}", self.prefix)).collect()
    }

    /// A user without a credential.
    fn free_user(&self) -> String {
        let taken = |user: &String| {
            let mut objects = self.ledger.names().filter_map(|name| self.ledger.present(name));
            objects.any(|object| matches!(object, Object::Credential(credential) if credential.user == *user))
        };
        self.users().into_iter().find(|user| !taken(user)).expect("one more user than credentials")
    }

    fn named_configuration(&mut self, credential: &Credential) -> Option<String> {
        let named: Vec<_> = credential.configurations.keys().filter(|name| !name.is_empty()).cloned().collect();
        (!named.is_empty()).then(|| self.rng.pick(&named).clone())
    }

    /// A name that was never used before.
    fn fresh(&mut self, kind: &str) -> String {
        self.next += 1;
        format!("{}-{kind}-{}", self.prefix, self.next)
    }

    /// A text that was never used before.
    fn round(&mut self) -> String {
        self.next += 1;
        format!("round {}", self.next)
    }

    /// An id, or none.
    fn id(&mut self) -> String {
        if self.rng.percent(50) { Uuid::now_v7().to_string() } else { String::new() }
    }

    /// The etag of a part, or none.
    fn etag(&mut self, part: &str) -> String {
        if self.rng.percent(50) { self.known[part].etag.clone() } else { String::new() }
    }
}

fn change(name: &str, after: Option<Object>, part: &str, request: Request) -> Change {
    Change { name: name.to_owned(), after, part: part.to_owned(), request }
}

/// The reason that the server itself gives.
fn reason(status: &Status) -> Option<&'static str> {
    let reason = status.get_details_error_info()?.reason;
    v1::ErrorReason::from_str_name(&format!("ERROR_REASON_{reason}")).map(reason_name)
}

/// Returns whether the server itself says that nothing happened. Errors of the connection, an unknown outcome and a
/// stopping server are not such answers.
fn is_definite(status: &Status) -> bool {
    let reason = reason(status);
    reason == Some("STORE_UNAVAILABLE")
        || reason.is_some()
            && reason != Some("OUTCOME_UNKNOWN")
            && !matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
}
