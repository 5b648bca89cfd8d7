//! Different ways to say the same thing come to the same content.

use std::path::Path;

use northstardb::Backend;

use super::{Change, Rows, add, apply, changes, memory, perform, rows, same, small};
use crate::ops::value_bytes;
use crate::rng::Rng;
use crate::{During, Failure};

pub(super) fn batch_is_singles(rng: &mut Rng, _: &Path) -> Result<u64, Failure> {
    let all = changes(rng);
    let mut expected = Rows::new();
    all.iter().for_each(|change| apply(&mut expected, *change));
    let mut compared = 0;
    for size in [usize::MAX, 1, 7] {
        let db = memory()?;
        perform(&db, &all, size, false)?;
        compared += same("in batches", &rows(&db)?, &expected)?;
    }
    Ok(compared)
}

pub(super) fn transaction_is_batch(rng: &mut Rng, _: &Path) -> Result<u64, Failure> {
    let all = changes(rng);
    let (one, other) = (memory()?, memory()?);
    perform(&one, &all, usize::MAX, false)?;
    let table = other.table("t").during("table")?;
    let mut write = other.begin_write().during("begin_write")?;
    for change in &all {
        match *change {
            Change::Put(number, fill) => write.put(&table, super::key(number), value_bytes(fill)),
            Change::Delete(number) => write.delete(&table, super::key(number)),
            Change::DeleteRange(from, to) => {
                write.delete_range(&table, super::key(from)..super::key(to))
            }
        }
        .during("change")?;
    }
    write.commit().during("commit")?;
    same("one transaction", &rows(&other)?, &rows(&one)?)
}

pub(super) fn commute(rng: &mut Rng, _: &Path) -> Result<u64, Failure> {
    // Even keys and odd keys. A range of one key stays within its side.
    let side = |all: Vec<Change>, odd: u32| {
        let change = |change| match change {
            Change::Put(k, fill) => Change::Put(k * 2 + odd, fill),
            Change::Delete(k) => Change::Delete(k * 2 + odd),
            Change::DeleteRange(k, _) => Change::DeleteRange(k * 2 + odd, k * 2 + odd + 1),
        };
        all.into_iter().map(change).collect::<Vec<_>>()
    };
    let (one, two) = (side(changes(rng), 0), side(changes(rng), 1));
    let (forth, back) = (memory()?, memory()?);
    perform(&forth, &[&one[..], &two[..]].concat(), 4, true)?;
    perform(&back, &[&two[..], &one[..]].concat(), 4, false)?;
    same("in the other order", &rows(&back)?, &rows(&forth)?)
}

pub(super) fn idempotent(rng: &mut Rng, _: &Path) -> Result<u64, Failure> {
    let all = changes(rng);
    let twice: Vec<Change> = all.iter().flat_map(|change| [*change, *change]).collect();
    let (once, doubled) = (memory()?, memory()?);
    perform(&once, &all, 5, false)?;
    perform(&doubled, &twice, 5, true)?;
    same("done twice", &rows(&doubled)?, &rows(&once)?)
}

pub(super) fn checkpoint_invisible(rng: &mut Rng, _: &Path) -> Result<u64, Failure> {
    let all = changes(rng);
    let (with, without) = (memory()?, memory()?);
    perform(&with, &all, 3, true)?;
    perform(&without, &all, 3, false)?;
    same("with checkpoints", &rows(&with)?, &rows(&without)?)
}

pub(super) fn crash_is_prefix(rng: &mut Rng, dir: &Path) -> Result<u64, Failure> {
    let all = changes(rng);
    // Nothing else writes while files are copied: no idle work, and no delta that fills up.
    let quiet = || {
        let patient = small().idle_after(std::time::Duration::from_hours(1));
        patient.delta_bytes(4 << 20)
    };
    let db = quiet().open(dir.join("db")).during("open")?;
    let mut expected = Rows::new();
    let mut compared = 0;
    let copied = rng.index(all.len());
    for (at, change) in all.iter().enumerate() {
        let table = db.table("t").during("table")?;
        let mut batch = northstardb::WriteBatch::new();
        add(&mut batch, &table, *change);
        db.commit(batch).during("commit")?;
        apply(&mut expected, *change);
        if at == copied || at + 1 == all.len() {
            let to = dir.join(format!("copy-{at}"));
            copy(&dir.join("db"), &to).during("copy files")?;
            let left = quiet().open(&to).during("open a copy")?;
            compared += same("files copied after a commit", &rows(&left)?, &expected)?;
        }
    }
    Ok(compared)
}

pub(super) fn export_import(rng: &mut Rng, dir: &Path) -> Result<u64, Failure> {
    let all = changes(rng);
    let from = memory()?;
    perform(&from, &all, 6, true)?;
    let exported = rows(&from)?;
    let to = small().open(dir.join("db")).during("open")?;
    let table = to.table("t").during("table")?;
    let mut batch = northstardb::WriteBatch::new();
    for (key, value) in &exported {
        batch.put(&table, key, value);
    }
    to.commit(batch).during("commit")?;
    let compared = same("imported", &rows(&to)?, &exported)?;
    to.close().during("close")?;
    let to = small().open(dir.join("db")).during("open again")?;
    Ok(compared + same("imported and opened again", &rows(&to)?, &exported)?)
}

pub(super) fn backends_agree(rng: &mut Rng, dir: &Path) -> Result<u64, Failure> {
    let all = changes(rng);
    let in_memory = memory()?;
    perform(&in_memory, &all, 4, false)?;
    let expected = rows(&in_memory)?;
    let backends = [Backend::Plain, Backend::Buffered, Backend::Auto];
    let mut compared = 0;
    for (at, backend) in backends.into_iter().enumerate() {
        let path = dir.join(at.to_string());
        let db = small().backend(backend).open(&path).during("open")?;
        perform(&db, &all, 4, at == 1)?;
        compared += same("on a disk", &rows(&db)?, &expected)?;
        drop(db);
        let other = backends[(at + 1) % backends.len()];
        let db = small()
            .backend(other)
            .open(&path)
            .during("open by another")?;
        compared += same("read by another backend", &rows(&db)?, &expected)?;
    }
    Ok(compared)
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            match std::fs::copy(entry.path(), target) {
                // A segment for later commits has got its name meanwhile; nothing was committed into it.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied?),
            }
        }
    }
    Ok(())
}
