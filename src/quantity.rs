//! Sizes as people read and type them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes. Shown in binary units, read with decimal (`GB`) or binary (`GiB`) ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

const SHOWN: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

const READ: [(&str, u64); 14] = [
    ("", 1),
    ("b", 1),
    ("k", 1000),
    ("kb", 1000),
    ("kib", 1 << 10),
    ("m", 1_000_000),
    ("mb", 1_000_000),
    ("mib", 1 << 20),
    ("g", 1_000_000_000),
    ("gb", 1_000_000_000),
    ("gib", 1 << 30),
    ("t", 1_000_000_000_000),
    ("tb", 1_000_000_000_000),
    ("tib", 1 << 40),
];

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut unit = 0;
        let mut tenths = u128::from(self.0) * 10;
        while tenths >= 10_240 && unit + 1 < SHOWN.len() {
            tenths /= 1024;
            unit += 1;
        }
        let text = match unit {
            0 => format!("{} B", self.0),
            _ => format!("{}.{} {}", tenths / 10, tenths % 10, SHOWN[unit]),
        };
        f.pad(&text)
    }
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let unit = unit.trim().to_ascii_lowercase();
        let factor = READ.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
        number
            .parse::<u64>()
            .ok()
            .zip(factor)
            .and_then(|(number, factor)| number.checked_mul(factor))
            .map(Self)
            .ok_or_else(|| "expected a whole number and a unit, such as 10GB or 500MiB".to_owned())
    }
}

/// `1 layer`, `2 layers`.
pub fn counted(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_three_figures() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (10 << 20, "10.0 MiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn sizes_are_read_with_units_and_never_overflow() {
        for (text, bytes) in [("10", 10), ("10GB", 10_000_000_000), ("500 MiB", 500 << 20)] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)));
        }
        for text in ["", "GB", "-1", "1.5G", "99999999TiB", "1 parsec", "18446744073709551616"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }
}
