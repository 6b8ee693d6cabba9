//! Messages of credential sources, and the conversation with a client that answers for one.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{BoxStream, unfold};
use jackfield_api::source::v1 as source;
use jackfield_api::v1 as pb;
use jackfield_domain::credential::{Material, OAuth2Material};
use jackfield_domain::credential_source::{
    CredentialSource, CredentialSourceDraft, DEFAULT_SOURCE_TIMEOUT, MAX_SOURCE_BYTES, MAX_SOURCE_TIMEOUT,
    SourceEndpoint, SourceEndpointDraft, SourceFault, SourceProtocol, SourceRequest,
};
use jackfield_domain::request::reference::{Ref, ReferenceForms};
use jackfield_domain::value::maps::secret_headers;
use jackfield_domain::value::url::HttpUrl;
use jackfield_domain::{Error, Result, Violation, Violations};
use jackfield_service::{ServedSource, SourceAnswer, SourceFailure, SourceForm, SourceQuestion};
use jackfield_transport::call::status::status;
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use uuid::Uuid;

use super::credentials;
use super::document::{from_json, to_json};
use super::fields::url;
use super::parse;
use super::render;

/// The questions on the wire.
pub(super) type QuestionStream = BoxStream<'static, std::result::Result<pb::ServeCredentialsResponse, Status>>;

/// The contract of sources: as JSON over HTTPS, as it is over gRPC.
pub(super) struct WireForm;

/// The wait before another server is asked.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const TIMEOUT: &str = "source.timeout";

impl SourceForm for WireForm {
    fn question(&self, protocol: SourceProtocol, request: &SourceRequest) -> Result<Vec<u8>> {
        let SourceRequest { tenant, user_id, connector, connector_name, kind, expire_time } = request;
        let question = source::FetchCredentialsRequest {
            tenant: tenant.to_string(),
            user_id: user_id.as_str().to_owned(),
            connector: connector.to_string(),
            connector_name: connector_name.as_str().to_owned(),
            kind: kind.map_or(pb::CredentialKind::Unspecified, credentials::kind_to_message).into(),
            expire_time: Some(render::timestamp(*expire_time)),
        };
        match protocol {
            SourceProtocol::Https => to_json(&question),
            SourceProtocol::Grpc => Ok(question.encode_to_vec()),
        }
    }

    fn answer(&self, protocol: SourceProtocol, body: &[u8]) -> SourceAnswer {
        let read = match protocol {
            SourceProtocol::Https => from_json::<source::FetchCredentialsResponse>(body),
            SourceProtocol::Grpc => source::FetchCredentialsResponse::decode(body).ok(),
        };
        match read {
            Some(source::FetchCredentialsResponse { material }) => answer(material),
            None => Err(SourceFailure::of(SourceFault::Incomplete, "its answer is not FetchCredentialsResponse")),
        }
    }
}

/// The source that a request sets.
pub(super) fn draft(
    violations: &mut Violations,
    message: Option<pb::CredentialSource>,
) -> Option<CredentialSourceDraft> {
    let message = parse::required(violations, "source", message)?;
    let pb::CredentialSource {
        id: _,
        user_id,
        tenant_wide,
        endpoint,
        timeout,
        create_time: _,
        update_time: _,
        etag: _,
    } = message;
    let user_id = user_id.unwrap_or_default();
    let user_id = parse::user_or_tenant(violations, "source.", (&user_id, tenant_wide));
    let timeout = violations.check(timeout_of(timeout));
    let endpoint = parse::required(violations, "source.endpoint", endpoint);
    let endpoint = endpoint.and_then(|endpoint| endpoint_of(violations, endpoint));
    Some(CredentialSourceDraft { user_id: user_id?, endpoint: endpoint?, timeout: timeout? })
}

fn timeout_of(timeout: Option<prost_types::Duration>) -> std::result::Result<Duration, Violation> {
    let Some(timeout) = timeout else { return Ok(DEFAULT_SOURCE_TIMEOUT) };
    let parsed = parse::duration(timeout).filter(|timeout| !timeout.is_zero() && *timeout <= MAX_SOURCE_TIMEOUT);
    let rule = || format!("must be more than 0 and at most {} s", MAX_SOURCE_TIMEOUT.as_secs());
    parsed.ok_or_else(|| Violation::field(TIMEOUT, rule()))
}

fn endpoint_of(violations: &mut Violations, endpoint: pb::credential_source::Endpoint) -> Option<SourceEndpointDraft> {
    let (protocol, remote) = match endpoint {
        pb::credential_source::Endpoint::Https(remote) => (SourceProtocol::Https, remote),
        pb::credential_source::Endpoint::Grpc(remote) => (SourceProtocol::Grpc, remote),
        pb::credential_source::Endpoint::Stream(pb::StreamSource {}) => return Some(SourceEndpointDraft::Stream),
    };
    let pb::RemoteSource { url: text, secret_headers: headers, client_identity_key, trust_bundle_key, .. } = remote;
    let field = |name: &str| format!("{}.{name}", protocol.field());
    let url = violations.check(url_of(protocol, &field("url"), &text));
    let headers = violations.check_all(secret_headers(&field("secret_headers"), headers));
    let mut key = |name: &str, text: Option<String>| match parse::non_empty(text.as_deref().unwrap_or_default()) {
        Some(text) => violations.check(Ref::parse(&field(name), text, ReferenceForms::ID_NAME)).map(Some),
        None => Some(None),
    };
    let client_identity_key = key("client_identity_key", client_identity_key);
    let trust_bundle_key = key("trust_bundle_key", trust_bundle_key);
    Some(SourceEndpointDraft::Remote {
        protocol,
        url: url?,
        client_identity_key: client_identity_key?,
        trust_bundle_key: trust_bundle_key?,
        secret_headers: headers?,
    })
}

/// The URL of an endpoint. That of a gRPC server is its origin: the contract has the path.
fn url_of(protocol: SourceProtocol, field: &str, text: &str) -> std::result::Result<HttpUrl, Violation> {
    let url = url(field, text)?.require_https(field)?;
    let is_origin = || text.matches('/').count() == 2 || (text.matches('/').count() == 3 && text.ends_with('/'));
    match protocol {
        SourceProtocol::Grpc if !is_origin() || text.contains('?') => {
            Err(Violation::field(field, "must have neither path nor query: the contract of sources has the path"))
        }
        SourceProtocol::Grpc | SourceProtocol::Https => Ok(url),
    }
}

/// A source as its callers see it.
pub(super) fn to_message(source: CredentialSource) -> pb::CredentialSource {
    let CredentialSource { id, user_id, endpoint, timeout, meta } = source;
    let endpoint = match endpoint {
        SourceEndpoint::Remote { protocol, url, client_identity_key, trust_bundle_key, secret_header_names } => {
            let remote = pb::RemoteSource {
                url: url.as_str().to_owned(),
                secret_headers: Default::default(),
                secret_header_names,
                client_identity_key: client_identity_key.map(|id| id.to_string()),
                trust_bundle_key: trust_bundle_key.map(|id| id.to_string()),
            };
            match protocol {
                SourceProtocol::Https => pb::credential_source::Endpoint::Https(remote),
                SourceProtocol::Grpc => pb::credential_source::Endpoint::Grpc(remote),
            }
        }
        SourceEndpoint::Stream => pb::credential_source::Endpoint::Stream(pb::StreamSource {}),
    };
    pb::CredentialSource {
        id: id.to_string(),
        tenant_wide: user_id.is_none(),
        user_id: user_id.map(String::from),
        endpoint: Some(endpoint),
        timeout: Some(render::duration(timeout)),
        create_time: Some(render::timestamp(meta.create_time)),
        update_time: Some(render::timestamp(meta.update_time)),
        etag: meta.etag(),
    }
}

/// The conversation with a client. It ends with the client, with the server, and with an answer that cannot be read.
pub(super) fn conversation(
    served: ServedSource,
    answers: Streaming<pb::ServeCredentialsRequest>,
    drain: CancellationToken,
) -> QuestionStream {
    let messages = unfold(Some((served, answers, drain)), |open| async move {
        let (mut served, mut answers, drain) = open?;
        loop {
            tokio::select! {
                () = drain.cancelled() => {
                    return Some((Err(status(Error::ServerUnavailable { retry_after: RETRY_AFTER })), None));
                }
                question = served.next() => {
                    return Some((Ok(question_to_message(question?)), Some((served, answers, drain))));
                }
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => take(&served, answer),
                    Ok(None) => return None,
                    Err(refused) => {
                        if matches!(refused.code(), Code::OutOfRange | Code::ResourceExhausted) {
                            served.end_too_large();
                        }
                        return Some((Err(refused), None));
                    }
                },
            }
        }
    });
    messages.boxed()
}

fn question_to_message(question: SourceQuestion) -> pb::ServeCredentialsResponse {
    let SourceQuestion { fetch_id, request } = question;
    let SourceRequest { tenant: _, user_id, connector, connector_name, kind, expire_time } = request;
    pb::ServeCredentialsResponse {
        fetch_id: fetch_id.to_string(),
        user_id: user_id.into(),
        connector: connector.to_string(),
        connector_name: connector_name.into(),
        kind: kind.map_or(pb::CredentialKind::Unspecified, credentials::kind_to_message).into(),
        expire_time: Some(render::timestamp(expire_time)),
    }
}

/// Passes an answer on. One whose id is none of ours answers no question.
fn take(served: &ServedSource, message: pb::ServeCredentialsRequest) {
    let is_too_large = message.encoded_len() > MAX_SOURCE_BYTES;
    let pb::ServeCredentialsRequest { fetch_id, material } = message;
    let Ok(fetch_id) = Uuid::try_parse(&fetch_id) else { return };
    let answer = match is_too_large {
        true => Err(SourceFailure::of(SourceFault::TooLarge, "its answer is larger than permitted")),
        false => answer(material),
    };
    served.answer(fetch_id, answer);
}

/// The answer that has this material. A violation is named by its field alone: its description may quote what the source gave.
fn answer(material: Option<pb::CredentialMaterial>) -> SourceAnswer {
    let Some(material) = material else { return Ok(None) };
    let mut violations = Violations::default();
    let parsed = credentials::required_material(&mut violations, Some(material));
    let parsed = violations.into_result(parsed);
    if let Ok(Material::OAuth2(OAuth2Material { access_token: None, refresh_token: None, .. })) = &parsed {
        return Err(SourceFailure::of(
            SourceFault::Incomplete,
            "its material has neither an access token nor a refresh token",
        ));
    }
    parsed.map(Some).map_err(|error| {
        let fields = match &error {
            Error::Invalid(violations) => {
                violations.iter().map(|it| it.field.to_string()).collect::<Vec<_>>().join(", ")
            }
            _ => "material".to_owned(),
        };
        SourceFailure::of(SourceFault::Incomplete, format!("its material lacks or has unusable fields: {fields}"))
    })
}
