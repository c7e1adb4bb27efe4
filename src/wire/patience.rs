//! How long a server may take for what needs no time.

use crate::error::{Error, ErrorKind, Result};
use std::future::Future;
use std::time::Duration;

/// For an answer that the server has at hand.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits a minute at most for a server that must do no work before it answers; then it is `Unavailable`. `doing` is what it was
/// asked for ("asking the server for its settings").
///
/// Whatever was dropped in the middle leaves its connection unusable.
pub async fn in_time<T>(doing: &str, answer: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| {
        let message = format!("{doing}: no answer within {} s", PATIENCE.as_secs());
        Err(Error::new(ErrorKind::Unavailable, message))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_minute_and_no_more() {
        let slow = |seconds| async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Ok(seconds)
        };
        assert_eq!(in_time("asking", slow(59)).await.unwrap(), 59);
        let error = in_time("asking", slow(61)).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::Unavailable, "asking: no answer within 60 s")
        );
    }
}
