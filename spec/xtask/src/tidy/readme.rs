//! Commands that README and ARCHITECTURE show must exist: packages, subcommands, long options, example files.

use crate::repo::Repo;

const PAGES: &[&str] = &["README.md", "ARCHITECTURE.md"];
/// Programs of the workspace and where their sources lie.
const PROGRAMS: &[(&str, &str)] = &[
    ("nsbench", "bench/"),
    ("nshard", "hard/"),
    ("northstar", "tools/"),
    ("xtask", "spec/xtask/"),
];

/// Lines of code blocks that are for a shell.
fn commands(text: &str) -> Vec<&str> {
    let mut shell = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(language) = line.trim().strip_prefix("```") {
            shell = !shell && matches!(language, "sh" | "bash" | "console");
        } else if shell {
            found.push(line.trim().trim_start_matches("$ "));
        }
    }
    found
}

/// The program a command line starts, and the words for it.
fn program(command: &str) -> Option<(&str, Vec<&str>)> {
    let command = command.split(" #").next().unwrap_or_default();
    let words: Vec<&str> = command.split_whitespace().collect();
    match words.as_slice() {
        ["cargo", "xtask", rest @ ..] => Some(("xtask", rest.to_vec())),
        ["cargo", "run", rest @ ..] => {
            let at = rest
                .iter()
                .position(|word| matches!(*word, "-p" | "--package"))?;
            let name = rest.get(at + 1)?;
            let args = rest
                .iter()
                .position(|word| *word == "--")
                .map_or(rest.len(), |dashes| dashes + 1);
            Some((name, rest.get(args..)?.to_vec()))
        }
        [name, rest @ ..] => {
            let name = name.rsplit('/').next()?;
            PROGRAMS
                .iter()
                .any(|(known, _)| *known == name)
                .then(|| (name, rest.to_vec()))
        }
        [] => None,
    }
}

/// Commands that name a package, subcommand or option that no source knows.
pub(crate) fn faults(repo: &Repo) -> Vec<String> {
    let mut faults = Vec::new();
    for page in PAGES {
        let Some(text) = repo.text(page) else {
            faults.push(format!("{page} is missing"));
            continue;
        };
        for command in commands(text) {
            let Some((name, args)) = program(command) else {
                continue;
            };
            let Some((_, root)) = PROGRAMS.iter().find(|(known, _)| *known == name) else {
                faults.push(format!("{page}: `{command}`: no program {name}"));
                continue;
            };
            for word in unknown_words(repo, root, &args) {
                faults.push(format!("{page}: `{command}`: {name} knows no {word}"));
            }
        }
    }
    faults
}

/// Of the subcommand (the first word, where it is one) and the long options, those that the sources do not name.
fn unknown_words<'w>(repo: &Repo, root: &str, args: &[&'w str]) -> Vec<&'w str> {
    let code: String = repo
        .sources()
        .filter(|(path, _)| path.starts_with(root))
        .map(|(_, text)| text.to_lowercase())
        .collect();
    let plain = |word: &str| {
        word.trim_start_matches('-')
            .split('=')
            .next()
            .unwrap_or_default()
            .to_lowercase()
    };
    if code.lines().count() < 10 {
        // A placeholder: its words come with it.
        return Vec::new();
    }
    args.iter()
        .enumerate()
        .filter(|(index, word)| {
            let subcommand = *index == 0
                && !word.starts_with('-')
                && word.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-');
            subcommand || word.starts_with("--")
        })
        .map(|(_, word)| *word)
        .filter(|word| {
            let name = plain(word);
            // A clap field or variant spells `-` as `_` or not at all.
            let spellings = [name.clone(), name.replace('-', "_"), name.replace('-', "")];
            !name.is_empty()
                && !spellings
                    .iter()
                    .any(|spelling| code.contains(spelling.as_str()))
        })
        .collect()
}
