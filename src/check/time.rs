//! How long each step may take.

use super::no_time;
use crate::error::{Error, ErrorKind, Result};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// What one step may take, however much time is left in all.
const STEP: Duration = Duration::from_secs(30);

/// The end of the whole check.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(Instant);

impl Deadline {
    /// So long from now.
    pub(super) fn after(limit: Duration) -> Self {
        Self(Instant::now() + limit)
    }

    /// The end of all, or of so much time from now, whichever is first.
    pub(super) fn within(&self, limit: Duration) -> Instant {
        self.0.min(Instant::now() + limit)
    }

    /// Whether it has come.
    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.0
    }

    /// Does one step. Of kind `Unavailable` where it takes too long.
    pub(super) async fn step<T>(&self, doing: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.bounded(doing, STEP, work).await
    }

    /// [`Self::step`] with another limit.
    pub(super) async fn bounded<T>(
        &self,
        doing: &str,
        limit: Duration,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        if self.is_over() {
            return Err(no_time().context(doing));
        }
        timeout_at(self.within(limit), work).await.unwrap_or_else(|_| {
            if self.is_over() {
                return Err(no_time().context(doing));
            }
            Err(Error::new(ErrorKind::Unavailable, format!("{doing}: no end within {} s", limit.as_secs())))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_step_and_the_whole() {
        let deadline = Deadline::after(Duration::from_secs(40));
        let hang = || std::future::pending::<Result<()>>();
        let error = deadline.step("asking", hang()).await.unwrap_err();
        assert_eq!(error.to_string(), "asking: no end within 30 s");
        let error = deadline.step("asking", hang()).await.unwrap_err();
        assert_eq!(error.to_string(), "asking: no time was left; give it more with --timeout");
        let begun = Instant::now();
        assert!(deadline.step("asking", async { Ok(()) }).await.is_err());
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
