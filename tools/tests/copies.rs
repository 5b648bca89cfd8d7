//! Backups, restores and replays, as a user of the `northstar` command meets them.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking and may talk"
)]

mod common;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use common::{json, lines, northstar, text, tree, unheard};

#[test]
fn a_database_is_backed_up_restored_and_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    let (root, db) = (place("tree"), place("db"));
    tree(&root);
    let import = [
        "import",
        root.to_str().unwrap(),
        "--keep-log",
        "--keep-history",
    ];
    assert!(northstar(&db, &import).status.success());
    let (full, more) = (place("full"), place("more"));
    let (full, more) = (full.to_str().unwrap(), more.to_str().unwrap());
    let made = json(&northstar(&db, &["backup", "write", full, "--json"]));
    assert_eq!(
        (&made["kind"], &made["to_txn"]),
        (&"full".into(), &4.into()),
        "{made}"
    );
    std::fs::write(root.join("src/a.rs"), "fn a() { changed }\n").unwrap();
    assert!(northstar(&db, &import).status.success());
    let taken = northstar(&db, &["backup", "write", full]);
    assert_eq!(taken.status.code(), Some(2), "{}", text(&taken));
    let made = json(&northstar(
        &db,
        &["backup", "write", more, "--after", full, "--json"],
    ));
    assert_eq!(
        (&made["from_txn"], &made["transactions"]),
        (&4.into(), &1.into()),
        "{made}"
    );
    assert!(
        northstar(&db, &["backup", "verify", full, more])
            .status
            .success()
    );
    let wrong = northstar(&db, &["backup", "verify", more, full]);
    assert_eq!(wrong.status.code(), Some(1), "{}", text(&wrong));
    // Another database has other transactions of the same numbers.
    let (other, stray) = (place("other"), place("stray"));
    assert!(northstar(&other, &import).status.success());
    let stray = stray.to_str().unwrap();
    let wrong = northstar(&other, &["backup", "write", stray, "--after", full]);
    assert_eq!(wrong.status.code(), Some(2), "{}", text(&wrong));
    assert!(!Path::new(stray).exists());

    let verified = json(&northstar(&db, &["replay", "--verify", "--json"]));
    assert_eq!(verified["verdict"], "identical", "{verified}");
    assert!(
        verified["states_compared"].as_u64() >= Some(2),
        "{verified}"
    );
    let restored = place("restored");
    for words in [
        &["restore", full, "--to", "3"][..],
        &["restore", full, "--to", "5"],
    ] {
        let refused = northstar(&restored, words);
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
        assert!(!restored.exists(), "what was begun is gone");
    }
    let answer = json(&northstar(&restored, &["restore", full, more, "--json"]));
    assert_eq!(
        (&answer["txn"], &answer["state"]),
        (&5.into(), &verified["state"])
    );
    let copy = place("copy");
    let replay = ["replay", "--into", copy.to_str().unwrap(), "--json"];
    assert_eq!(json(&northstar(&db, &replay))["state"], verified["state"]);
    let early = place("early");
    let replay = ["replay", "--into", early.to_str().unwrap(), "--to", "4"];
    assert!(northstar(&db, &replay).status.success());
    for (db, content) in [
        (&restored, "fn a() { changed }\n"),
        (&copy, "fn a() { changed }\n"),
        (&early, "fn a() {}\n"),
    ] {
        let get = northstar(db, &["get", "src/a.rs"]);
        assert_eq!(text(&get), content);
        let check = northstar(db, &["check"]);
        assert!(check.status.success(), "{}", text(&check));
    }
    // Nothing is rebuilt over something else, beside it, or as far as the log does not lead.
    let into = early.to_str().unwrap();
    let taken = northstar(&db, &["replay", "--into", into]);
    assert_eq!(taken.status.code(), Some(2), "{}", text(&taken));
    assert_eq!(
        text(&northstar(&early, &["get", "src/a.rs"])),
        "fn a() {}\n"
    );
    let far = place("far");
    let far_words = ["replay", "--into", far.to_str().unwrap(), "--to", "99"];
    let short = northstar(&db, &far_words);
    assert_eq!(short.status.code(), Some(1), "{}", text(&short));
    let words = [&far_words[..3], &["--to", "3", "--base", full]].concat();
    let late = northstar(&db, &words);
    assert_eq!(late.status.code(), Some(1), "{}", text(&late));
    let both = ["replay", "--verify", "--into", far.to_str().unwrap()];
    assert_eq!(northstar(&db, &both).status.code(), Some(2));
    // As many transactions, of another database.
    std::fs::write(root.join("src/a.rs"), "fn a() { other }\n").unwrap();
    let strange = place("strange");
    for _ in 0..2 {
        assert!(northstar(&strange, &import).status.success());
        std::fs::write(root.join("src/b.rs"), "fn b() { other }\n").unwrap();
    }
    let words = [&far_words[..3], &["--base", full]].concat();
    let foreign = northstar(&strange, &words);
    assert_eq!(foreign.status.code(), Some(1), "{}", text(&foreign));
    assert!(text(&foreign).contains("not of this database"));
    assert!(!far.exists(), "what was begun is gone");
    // By a moment, both ways to an earlier state show the same.
    let versions = text(&northstar(&db, &["history", "src/a.rs", "--json"]));
    let first: serde_json::Value = serde_json::from_str(versions.lines().next().unwrap()).unwrap();
    let moment = first["time"].as_str().unwrap();
    let words = [&far_words[..3], &["--to", moment]].concat();
    let replayed = northstar(&db, &words);
    assert!(replayed.status.success(), "{}", text(&replayed));
    let as_of = northstar(&db, &["as-of", moment, "scan"]);
    assert_eq!(text(&as_of), text(&northstar(&far, &["scan"])), "{moment}");
    // A backup stands in for a log that does not reach back to the first transaction: here for what was restored.
    let replay = ["replay", "--verify"];
    let short = northstar(&restored, &replay);
    assert_eq!(short.status.code(), Some(1), "{}", text(&short));
    let base = json(&northstar(
        &restored,
        &["replay", "--verify", "--base", full, "--json"],
    ));
    assert_eq!(
        (&base["verdict"], &base["replayed"]),
        (&"identical".into(), &1.into())
    );
}

#[test]
fn a_replay_names_the_first_transaction_that_the_pages_do_not_have() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    let (root, one, other) = (place("tree"), place("one"), place("other"));
    std::fs::create_dir_all(&root).unwrap();
    let import = |db: &Path, content: &str| {
        std::fs::write(root.join("file"), content).unwrap();
        let words = [
            "import",
            root.to_str().unwrap(),
            "--keep-log",
            "--keep-history",
        ];
        let done = northstar(db, &words);
        assert!(done.status.success(), "{}", text(&done));
    };
    import(&one, "first");
    std::fs::create_dir_all(other.join("log")).unwrap();
    let files = |dir: &Path| {
        let files = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        files.filter(|path| path.is_file()).collect::<Vec<_>>()
    };
    let copy = |from: &Path, to: &Path| {
        for file in files(from) {
            std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
        }
    };
    copy(&one, &other);
    copy(&one.join("log"), &other.join("log"));
    // From here on two lives of one database, as long as each other: the pages of one beside the log of the other.
    for (db, contents) in [
        (&one, ["same", "true", "last"]),
        (&other, ["same", "lies", "last"]),
    ] {
        contents.iter().for_each(|content| import(db, content));
    }
    copy(&other.join("log"), &one.join("log"));
    let verified = northstar(&one, &["replay", "--verify"]);
    let said = text(&verified);
    assert_eq!(verified.status.code(), Some(1), "{said}");
    assert!(
        said.contains("the first transaction that differs is 4"),
        "{said}"
    );
    assert!(
        !place("one.replay").exists(),
        "what was made to compare with is gone"
    );
}

/// A database with one table of as many rows as there are transactions after it was made.
fn small_database(path: &Path, name: &str, rows: u64, history: northstardb::Retention) {
    let options = northstardb::Options::new().history(history);
    let options = options.log_retention(northstardb::Retention::All);
    let db = options.open(path).unwrap();
    let table = db.table("files").unwrap();
    for row in 0..rows {
        let mut write = db.begin_write().unwrap();
        write.put(&table, format!("{name}{row}"), name).unwrap();
        write.commit().unwrap();
    }
    db.close().unwrap();
}

/// Writes a row of a small database over, as whoever opens it with nothing asked for does.
fn small_writes(path: &Path) {
    let db = northstardb::Db::open(path).unwrap();
    let table = db.open_table("files").unwrap();
    let mut write = db.begin_write().unwrap();
    write.put(&table, "a0", "again").unwrap();
    write.commit().unwrap();
    db.close().unwrap();
}

#[test]
fn a_base_that_is_too_late_or_foreign_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    for (history, foreign) in [
        (northstardb::Retention::None, "is of"),
        (northstardb::Retention::All, "its state after"),
    ] {
        let kept = format!("{history:?}");
        let [own, other, copy] =
            ["own", "other", "copy"].map(|name| place(&format!("{name}{kept}")));
        small_database(&own, "a", 9, history);
        small_database(&other, "b", 8, history);
        let base = place(&format!("base{kept}"));
        let base = base.to_str().unwrap();
        let copy = copy.to_str().unwrap();
        let replay = ["replay", "--base", base, "--into", copy];
        assert!(
            northstar(&other, &["backup", "write", base])
                .status
                .success()
        );
        let refused = northstar(&own, &replay);
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
        assert!(text(&refused).contains(foreign), "{}", text(&refused));
        assert!(!Path::new(copy).exists());
        // Its own, of before a moment and of after it.
        std::fs::remove_file(base).unwrap();
        assert!(northstar(&own, &["backup", "write", base]).status.success());
        let early = northstar(
            &own,
            &[&replay[..], &["--to", "2000-01-01T00:00:00Z"]].concat(),
        );
        assert_eq!(early.status.code(), Some(1), "{}", text(&early));
        assert!(
            text(&early).contains("was not there by"),
            "{}",
            text(&early)
        );
        assert!(!Path::new(copy).exists());
        let late = northstar(
            &own,
            &[&replay[..], &["--to", "2999-01-01T00:00:00Z"]].concat(),
        );
        assert!(late.status.success(), "{}", text(&late));
        assert_eq!(
            text(&northstar(Path::new(copy), &["scan"])),
            text(&northstar(&own, &["scan"]))
        );
    }
}

#[test]
fn increments_of_a_copy_that_went_its_own_way_do_not_verify() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    let (own, copy) = (place("own"), place("copy"));
    small_database(&own, "a", 3, northstardb::Retention::All);
    let files = ["full", "one", "two"].map(place);
    let [full, one, two] = files.each_ref().map(|file| file.to_str().unwrap());
    assert!(northstar(&own, &["backup", "write", full]).status.success());
    let copied = Command::new("cp").arg("-r").args([&own, &copy]).status();
    assert!(copied.unwrap().success());
    small_database(&own, "b", 1, northstardb::Retention::All);
    // Times are told to the nanosecond, and so differ.
    small_database(&copy, "c", 2, northstardb::Retention::All);
    let increment = |db: &Path, file: &str, after: &str| {
        northstar(db, &["backup", "write", file, "--after", after])
    };
    assert!(increment(&own, one, full).status.success());
    let wrong = increment(&copy, two, one);
    assert_eq!(wrong.status.code(), Some(2), "{}", text(&wrong));
    assert!(
        text(&wrong).contains("went its own way"),
        "{}",
        text(&wrong)
    );
    assert!(!files[2].exists() && !place("two.part").exists());
    // Made where nobody could tell.
    let db = northstardb::Options::new();
    let db = db
        .log_retention(northstardb::Retention::All)
        .open(&copy)
        .unwrap();
    let mut bytes = Vec::new();
    db.backup_since(northstardb::TxnId::new(5), &mut bytes)
        .unwrap();
    db.close().unwrap();
    std::fs::write(two, bytes).unwrap();
    let verified = northstar(&own, &["backup", "verify", full, one, two]);
    assert_eq!(verified.status.code(), Some(1), "{}", text(&verified));
    assert!(
        text(&verified).contains("gone its own way"),
        "{}",
        text(&verified)
    );
    let verified = northstar(&own, &["backup", "verify", full, one]);
    assert!(verified.status.success(), "{}", text(&verified));
    // Also where they overlap: which of them wrote what is in both shows on the way.
    let mut bytes = Vec::new();
    let db = northstardb::Options::new().open(&copy).unwrap();
    db.backup_since(northstardb::TxnId::new(4), &mut bytes)
        .unwrap();
    db.close().unwrap();
    std::fs::write(two, bytes).unwrap();
    let verified = northstar(&own, &["backup", "verify", full, one, two]);
    assert_eq!(verified.status.code(), Some(1), "{}", text(&verified));
    let restored = place("restored");
    let refused = northstar(&restored, &["restore", full, one, two]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    // One that is in another changes nothing.
    let verified = northstar(&own, &["backup", "verify", full, one, one]);
    assert!(verified.status.success(), "{}", text(&verified));
}

#[test]
fn what_is_not_its_own_is_never_removed() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    let (db, full) = (place("db"), place("full"));
    small_database(&db, "a", 3, northstardb::Retention::All);
    // Not a file that has the name of one half written.
    let notes = place("full.part");
    std::fs::write(&notes, "my own notes").unwrap();
    let refused = northstar(&db, &["backup", "write", full.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert_eq!(std::fs::read(&notes).unwrap(), b"my own notes");
    std::fs::remove_file(&notes).unwrap();
    let written = northstar(&db, &["backup", "write", full.to_str().unwrap()]);
    assert!(written.status.success(), "{}", text(&written));
    assert!(!notes.exists());
    // Not a link, nor the directory that it names, but what was made there.
    let (target, link) = (place("target"), place("link"));
    std::fs::create_dir(&target).unwrap();
    symlink(&target, &link).unwrap();
    let beyond = ["replay", "--to", "99", "--into", link.to_str().unwrap()];
    let refused = northstar(&db, &beyond);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(link.is_symlink() && target.is_dir());
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0);
    // A backup that is bad is in nobody's way.
    let (bad, restored) = (place("bad"), place("restored"));
    let bytes = std::fs::read(&full).unwrap();
    std::fs::write(&bad, &bytes[..bytes.len() - 20]).unwrap();
    let refused = northstar(&restored, &["restore", bad.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    let done = northstar(&restored, &["restore", full.to_str().unwrap()]);
    assert!(done.status.success(), "{}", text(&done));
    assert_eq!(
        text(&northstar(&restored, &["scan"])),
        text(&northstar(&db, &["scan"]))
    );
    // The log of a database that lost its data file is what there is of it.
    let lost = place("lost");
    let copied = Command::new("cp").arg("-r").args([&db, &lost]).status();
    assert!(copied.unwrap().success());
    std::fs::remove_file(lost.join("data")).unwrap();
    let segments = || std::fs::read_dir(lost.join("log")).unwrap().count();
    let left = segments();
    assert!(left > 0);
    let refused = northstar(&lost, &["restore", full.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    let opened = northstardb::Options::new().open(&lost);
    let opened = opened.map(drop).unwrap_err().to_string();
    assert!(opened.contains("no file named"), "{opened}");
    assert_eq!(segments(), left);
    // A bad base leaves nothing in the way of a good one.
    for (base, code) in [(&bad, 1), (&full, 0)] {
        let words = ["replay", "--verify", "--base", base.to_str().unwrap()];
        let verified = northstar(&db, &words);
        assert_eq!(verified.status.code(), Some(code), "{}", text(&verified));
    }
    let turned = northstar(&db, &["diff", "3", "1"]);
    assert_eq!(turned.status.code(), Some(2), "{}", text(&turned));
}

#[test]
fn backups_are_verified_from_a_full_one_on_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &[u8]| dir.path().join(OsStr::from_bytes(name));
    let db = place(b"db");
    let files = [&b"full"[..], b"one", b"two\xff"].map(place);
    let [full, one, two] = files.each_ref().map(|file| file.as_os_str());
    let word = OsStr::new;
    let made = |name: &str, words: &[&OsStr]| {
        small_database(&db, name, 1, northstardb::Retention::All);
        let write = [word("backup"), word("write")];
        let made = northstar(&db, &[&write[..], words].concat());
        assert!(made.status.success(), "{}", text(&made));
    };
    made("a", &[full]);
    made("b", &[one, word("--after"), full]);
    made("c", &[two, word("--after"), one]);
    let verify = |files: &[&OsStr]| -> Vec<OsString> {
        let words = [word("backup"), word("verify")];
        let words = words.iter().chain(files);
        words.map(Into::into).collect()
    };
    let words = [&verify(&[full, one, two])[..], &["--json".into()]].concat();
    let named = lines(&northstar(&db, &words));
    assert_eq!(named[0]["file"], full.to_str().unwrap(), "{named:?}");
    let hex = named[2]["file_hex"].as_str().unwrap();
    assert!(hex.ends_with("2f74776fff"), "{hex}");
    let shown = text(&northstar(&db, &verify(&[full, one, two])));
    assert!(shown.contains("two\\xff: sound, increment"), "{shown}");
    // One alone is a matter of its own; several are for a restore, which begins with a full one.
    let alone = northstar(&db, &verify(&[one]));
    assert!(alone.status.success(), "{}", text(&alone));
    let headless = northstar(&db, &verify(&[one, two]));
    assert_eq!(headless.status.code(), Some(1), "{}", text(&headless));
    assert!(text(&headless).contains("give the full backup first"));
    // The last of many is bad, and nobody reads of the others.
    let bytes = std::fs::read(two).unwrap();
    std::fs::write(two, &bytes[..bytes.len() - 20]).unwrap();
    let many = [&[full], &[one; 300][..]].concat();
    assert!(unheard(&db, &verify(&many)).status.success());
    let bad = unheard(&db, &verify(&[&many[..], &[two]].concat()));
    assert_eq!(bad.status.code(), Some(1), "{}", text(&bad));
}

#[test]
fn a_copy_has_its_name_once_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    let db = place("db");
    small_database(&db, "a", 3, northstardb::Retention::All);
    let replay = |into: &Path| northstar(&db, &["replay", "--into", into.to_str().unwrap()]);
    // As one that was killed leaves it.
    let copy = place("copy");
    for name in ["copy.part", "db.replay"] {
        std::fs::create_dir(place(name)).unwrap();
        std::fs::write(place(name).join("data"), "half").unwrap();
    }
    for refused in [replay(&copy), northstar(&db, &["replay", "--verify"])] {
        let said = text(&refused);
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains("or was interrupted"), "{said}");
    }
    for name in ["copy.part", "db.replay"] {
        let data = std::fs::read(place(name).join("data")).unwrap();
        assert_eq!(data, b"half", "what may be somebody's is left alone");
        std::fs::remove_dir_all(place(name)).unwrap();
    }
    assert!(!copy.exists());
    // Missing, as its parents are, or empty, also by way of a link.
    let (empty, private, link) = (place("empty"), place("private"), place("link"));
    for dir in [&empty, &private] {
        std::fs::create_dir(dir).unwrap();
    }
    let owner_only = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(&private, owner_only).unwrap();
    symlink(&private, &link).unwrap();
    let rows = text(&northstar(&db, &["scan"]));
    for into in [&copy, &place("some/where/else"), &empty, &link] {
        let done = replay(into);
        assert!(done.status.success(), "{}", text(&done));
        assert_eq!(text(&northstar(into, &["scan"])), rows);
    }
    // It keeps history, as a new database does.
    for _ in 0..2 {
        small_writes(&copy);
    }
    let versions = northstar(&copy, &["history", "a0"]);
    assert!(text(&versions).lines().count() >= 2, "{}", text(&versions));
    assert!(link.is_symlink());
    let mode = private.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    // A link that names nothing is no place.
    let dangling = place("dangling");
    symlink(place("nowhere"), &dangling).unwrap();
    let words = ["backup", "write", dangling.to_str().unwrap()];
    for refused in [replay(&dangling), northstar(&db, &words)] {
        assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    }
    assert!(dangling.is_symlink() && !place("nowhere").exists());
    // A base that is bad, and a log that does not lead so far.
    let bad = place("bad");
    std::fs::write(&bad, "no backup").unwrap();
    let failed = place("failed");
    let words = ["replay", "--into", failed.to_str().unwrap()];
    for more in [["--base", bad.to_str().unwrap()], ["--to", "99"]] {
        let refused = northstar(&db, &[&words[..], &more].concat());
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
        assert!(!failed.exists());
    }
    for dir in [dir.path(), &place("some/where")] {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            assert_ne!(path.extension(), Some(OsStr::new("part")), "{path:?}");
        }
    }
}

#[test]
fn a_database_whose_data_file_is_lost_is_rebuilt_from_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    let db = place("db");
    small_database(&db, "a", 5, northstardb::Retention::All);
    let base = place("base");
    let base = base.to_str().unwrap();
    assert!(northstar(&db, &["backup", "write", base]).status.success());
    let fork = place("fork");
    let copied = Command::new("cp").arg("-r").args([&db, &fork]).status();
    assert!(copied.unwrap().success());
    small_database(&db, "b", 5, northstardb::Retention::All);
    let rows = text(&northstar(&db, &["scan"]));
    let early = text(&northstar(&db, &["as-of", "8", "scan"]));
    // A copy that went its own way, and a stranger.
    let other = place("other");
    let [forked, foreign] = [(&fork, "c", 2), (&other, "d", 9)].map(|(db, name, rows)| {
        small_database(db, name, rows, northstardb::Retention::All);
        let file = place(name).to_str().unwrap().to_owned();
        let written = northstar(db, &["backup", "write", &file]);
        assert!(written.status.success(), "{}", text(&written));
        file
    });

    std::fs::remove_file(db.join("data")).unwrap();
    let replay = |into: &str, more: &[&str]| {
        let into = place(into);
        let words = [
            &["replay", "--log-alone", "--into", into.to_str().unwrap()],
            more,
        ];
        let done = northstar(&db, &words.concat());
        (done, into)
    };
    let opened = northstar(&db, &["replay", "--into", place("no").to_str().unwrap()]);
    assert_eq!(opened.status.code(), Some(1), "{}", text(&opened));
    for (name, more, expected) in [
        ("whole", &[][..], &rows),
        ("upto", &["--to", "8"], &early),
        ("based", &["--base", base], &rows),
        ("based upto", &["--base", base, "--to", "8"], &early),
        (
            "late",
            &["--base", base, "--to", "2999-01-01T00:00:00Z"],
            &rows,
        ),
    ] {
        let (done, into) = replay(name, more);
        assert!(done.status.success(), "{name}: {}", text(&done));
        assert_eq!(&text(&northstar(&into, &["scan"])), expected, "{name}");
    }
    for (more, code, why) in [
        (&["--base", &foreign][..], 1, "the log is of another"),
        (&["--base", &forked], 1, "that went its own way"),
        (&["--base", base, "--to", "3"], 1, "which is later than 3"),
        (
            &["--base", base, "--to", "2000-01-01T00:00:00Z"],
            1,
            "was not there by",
        ),
        (&["--to", "99"], 1, "the log leads to"),
        (&["--to", "tag:x"], 2, "tags are looked up in history"),
    ] {
        let (refused, into) = replay("refused", more);
        let said = text(&refused);
        assert_eq!(refused.status.code(), Some(code), "{more:?}: {said}");
        assert!(said.contains(why), "{more:?}: {said}");
        assert!(!into.exists());
    }
    assert!(!db.join("data").exists());
    // Damage is said, and what comes before it can be had.
    let segment = db.join("log/00000000000000000000.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(2).rposition(|two| two == b"a4").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let (refused, into) = replay("refused", &[]);
    let said = text(&refused);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("with --to 5"), "{said}");
    assert!(!into.exists());
    let (done, into) = replay("before", &["--to", "5"]);
    assert!(done.status.success(), "{}", text(&done));
    assert!(text(&northstar(&into, &["scan"])).contains("a3"));
}
