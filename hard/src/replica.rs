//! What a commit stream comes to: tables and rows, by nothing but the changes that it shows.

use std::collections::BTreeMap;
use std::sync::Arc;

use northstardb::Change;

use crate::exec::Handles;
use crate::model::{Rows, State};

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Replica {
    names: BTreeMap<String, u32>,
    tables: BTreeMap<u32, Arc<Rows>>,
}

impl Replica {
    /// That of a state, in which the tables have these handles.
    pub(crate) fn of(state: &State, handles: &Handles) -> Self {
        let names = handles.iter();
        let names: BTreeMap<_, _> = names.map(|(name, it)| (name.clone(), it.id())).collect();
        let rows = |(name, id): (&String, &u32)| Some((*id, Arc::clone(state.tables.get(name)?)));
        Self {
            tables: names.iter().filter_map(rows).collect(),
            names,
        }
    }

    /// Makes a change.
    pub(crate) fn apply(&mut self, change: &Change<'_>) {
        let rows = Arc::make_mut(self.tables.entry(change.table()).or_default());
        match *change {
            Change::Put { key, value, .. } => drop(rows.insert(key.into(), value.into())),
            Change::Delete { key, .. } => drop(rows.remove(key)),
            Change::DeleteRange { from, to, .. } => {
                rows.retain(|key, _| **key < *from || to.is_some_and(|to| **key >= *to));
            }
            Change::CreateTable { table, name } => {
                self.names.insert(name.to_owned(), table);
            }
            Change::RenameTable { table, from, to } => {
                self.names.remove(from);
                self.names.insert(to.to_owned(), table);
            }
            Change::DropTable { table, name } => {
                self.names.remove(name);
                self.tables.remove(&table);
            }
            _ => {}
        }
    }

    /// Tables by name.
    pub(crate) fn state(&self) -> State {
        let rows = |table| self.tables.get(table).map(Arc::clone).unwrap_or_default();
        let tables = self.names.iter();
        State {
            tables: tables
                .map(|(name, table)| (name.clone(), rows(table)))
                .collect(),
        }
    }
}
