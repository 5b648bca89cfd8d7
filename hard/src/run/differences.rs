//! What differs between two states: the engine's answer beside the model's.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use northstardb::Error;

use super::{Held, Runner};
use crate::model::{Bytes, Rows};
use crate::{During, Failure};

type Difference = (Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>);

impl Runner {
    /// Takes the tables without history from a state whose past they do not have: what they say must be right, or that.
    pub(super) fn without_past(&mut self, then: &mut Held) -> Result<(), Failure> {
        let unkept = then
            .handles
            .iter()
            .filter(|(_, table)| !table.keeps_history());
        let names: Vec<String> = unkept.map(|(name, _)| name.clone()).collect();
        for name in names {
            let Some(table) = then.handles.get(&name) else {
                continue;
            };
            match then.read.get(table, b"") {
                // The state is young enough, and compared with the others.
                Ok(_) => continue,
                Err(Error::NoHistory { .. }) => self.totals.unkept += 1,
                Err(other) => return Err(other).during("get of a table without history"),
            }
            let walked = then
                .read
                .scan::<&[u8]>(table, .., |_, _| ControlFlow::Break(()));
            if !matches!(walked, Err(Error::NoHistory { .. })) {
                return Err(Failure::Broken(format!(
                    "a get of {name:?} finds no history, a scan says {walked:?}"
                )));
            }
            then.handles.remove(&name);
        }
        Ok(())
    }

    /// Compares what the engine says of every table of `then` that differs now.
    pub(super) fn differences(&mut self, then: &Held, now: &Held) -> Result<(), Failure> {
        let (before, after) = (then.read.txn_id(), now.read.txn_id());
        for (name, table) in then
            .handles
            .iter()
            .filter(|(_, table)| table.keeps_history())
        {
            let same = |other: &&str| {
                now.handles.get(*other).map(northstardb::Table::id) == Some(table.id())
            };
            let named_now = now.handles.keys().map(String::as_str).find(same);
            let none = Rows::new();
            let old = then.state.rows(name).unwrap_or(&none);
            let new = named_now
                .and_then(|name| now.state.rows(name))
                .unwrap_or(&none);
            let mut found = Vec::new();
            let compared = self.db().diff(table, before, after, |difference| {
                let owned =
                    |value: &Option<northstardb::Value<'_>>| value.as_deref().map(<[u8]>::to_vec);
                let values = (owned(&difference.before), owned(&difference.after));
                found.push((difference.key.to_vec(), values.0, values.1));
                ControlFlow::Continue(())
            });
            match compared {
                // The horizon has moved on meanwhile.
                Err(Error::SnapshotGone { horizon, .. }) if before < horizon => return Ok(()),
                other => other.during("diff")?,
            }
            let expected = expected(old, new);
            self.totals.differences += expected.len() as u64;
            if found != expected {
                let first = found.iter().zip(&expected).position(|(a, b)| a != b);
                return Err(Failure::Broken(format!(
                    "diff of {name:?} from {before:?} to {after:?} has {} keys, expected {}; the first of them that is another is {first:?}",
                    found.len(),
                    expected.len(),
                )));
            }
        }
        Ok(())
    }
}

fn expected(old: &Rows, new: &Rows) -> Vec<Difference> {
    let keys: BTreeSet<&Bytes> = old.keys().chain(new.keys()).collect();
    let owned = |value: Option<&Bytes>| value.map(|value| value.to_vec());
    keys.into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| (key.to_vec(), owned(old.get(key)), owned(new.get(key))))
        .collect()
}
