//! Malformed and oversized requests, sent as bytes.

use jackfield_api::v1;
use jackfield_testkit::raw::Raw;
use jackfield_testkit::{Client, Refusal, expect_status, fixture, on_both};
use prost::Message;
use prost::bytes::Bytes;
use prost::encoding::encode_varint;
use tonic::{Code, Request, Response, Status};

use super::{create, found};
use crate::steps;

const KIB: usize = 1024;
const MALFORMED: &str = "the request is not a well-formed message of its type";

/// Calls a method of ConfigurationService with these bytes as its message.
async fn send(client: &Client, method: &str, message: Vec<u8>) -> Result<Response<Bytes>, Status> {
    let mut grpc = tonic::client::Grpc::new(client.channel());
    grpc.ready().await.expect("a connection");
    let path = format!("/jackfield.v1.ConfigurationService/{method}").parse().expect("a path");
    grpc.unary(Request::new(message.into()), path, Raw).await
}

/// A length-delimited field.
fn field(number: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_varint(number << 3 | 2, &mut bytes);
    encode_varint(content.len() as u64, &mut bytes);
    [&bytes, content].concat()
}

/// The smallest create request whose `meta` has this many levels of nested messages.
fn deep(levels: usize) -> Vec<u8> {
    let object = (1..levels).fold(Vec::new(), |inner, _| field(1, &field(2, &field(5, &inner))));
    field(1, &field(6, &object))
}

on_both! {
    async fn malformed_messages_get_a_fixed_answer(server) {
        let client = server.client("alpha");
        let malformed: [(&str, Vec<u8>); 10] = [
            ("a field without its value", vec![0x08]),
            ("a number in place of a message", vec![0x08, 0x01]),
            ("a length beyond the end", vec![0x0a, 0x7f, 0x01]),
            ("text that is not UTF-8", field(2, &[0xff, 0xfe])),
            ("text that is not UTF-8, deep inside", field(1, &field(4, &field(1, &field(1, &[0xc3, 0x28]))))),
            ("the field number 0", vec![0x02, 0x00]),
            ("a group", vec![0x0b, 0x0c]),
            ("a number without end", vec![0xff; 11]),
            ("another protocol", b"{\"configuration\":{}}".to_vec()),
            ("no protocol", (0..255).cycle().take(4_096).collect()),
        ];
        for (what, bytes) in malformed {
            for method in ["CreateConfiguration", "UpdateConfiguration"] {
                let result = send(&client, method, bytes.clone()).await;
                let refusal = expect_status(result, Code::InvalidArgument, "MESSAGE_MALFORMED");
                assert_eq!(refusal.status.message(), MALFORMED, "{what}");
                assert_eq!(refusal.fields(), Vec::<&str>::new(), "{what}");
            }
        }
        // Methods without any JSON are decoded just as strictly.
        let result = send(&client, "GetConfiguration", field(1, &[0xff])).await;
        assert_eq!(expect_status(result, Code::InvalidArgument, "MESSAGE_MALFORMED").status.message(), MALFORMED);

        // A decoder would merge a duplicate field, which could then pass any limit in halves.
        let twice = [field(1, &[]), field(1, &[])].concat();
        let refusal = expect_status(
            send(&client, "CreateConfiguration", twice).await,
            Code::InvalidArgument,
            "FIELD_INVALID",
        );
        assert_eq!(refusal.fields(), ["configuration"]);
        for levels in [17, 100, 5_000] {
            let bytes = deep(levels);
            assert!(bytes.len() < 64 * KIB, "{}", bytes.len());
            let result = send(&client, "CreateConfiguration", bytes).await;
            let refusal = expect_status(result, Code::InvalidArgument, "FIELD_INVALID");
            assert_eq!(refusal.description("configuration.meta"), "nests deeper than 16 levels");
        }
        // Well-formed requests are answered, and fields of a later version are ignored.
        let link = steps::linked(&client, "ada", "Gmail").await;
        let credential = steps::api_key(&client, &link, "key").await.id;
        let good = create(fixture::a_configuration(&credential, "Team A")).encode_to_vec();
        let answer = send(&client, "CreateConfiguration", [good, field(999, b"later")].concat()).await.unwrap();
        let answer = v1::CreateConfigurationResponse::decode(answer.into_inner()).unwrap().configuration.unwrap();
        assert_eq!(found(&client, "ext:Team A", &credential).await, answer);
    }

    async fn messages_have_a_size_limit(server) {
        let client = server.client("alpha");
        // A field of a later version pads the message to a size.
        let padded = |size: usize| {
            let mut bytes = field(999, &vec![b'x'; size]);
            while bytes.len() > size {
                let content = size - (bytes.len() - size);
                bytes = field(999, &vec![b'x'; content]);
            }
            assert_eq!(bytes.len(), size);
            bytes
        };
        let most = send(&client, "CreateConfiguration", padded(256 * KIB)).await;
        expect_status(most, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["configuration"]);
        for size in [256 * KIB + 1, 4 * KIB * KIB, 16 * KIB * KIB] {
            let status = send(&client, "CreateConfiguration", padded(size)).await.unwrap_err();
            let refusal = Refusal::check(status, Code::ResourceExhausted, "QUOTA_EXCEEDED");
            assert_eq!(refusal.metadata("limit"), (256 * KIB).to_string(), "{size}");
            assert!(refusal.details.quota_failure().is_some());
        }
        // The connection still works.
        let most = send(&client, "CreateConfiguration", Vec::new()).await;
        expect_status(most, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["configuration"]);
    }
}
