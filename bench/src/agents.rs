//! Agents that edit a source tree, one small transaction an edit: what they do follows from the edit's number, so that any
//! process knows every state that there ever was.
//!
//! A row is a line of a file, under the file's path and the line's place. Agents stay with a file for a while, replace
//! lines, delete some, and put some where there were none.

use std::path::{Path, PathBuf};

use crate::error::{BenchError, Result};
use crate::generator::{Rng, mix};
use crate::target::{Db, ReadTxn, Table, TxnId, WriteBatch};

/// Agents at work.
const AGENTS: u64 = 16;
/// Edits that an agent makes to one file before it goes to another.
const STAY: u64 = 200;
/// Files that are looked at, at most.
const FILES_MAX: usize = 2000;
/// Lines of a tree that is made up, where there is no real one.
const MADE_UP: (usize, usize) = (100, 400);

/// A source tree.
#[derive(Debug)]
pub(crate) struct Tree {
    keys: Vec<Box<[u8]>>,
    /// What is there at first; none where there is room for a line.
    lines: Vec<Option<Box<str>>>,
    /// The rows of each file: where they begin, and how many.
    files: Vec<(usize, u64)>,
}

/// A change of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    row: usize,
    /// The line goes; else it gets the text of this edit.
    deletes: bool,
}

/// What an edit does: its agent, and its changes.
type Edit = (u64, Vec<Change>);

impl Tree {
    /// The Rust sources that this program was built of; where they are no longer, files of made-up lines.
    pub(crate) fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = root.parent().unwrap_or(root);
        let mut paths = Vec::new();
        for part in ["engine", "io", "hard", "bench", "tools", "spec"] {
            sources(&root.join(part).join("src"), &mut paths);
            sources(&root.join(part).join("tests"), &mut paths);
        }
        paths.sort();
        paths.truncate(FILES_MAX);
        let mut files = Vec::new();
        for path in &paths {
            let name = path.strip_prefix(root).unwrap_or(path);
            if let Ok(text) = std::fs::read_to_string(path) {
                let lines = text.lines().map(str::to_owned).collect();
                files.push((name.to_string_lossy().into_owned(), lines));
            }
        }
        if files.is_empty() {
            let line = |file, line| {
                format!(
                    "    let x{line} = {:x};",
                    mix(file as u64 * 7919 + line as u64)
                )
            };
            let lines = |file| (0..MADE_UP.1).map(|number| line(file, number)).collect();
            files = (0..MADE_UP.0)
                .map(|file| (format!("src/file{file:03}.rs"), lines(file)))
                .collect();
        }
        Self::of(files)
    }

    fn of(mut files: Vec<(String, Vec<String>)>) -> Self {
        // By bytes, as keys are, and not by the parts of paths.
        files.sort();
        let mut tree = Self {
            keys: Vec::new(),
            lines: Vec::new(),
            files: Vec::new(),
        };
        for (path, lines) in files {
            let begin = tree.keys.len();
            // Room for a line behind every eighth.
            let mut place = 0_u32;
            for line in lines {
                let room = place % 9 == 8;
                for line in [Some(line), room.then(String::new)].into_iter().flatten() {
                    let key = [path.as_bytes(), &[0], &place.to_be_bytes()].concat();
                    tree.keys.push(key.into());
                    let is_room = room && line.is_empty();
                    tree.lines.push((!is_room).then(|| line.into()));
                    place += 1;
                }
            }
            if place > 0 {
                tree.files.push((begin, place.into()));
            }
        }
        tree
    }

    /// Rows, with and without a line.
    pub(crate) fn rows(&self) -> usize {
        self.keys.len()
    }

    /// What edit `number` does.
    fn edit(&self, seed: u64, number: u64) -> Edit {
        let mut rng = Rng::new(seed, number);
        let agent = rng.below(AGENTS);
        let file = Rng::new(seed, mix(agent) ^ (number / STAY)).below(self.files.len() as u64);
        let (begin, rows) = self.files[file as usize];
        let mut changes: Vec<Change> = Vec::new();
        for _ in 0..=rng.below(3) {
            let row = begin + rng.below(rows) as usize;
            let deletes = rng.below(10) == 0;
            changes.retain(|change| change.row != row);
            changes.push(Change { row, deletes });
        }
        (agent, changes)
    }

    /// The text that edit `number` gives a row.
    fn text(&self, row: usize, number: u64) -> String {
        let line = self.lines[row].as_deref().unwrap_or("// a new line");
        format!("{line} // {number}")
    }

    /// Puts the lines that are there at first into a table, in one transaction; gives that.
    pub(crate) fn load(&self, db: &Db, table: &Table) -> Result<TxnId> {
        let mut batch = WriteBatch::new();
        for (key, line) in self.keys.iter().zip(&self.lines) {
            if let Some(line) = line {
                batch.put(table, key, line.as_bytes());
            }
        }
        Ok(db.commit(batch)?.txn_id)
    }

    /// Edit `number` as a batch, with its agent as the tag.
    pub(crate) fn batch(&self, table: &Table, seed: u64, number: u64) -> WriteBatch {
        let (agent, changes) = self.edit(seed, number);
        let mut batch = WriteBatch::new();
        batch.tag(format!("agent {agent}").as_bytes());
        for Change { row, deletes } in changes {
            match deletes {
                true => batch.delete(table, &self.keys[row]),
                false => batch.put(table, &self.keys[row], self.text(row, number)),
            };
        }
        batch
    }
}

fn sources(dir: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, paths);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            paths.push(path);
        }
    }
}

/// Every state there was: of each row the edits that changed it.
#[derive(Debug)]
pub(crate) struct Model<'t> {
    tree: &'t Tree,
    changes: Vec<Vec<(u64, bool)>>,
    /// Edits in it: they are numbered from 1.
    pub(crate) edits: u64,
}

impl<'t> Model<'t> {
    /// After so many edits.
    pub(crate) fn after(tree: &'t Tree, seed: u64, edits: u64) -> Self {
        let mut changes = vec![Vec::new(); tree.rows()];
        for number in 1..=edits {
            for Change { row, deletes } in tree.edit(seed, number).1 {
                changes[row].push((number, deletes));
            }
        }
        Self {
            tree,
            changes,
            edits,
        }
    }

    /// Rows, with and without a line.
    pub(crate) fn rows(&self) -> usize {
        self.tree.rows()
    }

    /// The line in `row` after edit `number`.
    fn line(&self, row: usize, number: u64) -> Option<String> {
        let changes = &self.changes[row];
        match changes
            .partition_point(|(at, _)| *at <= number)
            .checked_sub(1)
        {
            None => self.tree.lines[row].as_deref().map(str::to_owned),
            Some(last) => {
                let (at, deletes) = changes[last];
                (!deletes).then(|| self.tree.text(row, at))
            }
        }
    }

    /// Fails unless `read`, the state after edit `number`, has what it must at a row.
    pub(crate) fn check_row(
        &self,
        read: &ReadTxn,
        table: &Table,
        row: usize,
        number: u64,
    ) -> Result<()> {
        let expected = self.line(row, number);
        let same = read.get_with(table, &self.tree.keys[row], |found| {
            found == expected.as_deref().map(str::as_bytes)
        })?;
        match same {
            true => Ok(()),
            false => Err(wrong(number, &self.tree.keys[row])),
        }
    }

    /// Fails unless `read`, the state after edit `number`, has these rows and no others; gives how many.
    pub(crate) fn check_all(&self, read: &ReadTxn, table: &Table, number: u64) -> Result<u64> {
        let (mut row, mut rows, mut failed) = (0, 0, None);
        read.scan::<&[u8]>(table, .., |key, value| {
            let expected = loop {
                match self.tree.keys.get(row) {
                    None => break None,
                    Some(at) => match self.line(row, number) {
                        Some(line) => break Some((at, line)),
                        None => row += 1,
                    },
                }
            };
            row += 1;
            rows += 1;
            let expected = expected
                .as_ref()
                .map(|(key, line)| (&***key, line.as_bytes()));
            if expected == Some((key, value)) {
                return std::ops::ControlFlow::Continue(());
            }
            failed = Some(wrong(number, key));
            std::ops::ControlFlow::Break(())
        })?;
        if let Some(failed) = failed {
            return Err(failed);
        }
        match (row..self.tree.rows()).find(|row| self.line(*row, number).is_some()) {
            None => Ok(rows),
            Some(missing) => Err(wrong(number, &self.tree.keys[missing])),
        }
    }
}

fn wrong(number: u64, key: &[u8]) -> BenchError {
    BenchError::Wrong {
        what: format!(
            "after edit {number} the row {} is another",
            key.escape_ascii()
        ),
    }
}
