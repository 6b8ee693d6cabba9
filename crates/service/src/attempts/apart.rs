//! Requests whose rows may be locked. They are written apart from all others, so that others do not wait for them: a replica that is frozen
//! keeps its rows locked until PostgreSQL ends its transaction.
//!
//! They are tried again and again, and each try waits for a lock only briefly: meanwhile it has locked rows itself that others may want,
//! such as that of their common source. Requests that have the same counts are tried together. So each is written as soon as its own rows
//! are free, or fails after some time.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use jackfield_domain::Error;
use jackfield_store::{AttemptKey, is_locked};
use tokio::time::sleep;

use super::batch::{RETRY_AFTER, Unwritten};
use super::queue::{MAX_BATCH, Request, Serves};
use crate::services::Services;

/// The requests that wait apart.
#[derive(Default)]
pub(super) struct Apart {
    /// Those of which a row was locked.
    tried: Vec<Request>,
    /// Those that have a count in common with others here.
    fresh: Vec<Request>,
    /// The counts of those of which a row was locked, and of ends. Requests with these counts are set apart, too.
    keys: HashSet<AttemptKey>,
    /// True if a task serves them.
    pub(super) served: bool,
}

/// The requests that are tried now.
pub(super) struct Round {
    tried: Vec<Request>,
    fresh: Vec<Request>,
}

/// The requests of a round whose rows are locked.
#[derive(Default)]
struct Locked {
    requests: Vec<Request>,
    /// The counts that ends among them change.
    ends: HashSet<AttemptKey>,
}

/// The time for which a request waits for its rows.
const PATIENCE: Duration = Duration::from_secs(2);
/// The time for which a try waits for a row, and the time between two rounds of tries.
const LOCK_PATIENCE: Duration = Duration::from_millis(20);
const PAUSE: Duration = Duration::from_millis(50);

// === impl Services ===

impl Services {
    /// Sets requests apart of which a row is locked.
    pub(super) fn attempts_set_apart(&self, locked: Vec<Request>) {
        if self.shared.attempts.queue.set_apart(locked) {
            let services = self.clone();
            self.shared.tasks.spawn(async move { services.attempts_serve_apart().await });
        }
    }

    /// Tries the requests that are apart until there are none.
    async fn attempts_serve_apart(&self) {
        let queue = &self.shared.attempts.queue;
        let serving = queue.serving(Serves::Apart);
        loop {
            let locked = self.attempts_round(queue.take_apart()).await;
            if !queue.keep_apart(locked) {
                break;
            }
            sleep(PAUSE).await;
        }
        serving.end();
    }

    /// Tries each request once, ends first. Returns those whose rows are locked.
    async fn attempts_round(&self, Round { tried, fresh }: Round) -> Vec<Request> {
        let mut locked = Locked::default();
        let is_end = |request: &Request| request.begins().is_none();
        let (ends, begins): (Vec<_>, Vec<_>) = tried.into_iter().partition(is_end);
        let (fresh_ends, fresh_begins): (Vec<_>, Vec<_>) = fresh.into_iter().partition(is_end);
        for (mut tried, fresh) in [(ends, fresh_ends), (begins, fresh_begins)] {
            let mut fresh = fresh.into_iter().peekable();
            while fresh.peek().is_some() {
                // Most of them share only a count that is not locked.
                let batch = fresh.by_ref().take(MAX_BATCH).collect();
                if let Err((_, failed)) = self.attempts_try(batch, &mut locked).await {
                    tried.extend(failed);
                }
            }
            self.attempts_try_each(tried, &mut locked).await;
        }
        locked.requests
    }

    /// Tries requests, those that have the same counts together. Ends come first, because some of them may take back attempts that are
    /// to be decided about again.
    async fn attempts_try_each(&self, requests: Vec<Request>, locked: &mut Locked) {
        let mut groups: BTreeMap<(bool, Vec<AttemptKey>), Vec<Request>> = BTreeMap::new();
        for request in requests.into_iter().flat_map(Request::parts) {
            groups.entry((request.begins().is_some(), request.keys().collect())).or_default().push(request);
        }
        for group in groups.into_values() {
            if let Err((error, failed)) = self.attempts_try(group, locked).await {
                locked.add(self.attempts_patient(failed, &error));
            }
        }
    }

    /// Tries requests. It fails with those of which a row is locked. Attempts that have to be counted after an end whose row is locked
    /// are not tried.
    async fn attempts_try(&self, requests: Vec<Request>, locked: &mut Locked) -> Result<(), Unwritten> {
        let wanted = requests.into_iter().filter(Request::is_wanted);
        let (wait, requests): (Vec<_>, Vec<_>) = wanted.partition(|request| locked.is_before(request));
        locked.add(self.attempts_patient(wait, &of_an_end()));
        if requests.is_empty() {
            return Ok(());
        }
        let tried = self.attempts_apply(requests, LOCK_PATIENCE).await;
        if let Err((error, failed)) = tried {
            if is_locked(&error) {
                return Err((error, failed));
            }
            self.attempts_fail(&error, failed);
        }
        Ok(())
    }

    /// Those of the requests that can wait longer for their rows. The others fail.
    fn attempts_patient(&self, locked: Vec<Request>, error: &Error) -> Vec<Request> {
        let (patient, late): (Vec<_>, Vec<_>) =
            locked.into_iter().partition(|request| request.since().elapsed() < PATIENCE);
        if !late.is_empty() {
            self.attempts_fail(error, late);
        }
        patient
    }
}

// === impl Apart ===

impl Apart {
    /// Returns whether a request has a count in common with those that are here.
    pub(super) fn shares(&self, request: &Request) -> bool {
        !self.keys.is_empty() && request.keys().any(|key| self.keys.contains(&key))
    }

    /// Adds a request that was not tried.
    pub(super) fn add(&mut self, request: Request) {
        // An attempt that comes after an end is to come here, too.
        if request.begins().is_none() {
            self.keys.extend(request.keys());
        }
        self.fresh.push(request);
    }

    /// Adds requests of which a row is locked.
    pub(super) fn add_tried(&mut self, locked: Vec<Request>) {
        self.keys.extend(locked.iter().flat_map(Request::keys));
        self.tried.extend(locked);
    }

    /// The requests that are to be tried. Attempts that have to be counted after the ends that are being written stay here.
    pub(super) fn take(&mut self, ending: &HashSet<AttemptKey>) -> Round {
        let can_be =
            |request: &mut Request| request.begins().is_none() || !request.keys().any(|key| ending.contains(&key));
        let tried = self.tried.extract_if(.., can_be).collect();
        let fresh = self.fresh.extract_if(.., can_be).collect();
        Round { tried, fresh }
    }

    /// Keeps requests that were tried and whose rows are locked, and forgets the counts of all others that were.
    pub(super) fn keep(&mut self, locked: Vec<Request>) {
        self.tried.extend(locked);
        let ends = self.fresh.iter().filter(|request| request.begins().is_none());
        self.keys = self.tried.iter().chain(ends).flat_map(Request::keys).collect();
        self.served = !(self.tried.is_empty() && self.fresh.is_empty());
    }
}

// === impl Locked ===

impl Locked {
    fn add(&mut self, requests: Vec<Request>) {
        let ends = requests.iter().filter(|request| request.begins().is_none());
        self.ends.extend(ends.flat_map(Request::keys));
        self.requests.extend(requests);
    }

    /// Returns whether an end whose row is locked has to be written before a request.
    fn is_before(&self, request: &Request) -> bool {
        request.begins().is_some() && request.keys().any(|key| self.ends.contains(&key))
    }
}

/// The error of attempts that have to be counted after an end whose row is locked.
fn of_an_end() -> Error {
    Error::StoreUnavailable { retry_after: RETRY_AFTER, source: "a count with an end to be noted stays locked".into() }
}

#[cfg(test)]
mod tests {
    use jackfield_domain::TenantId;
    use jackfield_domain::attempts::{AttemptEnd, AttemptLimit};
    use tokio::sync::oneshot;
    use uuid::Uuid;

    use super::super::Counted;
    use super::super::queue::Queue;
    use super::*;

    const LIMIT: AttemptLimit = AttemptLimit::User;

    fn key(number: u8) -> AttemptKey {
        (TenantId(Uuid::nil()), [number; 32])
    }

    /// An attempt that is counted by these numbers.
    fn begin(numbers: &[u8]) -> Request {
        // Nobody waits for it.
        Request::begin(numbers.iter().map(|number| (LIMIT, key(*number))).collect(), oneshot::channel().0)
    }

    fn end(numbers: &[u8]) -> Request {
        let counted = numbers.iter().map(|number| (LIMIT, key(*number), 0)).collect();
        Request::end(Counted(counted), AttemptEnd::Unchecked)
    }

    /// The numbers of requests, with those of ends after a minus.
    fn numbers(requests: &[Request]) -> Vec<Vec<i16>> {
        let number = |request: &Request, (_, [number, ..]): AttemptKey| {
            if request.begins().is_some() { i16::from(number) } else { -i16::from(number) }
        };
        requests.iter().map(|request| request.keys().map(|key| number(request, key)).collect()).collect()
    }

    #[test]
    fn requests_with_the_counts_of_those_that_are_locked_are_set_apart() {
        let queue = Queue::default();
        assert!(queue.push(begin(&[3])), "it is to be served");
        assert!(!queue.push(begin(&[2, 9])));
        assert!(!queue.push(end(&[1])));
        assert!(queue.set_apart(vec![begin(&[1, 9])]), "they are to be served");
        assert!(!queue.push(begin(&[9, 4])));
        let Round { tried, fresh } = queue.take_apart();
        assert_eq!(numbers(&tried), [[1, 9]]);
        assert_eq!(numbers(&fresh), [vec![-1], vec![2, 9], vec![9, 4]]);
        // While those are tried, others still come here.
        queue.push(begin(&[9, 5]));
        // The counts of an attempt that was not tried are no reason.
        queue.push(begin(&[4, 6]));
        assert!(queue.keep_apart(tried));
        let Round { tried, fresh } = queue.take_apart();
        assert_eq!((numbers(&tried), numbers(&fresh)), (vec![vec![1, 9]], vec![vec![9, 5]]));
        assert!(!queue.keep_apart(Vec::new()), "there are no more");
        assert!(queue.set_apart(vec![begin(&[1])]), "they are to be served again");
    }

    #[test]
    fn an_attempt_that_is_set_apart_takes_ends_along_that_come_before_it() {
        let queue = Queue::default();
        queue.set_apart(vec![begin(&[1, 9])]);
        queue.push(end(&[2, 3]));
        queue.push(end(&[4]));
        queue.push(begin(&[2, 9]));
        // It comes after the end that was taken along.
        queue.push(begin(&[3]));
        assert_eq!(numbers(&queue.take_apart().fresh), [vec![-2, -3], vec![2, 9], vec![3]]);
    }

    #[tokio::test]
    async fn an_attempt_that_is_set_apart_waits_for_ends_that_are_being_written() {
        let queue = Queue::default();
        queue.set_apart(vec![begin(&[1, 9])]);
        queue.push(end(&[2]));
        assert_eq!(numbers(&queue.next().await.unwrap()), [[-2]]);
        queue.push(begin(&[2, 9]));
        let Round { tried, fresh } = queue.take_apart();
        assert_eq!((tried.len(), fresh.len()), (1, 0));
        assert!(queue.keep_apart(Vec::new()));
        // They are written.
        assert!(queue.overdue().is_none());
        assert_eq!(numbers(&queue.take_apart().fresh), [[2, 9]]);
    }

    #[test]
    fn attempts_come_after_the_parts_of_ends_that_are_locked() {
        let mut locked = Locked::default();
        let mut parts = end(&[1, 2]).parts();
        assert_eq!(numbers(&parts), [[-1], [-2]]);
        locked.add(parts.split_off(1));
        assert!(locked.is_before(&begin(&[2, 3])));
        assert!(!locked.is_before(&begin(&[1, 3])) && !locked.is_before(&end(&[2])));
    }
}
