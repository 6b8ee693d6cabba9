//! Compression: requests may use gzip, within the same limits. Lists are sent with it, but no answer that could contain
//! a secret.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt as _, Full};
use jackfield_api::v1;
use jackfield_testkit::{Backend, Client, TestServer, expect_status, fixture, on_both};
use prost::Message;
use tonic::body::Body;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::codegen::{Bytes, Service as _};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::steps;

/// An answer below the generated clients.
struct Raw {
    encoding: Option<String>,
    accept_encoding: Option<String>,
    status: Status,
    /// The messages: whether each is compressed, and its plain content.
    messages: Vec<(bool, Vec<u8>)>,
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Calls a method with one message and this compression flag.
async fn call(client: &Client, path: &str, compressed: u8, message: &[u8], headers: &[(&str, &str)]) -> Raw {
    let length = u32::try_from(message.len()).unwrap();
    let framed = [&[compressed][..], &length.to_be_bytes(), message].concat();
    let mut request = http::Request::post(format!("/{path}")).header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.header("te", "trailers").body(Body::new(Full::new(Bytes::from(framed)))).unwrap();
    let mut channel = client.channel();
    std::future::poll_fn(|context| channel.poll_ready(context)).await.unwrap();
    let (head, body) = channel.call(request).await.unwrap().into_parts();
    let header = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let body = body.collect().await.unwrap();
    let status = body.trailers().and_then(Status::from_header_map).or_else(|| Status::from_header_map(&head.headers));
    let bytes = body.to_bytes();
    let (mut rest, mut messages) = (&bytes[..], Vec::new());
    while let Some((prefix, more)) = rest.split_at_checked(5) {
        let (message, more) = more.split_at(u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize);
        let mut plain = Vec::new();
        match prefix[0] {
            1 => drop(GzDecoder::new(message).read_to_end(&mut plain).unwrap()),
            _ => plain.extend(message),
        }
        messages.push((prefix[0] == 1, plain));
        rest = more;
    }
    let (encoding, accept_encoding) = (header("grpc-encoding"), header("grpc-accept-encoding"));
    Raw { encoding, accept_encoding, status: status.unwrap(), messages }
}

on_both! {
    async fn a_client_with_gzip_works_like_one_without(server) {
        let client = server.client("alpha");
        let mut connectors = client.connectors().send_compressed(Gzip).accept_compressed(Gzip);
        for number in 0..120 {
            let connector = Some(fixture::a_connector(&format!("connector {number:03}")));
            let request = v1::CreateConnectorRequest { connector, ..Default::default() };
            connectors.create_connector(request).await.unwrap();
        }
        let request = v1::ListConnectorsRequest { page_size: 50, order_by: "name".to_owned(), ..Default::default() };
        let mut pages = connectors.list_connectors(request.clone()).await.unwrap();
        assert_eq!(pages.metadata().get("grpc-encoding").unwrap(), "gzip");
        let mut plain = client.connectors().list_connectors(request).await.unwrap();
        assert_eq!(plain.metadata().get("grpc-encoding"), None, "gzip is used only on request");
        let (pages, plain) = (pages.get_mut(), plain.get_mut());
        let mut names = Vec::new();
        while let Some(page) = pages.message().await.unwrap() {
            let expected = plain.message().await.unwrap().unwrap();
            assert_eq!(page.connectors, expected.connectors);
            names.extend(page.connectors.into_iter().map(|connector| connector.name));
        }
        assert!(plain.message().await.unwrap().is_none());
        assert_eq!(names, (0..120).map(|number| format!("connector {number:03}")).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn lists_are_compressed_and_answers_with_tokens_never() {
    let server = TestServer::start(Backend::Sqlite).await;
    let client = server.client("alpha");
    let link = steps::linked(&client, "ada", "Gmail").await;
    // The token would compress well.
    let material = fixture::oauth2_material(&"token".repeat(1_000), &"refresh".repeat(1_000));
    let credential = steps::credential(&client, fixture::a_credential("ada", &link.connector), material).await;
    let reference = credential.id;
    let issue = v1::IssueAccessTokenRequest { reference: reference.clone(), ..Default::default() }.encode_to_vec();
    let purpose = "a test of compression".to_owned();
    let reveal = v1::RevealCredentialRequest { reference: reference.clone(), purpose };
    let get = v1::GetConnectorRequest { reference: link.connector }.encode_to_vec();
    let gzip_too = [("grpc-accept-encoding", "identity,deflate,gzip")];
    for (method, message) in [
        ("CredentialsService/IssueAccessToken", &issue),
        ("CredentialsService/RevealCredential", &reveal.encode_to_vec()),
        ("ConnectorService/GetConnector", &get),
    ] {
        let answer = call(&client, &format!("jackfield.v1.{method}"), 0, message, &gzip_too).await;
        assert_eq!((answer.status.code(), answer.encoding), (Code::Ok, None), "{method}: {:?}", answer.status);
        assert!(matches!(answer.messages.as_slice(), [(false, _)]), "{method}");
    }

    for number in 0..100 {
        steps::connector(&client, fixture::a_connector(&format!("connector {number}"))).await;
    }
    let list = "jackfield.v1.ConnectorService/ListConnectors";
    let answer = call(&client, list, 0, &[], &gzip_too).await;
    assert_eq!(answer.encoding.as_deref(), Some("gzip"));
    let plain = call(&client, list, 0, &[], &[]).await;
    assert_eq!(plain.encoding, None);
    assert!(plain.messages.iter().all(|(compressed, _)| !compressed));
    assert_eq!(answer.messages.iter().map(|(compressed, _)| *compressed).collect::<Vec<_>>(), [true, false]);
    for (one, other) in answer.messages.iter().zip(&plain.messages) {
        let [one, other] = [one, other].map(|(_, page)| v1::ListConnectorsResponse::decode(&page[..]).unwrap());
        assert_eq!(one.connectors, other.connectors);
    }
}

/// The limits apply to decompressed messages, so a megabyte in a kilobyte does not get around them.
#[tokio::test]
async fn a_bomb_is_refused_without_its_content() {
    let server = TestServer::start(Backend::Sqlite).await;
    let client = server.client("alpha");
    let create = "jackfield.v1.ConnectorService/CreateConnector";
    let encoding = [("grpc-encoding", "gzip")];
    let over = v1::CreateConnectorRequest { request_id: "x".repeat(256 * 1024 + 1), ..Default::default() };
    let bomb = gzip(&vec![0; 64 * 1024 * 1024]);
    assert!(bomb.len() < 256 * 1024, "the limit of the compressed size does not catch it");
    for message in [gzip(&over.encode_to_vec()), bomb] {
        let answer = call(&client, create, 1, &message, &encoding).await;
        let info = answer.status.get_details_error_info().unwrap();
        assert_eq!((answer.status.code(), &*info.reason), (Code::ResourceExhausted, "QUOTA_EXCEEDED"));
        assert_eq!(info.metadata["limit"], (256 * 1024).to_string());
    }
    // Invalid content is refused as usual, and data that is not gzip is not a message.
    let request = v1::CreateConnectorRequest { request_id: "none".to_owned(), ..Default::default() };
    let mut connectors = client.connectors().send_compressed(Gzip);
    expect_status(connectors.create_connector(request).await, Code::InvalidArgument, "FIELD_INVALID");
    for message in [vec![7; 100], gzip(&[0xff; 100]), gzip(&[0x0a])] {
        let answer = call(&client, create, 1, &message, &encoding).await;
        let info = answer.status.get_details_error_info().unwrap();
        assert_eq!((answer.status.code(), &*info.reason), (Code::InvalidArgument, "MESSAGE_MALFORMED"));
    }
    let answer = call(&client, create, 1, &gzip(&[]), &[("grpc-encoding", "br")]).await;
    let info = answer.status.get_details_error_info().unwrap();
    assert_eq!((answer.status.code(), &*info.reason), (Code::Unimplemented, "MESSAGE_MALFORMED"));
    assert_eq!(answer.accept_encoding.as_deref(), Some("gzip,identity"));
}

/// A channel with gzip also compresses requests to health and reflection.
#[tokio::test]
async fn health_and_reflection_read_gzip() {
    let server = TestServer::start(Backend::Sqlite).await;
    let client = server.client("alpha");
    for path in ["grpc.health.v1.Health/Check", "grpc.health.v1.Health/List"] {
        let answer = call(&client, path, 1, &gzip(&[]), &[("grpc-encoding", "gzip")]).await;
        assert_eq!((answer.status.code(), answer.encoding), (Code::Ok, None), "{path}: {:?}", answer.status);
    }
    // ListServices, "".
    let services = gzip(&[0x3a, 0]);
    for path in
        ["v1", "v1alpha"].map(|version| format!("grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"))
    {
        let answer = call(&client, &path, 1, &services, &[("grpc-encoding", "gzip")]).await;
        assert_eq!(answer.status.code(), Code::Ok, "{path}: {:?}", answer.status);
        assert_eq!(answer.messages.len(), 1, "{path}");
    }
}
