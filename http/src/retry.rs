//! When to try again, and after how long.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

/// Statuses that pass: overload, restarts, bad gateways, time-outs.
pub const fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// The pause before attempt `number` (from 1): doubled each time, half of it by chance, so that
/// clients that failed together do not come back together.
pub fn backoff(first: Duration, longest: Duration, number: u32) -> Duration {
    let whole = first.saturating_mul(1 << number.saturating_sub(1).min(16)).min(longest);
    // A fresh RandomState is the standard library's only source of chance; it reaches no output.
    let chance = RandomState::new().build_hasher().finish() % 1024;
    whole / 2 + (whole / 2).mul_f64(chance as f64 / 1024.0)
}

/// Reads `Retry-After` in either of its forms (RFC 9110, section 10.2.3).
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_within_their_bounds() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(1));
        for (number, most) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1000), (60, 1000)] {
            let pause = backoff(first, longest, number).as_millis();
            assert!((most / 2..=most).contains(&pause), "attempt {number}: {pause} ms");
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_date() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(of("7"), Some(Duration::from_secs(7)));
        let soon = of(&httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60)));
        assert!(soon.unwrap() > Duration::from_secs(50));
        assert_eq!(of("Thu, 01 Jan 1970 00:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(of("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
