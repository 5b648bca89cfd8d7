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
}

impl Retention {
    /// As two numbers, for the meta page. Spec: FF-010.
    pub(crate) fn encode(self) -> (u32, u64) {
        match self {
            Self::None => (0, 0),
            Self::Txns(many) => (1, many),
            Self::Age(age) => (2, u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)),
            Self::Bytes(bytes) => (3, bytes),
            Self::All => (4, 0),
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
        ] {
            let (kind, amount) = policy.encode();
            assert_eq!(Retention::decode(kind, amount), Some(policy));
        }
        assert_eq!(Retention::decode(5, 0), None);
    }
}
