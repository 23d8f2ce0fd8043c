//! Rules of `CONTRIBUTING.md` for the words of doc comments and for local links, which no lint knows.

use std::path::{Path, PathBuf};

use crate::harness::read;

/// A doc comment begins with a noun or a verb, not with a clause in the place of a name.
#[test]
fn doc_comments_begin_with_a_noun_or_a_verb() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for file in sources() {
        for (number, line) in openings(&read(&file)) {
            count += 1;
            let first = line.split_whitespace().next().unwrap_or_default();
            if CLAUSES.contains(&first) {
                wrong.push(format!("{}:{number}: {line}", file.display()));
            }
        }
    }
    assert!(count > 1_000, "only {count} doc comments were read");
    assert!(wrong.is_empty(), "these doc comments begin with a clause:\n{}", wrong.join("\n"));
}

/// Comments and documents avoid words that make a native reader stop.
#[test]
fn comments_and_documents_use_plain_words() {
    let mut wrong = Vec::new();
    let contributing = root().join(".github/CONTRIBUTING.md");
    for file in sources().into_iter().chain(documents()).filter(|file| *file != contributing) {
        let is_source = file.extension().is_some_and(|extension| extension == "rs");
        for (index, line) in read(&file).lines().enumerate() {
            let text =
                if is_source { line.split_once("//").map_or("", |(_, comment)| comment) } else { line };
            if let Some((word, _)) = AVOIDED.iter().find(|(word, _)| has_words(text, word)) {
                wrong.push(format!("{}:{}: {word}", file.display(), index + 1));
            }
        }
    }
    let instead: Vec<_> = AVOIDED.iter().map(|(word, instead)| format!("{word}: {instead}")).collect();
    assert!(wrong.is_empty(), "{}\nBetter:\n{}", wrong.join("\n"), instead.join("\n"));
}

#[test]
fn words_are_found() {
    assert!(has_words("Nobody reads it", "nobody") && has_words("a pipe (for ever).", "for ever"));
    assert!(!has_words("for everything", "for ever") && !has_words("user `nobody`", "nobody"));
}

#[test]
fn openings_are_found() {
    let text = "//! Module.\n//!\n//! What else.\n\n    /// Whether so.\n    /// Where not.\n    fn f() {}\n";
    let found: Vec<_> = openings(text).into_iter().collect();
    assert_eq!(found, [(1, "Module."), (3, "What else."), (5, "Whether so.")]);
}

/// Links from the project's documents to its own files.
#[test]
fn local_links_lead_somewhere() {
    let mut count = 0;
    for document in documents() {
        let text = read(&document);
        let folder = document.parent().expect("a folder");
        for link in links(&text) {
            let path = link.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            count += 1;
            assert!(folder.join(path).exists(), "{} links to {link}", document.display());
        }
    }
    assert!(count > 5, "only {count} links were read");
}

/// Paths of the project's own files in backticks, which move more often than links.
#[test]
fn paths_in_documents_exist() {
    for document in documents() {
        for word in read(&document).split('`').skip(1).step_by(2) {
            let path = word.split(' ').next().unwrap_or_default();
            let is_ours =
                ["src/", "scripts/", "compat-tests/", ".github/"].iter().any(|top| path.starts_with(top));
            if is_ours && !path.contains(['*', '<', '$', ':']) {
                assert!(root().join(path).exists(), "{} names {path}", document.display());
            }
        }
    }
}

/// Lines that a merge leaves behind where two sides differed.
#[test]
fn nothing_has_a_merge_marker() {
    for file in documents().into_iter().chain(sources()) {
        let text = read(&file);
        let marker = text.lines().find(|line| line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> "));
        assert_eq!(marker, None, "{}", file.display());
    }
}

/// Lines that begin a paragraph of a doc comment, with their numbers.
fn openings(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut is_inside = false;
    for (index, line) in text.lines().enumerate() {
        let words = line.trim_start().strip_prefix("///").or_else(|| line.trim_start().strip_prefix("//!"));
        let words = words.map(str::trim);
        if let Some(words) = words.filter(|words| !words.is_empty() && !is_inside) {
            found.push((index + 1, words));
        }
        is_inside = words.is_some_and(|words| !words.is_empty());
    }
    found
}

/// Returns whether these words are in the text, in any case and outside backticks.
fn has_words(text: &str, words: &str) -> bool {
    let plain: String = text.split('`').step_by(2).collect::<Vec<_>>().join(" ").to_lowercase();
    let is_letter = |char: Option<char>| char.is_some_and(char::is_alphanumeric);
    plain.match_indices(words).any(|(at, _)| {
        let after = plain[at + words.len()..].chars().next();
        !is_letter(plain[..at].chars().next_back()) && !is_letter(after)
    })
}

fn links(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("](").filter_map(|(at, _)| text[at + 2..].split(')').next())
}

fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for top in ["src", "compat-tests"] {
        collect(&root().join(top), "rs", &mut files);
    }
    files
}

fn documents() -> Vec<PathBuf> {
    let mut files = vec![root().join("README.md")];
    collect(&root().join(".github"), "md", &mut files);
    files
}

fn collect(folder: &Path, extension: &str, files: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
            collect(&path, extension, files);
        } else if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Words that are avoided, with better ones.
const AVOIDED: [(&str, &str); 8] = [
    ("nobody", "no client, no caller, unread, unused"),
    ("somebody", "a client, another user"),
    ("whoever", "the caller, the client, the user"),
    ("for ever", "forever"),
    ("in vain", "without success, until its time is over"),
    ("is told", "is reported, is passed on"),
    ("are told", "are reported, are passed on"),
    ("was told", "was reported"),
];
/// First words of a clause that stands in the place of a name.
const CLAUSES: [&str; 10] =
    ["What", "Whether", "Who", "Whose", "Whom", "How", "Where", "Why", "Which", "Whoever"];
