//! All that was ever tried, added up: written by this program only, into a table to be read and a file to be continued.
//!
//! - Processes: several may add to one ledger, each with jobs of its own; whoever changes it holds the directory's lock meanwhile.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::tally::Tally;
use crate::{During, Failure};

/// The format version of the files that were tried.
const FORMAT: u32 = 0;

/// What one job has done.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Done {
    next_seed: u64,
    counts: BTreeMap<String, u64>,
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Violation {
    date: String,
    job: String,
    what: String,
    /// What was done about it; open while absent.
    fix: Option<String>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Book {
    /// By format version, then by job.
    formats: BTreeMap<u32, BTreeMap<String, Done>>,
    violations: Vec<Violation>,
}

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    table: PathBuf,
    book: Book,
}

impl Ledger {
    /// The ledger whose table is at `path`; an empty one if there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let book = match fs::read_to_string(path.with_extension("json")) {
            Ok(text) => serde_json::from_str(&text)
                .map_err(std::io::Error::from)
                .during("read the ledger")?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Book::default(),
            Err(error) => return Err(error).during("read the ledger"),
        };
        Ok(Self {
            table: path.to_owned(),
            book,
        })
    }

    /// Makes a change to the ledger whose table is at `path`, as it is by then.
    ///
    /// # Errors
    /// The change's; and it cannot be read or written.
    pub fn change<T>(
        path: &Path,
        change: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        // A name without a directory lies in the current one.
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = dir.unwrap_or(Path::new("."));
        let dir = OpenOptions::new().read(true).open(dir);
        let dir = dir.during("open the ledger's directory")?;
        dir.lock().during("lock the ledger's directory")?;
        let mut ledger = Self::load(path)?;
        let changed = change(&mut ledger)?;
        ledger.save()?;
        Ok(changed)
    }

    /// Where a job goes on.
    #[must_use]
    pub fn next_seed(&self, job: &str) -> u64 {
        let jobs = self.book.formats.get(&FORMAT);
        let done = jobs.and_then(|jobs| jobs.get(job));
        done.map_or(1, |done| done.next_seed.max(1))
    }

    /// Adds what a job has done.
    pub fn add(&mut self, job: &str, tally: &Tally, next_seed: u64) {
        let jobs = self.book.formats.entry(FORMAT).or_default();
        let done = jobs.entry(job.to_owned()).or_default();
        done.next_seed = done.next_seed.max(next_seed);
        for (what, count) in &tally.counts {
            *done.counts.entry(what.clone()).or_default() += count;
        }
    }

    /// Notes that a promise was broken.
    pub fn violation(&mut self, job: &str, what: &str) {
        // The first line says what, the one with the replay how to see it again.
        let lines = what.lines().map(str::trim);
        let told: Vec<_> = lines
            .enumerate()
            .filter(|(at, line)| *at == 0 || line.starts_with("replay:"))
            .map(|(_, line)| line.to_owned())
            .collect();
        self.book.violations.push(Violation {
            date: today(),
            job: job.to_owned(),
            what: told.join("; "),
            fix: None,
        });
    }

    /// Says what was done about the violations that are open.
    ///
    /// # Errors
    /// None is open.
    pub fn fixed(&mut self, fix: &str) -> Result<(), Failure> {
        let open = self.book.violations.iter_mut();
        let open: Vec<_> = open.filter(|violation| violation.fix.is_none()).collect();
        if open.is_empty() {
            return Err(Failure::Broken("no violation is open".to_owned()));
        }
        for violation in open {
            violation.fix = Some(fix.to_owned());
        }
        Ok(())
    }

    /// Writes both files.
    ///
    /// # Errors
    /// They cannot be written.
    fn save(&self) -> Result<(), Failure> {
        let json = serde_json::to_string_pretty(&self.book).map_err(std::io::Error::from);
        let json = json.during("write the ledger")?;
        for (path, text) in [
            (self.table.with_extension("json"), json + "\n"),
            (self.table.clone(), self.to_string()),
        ] {
            let new = path.with_extension("new");
            fs::write(&new, text).during("write the ledger")?;
            fs::rename(&new, &path).during("write the ledger")?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = "# Ledger\n\nWritten by `nshard --ledger`, never by hand: all that was tried, added up over runs. \
            `nshard list` says what each job\nanswers.\n"
            .to_owned();
        for (format, jobs) in &self.book.formats {
            write!(text, "\n## File format {format}\n")?;
            for (job, done) in jobs {
                write!(text, "\n### {job}\n\n| what | count |\n|---|---|\n")?;
                for (what, count) in &done.counts {
                    writeln!(text, "| {what} | {} |", grouped(*count))?;
                }
            }
        }
        text.push_str("\n## Promises that were broken\n\n");
        if self.book.violations.is_empty() {
            text.push_str("None yet.\n");
        } else {
            text.push_str("| date | job | what | fix |\n|---|---|---|---|\n");
        }
        for violation in self.book.violations.iter().rev() {
            let Violation {
                date,
                job,
                what,
                fix,
            } = violation;
            let what = what.replace('|', "\\|");
            let fix = fix.as_deref().unwrap_or("open");
            writeln!(text, "| {date} | {job} | {what} | {fix} |")?;
        }
        f.write_str(&text)
    }
}

/// `1234567` as `1,234,567`.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn today() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_adds_up_and_goes_on_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LEDGER.md");
        assert_eq!(Ledger::load(&path).unwrap().next_seed("power"), 1);
        let mut tally = Tally::default();
        tally.add("crashes", 1_234_567);
        let add = |ledger: &mut Ledger, next| {
            ledger.add("power", &tally, next);
            Ok(())
        };
        Ledger::change(&path, |ledger| add(ledger, 26)).unwrap();
        Ledger::change(&path, |ledger| {
            add(ledger, 51)?;
            ledger.violation(
                "power",
                "lost a row\n  at step 3\n  replay: nshard sim --seed 9",
            );
            Ok(())
        })
        .unwrap();
        let mut again = Ledger::load(&path).unwrap();
        assert_eq!(again.next_seed("power"), 51);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("| crashes | 2,469,134 |"), "{text}");
        assert!(
            text.contains("| lost a row; replay: nshard sim --seed 9 | open |"),
            "{text}"
        );
        again.fixed("a1b2c3").unwrap();
        assert!(again.fixed("twice").is_err());
        assert!(again.to_string().contains("| a1b2c3 |"));
    }

    #[test]
    fn what_several_runs_add_at_once_is_all_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LEDGER.md");
        std::thread::scope(|scope| {
            for job in ["power", "kills", "rot"] {
                let path = &path;
                scope.spawn(move || {
                    let mut tally = Tally::default();
                    tally.add("seeds", 1);
                    for seed in 2..22 {
                        let add = |ledger: &mut Ledger| {
                            ledger.add(job, &tally, seed);
                            Ok(())
                        };
                        Ledger::change(path, add).unwrap();
                    }
                });
            }
        });
        let ledger = Ledger::load(&path).unwrap();
        for job in ["power", "kills", "rot"] {
            assert_eq!(ledger.next_seed(job), 21);
            assert_eq!(ledger.book.formats[&FORMAT][job].counts["seeds"], 20);
        }
    }
}
