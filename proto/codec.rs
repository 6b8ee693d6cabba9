//! The codec of all generated clients and servers: prost, with requests checked before they are decoded.
//!
//! A decoder's own error text repeats what the sender wrote and can grow to kilobytes; a sender learns only that the
//! message is not well-formed.

use std::collections::HashMap;
use std::marker::PhantomData;

use prost::bytes::Buf as _;
use prost::{Message, Name};
use tonic::codec::{BufferSettings, DecodeBuf, Decoder as TonicDecoder, EncodeBuf, Encoder as TonicEncoder};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::ERROR_DOMAIN;
use crate::wire_scan::{self, Fault, Limit, Request};

/// Reasons of the refusals here, `ErrorReason` of the contract without its prefix.
const MESSAGE_MALFORMED: &str = "MESSAGE_MALFORMED";
const FIELD_INVALID: &str = "FIELD_INVALID";

const MALFORMED: &str = "the request is not a well-formed message of its type";

/// The first size of the buffer of one message. Most requests and answers fit in; larger messages are measured first.
const BUFFER_BYTES: usize = 1024;
/// Messages of a stream are collected up to this many bytes before they are passed on.
const YIELD_BYTES: usize = 32 * 1024;

/// Encodes `E` and decodes `D`.
#[derive(Clone, Copy, Debug)]
pub struct Codec<E, D>(PhantomData<(E, D)>);

/// Encodes `E`.
#[derive(Clone, Copy, Debug)]
pub struct Encoder<E>(PhantomData<E>);

/// Decodes `D`.
#[derive(Clone, Copy, Debug)]
pub struct Decoder<D> {
    /// The request that `D` is checked against; `None` if it is not a request.
    request: Option<Request>,
    decoded: PhantomData<D>,
}

// === impl Codec ===

impl<E, D> Default for Codec<E, D> {
    fn default() -> Self {
        Codec(PhantomData)
    }
}

impl<E, D> tonic::codec::Codec for Codec<E, D>
where
    E: Message + Send + 'static,
    D: Message + Name + Default + Send + 'static,
{
    type Encode = E;
    type Decode = D;
    type Encoder = Encoder<E>;
    type Decoder = Decoder<D>;

    fn encoder(&mut self) -> Self::Encoder {
        Encoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        Decoder { request: wire_scan::request(D::PACKAGE, D::NAME), decoded: PhantomData }
    }
}

// === impl Encoder ===

impl<E: Message> TonicEncoder for Encoder<E> {
    type Item = E;
    type Error = Status;

    #[expect(clippy::disallowed_methods, reason = "the encoder is below the table of domain errors")]
    fn encode(&mut self, message: E, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.reserve(message.encoded_len());
        message.encode(buf).map_err(|_| Status::internal("the message does not fit into its buffer"))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}

// === impl Decoder ===

impl<D: Message + Name + Default> TonicDecoder for Decoder<D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        // One contiguous piece; a copy is made only if the transport ever hands over several.
        if buf.chunk().len() == buf.remaining() {
            let decoded = decode(self.request, buf.chunk());
            buf.advance(buf.remaining());
            decoded.map(Some)
        } else {
            let whole = buf.copy_to_bytes(buf.remaining());
            decode(self.request, &whole).map(Some)
        }
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}

/// Decodes a message as a server does: after the scan if it is a request of the contract.
///
/// # Errors
/// Returns the status for the sender of such a message.
pub fn decode_message<D: Message + Name + Default>(wire: &[u8]) -> Result<D, Status> {
    decode(wire_scan::request(D::PACKAGE, D::NAME), wire)
}

/// Decodes a message, after the scan if it is a request.
#[expect(clippy::disallowed_methods, reason = "the decoder is below the table of domain errors")]
fn decode<D: Message + Default>(request: Option<Request>, wire: &[u8]) -> Result<D, Status> {
    let Some(request) = request else {
        return D::decode(wire).map_err(|_| Status::internal("the answer is not a well-formed message of its type"));
    };
    request.scan(wire).map_err(refusal)?;
    D::decode(wire).map_err(|_| refusal(Fault::Malformed))
}

/// The answer to a request that is not decoded.
fn refusal(fault: Fault) -> Status {
    let (reason, message, limits) = match fault {
        Fault::Malformed => (MESSAGE_MALFORMED, MALFORMED.to_owned(), Vec::new()),
        Fault::Limits(limits) => {
            let message = match limits.as_slice() {
                [] => MALFORMED.to_owned(),
                [Limit { field, description }] => format!("{field} {description}"),
                [Limit { field, description }, rest @ ..] => {
                    format!("{field} {description} (and {} more)", rest.len())
                }
            };
            (FIELD_INVALID, message, limits)
        }
    };
    let mut metadata = HashMap::new();
    if let [only] = limits.as_slice() {
        metadata.insert("field".to_owned(), only.field.clone());
    }
    let mut details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, metadata);
    for Limit { field, description } in limits {
        details.add_bad_request_violation(field, description);
    }
    Status::with_error_details(Code::InvalidArgument, message, details)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{CreateConnectorRequest, GetConnectorRequest, GetConnectorResponse};

    fn failed<D: Message + Name + Default>(wire: &[u8]) -> Status {
        decode::<D>(wire_scan::request(D::PACKAGE, D::NAME), wire).map(drop).unwrap_err()
    }

    #[test]
    fn malformed_requests_get_a_fixed_text() {
        let invalid_utf8 = [0x0a, 0x02, 0xff, 0xfe];
        for status in [
            failed::<GetConnectorRequest>(&[0x08]),
            failed::<GetConnectorRequest>(&invalid_utf8),
            failed::<CreateConnectorRequest>(&[0x0b]),
            failed::<CreateConnectorRequest>(&[0x12, 0x02, 0xff, 0xfe]),
        ] {
            assert_eq!((status.code(), status.message()), (Code::InvalidArgument, MALFORMED));
            let details = status.get_error_details();
            let info = details.error_info().unwrap();
            assert_eq!((info.reason.as_str(), info.domain.as_str()), ("MESSAGE_MALFORMED", "jackfield"));
            assert!(details.bad_request().is_none());
        }
    }

    #[test]
    fn limits_name_the_field() {
        // Struct.fields, its value, that value's struct_value, and so on seventeen times.
        let deep = (0..17).fold(vec![], |inner: Vec<u8>, _| nest(&[0x0a, 0x12, 0x2a], &inner));
        let data = nest(&[0x0a], &[&[0xe2, 0x01][..], &length(&deep), &deep].concat());
        let status = failed::<CreateConnectorRequest>(&data);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "connector.data nests deeper than 16 levels");
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.metadata["field"].as_str()), ("FIELD_INVALID", "connector.data"));
        let violations = &details.bad_request().unwrap().field_violations;
        assert_eq!(violations.len(), 1);
        assert_eq!(
            (&*violations[0].field, &*violations[0].description),
            ("connector.data", "nests deeper than 16 levels")
        );
    }

    #[test]
    fn a_malformed_answer_is_not_the_callers_fault() {
        let status = failed::<GetConnectorResponse>(&[0x08]);
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("connector"));
    }

    fn nest(keys: &[u8], inner: &[u8]) -> Vec<u8> {
        let wrap = |inner: Vec<u8>, key: &u8| [&[*key][..], &length(&inner), &inner].concat();
        keys.iter().rev().fold(inner.to_vec(), wrap)
    }

    fn length(part: &[u8]) -> Vec<u8> {
        let mut length = Vec::new();
        prost::encoding::encode_varint(part.len() as u64, &mut length);
        length
    }
}
