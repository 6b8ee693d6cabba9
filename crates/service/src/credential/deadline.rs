//! Deadlines of callers who wait for a refresh.

use std::time::Duration;

use tokio::time::Instant;

/// The most that is left of the time of a caller for the answer.
const MOST_MARGIN: Duration = Duration::from_secs(1);

/// The time by which a caller has to be answered who stops waiting at a deadline: before it, so that the answer is one, and not the end of the
/// call. `None` if it waits for as long as it takes.
pub(super) fn answer_by(deadline: Option<Instant>) -> Option<Instant> {
    let (deadline, now) = (deadline?, Instant::now());
    let left = deadline.saturating_duration_since(now);
    Some(now + left.saturating_sub((left / 4).min(MOST_MARGIN)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_caller_is_answered_before_its_deadline() {
        let now = Instant::now();
        let wait = |millis| answer_by(Some(now + Duration::from_millis(millis))).map(|at| (at - now).as_millis());
        assert_eq!([0, 400, 4_000, 15_000].map(wait), [Some(0), Some(300), Some(3_000), Some(14_000)]);
        assert_eq!(answer_by(None), None);
    }
}
