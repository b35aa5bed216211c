//! A reader's place in the log of an order: what it gives back to go on without gap or repeat.

use std::{fmt, str::FromStr};

/// The number of the last entry a reader has seen; the first entry of a log has number 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogCursor(i64);

/// What is no place in a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no place in a log: expected the seq of an entry, a number from 0 on")]
pub struct InvalidLogCursor(String);

impl LogCursor {
    /// The last number seen, 0 before the first.
    pub const fn seq(self) -> i64 {
        self.0
    }

    /// Moves on to `seq`; false, and unmoved, when that was seen before.
    #[must_use = "an entry that was seen before must not be shown again"]
    pub const fn advance(&mut self, seq: i64) -> bool {
        let is_new = seq > self.0;
        if is_new {
            self.0 = seq;
        }
        is_new
    }
}

impl FromStr for LogCursor {
    type Err = InvalidLogCursor;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let seq = text.parse().ok().filter(|_| digits);
        seq.map(Self).ok_or_else(|| InvalidLogCursor(text.chars().take(40).collect()))
    }
}

impl fmt::Display for LogCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::LogCursor;

    #[test]
    fn only_plain_numbers_are_places() {
        for text in ["", "-1", "+1", " 1", "1.0", "9223372036854775808", "x"] {
            assert!(text.parse::<LogCursor>().is_err(), "{text:?}");
        }
        assert_eq!("007".parse::<LogCursor>().map(LogCursor::seq), Ok(7));
    }

    proptest! {
        #[test]
        fn entries_are_shown_once_and_in_order(start in 0..i64::MAX, seqs in prop::collection::vec(any::<i64>(), 0..30)) {
            let mut cursor: LogCursor = start.to_string().parse().unwrap();
            let shown: Vec<i64> = seqs.into_iter().filter(|seq| cursor.advance(*seq)).collect();
            prop_assert!(shown.iter().all(|seq| *seq > start));
            prop_assert!(shown.is_sorted_by(|a, b| a < b));
            prop_assert_eq!(cursor.seq(), shown.last().copied().unwrap_or(start));
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
    }
}
