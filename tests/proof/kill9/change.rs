//! The changes that writers request, and the objects that result.

use std::collections::BTreeMap;

use jackfield_api::v1;
use jackfield_testkit::Client;
use tonic::Status;

/// An object of the ledger: a unit that one request changes as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Object {
    Connector(Connector),
    /// A credential with its configurations, which are deleted as a whole.
    Credential(Credential),
}

/// A connector, as far as writers change it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Connector {
    pub(crate) round: String,
    pub(crate) secret_headers: Vec<String>,
    pub(crate) version: u64,
}

/// A credential, as far as writers change it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Credential {
    /// Its user. Each user has one credential, so the default never moves.
    pub(crate) user: String,
    pub(crate) round: String,
    /// The token of IssueAccessToken, which proves that the secret decrypts, and to what.
    pub(crate) token: String,
    pub(crate) version: u64,
    /// The configurations by external id; the default one has "".
    pub(crate) configurations: BTreeMap<String, Configuration>,
}

/// A configuration, as far as writers change it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Configuration {
    pub(crate) round: String,
    pub(crate) version: u64,
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    CreateConnector(v1::CreateConnectorRequest),
    UpdateConnector(v1::UpdateConnectorRequest),
    DeleteConnector(v1::DeleteConnectorRequest),
    CreateCredential(v1::CreateCredentialRequest),
    UpdateCredential(v1::UpdateCredentialRequest),
    DeleteCredential(v1::DeleteCredentialRequest),
    CreateConfiguration(v1::CreateConfigurationRequest),
    UpdateConfiguration(v1::UpdateConfigurationRequest),
    DestroyConfiguration(v1::DestroyConfigurationRequest),
}

/// A request with its context.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// The object in the ledger.
    pub(crate) name: String,
    /// The object after the request.
    pub(crate) after: Option<Object>,
    /// The part whose etag and id the answer contains.
    pub(crate) part: String,
    pub(crate) request: Request,
}

/// The content of an answer: nothing after a deletion.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) id: String,
    pub(crate) etag: String,
}

// === impl Change ===

impl Change {
    /// Sends the request.
    pub(crate) async fn send(&self, client: &Client) -> Result<Answer, Status> {
        macro_rules! call {
            ($service:ident . $method:ident ($request:expr) . $resource:ident) => {{
                let answer = client.$service().$method($request.clone()).await?.into_inner();
                let resource = answer.$resource.unwrap_or_default();
                Ok(Answer { id: resource.id, etag: resource.etag })
            }};
            ($service:ident . $method:ident ($request:expr)) => {{
                client.$service().$method($request.clone()).await?;
                Ok(Answer::default())
            }};
        }
        match &self.request {
            Request::CreateConnector(request) => call!(connectors.create_connector(request).connector),
            Request::UpdateConnector(request) => call!(connectors.update_connector(request).connector),
            Request::DeleteConnector(request) => call!(connectors.delete_connector(request)),
            Request::CreateCredential(request) => call!(credentials.create_credential(request).credential),
            Request::UpdateCredential(request) => call!(credentials.update_credential(request).credential),
            Request::DeleteCredential(request) => call!(credentials.delete_credential(request)),
            Request::CreateConfiguration(request) => call!(configurations.create_configuration(request).configuration),
            Request::UpdateConfiguration(request) => call!(configurations.update_configuration(request).configuration),
            Request::DestroyConfiguration(request) => call!(configurations.destroy_configuration(request)),
        }
    }

    /// Its description, for a finding.
    pub(crate) fn describe(&self) -> String {
        let request = format!("{:?}", self.request);
        let kind = request.split('(').next().unwrap_or_default();
        format!("{kind} of {} (repeatable: {}), to make {:?}", self.part, self.is_repeatable(), self.after)
    }

    /// Returns whether sending it again must have no further effect.
    pub(crate) fn is_repeatable(&self) -> bool {
        !match &self.request {
            Request::CreateConnector(request) => &request.request_id,
            Request::UpdateConnector(request) => &request.request_id,
            Request::DeleteConnector(request) => &request.request_id,
            Request::CreateCredential(request) => &request.request_id,
            Request::UpdateCredential(request) => &request.request_id,
            Request::DeleteCredential(request) => &request.request_id,
            Request::CreateConfiguration(request) => &request.request_id,
            Request::UpdateConfiguration(request) => &request.request_id,
            Request::DestroyConfiguration(request) => &request.request_id,
        }
        .is_empty()
    }
}

/// The version in an etag: the number of changes so far. Clients should not use it, but a harness needs it: nothing
/// else shows that a change was made twice.
pub(crate) fn version(etag: &str) -> u64 {
    let version = etag.trim_end_matches('"').rsplit('-').next().unwrap_or_default();
    u64::from_str_radix(version, 16).unwrap_or_default()
}
