//! Faults that leak information to callers.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use tonic::body::Body;

use super::{Fault, Layer, answered};

/// Everything that passed the layer, for all callers.
#[derive(Default)]
pub(super) struct Seen {
    /// Ids in answers.
    ids: Mutex<HashSet<Vec<u8>>>,
    /// Answers by path and request, and the times at which they were cached.
    answers: Mutex<HashMap<(String, Bytes), (Instant, Bytes)>>,
}

/// Length of a UUID as text.
const ID: usize = 36;
/// The most bytes of a request that a refusal repeats.
const ECHO: usize = 2_000;
/// The time for which answers are cached. Answers that stayed for good would soon be the same for all who ask by name, and show nothing.
const CACHED: Duration = Duration::from_millis(500);

// === impl Fault ===

impl Fault {
    /// Returns whether it is one of these faults.
    pub(super) fn is_leak(self) -> bool {
        matches!(
            self,
            Fault::PrintsRequests
                | Fault::EchoesRequests
                | Fault::DefaultAllocator
                | Fault::RevealsOtherTenants
                | Fault::SharesCachedReads
        )
    }
}

// === impl Layer ===

impl Layer {
    /// Handles a call with one message each way; lists pass unchanged.
    pub(super) async fn leak(self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let method = path.rsplit('/').next().unwrap_or_default();
        if self.fault == Fault::DefaultAllocator || method.starts_with("List") {
            return self.pass(request).await;
        }
        let (parts, body) = request.into_parts();
        // The services answer a body that is incomplete or not a message.
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let message = body.get(5..).map(Bytes::copy_from_slice).unwrap_or_default();
        let key = (path.clone(), message.clone());
        match self.fault {
            Fault::PrintsRequests => tracing::debug!(request = ?message, "called"),
            Fault::SharesCachedReads if method.starts_with("Get") => {
                let known = lock(&self.seen.answers).get(&key).cloned();
                if let Some((_, answer)) = known.filter(|(since, _)| since.elapsed() < CACHED) {
                    return answered(answer);
                }
            }
            _ => {}
        }
        let (mut head, answer) = self.send(&parts, &message).await.into_parts();
        let refused = head.headers.get("grpc-status").is_some_and(|status| status != "0");
        if refused {
            let of_another = || ids(&message).any(|id| lock(&self.seen.ids).contains(id));
            let text = match self.fault {
                Fault::EchoesRequests => Some(plain(&message)),
                Fault::RevealsOtherTenants if of_another() => Some("it is of another tenant".to_owned()),
                _ => None,
            };
            if let Some(text) = text.and_then(|text| HeaderValue::from_str(&text).ok()) {
                head.headers.insert("grpc-message", text);
            }
            return Response::from_parts(head, answer);
        }
        let Ok(answer) = answer.collect().await.map(|answer| answer.to_bytes()) else {
            return Response::from_parts(head, Body::empty());
        };
        lock(&self.seen.ids).extend(ids(&answer).map(<[u8]>::to_vec));
        lock(&self.seen.answers).insert(key, (Instant::now(), answer.clone()));
        answered(answer)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everything that looks like a UUID.
fn ids(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.windows(ID).filter(|window| {
        window.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
    })
}

/// The part of a message that can go into a header.
fn plain(message: &[u8]) -> String {
    message
        .iter()
        .filter(|byte| byte.is_ascii_graphic() && **byte != b'%')
        .take(ECHO)
        .map(|byte| char::from(*byte))
        .collect()
}
