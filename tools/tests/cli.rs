//! The `northstar` command as a user meets it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking and may talk"
)]

mod common;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::process::Command;

use common::{json, lines, northstar, text, tree, unheard};

#[test]
fn an_imported_tree_reads_back_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let (root, db) = (dir.path().join("tree"), dir.path().join("db"));
    tree(&root);
    let import = northstar(&db, &["import", root.to_str().unwrap(), "--json"]);
    assert!(import.status.success(), "{}", text(&import));
    let totals: serde_json::Value = serde_json::from_slice(&import.stdout).unwrap();
    assert_eq!(totals["files_written"], 5, "{totals}");
    assert_eq!(totals["symlinks_skipped"], 1, "{totals}");
    assert_eq!(totals["too_large_count"], 1, "{totals}");
    // One transaction a directory with files: the root, src, src/deep.
    assert_eq!(totals["transactions"], 3, "{totals}");
    for file in [
        "README.md",
        "src/a.rs",
        "src/b.rs",
        "src/deep/empty",
        "src/deep/binary",
    ] {
        let get = northstar(&db, &["get", file]);
        assert!(get.status.success(), "{file}: {}", text(&get));
        assert_eq!(
            get.stdout,
            std::fs::read(root.join(file)).unwrap(),
            "{file}"
        );
    }
    let scan = northstar(
        &db,
        &["scan", "--prefix", "src/", "--reverse", "--limit", "2"],
    );
    let lines: Vec<_> = std::str::from_utf8(&scan.stdout)
        .unwrap()
        .lines()
        .map(str::trim)
        .collect();
    assert_eq!(
        lines,
        ["0  src/deep/empty", "3  src/deep/binary"],
        "{}",
        text(&scan)
    );
    let check = northstar(&db, &["check"]);
    assert!(check.status.success(), "{}", text(&check));
    let stat = northstar(&db, &["stat", "--json"]);
    assert!(stat.status.success(), "{}", text(&stat));
    let figures: serde_json::Value = serde_json::from_slice(&stat.stdout).unwrap();
    assert_eq!(figures["txn"], totals["last_txn"], "{figures}");
}

#[test]
fn importing_again_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (root, db) = (dir.path().join("tree"), dir.path().join("db"));
    tree(&root);
    let import = || {
        let output = northstar(&db, &["import", root.to_str().unwrap(), "--json"]);
        assert!(output.status.success(), "{}", text(&output));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    import();
    std::fs::write(root.join("src/a.rs"), "fn a() { changed() }\n").unwrap();
    let second = import();
    assert_eq!(
        (&second["files_written"], &second["transactions"]),
        (&1.into(), &1.into()),
        "{second}"
    );
    let third = import();
    assert_eq!(
        (&third["files_written"], &third["transactions"]),
        (&0.into(), &0.into()),
        "{third}"
    );
}

#[test]
fn what_is_missing_or_misused_is_said_and_shows_in_the_exit_code() {
    // A variable that says nothing is none.
    let mut empty = Command::new(env!("CARGO_BIN_EXE_northstar"));
    empty.env("NORTHSTAR_DB", "");
    let refused = empty.arg("stat").output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(text(&refused).contains("no database is named"));
    let refused = empty.args(["--db", "/nowhere"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    let dir = tempfile::tempdir().unwrap();
    let (root, db) = (dir.path().join("tree"), dir.path().join("db"));
    tree(&root);
    // Reading makes no database.
    let early = northstar(&db, &["get", "README.md"]);
    assert_eq!(early.status.code(), Some(1), "{}", text(&early));
    assert!(!db.exists());
    assert!(
        northstar(&db, &["import", root.to_str().unwrap()])
            .status
            .success()
    );
    let missing = northstar(&db, &["get", "no/such/file"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        text(&missing).contains("no/such/file"),
        "{}",
        text(&missing)
    );
    let future = northstar(&db, &["as-of", "999999", "get", "README.md"]);
    assert_eq!(future.status.code(), Some(1), "{}", text(&future));
    assert!(text(&future).contains("999999"), "{}", text(&future));
    let table = northstar(&db, &["scan", "--table", "nope"]);
    assert_eq!(table.status.code(), Some(1), "{}", text(&table));
    for words in [
        &["frobnicate"][..],
        &["get"],
        &["import", "/no/such/directory"],
    ] {
        assert_eq!(northstar(&db, words).status.code(), Some(2), "{words:?}");
    }
    let nowhere = Command::new(env!("CARGO_BIN_EXE_northstar"))
        .args(["stat"])
        .env_remove("NORTHSTAR_DB")
        .output()
        .unwrap();
    assert_eq!(nowhere.status.code(), Some(2), "{}", text(&nowhere));
}

#[test]
fn an_earlier_import_can_be_read_as_of_its_last_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let (root, db) = (dir.path().join("tree"), dir.path().join("db"));
    tree(&root);
    let import = || {
        let words = ["import", root.to_str().unwrap(), "--keep-history", "--json"];
        let output = northstar(&db, &words);
        assert!(output.status.success(), "{}", text(&output));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["last_txn"].to_string()
    };
    let first = import();
    std::fs::write(root.join("src/a.rs"), "fn a() { changed() }\n").unwrap();
    std::fs::write(root.join("src/new.rs"), "fn new() {}\n").unwrap();
    let second = import();
    assert_ne!(first, second);
    let get = |txn: &str, path: &str| northstar(&db, &["as-of", txn, "get", path]).stdout;
    assert_eq!(get(&first, "src/a.rs"), b"fn a() {}\n");
    assert_eq!(get(&second, "src/a.rs"), b"fn a() { changed() }\n");
    assert_eq!(
        northstar(&db, &["as-of", &first, "get", "src/new.rs"])
            .status
            .code(),
        Some(1)
    );
    let scan = northstar(
        &db,
        &["as-of", &first, "scan", "--prefix", "src/", "--json"],
    );
    assert_eq!(
        scan.stdout.iter().filter(|byte| **byte == b'\n').count(),
        4,
        "{}",
        text(&scan)
    );
}

#[test]
fn versions_and_differences_are_listed_and_moments_name_states() {
    let dir = tempfile::tempdir().unwrap();
    let (root, db) = (dir.path().join("tree"), dir.path().join("db"));
    tree(&root);
    let import = || {
        let words = ["import", root.to_str().unwrap(), "--keep-history", "--json"];
        let output = northstar(&db, &words);
        assert!(output.status.success(), "{}", text(&output));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["last_txn"].to_string()
    };
    let first = import();
    std::fs::write(root.join("src/a.rs"), "fn a() { changed() }\n").unwrap();
    std::fs::write(root.join("src/new.rs"), "fn new() {}\n").unwrap();
    let newest = import();
    let lines = |words: &[&str]| lines(&northstar(&db, &[words, &["--json"]].concat()));
    let versions = lines(&["history", "src/a.rs"]);
    let bytes: Vec<_> = versions.iter().map(|line| line["bytes"].as_u64()).collect();
    assert_eq!(bytes, [Some(10), Some(21)]);
    let moments: Vec<_> = versions.iter().map(|line| line["time"].as_str()).collect();
    for moment in moments.iter().flatten() {
        // 2026-01-31T12:00:00.123Z at most.
        assert!(moment.len() <= 24, "{moment}");
    }
    let differences = lines(&["diff", &first, &newest]);
    let paths: Vec<_> = differences
        .iter()
        .map(|line| line["path"].as_str())
        .collect();
    assert_eq!(paths, [Some("src/a.rs"), Some("src/new.rs")]);
    // The process that wrote the second one began after the first had ended.
    for (moment, content) in moments
        .iter()
        .zip(["fn a() {}\n", "fn a() { changed() }\n"])
    {
        let then = northstar(&db, &["as-of", moment.unwrap(), "get", "src/a.rs"]);
        assert_eq!(then.stdout, content.as_bytes(), "{}", text(&then));
    }
    for (words, code) in [
        (&["as-of", "tag:none", "scan"][..], 1),
        (&["as-of", "yesterday", "scan"], 2),
        (&["history", "never"], 1),
        (&["diff", &newest, &first], 2),
    ] {
        let output = northstar(&db, words);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
    }
}

#[test]
fn the_log_is_kept_when_asked_for_and_printed() {
    let dir = tempfile::tempdir().unwrap();
    let (root, db) = (dir.path().join("tree"), dir.path().join("db"));
    tree(&root);
    let import = northstar(&db, &["import", root.to_str().unwrap(), "--keep-log"]);
    assert!(import.status.success(), "{}", text(&import));
    let stat = northstar(&db, &["log", "stat", "--json"]);
    let figures: serde_json::Value = serde_json::from_slice(&stat.stdout).unwrap();
    // The table, and one transaction a directory.
    assert_eq!(
        (&figures["first_txn"], &figures["transactions"]),
        (&1.into(), &4.into())
    );
    let dump = northstar(&db, &["log", "dump", "--json"]);
    let lines: Vec<serde_json::Value> = String::from_utf8(dump.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[0]["changes"][0]["name"], "files");
    let puts: Vec<_> = lines[1..]
        .iter()
        .flat_map(|line| line["changes"].as_array().unwrap())
        .collect();
    assert_eq!(puts.len(), 5);
    assert!(
        puts.iter()
            .any(|put| put["key"]["text"] == "src/a.rs" && put["value"]["text"] == "fn a() {}\n")
    );
    let some = northstar(
        &db,
        &["log", "tail", "--only", "files", "--prefix", "src/deep"],
    );
    let some = text(&some);
    assert!(
        some.contains("put     files src/deep/binary (3 bytes)"),
        "{some}"
    );
    assert!(!some.contains("src/a.rs"), "{some}");
    let gone = northstar(&db, &["log", "dump", "--from", "9"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(
        text(&gone).contains("holds 1 up to and without 5"),
        "{}",
        text(&gone)
    );
    let verify = northstar(&db, &["log", "verify"]);
    assert!(verify.status.success(), "{}", text(&verify));
    // One bit, in the second group.
    let segment = db.join("log").join(format!("{:020}.seg", 0));
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[4096 + 200] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    let verify = northstar(&db, &["log", "verify"]);
    assert_eq!(verify.status.code(), Some(1), "{}", text(&verify));
    assert!(
        text(&verify).contains("transactions 2 to 2 at bytes 4096 to"),
        "{}",
        text(&verify)
    );
    let check = northstar(&db, &["check"]);
    assert!(
        check.status.success(),
        "the pages do not need it: {}",
        text(&check)
    );
    // Also where what can be read from the end back is sound.
    bytes[4096 + 200] ^= 1;
    bytes[20] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    for words in [&["log", "stat"][..], &["log", "dump"]] {
        let found = northstar(&db, words);
        assert_eq!(found.status.code(), Some(1), "{}", text(&found));
        assert!(text(&found).contains("1 holes are in the log"));
    }
    let from = northstar(&db, &["log", "dump", "--from", "2"]);
    assert!(from.status.success(), "{}", text(&from));
}

#[test]
fn a_check_counts_the_copies_of_the_meta_page() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("db");
    let open = northstardb::Options::new().page_bytes(4096).open(&db);
    let open = open.unwrap();
    for name in ["a", "b"] {
        open.table(name).unwrap();
        open.checkpoint().unwrap();
    }
    open.close().unwrap();
    let copies = || json(&northstar(&db, &["check", "--json"]))["meta_copies"].clone();
    assert_eq!(copies(), 4);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(db.join("data"));
    let file = file.unwrap();
    for (page, left) in [(2, 3), (1, 2), (0, 1)] {
        file.write_all_at(&[9; 100], page * 4096 + 50).unwrap();
        assert_eq!(copies(), left);
    }
}

#[test]
fn differences_are_of_the_tables_that_had_the_name_then() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let options = northstardb::Options::new().history(northstardb::Retention::All);
    let db = options.open(&path).unwrap();
    let put = |rows: &[(&str, &str)]| {
        let mut txn = db.begin_write().unwrap();
        let table = txn.table("files").unwrap();
        for (key, value) in rows {
            txn.put(&table, key, value).unwrap();
        }
        txn.commit().unwrap().txn_id.to_string()
    };
    let old = put(&[("gone", "1"), ("new", "22"), ("same", "333")]);
    db.drop_table("files").unwrap();
    let none = db.begin_read().unwrap().txn_id().to_string();
    let new = put(&[("made", "1"), ("new", "4444"), ("same", "333")]);
    db.close().unwrap();
    for (before, after, expected) in [
        (
            &old,
            &new,
            "- gone (1 bytes)\n+ made (1 bytes)\n~ new (2 to 4 bytes)\n",
        ),
        (
            &old,
            &none,
            "- gone (1 bytes)\n- new (2 bytes)\n- same (3 bytes)\n",
        ),
        (
            &none,
            &new,
            "+ made (1 bytes)\n+ new (4 bytes)\n+ same (3 bytes)\n",
        ),
    ] {
        let words = [
            "diff",
            before.trim_start_matches('t'),
            after.trim_start_matches('t'),
        ];
        assert_eq!(text(&northstar(&path, &words)), expected, "{words:?}");
    }
}

#[test]
fn the_log_of_a_database_that_does_not_open_is_verified() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("db");
    // As a crash leaves it: nothing but the log has what was committed.
    let crashed = dir.path().join("crashed");
    let open = northstardb::Options::new().open(&db).unwrap();
    let table = open.table("files").unwrap();
    for number in 0..9_u8 {
        let mut batch = northstardb::WriteBatch::new();
        batch.put(&table, [number], vec![number; 5000]);
        open.commit(batch).unwrap();
    }
    std::fs::create_dir_all(crashed.join("log")).unwrap();
    let segment = format!("log/{:020}.seg", 0);
    for file in ["data", &segment] {
        std::fs::copy(db.join(file), crashed.join(file)).unwrap();
    }
    let busy = northstar(&db, &["log", "verify"]);
    assert_eq!(busy.status.code(), Some(1), "{}", text(&busy));
    assert!(text(&busy).contains("locked by"), "{}", text(&busy));
    open.close().unwrap();
    let verify = |words: &[&str]| northstar(&crashed, &[&["log", "verify"], words].concat());
    let sound = json(&verify(&["--json"]));
    assert_eq!(
        (
            &sound["first_txn"],
            &sound["next_txn"],
            &sound["transactions"]
        ),
        (&1.into(), &11.into(), &10.into()),
        "{sound}"
    );
    assert_eq!(sound["holes"].as_array().map(Vec::len), Some(0), "{sound}");
    assert!(sound["unexplained"].is_null(), "{sound}");
    // The table takes a block, each transaction two. Of the last one it may be that a crash cut it short.
    let mut bytes = std::fs::read(crashed.join(&segment)).unwrap();
    let last = 4096 + 8 * 8192;
    bytes[last + 5000] ^= 1;
    std::fs::write(crashed.join(&segment), &bytes).unwrap();
    let cut = json(&verify(&["--json"]));
    let unfinished = &cut["unfinished"];
    assert_eq!(
        (&unfinished["at_byte"], &unfinished["transactions"]),
        (&last.into(), &0.into()),
        "{cut}"
    );
    assert!(unfinished["why"].is_string(), "{cut}");
    bytes[last + 5000] ^= 1;
    // One bit of the fifth.
    bytes[4096 + 3 * 8192 + 5000] ^= 1;
    std::fs::write(crashed.join(&segment), &bytes).unwrap();
    let check = northstar(&crashed, &["check"]);
    assert_eq!(check.status.code(), Some(1), "{}", text(&check));
    assert!(text(&check).contains("log is damaged"), "{}", text(&check));
    let expected = "transactions 5 to 5 at bytes 28672 to 36864 of the stream: ";
    let found = verify(&[]);
    assert_eq!(found.status.code(), Some(1), "{}", text(&found));
    assert!(text(&found).contains(expected), "{}", text(&found));
    assert!(
        text(&found).contains("1 holes were found"),
        "{}",
        text(&found)
    );
    // Neither does it need the data file.
    std::fs::remove_file(crashed.join("data")).unwrap();
    let found = verify(&["--json"]);
    assert_eq!(found.status.code(), Some(1), "{}", text(&found));
    let figures: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(figures["transactions"], 9, "{figures}");
    let hole = &figures["holes"][0];
    for (name, expected) in [
        ("first_txn", 5),
        ("next_txn", 6),
        ("from_byte", 28672),
        ("to_byte", 36864),
    ] {
        assert_eq!(hole[name], expected, "{figures}");
    }
    assert!(hole["why"].is_string(), "{figures}");
    assert!(
        figures["without_meta_page"]
            .as_str()
            .unwrap()
            .contains("no file named"),
        "{figures}"
    );
    let nothing = northstar(dir.path(), &["log", "verify"]);
    assert_eq!(nothing.status.code(), Some(1), "{}", text(&nothing));
}

#[test]
fn subscribers_are_listed_and_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = northstardb::Options::new().open(&path).unwrap();
    let table = db.table("files").unwrap();
    for name in ["indexer", "mailer"] {
        let log = db.log().unwrap();
        log.subscribe(name, log.next(), northstardb::LogFilter::all())
            .unwrap();
    }
    let mut write = db.begin_write().unwrap();
    write.put(&table, b"not \xff text", "x").unwrap();
    write.commit().unwrap();
    db.close().unwrap();
    let list = || lines(&northstar(&path, &["log", "subscribers", "--json"]));
    let found = list();
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0]["name"], "indexer");
    assert_eq!(found[0]["is_lost"], false);
    assert!(found[0]["held_bytes"].as_u64() > Some(0), "{found:?}");
    let plain = text(&northstar(&path, &["log", "subscribers"]));
    assert!(plain.contains("mailer  next "), "{plain}");
    let before = json(&northstar(&path, &["log", "stat", "--json"]));
    let forgotten = northstar(&path, &["log", "unsubscribe", "indexer"]);
    assert!(forgotten.status.success(), "{}", text(&forgotten));
    let again = northstar(&path, &["log", "unsubscribe", "indexer"]);
    assert_eq!(again.status.code(), Some(1), "{}", text(&again));
    let found = list();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["name"], "mailer");
    let after = json(&northstar(&path, &["log", "stat", "--json"]));
    assert_eq!(before["first_txn"], after["first_txn"], "the log was kept");
    // A path that is no text is not shown as another one.
    let row = json(&northstar(&path, &["scan", "--json"]));
    assert_eq!(row["path_hex"], "6e6f7420ff2074657874", "{row}");
    assert!(row.get("path").is_none(), "{row}");
}

#[test]
fn the_log_shows_every_transaction_also_those_without_changes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let keeping = northstardb::Options::new().log_retention(northstardb::Retention::All);
    let db = keeping.open(&path).unwrap();
    let log = db.log().unwrap();
    // The first only makes a reader known, the last only moves it on.
    let all = northstardb::LogFilter::all();
    let mut reader = log.subscribe("reader", log.next(), all).unwrap();
    let rare = db.table("rare").unwrap();
    let often = db.table("often").unwrap();
    let put = |table: &northstardb::Table, key: &str| {
        let mut write = db.begin_write().unwrap();
        write.put(table, key, "x").unwrap();
        write.commit().unwrap().txn_id.get()
    };
    let dropped = put(&often, "first");
    let rows = ["a1", "a2", "b3", "a4"].map(|key| put(&rare, key));
    for row in 0..50 {
        put(&often, &format!("{row}"));
    }
    db.rename_table("rare", "scarce").unwrap();
    db.drop_table("often").unwrap();
    let given = reader.try_next().unwrap().unwrap();
    let last = reader.acknowledge(given.txn_id()).unwrap().txn_id.get();
    drop((reader, log));
    db.close().unwrap();

    let show = |words: &[&str]| lines(&northstar(&path, &[words, &["--json"]].concat()));
    let ids = |lines: &[serde_json::Value]| -> Vec<u64> {
        let ids = lines.iter().map(|line| line["txn"].as_u64().unwrap());
        ids.collect()
    };
    let dumped = show(&["log", "dump"]);
    assert_eq!(ids(&dumped), (1..=last).collect::<Vec<_>>());
    let [begin, end] = [&dumped[0], &dumped[dumped.len() - 1]];
    for edge in [begin, end] {
        assert_eq!(edge["changes"], serde_json::json!([]), "{edge}");
    }
    let stat = json(&northstar(&path, &["log", "stat", "--json"]));
    assert_eq!(stat["transactions"], last, "{stat}");
    assert_eq!(stat["first_time"], begin["time"], "{stat}");
    assert_eq!(stat["last_time"], end["time"], "{stat}");
    // As the table is called now, if it is there.
    let change = |txn: u64| &dumped[usize::try_from(txn).unwrap() - 1]["changes"][0];
    assert_eq!(change(rows[0])["name"], "scarce", "{}", change(rows[0]));
    let dropped = change(dropped);
    assert_eq!(dropped["op"], "put", "{dropped}");
    assert!(dropped.get("name").unwrap().is_null(), "{dropped}");

    // The last of all, and the last of those that have what was asked for.
    assert_eq!(ids(&show(&["log", "tail", "-n", "2"])), [last - 1, last]);
    assert!(show(&["log", "tail", "-n", "0"]).is_empty());
    let only = |count: &str, more: &[&str]| {
        let words = ["log", "tail", "--only", "scarce", "-n", count];
        ids(&show(&[&words[..], more].concat()))
    };
    let renamed = last - 2;
    assert_eq!(only("1", &[]), [renamed]);
    assert_eq!(only("3", &[]), [rows[2], rows[3], renamed]);
    // The second transaction made it.
    assert_eq!(only("99", &[]), [&[2], &rows[..], &[renamed]].concat());
    let some = only("99", &["--prefix", "a"]);
    for row in rows {
        assert_eq!(some.contains(&row), row != rows[2], "{row}: {some:?}");
    }
    assert_eq!(some, only("99", &["--prefix", "61", "--hex"]));
}

#[test]
fn a_path_that_is_no_text_is_given_as_it_is_or_as_it_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let (root, db) = (dir.path().join("tree"), dir.path().join("db"));
    std::fs::create_dir_all(&root).unwrap();
    let name = OsStr::from_bytes(b"\xff\x1b[31m\\caf\xc3\xa9");
    std::fs::write(root.join(name), "content").unwrap();
    std::fs::write(root.join("other"), "content").unwrap();
    let word = OsStr::new;
    let import = ["import", root.to_str().unwrap(), "--keep-log"];
    let import = northstar(&db, &[&import[..], &["--keep-history"]].concat());
    assert!(import.status.success(), "{}", text(&import));
    let scanned = &lines(&northstar(&db, &["scan", "--json"]))[1];
    let hex = scanned["path_hex"].as_str().unwrap();
    assert_eq!(hex, "ff1b5b33316d5c636166c3a9");
    for path in [&[name][..], &[word("--hex"), word(hex)]] {
        let got = northstar(&db, &[&[word("get")], path].concat());
        assert_eq!(got.stdout, b"content", "{}", text(&got));
        let got = northstar(&db, &[&[word("get"), word("--json")], path].concat());
        assert_eq!(json(&got)["path_hex"], hex, "{}", text(&got));
        let versions = northstar(&db, &[&[word("history")], path].concat());
        assert!(text(&versions).contains("7 bytes"), "{}", text(&versions));
    }
    // What a terminal would act on is not sent to it; other text is left alone.
    let shown = "\\xff\\x1b[31m\\café";
    for prefix in [
        &[OsStr::from_bytes(b"\xff")][..],
        &[word("FF1b"), word("--hex")],
    ] {
        let words = [word("scan"), word("--prefix")];
        let found = northstar(&db, &[&words[..], prefix].concat());
        assert_eq!(text(&found), format!("         7  {shown}\n"));
    }
    let differ = text(&northstar(&db, &["diff", "1", "2"]));
    assert!(
        differ.contains(&format!("+ {shown} (7 bytes)\n")),
        "{differ}"
    );
    let only = ["log", "dump", "--json", "--only", "files", "--hex"];
    let dumped = lines(&northstar(&db, &[&only[..], &["--prefix", "ff"]].concat()));
    let changes = dumped.last().unwrap()["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 1, "{dumped:?}");
    assert_eq!(changes[0]["key"]["hex"], hex, "{dumped:?}");
    // No word of a command line has a zero byte.
    let open = northstardb::Options::new().open(&db).unwrap();
    let table = open.open_table("files").unwrap();
    let odd = open.table("a\x1b[31m\nb").unwrap();
    let mut write = open.begin_write().unwrap();
    write.put(&table, b"nul\0", "zero").unwrap();
    write.put(&odd, "x", "y").unwrap();
    write.commit().unwrap();
    open.close().unwrap();
    let scanned = lines(&northstar(&db, &["scan", "--json", "--prefix", "nul"]));
    let hex = scanned[0]["path_hex"].as_str().unwrap();
    let got = northstar(&db, &["get", "--hex", hex]);
    assert_eq!(got.stdout, b"zero", "{}", text(&got));
    let stat = text(&northstar(&db, &["stat"]));
    assert!(stat.contains("a\\x1b[31m\\x0ab: 1"), "{stat}");
    for digits in ["f", "fg", "+f", "é"] {
        let refused = northstar(&db, &["get", "--hex", digits]);
        assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    }
}

#[test]
fn a_fault_decides_the_exit_code_also_where_nobody_reads_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let keeping = northstardb::Options::new().log_retention(northstardb::Retention::All);
    let db = keeping.open(&path).unwrap();
    let table = db.table("files").unwrap();
    for row in 0..200_u64 {
        let mut write = db.begin_write().unwrap();
        write.put(&table, row.to_string(), "x").unwrap();
        write.commit().unwrap();
    }
    db.close().unwrap();
    let words = ["log", "verify", "--json"];
    assert!(unheard(&path, &words).status.success());
    assert!(unheard(&path, &["log", "dump"]).status.success());
    // Each transaction takes a block. With every other one damaged there is more to say than is held back before it is written.
    let segment = path.join("log").join(format!("{:020}.seg", 0));
    let mut bytes = std::fs::read(&segment).unwrap();
    for block in (10..190).step_by(2) {
        bytes[block * 4096 + 60] ^= 1;
    }
    std::fs::write(&segment, &bytes).unwrap();
    let said = northstar(&path, &words);
    assert!(said.stdout.len() > 8192, "{}", text(&said));
    assert_eq!(said.status.code(), Some(1), "{}", text(&said));
    let unheard = unheard(&path, &words);
    assert_eq!(unheard.status.code(), Some(1), "{}", text(&unheard));
    assert!(text(&unheard).contains("holes were found"));
}
