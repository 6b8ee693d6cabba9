//! The streams on which clients answer for credential sources. They are those of this process: a client that serves several replicas has
//! a stream to each.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jackfield_domain::TenantId;
use jackfield_domain::credential::Material;
use jackfield_domain::credential_source::{SourceFault, SourceRequest};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::SourceFailure;
use crate::services::Services;

/// The answer to a question. `None`: there is no material.
pub type SourceAnswer = Result<Option<Material>, SourceFailure>;

/// The streams that are open.
#[derive(Default)]
pub(crate) struct SourceStreams(Mutex<Registry>);

#[derive(Default)]
struct Registry {
    last_number: u64,
    /// The streams of each tenant, the oldest first.
    streams: HashMap<TenantId, Vec<OpenStream>>,
}

struct OpenStream {
    number: u64,
    questions: mpsc::Sender<SourceQuestion>,
    /// The calls that wait for answers. When the stream is removed, they learn that there is none.
    waiting: HashMap<Uuid, oneshot::Sender<SourceAnswer>>,
}

/// A question to the client of a stream.
#[derive(Clone, Debug)]
pub struct SourceQuestion {
    pub fetch_id: Uuid,
    pub request: SourceRequest,
}

/// A stream of a client, which is asked for as long as this lives.
pub struct ServedSource {
    services: Services,
    tenant: TenantId,
    number: u64,
    questions: mpsc::Receiver<SourceQuestion>,
}

/// The place of a call that waits for an answer. It ends with the call.
struct Waiting<'a> {
    streams: &'a SourceStreams,
    tenant: TenantId,
    fetch_id: Uuid,
}

/// The most questions that a client has not read. Others go to an older stream of the tenant.
const QUESTIONS: usize = 64;

// === impl SourceStreams ===

impl SourceStreams {
    /// Asks the client that has opened its stream last, and the one before if it has nothing: each may serve other users.
    pub(super) async fn ask(&self, request: SourceRequest, end: Instant) -> SourceAnswer {
        let (tenant, mut asked) = (request.tenant, None);
        loop {
            let fetch_id = Uuid::now_v7();
            let Some((number, answer)) = self.send(&SourceQuestion { fetch_id, request: request.clone() }, asked)
            else {
                let none = "no client holds a stream open that takes questions";
                return asked.map_or(Err(SourceFailure::of(SourceFault::NotConnected, none)), |_| Ok(None));
            };
            let _waiting = Waiting { streams: self, tenant, fetch_id };
            match timeout_at(end, answer).await {
                Ok(Ok(Ok(None))) => asked = Some(number),
                Ok(Ok(answer)) => return answer,
                // A newer one has said that there is nothing.
                Ok(Err(_)) | Err(_) if asked.is_some() => return Ok(None),
                Ok(Err(_)) => return Err(SourceFailure::of(SourceFault::Failed, "its stream ended before the answer")),
                Err(_) => return Err(SourceFailure::of(SourceFault::Timeout, "its client did not answer in time")),
            }
        }
    }

    /// Sends a question on the newest stream, or on the newest one that is older than another.
    fn send(&self, question: &SourceQuestion, before: Option<u64>) -> Option<(u64, oneshot::Receiver<SourceAnswer>)> {
        let mut registry = self.lock();
        let streams = registry.streams.get_mut(&question.request.tenant);
        let is_older = |stream: &&mut OpenStream| before.is_none_or(|before| stream.number < before);
        for stream in streams.into_iter().flatten().rev().filter(is_older) {
            // One that reads nothing is passed over, and so is one that has just ended.
            if stream.questions.try_send(question.clone()).is_ok() {
                let (sender, answer) = oneshot::channel();
                stream.waiting.insert(question.fetch_id, sender);
                return Some((stream.number, answer));
            }
        }
        None
    }

    fn open(&self, tenant: TenantId) -> (u64, mpsc::Receiver<SourceQuestion>) {
        let (sender, questions) = mpsc::channel(QUESTIONS);
        let mut registry = self.lock();
        registry.last_number += 1;
        let number = registry.last_number;
        let stream = OpenStream { number, questions: sender, waiting: HashMap::new() };
        registry.streams.entry(tenant).or_default().push(stream);
        (number, questions)
    }

    /// Removes the stream with a number. Those who wait for it learn that there is no answer.
    fn close(&self, tenant: TenantId, number: u64) {
        let mut registry = self.lock();
        if let Some(streams) = registry.streams.get_mut(&tenant) {
            streams.retain(|stream| stream.number != number);
            if streams.is_empty() {
                registry.streams.remove(&tenant);
            }
        }
    }

    /// Calls back with the stream that has a number, unless it was removed.
    fn with<T>(&self, tenant: TenantId, number: u64, work: impl FnOnce(&mut OpenStream) -> T) -> Option<T> {
        let mut registry = self.lock();
        let stream = registry.streams.get_mut(&tenant)?.iter_mut().find(|stream| stream.number == number);
        stream.map(work)
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl ServedSource ===

impl ServedSource {
    pub(super) fn open(services: &Services, tenant: TenantId) -> Self {
        let (number, questions) = services.shared.source_streams.open(tenant);
        ServedSource { services: services.clone(), tenant, number, questions }
    }

    /// The next question.
    pub async fn next(&mut self) -> Option<SourceQuestion> {
        self.questions.recv().await
    }

    /// Passes an answer on. One for which no call waits is ignored.
    pub fn answer(&self, fetch_id: Uuid, answer: SourceAnswer) {
        let waiting = |stream: &mut OpenStream| stream.waiting.remove(&fetch_id);
        if let Some(Some(sender)) = self.services.shared.source_streams.with(self.tenant, self.number, waiting) {
            // The caller who waited may have left just now.
            let _ = sender.send(answer);
        }
    }

    /// Ends all questions, because an answer is too large to be read. Its id is not known, so it is of the one who waits if there is only one.
    pub fn end_too_large(&self) {
        let waiting = |stream: &mut OpenStream| std::mem::take(&mut stream.waiting);
        let waiting = self.services.shared.source_streams.with(self.tenant, self.number, waiting).unwrap_or_default();
        let (fault, message) = match waiting.len() {
            1 => (SourceFault::TooLarge, "its answer is larger than permitted"),
            _ => (SourceFault::Failed, "its stream ended, because one of its answers is larger than permitted"),
        };
        for sender in waiting.into_values() {
            let _ = sender.send(Err(SourceFailure::of(fault, message)));
        }
    }
}

impl Drop for ServedSource {
    fn drop(&mut self) {
        self.services.shared.source_streams.close(self.tenant, self.number);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut registry = self.streams.lock();
        for stream in registry.streams.get_mut(&self.tenant).into_iter().flatten() {
            stream.waiting.remove(&self.fetch_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use jackfield_domain::value::text::{Name, UserId};
    use jackfield_domain::{ConnectorId, Secret, Timestamp};
    use tokio::time::Duration;

    use super::*;

    const TENANT: TenantId = TenantId(Uuid::from_u128(1));
    const OTHER: TenantId = TenantId(Uuid::from_u128(2));

    fn question(tenant: TenantId) -> SourceRequest {
        SourceRequest {
            tenant,
            user_id: UserId::stored("ada".to_owned()),
            connector: ConnectorId(Uuid::from_u128(3)),
            connector_name: Name::stored("Gmail".to_owned()),
            kind: None,
            expire_time: Timestamp(0),
        }
    }

    fn end() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    fn fault(answer: SourceAnswer) -> SourceFault {
        match answer {
            Ok(_) => panic!("there is an answer"),
            Err(SourceFailure { fault, .. }) => fault,
        }
    }

    #[tokio::test]
    async fn the_newest_stream_of_the_tenant_is_asked() {
        let streams = SourceStreams::default();
        let (_, mut old) = streams.open(TENANT);
        let (number, mut new) = streams.open(TENANT);
        let (_, mut others) = streams.open(OTHER);
        let asked = streams.ask(question(TENANT), end());
        let answering = async {
            let asked = new.recv().await.unwrap();
            let material = Ok(Some(Material::ApiKey(Secret::new("key".to_owned()))));
            let sender = streams.with(TENANT, number, |stream| stream.waiting.remove(&asked.fetch_id)).flatten();
            assert!(sender.unwrap().send(material).is_ok());
        };
        let (answer, ()) = tokio::join!(asked, answering);
        assert!(matches!(answer, Ok(Some(Material::ApiKey(_)))));
        assert!(old.try_recv().is_err() && others.try_recv().is_err());
    }

    #[tokio::test]
    async fn an_older_stream_is_asked_if_the_newest_has_nothing() {
        let streams = SourceStreams::default();
        let mut opened = [streams.open(TENANT), streams.open(TENANT)];
        for (has_some, expected) in [(true, 2), (false, 2)] {
            let asked = streams.ask(question(TENANT), end());
            let answering = async {
                let mut count = 0;
                for (number, questions) in opened.iter_mut().rev() {
                    let Some(asked) = questions.recv().await else { break };
                    count += 1;
                    let key = Material::ApiKey(Secret::new("key".to_owned()));
                    let answer = Ok(Some(key).filter(|_| has_some && count == 2));
                    let waiting = |stream: &mut OpenStream| stream.waiting.remove(&asked.fetch_id);
                    assert!(streams.with(TENANT, *number, waiting).flatten().unwrap().send(answer).is_ok());
                }
                count
            };
            let (answer, count) = tokio::join!(asked, answering);
            assert_eq!((answer.is_ok_and(|answer| answer.is_some()), count), (has_some, expected));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_way_to_get_no_answer_has_its_fault() {
        let streams = SourceStreams::default();
        assert_eq!(fault(streams.ask(question(TENANT), end()).await), SourceFault::NotConnected);
        let (number, mut questions) = streams.open(TENANT);
        assert_eq!(fault(streams.ask(question(TENANT), end()).await), SourceFault::Timeout);
        assert!(streams.with(TENANT, number, |stream| stream.waiting.is_empty()).unwrap(), "no call waits any more");
        let _ = questions.recv().await;
        let asked = streams.ask(question(TENANT), end());
        let ending = async {
            let _ = questions.recv().await;
            streams.close(TENANT, number);
        };
        let (answer, ()) = tokio::join!(asked, ending);
        assert_eq!(fault(answer), SourceFault::Failed);
        assert!(streams.lock().streams.is_empty());
    }
}
