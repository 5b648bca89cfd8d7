//! How much of the past is kept.

use std::time::Duration;

/// How much of the past is kept beyond what is needed: of the commit log
/// ([`Options::log_retention`](crate::Options::log_retention)), or of superseded versions
/// ([`Options::history`](crate::Options::history)).
///
/// Kept are whole pieces, segments of the log or runs of history, so somewhat more than asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Retention {
    /// Nothing.
    #[default]
    None,
    /// The last transactions, so many.
    Txns(u64),
    /// What was committed during the last so long, by the wall clock.
    Age(Duration),
    /// The last bytes, so many.
    Bytes(u64),
    /// Everything, for ever.
    All,
    /// What was committed during the last `age`, as far as the last `bytes` hold it: whichever is less. Both are rounded up, to
    /// seconds and to 4 KiB, and no more than 136 years and 16 TiB.
    Within {
        /// How long, by the wall clock.
        age: Duration,
        /// So many bytes.
        bytes: u64,
    },
}

/// Of the unit in which bytes are remembered beside an age: 4 KiB.
const UNIT_BITS: u32 = 12;

impl Retention {
    /// As it is remembered.
    pub(crate) fn rounded(self) -> Self {
        let (kind, amount) = self.encode();
        Self::decode(kind, amount).unwrap_or(self)
    }

    /// As two numbers, for the meta page. Spec: FF-010.
    pub(crate) fn encode(self) -> (u32, u64) {
        match self {
            Self::None => (0, 0),
            Self::Txns(many) => (1, many),
            Self::Age(age) => (2, u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)),
            Self::Bytes(bytes) => (3, bytes),
            Self::All => (4, 0),
            Self::Within { age, bytes } => {
                let part = u64::from(age.subsec_nanos() > 0);
                let secs = age.as_secs().saturating_add(part);
                let [secs, units] = [secs, bytes.div_ceil(1 << UNIT_BITS)]
                    .map(|amount| amount.min(u64::from(u32::MAX)));
                (5, secs << u32::BITS | units)
            }
        }
    }

    /// From these numbers. `None` if the first is unknown.
    pub(crate) fn decode(kind: u32, amount: u64) -> Option<Self> {
        Some(match kind {
            0 => Self::None,
            1 => Self::Txns(amount),
            2 => Self::Age(Duration::from_nanos(amount)),
            3 => Self::Bytes(amount),
            4 => Self::All,
            5 => Self::Within {
                age: Duration::from_secs(amount >> u32::BITS),
                bytes: (amount & u64::from(u32::MAX)) << UNIT_BITS,
            },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_comes_back_from_its_numbers() {
        let age = Retention::Age(Duration::from_nanos(7));
        for policy in [
            Retention::None,
            Retention::Txns(3),
            age,
            Retention::Bytes(9),
            Retention::All,
            within(3600, 1 << 30),
            within(0, 0),
        ] {
            let (kind, amount) = policy.encode();
            assert_eq!(Retention::decode(kind, amount), Some(policy));
        }
        assert_eq!(Retention::decode(6, 0), None);
    }

    fn within(secs: u64, bytes: u64) -> Retention {
        let age = Duration::from_secs(secs);
        Retention::Within { age, bytes }
    }

    #[test]
    fn an_age_and_bytes_are_remembered_rounded_up() {
        let back = |age, bytes| {
            let (kind, amount) = Retention::Within { age, bytes }.encode();
            Retention::decode(kind, amount)
        };
        assert_eq!(back(Duration::from_nanos(1), 1), Some(within(1, 4096)));
        let most = u64::from(u32::MAX);
        assert_eq!(
            back(Duration::MAX, u64::MAX),
            Some(within(most, most << 12))
        );
    }
}
