//! Material that credential sources give: it is stored or refused, and shown nowhere.

use std::collections::BTreeMap;

use jackfield_api::v1;
use jackfield_api::v1::credential_material::Material;
use jackfield_api::v1::credential_source::Endpoint;
use jackfield_testkit::fixture::{a_stream_source, api_key_material, oauth2_material, strings};
use jackfield_testkit::{Canary, Client, GrpcSource, Reply, System, TestServer};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use uuid::Uuid;

use super::raw::{self, call};
use super::sown::Sown;
use crate::{login, steps};

/// A user, and how a source is answered for that user.
type Answer = (&'static str, Code, &'static str);

const ANSWERS: [Answer; 5] = [
    ("given", Code::Ok, ""),
    ("half", Code::FailedPrecondition, "CREDENTIAL_SOURCE_INCOMPLETE"),
    ("invalid", Code::FailedPrecondition, "CREDENTIAL_SOURCE_INCOMPLETE"),
    ("large", Code::FailedPrecondition, "CREDENTIAL_SOURCE_TOO_LARGE"),
    FAILS,
];
const FAILS: Answer = ("fails", Code::Unavailable, "CREDENTIAL_SOURCE_FAILED");
/// More copies of a secret than an answer may have.
const COPIES: usize = 20_000;

/// The secrets that a source gives, by user.
type Secrets = BTreeMap<&'static str, String>;

/// Has each way to a source give secrets, in material and elsewhere.
pub(super) async fn give(server: &TestServer, sown: &mut Sown) {
    let alpha = server.client("alpha");
    for (user_id, ..) in ANSWERS {
        steps::link(&alpha, user_id, &sown.targets.connector).await;
    }
    by_https(&alpha, sown).await;
    by_grpc(&alpha, sown).await;
    by_stream(&alpha, sown).await;
}

async fn by_https(alpha: &Client, sown: &mut Sown) {
    let secrets = plant(sown, "HTTPS");
    let system = System::start(move |request| {
        let question: Value = serde_json::from_slice(&request.body).expect("a question");
        let user_id = question["userId"].as_str().expect("a user");
        let secret = &secrets[user_id];
        if user_id == FAILS.0 {
            return Reply { headers: vec![("x-note", secret.clone())], ..Reply::new(500, secret.clone()) };
        }
        let material = match user_id {
            "half" => json!({ "clientCredentials": { "clientId": secret } }),
            // It has no such field.
            "invalid" => json!({ "apiKey": { "key": secret } }),
            "large" => json!({ "apiKey": { "apiKey": secret.repeat(COPIES) } }),
            _ => json!({ "oauth2": { "accessToken": secret, "refreshToken": secret } }),
        };
        Reply::new(200, json!({ "material": material }).to_string())
    })
    .await;
    let remote = remote(alpha, sown, (&system, "asked by HTTPS"), system.url("/credentials")).await;
    set(alpha, Endpoint::Https(remote)).await;
    for answer in ANSWERS {
        ask(alpha, sown, "HTTPS", answer).await;
    }
}

async fn by_grpc(alpha: &Client, sown: &mut Sown) {
    let secrets = plant(sown, "gRPC");
    let system = System::start(|_| Reply::new(404, "")).await;
    let source = GrpcSource::start(system.pki(), move |question| {
        let secret = &secrets[question.user_id.as_str()];
        match question.user_id.as_str() {
            "fails" => Err((Code::Internal, secret.clone())),
            user_id => Ok(Some(material(user_id, secret))),
        }
    })
    .await;
    let remote = remote(alpha, sown, (&system, "asked by gRPC"), source.url()).await;
    set(alpha, Endpoint::Grpc(remote)).await;
    for answer in ANSWERS {
        ask(alpha, sown, "gRPC", answer).await;
    }
}

async fn by_stream(alpha: &Client, sown: &mut Sown) {
    let secrets = plant(sown, "a stream");
    steps::source(alpha, a_stream_source("")).await;
    for (user_id, code, reason) in ANSWERS {
        let (secret, fails) = (&secrets[user_id], user_id == FAILS.0);
        let (answers, receiver) = mpsc::channel(4);
        let questions = alpha.user_connectors().serve_credentials(ReceiverStream::new(receiver)).await;
        let mut questions = questions.unwrap().into_inner();
        let answering = async {
            let fetch_id = questions.message().await.unwrap().expect("a question").fetch_id;
            // Answers to nothing that was asked, before one without material.
            for other in [secret.clone(), Uuid::now_v7().to_string()].into_iter().filter(|_| fails) {
                let material = Some(material("given", secret));
                answers.send(v1::ServeCredentialsRequest { fetch_id: other, material }).await.unwrap();
            }
            let material = Some(material(user_id, secret)).filter(|_| !fails);
            answers.send(v1::ServeCredentialsRequest { fetch_id, material }).await.unwrap();
        };
        let expected = if fails { (Code::FailedPrecondition, "CREDENTIAL_SOURCE_EMPTY") } else { (code, reason) };
        let asking = ask(alpha, sown, "a stream", (user_id, expected.0, expected.1));
        tokio::join!(asking, answering);
        // An answer that is too large ends the stream.
        if user_id == "large" {
            let refused = questions.message().await.expect_err("an end with an error");
            sown.replies.push(("an answer that is too large".to_owned(), raw::Reply::of_error(&refused)));
        }
    }
}

fn plant(sown: &mut Sown, way: &str) -> Secrets {
    let planted = |(user_id, ..): Answer| {
        let canary = Canary::new(format!("{user_id}, by {way}"));
        sown.canaries.push(canary.clone());
        (user_id, canary.secret)
    };
    ANSWERS.into_iter().map(planted).collect()
}

fn material(user_id: &str, secret: &str) -> v1::CredentialMaterial {
    match user_id {
        "half" => {
            let (client_id, client_secret) = (secret.to_owned(), String::new());
            let half = v1::ClientCredentialsMaterial { client_id, client_secret };
            v1::CredentialMaterial { material: Some(Material::ClientCredentials(half)) }
        }
        "invalid" => api_key_material(&format!("{secret}\n")),
        "large" => api_key_material(&secret.repeat(COPIES)),
        _ => oauth2_material(secret, secret),
    }
}

/// An endpoint that is called with keys of a system, and with a secret header.
async fn remote(alpha: &Client, sown: &mut Sown, (system, name): (&System, &str), url: String) -> v1::RemoteSource {
    let keys = login::connector(alpha, system, name).await;
    let header = Canary::new(format!("the header of a source, {name}"));
    sown.canaries.push(header.clone());
    v1::RemoteSource {
        url,
        secret_headers: strings([("x-source-key", &header.secret)]),
        client_identity_key: keys.client_identity_key,
        trust_bundle_key: keys.trust_bundle_key,
        ..Default::default()
    }
}

async fn set(alpha: &Client, endpoint: Endpoint) {
    steps::source(alpha, v1::CredentialSource { tenant_wide: true, endpoint: Some(endpoint), ..Default::default() })
        .await;
}

async fn ask(alpha: &Client, sown: &mut Sown, way: &str, (user_id, code, reason): Answer) {
    let request = v1::AuthenticateUserConnectorRequest {
        user_id: user_id.to_owned(),
        connector: sown.targets.connector.clone(),
        use_source: true,
        ..Default::default()
    };
    let method = "jackfield.v1.UserConnectorService/AuthenticateUserConnector";
    let reply = call(alpha, method, &request.encode_to_vec(), &[]).await;
    assert_eq!((reply.code, reply.reason.as_str()), (code, reason), "{user_id}, by {way}: {reply:?}");
    sown.replies.push((format!("{user_id}, by {way}"), reply));
}
