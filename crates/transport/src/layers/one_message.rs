//! Requests of methods that take one message: with none, or with several, nothing is executed. The library below reads
//! the first and throws the others away.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use crate::call::status::not_one_message;

/// The length of the prefix of a message: a flag, and the length in four bytes.
const PREFIX: usize = 5;

/// The body of a request that fails where its second message begins, or at its end if there was none.
pub(super) struct OneMessage {
    body: Body,
    prefix: [u8; PREFIX],
    filled: usize,
    /// Bytes of the message that are still to come, once its prefix is there.
    left: usize,
    ended: bool,
}

// === impl OneMessage ===

impl OneMessage {
    pub(super) fn new(body: Body) -> Self {
        OneMessage { body, prefix: [0; PREFIX], filled: 0, left: 0, ended: false }
    }

    /// Counts bytes; returns whether they belong to the first message.
    fn take(&mut self, bytes: &[u8]) -> bool {
        let taken = (PREFIX - self.filled).min(bytes.len());
        let (prefix, message) = bytes.split_at(taken);
        self.prefix[self.filled..self.filled + taken].copy_from_slice(prefix);
        self.filled += taken;
        if taken > 0 && self.filled == PREFIX {
            let [_, length @ ..] = self.prefix;
            self.left = u32::from_be_bytes(length) as usize;
        }
        let whole = message.len() <= self.left;
        self.left = self.left.saturating_sub(message.len());
        whole
    }
}

impl http_body::Body for OneMessage {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let one = match &frame {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) => self.take(data),
                // Trailers: they end a request too.
                None => self.filled > 0,
            },
            Some(Err(_)) => true,
            None => self.filled > 0,
        };
        self.ended = !one || frame.is_none();
        Poll::Ready(if one { frame } else { Some(Err(not_one_message())) })
    }

    fn is_end_stream(&self) -> bool {
        // A request without a message must be polled: it fails.
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream;
    use http_body_util::{BodyExt as _, StreamBody};
    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn messages_are_counted_however_they_are_cut() {
        let one = [0, 0, 0, 0, 3, 1, 2, 3];
        let none_in_it = [0, 0, 0, 0, 0];
        for (bytes, good) in [
            (one.to_vec(), true),
            (none_in_it.to_vec(), true),
            // A truncated message is not a second message; the library says what is wrong with it.
            (one[..6].to_vec(), true),
            (one[..3].to_vec(), true),
            (vec![], false),
            ([one, one].concat(), false),
            ([&one[..], &none_in_it].concat(), false),
            ([&none_in_it[..], &[0]].concat(), false),
        ] {
            for piece in [1, 2, 5, 100] {
                let frames =
                    bytes.chunks(piece).map(|chunk| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(chunk))));
                let body = Body::new(StreamBody::new(stream::iter(frames.collect::<Vec<_>>())));
                let collected = OneMessage::new(body).collect().await;
                match collected {
                    Ok(read) => assert!(good && read.to_bytes() == bytes, "{bytes:?} in pieces of {piece}"),
                    Err(status) => {
                        assert!(!good && status.code() == Code::Unimplemented, "{bytes:?} in pieces of {piece}");
                    }
                }
            }
        }
    }
}
