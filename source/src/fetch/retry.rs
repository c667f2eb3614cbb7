//! What a failed attempt leads to.

use std::time::Duration;

use super::FetchError;

/// What a failed attempt means for the next.
pub(super) enum Failure {
    /// Try the same address again, after `wait` if the server stated one.
    Again {
        /// What to report if this was the last attempt.
        error: FetchError,
        /// From `Retry-After`.
        wait: Option<Duration>,
    },
    /// This address will not do; try the next.
    Next(FetchError),
    /// No address will do (the local disk failed).
    Final(FetchError),
}
