//! The `northstar` command as a user meets it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking and may talk"
)]

use std::path::Path;
use std::process::{Command, Output};

fn northstar(db: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_northstar"))
        .args(words)
        .arg("--db")
        .arg(db)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn tree(root: &Path) {
    std::fs::create_dir_all(root.join("src/deep")).unwrap();
    std::fs::write(root.join("README.md"), "read me\n").unwrap();
    std::fs::write(root.join("src/a.rs"), "fn a() {}\n").unwrap();
    std::fs::write(root.join("src/b.rs"), "fn b() {}\n".repeat(10_000)).unwrap();
    std::fs::write(root.join("src/deep/empty"), "").unwrap();
    std::fs::write(root.join("src/deep/binary"), [0u8, 255, 128]).unwrap();
    std::os::unix::fs::symlink("/", root.join("src/link")).unwrap();
    std::fs::File::create(root.join("huge"))
        .unwrap()
        .set_len((16 << 20) + 1)
        .unwrap();
}

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
    let lines = |words: &[&str]| -> Vec<serde_json::Value> {
        let output = northstar(&db, &[words, &["--json"]].concat());
        assert!(output.status.success(), "{}", text(&output));
        let lines = String::from_utf8(output.stdout).unwrap();
        lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let versions = lines(&["history", "src/a.rs"]);
    let bytes: Vec<_> = versions.iter().map(|line| line["bytes"].as_u64()).collect();
    assert_eq!(bytes, [Some(10), Some(21)]);
    let moments: Vec<_> = versions.iter().map(|line| line["time"].as_str()).collect();
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
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", text(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

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
    // The table takes a block, each transaction two: one bit of the fifth.
    let mut bytes = std::fs::read(crashed.join(&segment)).unwrap();
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
    assert!(
        figures["holes"][0].as_str().unwrap().starts_with(expected),
        "{figures}"
    );
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
    let list = || -> Vec<serde_json::Value> {
        let found = northstar(&path, &["log", "subscribers", "--json"]);
        assert!(found.status.success(), "{}", text(&found));
        let lines = String::from_utf8(found.stdout).unwrap();
        let lines = lines.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
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
    std::os::unix::fs::symlink(&target, &link).unwrap();
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
