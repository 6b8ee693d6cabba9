//! Requests whose rows may be locked. They are written apart from all others, so that others do not wait for them: a replica that is frozen
//! keeps its rows locked until PostgreSQL ends its transaction.
//!
//! They are tried in rounds. A try waits for a lock only briefly: meanwhile it has locked rows itself that others may want, such as that of
//! their common source. Requests that have the same counts are tried together. A round does not last long, however many there are, and those
//! that have no count in common with one that is locked come first. So each is written soon after its own rows are free, or fails when its
//! patience ends.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use jackfield_domain::Error;
use jackfield_store::{AttemptKey, is_locked};
use tokio::time::{Instant, sleep};

use super::batch::RETRY_AFTER;
use super::queue::{MAX_BATCH, Request, Serves};
use crate::services::Services;

/// The requests that wait apart.
#[derive(Default)]
pub(super) struct Apart {
    /// Requests of which a row was locked, the next one that is to be tried first.
    tried: Vec<Request>,
    /// Requests that have a count in common with others here.
    fresh: Vec<Request>,
    /// The counts of those of which a row was locked, and of ends. Requests with these counts are set apart, too.
    keys: HashSet<AttemptKey>,
    /// True if a task serves them.
    pub(super) served: bool,
}

/// The requests of a round of tries.
pub(super) struct Round {
    /// Requests whose patience has ended. They are not tried.
    late: Vec<Request>,
    tried: Vec<Request>,
    fresh: Vec<Request>,
}

/// The requests of a round that are to be tried again.
#[derive(Default)]
struct Locked {
    /// Requests for which the round had no time.
    untried: Vec<Request>,
    requests: Vec<Request>,
    /// The counts of ends that are not written.
    ends: HashSet<AttemptKey>,
}

/// Requests that have the same counts.
type Group = Vec<Request>;

/// The time for which an attempt waits for its rows.
const PATIENCE: Duration = Duration::from_secs(2);
/// The time for which an end waits for its rows. PostgreSQL ends a transaction in which nothing happens after 10 s.
const PATIENCE_OF_ENDS: Duration = Duration::from_secs(12);
/// The time for which a try waits for a row if there are few, and if there are many.
const LOCK_PATIENCE: Duration = Duration::from_millis(20);
const MIN_LOCK_PATIENCE: Duration = Duration::from_millis(2);
/// The time for which tries wait for rows in a round, and after which none begins that has a count in common with one that failed.
const ROUND: Duration = Duration::from_millis(200);
/// The time before the end of its patience in which a request may wait for a row for all of a round. A row that replicas write all the time
/// is never free at once.
const LAST: Duration = Duration::from_millis(500);
/// The time between two rounds.
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

    /// Tries the requests, ends first. Fresh ones of which a row is locked are tried once more on their own. Returns those that are to be
    /// tried again.
    async fn attempts_round(&self, Round { late, tried, fresh }: Round) -> Vec<Request> {
        let mut locked = Locked::default();
        if !late.is_empty() {
            self.attempts_fail_apart(&stays_locked(), late, &mut locked);
        }
        let is_end = |request: &Request| request.begins().is_none();
        let (ends, begins): (Vec<_>, Vec<_>) = tried.into_iter().partition(is_end);
        let (fresh_ends, fresh_begins): (Vec<_>, Vec<_>) = fresh.into_iter().partition(is_end);
        for (mut tried, fresh) in [(ends, fresh_ends), (begins, fresh_begins)] {
            let mut fresh = fresh.into_iter().peekable();
            while fresh.peek().is_some() {
                // Most of them share only a count that is not locked.
                let batch = fresh.by_ref().take(MAX_BATCH).collect();
                tried.extend(self.attempts_try(batch, LOCK_PATIENCE, &mut locked).await);
            }
            self.attempts_try_each(tried, &mut locked).await;
        }
        locked.untried.append(&mut locked.requests);
        locked.untried
    }

    /// Tries requests, those that have the same counts together. Those that have a count in common with one that fails come last, because
    /// there may be very many of them, such as all from one source.
    async fn attempts_try_each(&self, requests: Vec<Request>, locked: &mut Locked) {
        let until = Instant::now() + ROUND;
        let groups = groups(requests);
        let share = ROUND / u32::try_from(groups.len()).unwrap_or(u32::MAX).max(1);
        let (mut suspects, mut keys) = (Vec::new(), HashSet::new());
        for group in groups {
            if group.iter().flat_map(Request::keys).any(|key| keys.contains(&key)) {
                suspects.push(group);
                continue;
            }
            let patience = share.clamp(MIN_LOCK_PATIENCE, longest_try(&group));
            let failed = self.attempts_try(group, patience, locked).await;
            keys.extend(failed.iter().flat_map(Request::keys));
            locked.add(failed);
        }
        let mut suspects = suspects.into_iter();
        while Instant::now() < until
            && let Some(group) = suspects.next()
        {
            let failed = self.attempts_try(group, MIN_LOCK_PATIENCE, locked).await;
            locked.add(failed);
        }
        locked.postpone(suspects.flatten().collect());
    }

    /// Tries requests, and returns those that are locked. Attempts that have to be counted after an end that is not written are not tried.
    async fn attempts_try(&self, requests: Vec<Request>, patience: Duration, locked: &mut Locked) -> Vec<Request> {
        let (wait, requests): (Vec<_>, Vec<_>) = requests.into_iter().partition(|request| locked.is_before(request));
        locked.add(wait);
        if requests.is_empty() {
            return Vec::new();
        }
        match self.attempts_apply(requests, patience).await {
            Ok(()) => Vec::new(),
            Err((error, failed)) if is_locked(&error) => failed,
            Err((error, failed)) => {
                self.attempts_fail_apart(&error, failed, locked);
                Vec::new()
            }
        }
    }

    /// Answers requests that could not be written. Ends among them that are tried once more are queued, and attempts come after them.
    fn attempts_fail_apart(&self, error: &Error, failed: Vec<Request>, locked: &mut Locked) {
        locked.note_ends(&failed);
        self.attempts_fail(error, failed);
    }
}

// === impl Apart ===

impl Apart {
    /// Returns whether a request has a count in common with those that are here. An end that is tried once more has lost its place, and
    /// comes before all attempts here.
    pub(super) fn shares(&self, request: &Request) -> bool {
        let is_before = || {
            let keys: HashSet<_> = request.keys().collect();
            self.fresh.iter().flat_map(Request::keys).any(|key| keys.contains(&key))
        };
        request.keys().any(|key| self.keys.contains(&key)) || request.is_retry() && is_before()
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

    /// The requests of a round. Attempts that have to be counted after the ends that are being written stay here until they are late.
    pub(super) fn take(&mut self, ending: &HashSet<AttemptKey>) -> Round {
        let mut late = Vec::new();
        let mut take = |requests: &mut Vec<Request>| {
            requests.retain(Request::is_wanted);
            late.extend(requests.extract_if(.., |request| patience_left(request).is_zero()));
            let can_be =
                |request: &mut Request| request.begins().is_none() || !request.keys().any(|key| ending.contains(&key));
            requests.extract_if(.., can_be).collect()
        };
        let (tried, fresh) = (take(&mut self.tried), take(&mut self.fresh));
        Round { late, tried, fresh }
    }

    /// Keeps requests that are to be tried again, and forgets the counts of all others that were.
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
        self.note_ends(&requests);
        self.requests.extend(requests);
    }

    /// Adds requests that come first in the next round.
    fn postpone(&mut self, requests: Vec<Request>) {
        self.note_ends(&requests);
        self.untried.extend(requests);
    }

    fn note_ends(&mut self, requests: &[Request]) {
        let ends = requests.iter().filter(|request| request.begins().is_none());
        self.ends.extend(ends.flat_map(Request::keys));
    }

    /// Returns whether an end that is not written has to be written before a request.
    fn is_before(&self, request: &Request) -> bool {
        request.begins().is_some() && request.keys().any(|key| self.ends.contains(&key))
    }
}

/// The parts of requests, those together that have the same counts, in their order. Ends come first, because some of them may take back
/// attempts that are to be decided about again.
fn groups(requests: Vec<Request>) -> Vec<Group> {
    let (mut groups, mut places): (Vec<Group>, BTreeMap<_, usize>) = (Vec::new(), BTreeMap::new());
    let (ends, begins): (Vec<_>, Vec<_>) = requests.into_iter().partition(|request| request.begins().is_none());
    for part in ends.into_iter().chain(begins).flat_map(Request::parts) {
        let counts: (bool, Vec<AttemptKey>) = (part.begins().is_some(), part.keys().collect());
        let place = *places.entry(counts).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push(part),
            None => groups.push(vec![part]),
        }
    }
    groups
}

/// The longest time for which a try of requests may wait for a row.
fn longest_try(group: &[Request]) -> Duration {
    let left = group.iter().map(patience_left).min().unwrap_or_default();
    if left < LAST { ROUND } else { LOCK_PATIENCE }
}

/// The time for which a request can still wait for its rows.
fn patience_left(request: &Request) -> Duration {
    let patience = if request.begins().is_some() { PATIENCE } else { PATIENCE_OF_ENDS };
    patience.saturating_sub(request.since().elapsed())
}

/// The error of requests whose patience has ended.
fn stays_locked() -> Error {
    Error::StoreUnavailable { retry_after: RETRY_AFTER, source: "a count or an earlier end stays locked".into() }
}

#[cfg(test)]
mod tests {
    use jackfield_domain::TenantId;
    use jackfield_domain::attempts::{AttemptEnd, AttemptLimit};
    use tokio::sync::oneshot;
    use tokio::time::advance;
    use uuid::Uuid;

    use super::super::Counted;
    use super::super::queue::Queue;
    use super::*;

    const LIMIT: AttemptLimit = AttemptLimit::User;

    fn key(number: u8) -> AttemptKey {
        (TenantId(Uuid::nil()), [number; 32])
    }

    /// An attempt that is counted by these numbers. Its caller stays until the test ends.
    fn begin(numbers: &[u8]) -> Request {
        let (answer, answered) = oneshot::channel();
        std::mem::forget(answered);
        Request::begin(numbers.iter().map(|number| (LIMIT, key(*number))).collect(), answer)
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
        let Round { tried, fresh, .. } = queue.take_apart();
        assert_eq!(numbers(&tried), [[1, 9]]);
        assert_eq!(numbers(&fresh), [vec![-1], vec![2, 9], vec![9, 4]]);
        // While those are tried, others still come here.
        queue.push(begin(&[9, 5]));
        // The counts of an attempt that was not tried are no reason.
        queue.push(begin(&[4, 6]));
        assert!(queue.keep_apart(tried));
        let Round { tried, fresh, .. } = queue.take_apart();
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
        assert_eq!(numbers(&queue.take_apart().fresh), [vec![2, 9], vec![-2, -3], vec![3]]);
    }

    #[tokio::test]
    async fn an_end_that_is_set_apart_takes_attempts_along_that_come_after_it() {
        // By an attempt that comes later, and by requests of which a row is locked.
        for later in [true, false] {
            let queue = Queue::default();
            if later {
                queue.set_apart(vec![begin(&[9])]);
            }
            queue.push(end(&[1, 2]));
            queue.push(begin(&[2, 3]));
            // The end of another attempt, which that one comes after.
            queue.push(end(&[3, 4]));
            queue.push(begin(&[4, 5]));
            queue.push(begin(&[5]));
            queue.push(begin(&[1, 9]));
            if !later {
                queue.set_apart(vec![begin(&[9])]);
            }
            let mut fresh = numbers(&queue.take_apart().fresh);
            fresh.sort_unstable();
            assert_eq!(fresh, [vec![-3, -4], vec![-1, -2], vec![1, 9], vec![2, 3], vec![4, 5]]);
            assert_eq!(numbers(&queue.next().await.unwrap()), [[5]]);
        }
    }

    #[tokio::test]
    async fn an_end_that_is_tried_once_more_keeps_its_place() {
        let queue = Queue::default();
        queue.set_apart(vec![begin(&[1, 9])]);
        queue.push(end(&[2]));
        let mut ending = queue.next().await.unwrap();
        queue.push(begin(&[2, 9]));
        assert!(queue.take_apart().fresh.is_empty());
        assert!(!queue.push(ending.remove(0).again()), "it waits apart");
        assert!(queue.next().await.is_none());
        assert_eq!(numbers(&queue.take_apart().fresh), [vec![2, 9], vec![-2]]);
        // There is no such attempt any more.
        assert!(!queue.keep_apart(Vec::new()));
        assert!(queue.push(end(&[2]).again()));
    }

    #[tokio::test(start_paused = true)]
    async fn ends_have_more_patience_than_attempts_and_nobody_waits_for_ever() {
        let queue = Queue::default();
        let gone = Request::begin(vec![(LIMIT, key(1))], oneshot::channel().0);
        queue.set_apart(vec![gone, end(&[1]), begin(&[1])]);
        queue.push(end(&[2]));
        assert_eq!(numbers(&queue.next().await.unwrap()), [[-2]]);
        // It is held back by the end that is being written.
        queue.push(begin(&[1, 2]));
        let Round { late, tried, fresh } = queue.take_apart();
        assert_eq!((numbers(&late), numbers(&tried), fresh.len()), (vec![], vec![vec![-1], vec![1]], 0));
        queue.keep_apart(tried);
        advance(PATIENCE).await;
        let Round { late, tried, fresh } = queue.take_apart();
        assert_eq!((numbers(&late), numbers(&tried), fresh.len()), (vec![vec![1], vec![1, 2]], vec![vec![-1]], 0));
        queue.keep_apart(tried);
        advance(Duration::from_secs(10)).await;
        assert_eq!(numbers(&queue.take_apart().late), [[-1]]);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_wait_longer_for_a_row_before_their_patience_ends() {
        let group = [begin(&[1])];
        assert_eq!(longest_try(&group), LOCK_PATIENCE);
        advance(PATIENCE - LAST / 2).await;
        assert_eq!((longest_try(&group), longest_try(&[begin(&[1])])), (ROUND, LOCK_PATIENCE));
    }

    #[test]
    fn parts_with_the_same_counts_are_a_group_and_ends_come_first() {
        let requests = vec![begin(&[3, 1]), begin(&[2]), end(&[1, 2]), begin(&[3, 1]), end(&[2])];
        let groups: Vec<_> = groups(requests).iter().map(|group| numbers(group)).collect();
        assert_eq!(groups, [vec![vec![-1]], vec![vec![-2]; 2], vec![vec![3, 1]; 2], vec![vec![2]]]);
    }

    #[tokio::test]
    async fn an_attempt_that_is_set_apart_waits_for_ends_that_are_being_written() {
        let queue = Queue::default();
        queue.set_apart(vec![begin(&[1, 9])]);
        queue.push(end(&[2]));
        assert_eq!(numbers(&queue.next().await.unwrap()), [[-2]]);
        queue.push(begin(&[2, 9]));
        let Round { tried, fresh, .. } = queue.take_apart();
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
