//! Postgres' clock.

/// `TimestampTz`: microseconds since 2000-01-01 00:00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PgTimestamp(pub i64);

impl PgTimestamp {
    /// Microseconds from 1970-01-01 to 2000-01-01.
    const EPOCH: i64 = 946_684_800_000_000;

    /// Microseconds since 1970-01-01 00:00:00 UTC; the nearest that there is, for times beyond all reason.
    pub fn unix_micros(self) -> i64 {
        self.0.saturating_add(Self::EPOCH)
    }

    /// The other way round.
    pub fn from_unix_micros(micros: i64) -> Self {
        Self(micros.saturating_sub(Self::EPOCH))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_epochs() {
        assert_eq!(PgTimestamp(0).unix_micros(), 946_684_800_000_000);
        assert_eq!(PgTimestamp::from_unix_micros(946_684_800_000_001), PgTimestamp(1));
        assert_eq!(PgTimestamp(i64::MAX).unix_micros(), i64::MAX);
    }
}
