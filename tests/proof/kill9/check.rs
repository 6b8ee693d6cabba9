//! Reads back everything, and compares it with what the writers know.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use jackfield_api::v1;
use jackfield_testkit::{Client, Rng, Verdict, collect};
use prost_types::value::Kind;
use tonic::{Code, Status};

use super::change::{Answer, Configuration, Connector, Credential, Object, version};
use super::writer::Writer;

/// The number of concurrent token requests.
const ISSUES: usize = 16;
/// The time limit for retries of all tokens together, if the server is temporarily unable to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// The pause between two tries.
const AGAIN: Duration = Duration::from_millis(50);

/// Everything that was read back.
#[derive(Default)]
struct Found {
    objects: BTreeMap<String, Object>,
    known: HashMap<String, Answer>,
    /// Impossible findings.
    wrong: Vec<String>,
}

/// Compares everything. Requests the tokens of objects that changed since the last time, and of a percentage of the
/// others. Returns the faults that belong to no ledger.
pub(crate) async fn check(client: &Client, writers: &mut [Writer], rng: &mut Rng, percent: u64) -> Vec<String> {
    let mut found = Found::read(client).await.unwrap_or_else(|status| panic!("the data cannot be read: {status:?}"));
    found.tokens(client, writers, rng, percent).await;
    for writer in writers.iter_mut() {
        let mut names: Vec<String> = writer.ledger.names().map(str::to_owned).collect();
        let prefix = format!("{}-", writer.prefix);
        names.extend(found.objects.keys().filter(|name| name.starts_with(&prefix)).cloned());
        names.sort_unstable();
        names.dedup();
        for name in names {
            compare(writer, &name, found.objects.remove(&name).as_ref());
        }
        writer.touched.clear();
        writer.known.retain(|part, _| found.known.contains_key(part));
        for (part, answer) in found.known.iter().filter(|(part, _)| part.starts_with(&prefix)) {
            writer.known.insert(part.clone(), answer.clone());
        }
    }
    found.wrong.extend(found.objects.iter().map(|(name, object)| format!("no writer made {name}: {object:?}")));
    found.wrong
}

fn compare(writer: &mut Writer, name: &str, object: Option<&Object>) {
    let (present, pending) =
        (writer.ledger.present(name).cloned(), writer.ledger.pending(name).map(|after| after.cloned()));
    let verdict = writer.ledger.check(name, object);
    if matches!(verdict, Verdict::Lost | Verdict::Corrupt) {
        writer.wrong.push(format!(
            "{verdict:?} {name}:\n  acknowledged {present:?}\n  in doubt {pending:?}\n  found {object:?}"
        ));
        // A repeat from here on would prove nothing.
        writer.repeat = writer.repeat.take().filter(|repeat| repeat.name != name);
    }
    // A deleted object need not be checked again: if it comes back, no writer made it.
    if writer.ledger.present(name).is_none() {
        writer.ledger.forget(name);
    }
}

/// Returns whether an answer says nothing about the data: a busy server may also give it.
fn is_passing(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
}

// === impl Found ===

impl Found {
    async fn read(client: &Client) -> Result<Self, Status> {
        let mut found = Self::default();
        let (mut connectors, mut credentials, mut configurations) =
            (client.connectors(), client.credentials(), client.configurations());
        let size = 1_000;
        let (connectors, credentials, configurations) = tokio::try_join!(
            async {
                let request = v1::ListConnectorsRequest { page_size: size, ..Default::default() };
                collect::items(connectors.list_connectors(request).await).await
            },
            async {
                let request = v1::ListCredentialsRequest { page_size: size, ..Default::default() };
                collect::items(credentials.list_credentials(request).await).await
            },
            async {
                let request = v1::ListConfigurationsRequest { page_size: size, ..Default::default() };
                collect::items(configurations.list_configurations(request).await).await
            },
        )?;
        for connector in connectors {
            found.connector(connector);
        }
        let mut names = HashMap::new();
        for credential in credentials {
            names.insert(credential.id.clone(), found.credential(credential));
        }
        for configuration in configurations {
            found.configuration(configuration, &names);
        }
        Ok(found)
    }

    fn connector(&mut self, connector: v1::Connector) {
        let object = Object::Connector(Connector {
            round: connector.labels.get("round").cloned().unwrap_or_default(),
            secret_headers: connector.secret_header_names,
            version: version(&connector.etag),
        });
        // The connector of all credentials belongs to no writer.
        if connector.name != super::PARENT {
            self.object(connector.name, object, Answer { id: connector.id, etag: connector.etag });
        }
    }

    fn credential(&mut self, credential: v1::Credential) -> String {
        let label = |name: &str| credential.labels.get(name).cloned().unwrap_or_default();
        let object = Object::Credential(Credential {
            user: credential.user_id.clone(),
            round: label("round"),
            version: version(&credential.etag),
            ..Credential::default()
        });
        let name = label("name");
        self.object(name.clone(), object, Answer { id: credential.id, etag: credential.etag });
        name
    }

    fn object(&mut self, name: String, object: Object, answer: Answer) {
        self.known.insert(name.clone(), answer);
        if let Some(other) = self.objects.insert(name.clone(), object) {
            self.wrong.push(format!("{name} exists twice: {other:?}"));
        }
    }

    fn configuration(&mut self, configuration: v1::Configuration, names: &HashMap<String, String>) {
        let credential = names.get(&configuration.credential).and_then(|name| self.objects.get_mut(name));
        let Some(Object::Credential(credential)) = credential else {
            self.wrong.push(format!("belongs to no credential: {configuration:?}"));
            return;
        };
        let round =
            configuration.shared_settings.unwrap_or_default().fields.remove("round").and_then(|value| value.kind);
        let state = Configuration {
            round: if let Some(Kind::StringValue(round)) = round { round } else { String::new() },
            version: version(&configuration.etag),
        };
        let external_id = configuration.external_id.unwrap_or_default();
        if credential.configurations.insert(external_id.clone(), state).is_some() {
            self.wrong.push(format!("{} exists twice", external_id));
        }
        self.known.insert(external_id, Answer { id: configuration.id, etag: configuration.etag });
    }

    /// Fills in the tokens: some from the server, the rest from the ledger.
    async fn tokens(&mut self, client: &Client, writers: &[Writer], rng: &mut Rng, percent: u64) {
        let mut ask = Vec::new();
        for writer in writers {
            let prefix = format!("{}-", writer.prefix);
            let of_writer = self.objects.iter_mut().filter(|(name, _)| name.starts_with(&prefix));
            for (name, object) in of_writer {
                let Object::Credential(credential) = object else { continue };
                match writer.ledger.present(name) {
                    Some(Object::Credential(present)) if !writer.touched.contains(name) && !rng.percent(percent) => {
                        credential.token.clone_from(&present.token);
                    }
                    _ => ask.push((name.clone(), self.known[name].id.clone())),
                }
            }
        }
        let end = Instant::now() + PATIENCE;
        let issue = |(name, id): (String, String)| async move {
            let request = v1::IssueAccessTokenRequest { reference: id, ..Default::default() };
            loop {
                match client.credentials().issue_access_token(request.clone()).await {
                    Ok(answer) => return (name, answer.into_inner().access_token),
                    Err(status) if is_passing(&status) && Instant::now() < end => tokio::time::sleep(AGAIN).await,
                    // A credential without a token is a finding, not a reason to stop.
                    Err(status) => return (name, format!("none: {status:?}")),
                }
            }
        };
        let tokens: Vec<_> = futures::stream::iter(ask).map(issue).buffer_unordered(ISSUES).collect().await;
        for (name, token) in tokens {
            if let Some(Object::Credential(credential)) = self.objects.get_mut(&name) {
                credential.token = token;
            }
        }
    }
}
