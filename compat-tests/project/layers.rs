//! The book in `src/lib.rs` compared with the `use` lines and the paths in the source. Its picture of the layers: no arrow
//! runs up, and no files use each other in a circle. Its table of limits: each has its constant and its test.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::harness::read;

/// A module's path without `crate`: `["link", "tcp"]`. The crate's root is empty.
type Module = Vec<String>;

/// Modules of the source, with their imports and re-exports.
struct Source {
    modules: BTreeMap<Module, Vec<Import>>,
}

/// One name that a `use` line brings in.
#[derive(Debug, Clone)]
struct Import {
    /// From the crate's root to the name, without `crate`.
    path: Vec<String>,
    /// Local name; `*` for all of a module's names.
    name: String,
}

#[test]
fn no_arrow_runs_up() {
    let layers = layers();
    let level = |name: &str| layers.iter().position(|layer| layer.iter().any(|module| module == name));
    let source = Source::read(&source_folder());
    let mut wrong = BTreeSet::new();
    for (module, used) in source.arrows() {
        let (Some(from), Some(to)) = (module.first(), used.first()) else { continue };
        let place = |name: &String| {
            level(name).unwrap_or_else(|| panic!("{name} is missing in the picture of src/lib.rs"))
        };
        if from != to && place(from) >= place(to) {
            wrong.insert(format!("{} uses {}", module.join("::"), used.join("::")));
        }
    }
    assert!(
        wrong.is_empty(),
        "these arrows do not run down in the picture of src/lib.rs:\n{}",
        lines(&wrong)
    );
}

#[test]
fn no_files_of_the_product_use_each_other_in_a_circle() {
    assert_no_circle(&Source::read(&source_folder()));
}

#[test]
fn no_files_of_the_tests_use_each_other_in_a_circle() {
    assert_no_circle(&Source::read(&root().join("compat-tests")));
}

#[test]
fn no_files_of_the_simulator_use_each_other_in_a_circle() {
    assert_no_circle(&Source::read(&root().join("compat-tests/sim/src")));
}

#[track_caller]
fn assert_no_circle(source: &Source) {
    let mut arrows = source.arrows();
    // What nothing uses, or what uses nothing, is in no circle; neither is what only touches such files.
    loop {
        let before = arrows.len();
        let users: BTreeSet<Module> = arrows.iter().map(|(from, _)| from.clone()).collect();
        let used: BTreeSet<Module> = arrows.iter().map(|(_, to)| to.clone()).collect();
        arrows.retain(|(from, to)| used.contains(from) && users.contains(to));
        if arrows.len() == before {
            break;
        }
    }
    let circles =
        arrows.iter().map(|(from, to)| format!("{} uses {}", from.join("::"), to.join("::"))).collect();
    assert!(
        arrows.is_empty(),
        "these arrows make circles, or lead from one circle to another:\n{}",
        lines(&circles)
    );
}

#[test]
fn each_limit_of_the_book_has_its_constant_and_its_test() {
    let mut source = String::new();
    for folder in [source_folder(), root().join("compat-tests")] {
        append_sources(&folder, &mut source);
    }
    let book = read(&source_folder().join("lib.rs"));
    let rows: Vec<&str> = book
        .lines()
        .skip_while(|line| *line != LIMITS)
        .skip(1)
        .take_while(|line| !line.starts_with("//! # "))
        .filter(|line| line.starts_with("//! | `"))
        .collect();
    assert!(rows.len() > 10, "no table after {LIMITS:?} in src/lib.rs");
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    for row in rows {
        let cells: Vec<&str> = row.trim_start_matches("//! |").trim_end_matches('|').split('|').collect();
        let (limits, tests) = (names(cells[0]), names(cells[cells.len() - 1]));
        assert!(cells.len() == 5 && !limits.is_empty() && !tests.is_empty(), "{row}");
        for limit in limits {
            assert!(source.contains(&format!("const {limit}: ")), "no constant {limit}");
        }
        for test in tests {
            assert!(source.contains(&format!("fn {test}(")), "no test {test}");
        }
    }
}

fn append_sources(folder: &Path, to: &mut String) {
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            append_sources(&entry, to);
        } else if entry.extension().is_some_and(|kind| kind == "rs") {
            to.push_str(&read(&entry));
        }
    }
}

/// A check that reads nothing would always pass.
#[test]
fn the_source_is_read_as_it_is() {
    let source = Source::read(&source_folder());
    let has = |from: &[&str], to: &[&str]| {
        let arrow =
            (from.iter().map(|s| s.to_string()).collect(), to.iter().map(|s| s.to_string()).collect());
        source.arrows().contains(&arrow)
    };
    assert!(has(&["program"], &["cli"]));
    assert!(has(&["link", "opener"], &["link", "websocket"]));
    // By way of a name that `link` hands on.
    assert!(source.resolve(&["link", "ConnectError"].map(str::to_owned)) == ["link", "tcp"]);
    let code = "fn f() { super::b::g(crate::c::D) }\n// super::e::h()\n";
    let paths: Vec<_> = paths_in_code(code, &["a".to_owned(), "x".to_owned()]);
    let paths: Vec<_> = paths.iter().map(|import| import.path.join("::")).collect();
    assert_eq!(paths, ["c::D", "a::b::g"]);
    assert!(imports("use a::{b::{self, C as D}, *};\npub use crate::x::Y;", &["m".to_owned()]).len() == 1);
}

/// The picture: the lines of the first `text` block after the heading, from top to bottom.
fn layers() -> Vec<Vec<String>> {
    let text = read(&source_folder().join("lib.rs"));
    let lines =
        text.lines().skip_while(|line| *line != HEADING).skip_while(|line| *line != "//! ```text").skip(1);
    let layers = lines.take_while(|line| *line != "//! ```").map(|line| {
        let words = line.trim_start_matches("//!").split_whitespace();
        words
            .filter(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
            .map(str::to_owned)
            .collect()
    });
    let layers: Vec<Vec<String>> = layers.collect();
    assert!(layers.len() > 3, "no picture after {HEADING:?} in src/lib.rs");
    layers
}

impl Source {
    /// The modules of a crate whose root is in `folder`.
    fn read(folder: &Path) -> Source {
        let mut modules = BTreeMap::new();
        read_folder(folder, folder, &mut modules);
        Source { modules }
    }

    /// Pairs of modules, the first of which uses the second.
    fn arrows(&self) -> BTreeSet<(Module, Module)> {
        let all = self.modules.iter().flat_map(|(module, imports)| {
            imports.iter().map(move |import| (module.clone(), self.resolve(&import.path)))
        });
        all.filter(|(from, to)| from != to && !from.is_empty()).collect()
    }

    /// The module in which the thing at `path` is written down.
    fn resolve(&self, path: &[String]) -> Module {
        let longest = (0..=path.len()).rev().find(|&count| self.modules.contains_key(&path[..count]));
        let count = longest.unwrap_or_default();
        let module = path[..count].to_vec();
        let Some(name) = path.get(count) else { return module };
        let handed_on =
            self.modules.get(&module).and_then(|imports| imports.iter().find(|i| i.name == *name));
        match handed_on {
            Some(import) if import.path != path => self.resolve(&import.path),
            _ => module,
        }
    }
}

fn read_folder(root: &Path, folder: &Path, modules: &mut BTreeMap<Module, Vec<Import>>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !OTHER_CRATES.contains(&name.as_ref()) {
                read_folder(root, &path, modules);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let module = module_of(root, &path);
            if module.last().is_some_and(|name| name.ends_with("tests")) {
                continue;
            }
            let text = read(&path);
            let product = text.split("\nmod tests {").next().unwrap_or_default();
            let mut all = imports(product, &module);
            all.extend(children(product, &module));
            all.extend(paths_in_code(product, &module));
            modules.insert(module, all);
        }
    }
}

/// `src/link/mod.rs` and `src/link.rs` are `link`; `src/lib.rs` is the root.
fn module_of(root: &Path, path: &Path) -> Module {
    let inner = path.strip_prefix(root).expect("a file below the root").with_extension("");
    let mut module: Module = inner.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|name| name == "mod") || module == ["lib"] || module == ["main"] {
        module.pop();
    }
    module
}

/// The names that the `use` lines of a module bring from this crate.
fn imports(text: &str, module: &[String]) -> Vec<Import> {
    let mut found = Vec::new();
    let children: Vec<&str> = declared(text).collect();
    let mut rest = text;
    while let Some(start) = rest.find("use ") {
        let begins_line = rest[..start].lines().next_back().is_none_or(|line| {
            let before = if rest[..start].ends_with('\n') { "" } else { line.trim() };
            before.is_empty() || before.starts_with("pub")
        });
        let statement = rest[start + 4..].split(';').next().unwrap_or_default();
        rest = &rest[start + 4..];
        if begins_line {
            let mut tree = Vec::new();
            expand(&statement.split_whitespace().collect::<Vec<_>>().join(" "), &mut Vec::new(), &mut tree);
            found.extend(tree.into_iter().filter_map(|(path, name)| {
                let is_child = path.first().is_some_and(|first| children.contains(&first.as_str()));
                let path = if is_child { [module, &path].concat() } else { absolute(path, module)? };
                Some(Import { path, name })
            }));
        }
    }
    found
}

/// Paths from `crate`, `super` and `self` in the code, without a `use` line.
fn paths_in_code(text: &str, module: &[String]) -> Vec<Import> {
    let mut found = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for root in ["crate::", "super::", "self::"] {
            for (at, _) in line.match_indices(root) {
                let is_word = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
                let before = &line[..at];
                // Part of another path, of a macro, or of a visibility; `use` lines are read elsewhere.
                if before.ends_with(|letter: char| is_word(letter) || letter == '$')
                    || before.ends_with("(in ")
                    || before.trim_end().ends_with("use")
                {
                    continue;
                }
                let path = line[at..].split(|letter: char| !is_word(letter)).next().unwrap_or_default();
                let names = path.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
                // Without a name: it brings in nothing that others could import from here.
                found.extend(absolute(names, module).map(|path| Import { path, name: String::new() }));
            }
        }
    }
    found
}

/// The modules declared here whose names are used as `child::name`, without a `use` line.
fn children(text: &str, module: &[String]) -> Vec<Import> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect();
    let declared =
        code.lines().filter_map(|line| line.strip_suffix(';')?.rsplit_once("mod ").map(|(_, name)| name));
    let used = declared.filter(|child| {
        code.match_indices(&format!("{child}::")).any(|(at, _)| {
            let before = code[..at].chars().next_back();
            !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_' || letter == ':')
        })
    });
    let path = |child: &str| module.iter().cloned().chain([child.to_owned()]).collect();
    used.map(|child| Import { path: path(child), name: String::new() }).collect()
}

/// The names of the modules that a file declares.
fn declared(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.strip_suffix(';')?.rsplit_once("mod ").map(|(_, name)| name))
}

/// From the crate's root; `None` for other crates.
fn absolute(path: Vec<String>, module: &[String]) -> Option<Vec<String>> {
    let mut base = match path.first()?.as_str() {
        "crate" => return Some(path[1..].to_vec()),
        "self" => module.to_vec(),
        "super" => module.split_last()?.1.to_vec(),
        _ => return None,
    };
    let mut rest = &path[1..];
    while let [first, others @ ..] = rest
        && first == "super"
    {
        base.pop();
        rest = others;
    }
    base.extend_from_slice(rest);
    Some(base)
}

/// `a::{b, c as d}` as the paths `a::b` and `a::c`, each with its name here.
fn expand(tree: &str, prefix: &mut Vec<String>, found: &mut Vec<(Vec<String>, String)>) {
    let tree = tree.trim();
    if let Some(inner) = tree.strip_prefix('{') {
        let inner = inner.strip_suffix('}').unwrap_or(inner);
        for part in split_at_depth_0(inner).into_iter().filter(|part| !part.trim().is_empty()) {
            expand(part, prefix, found);
        }
        return;
    }
    match tree.split_once("::") {
        Some((first, rest)) if !first.contains(' ') => {
            prefix.push(first.to_owned());
            expand(rest, prefix, found);
            prefix.pop();
        }
        _ => {
            let (name, alias) = tree.split_once(" as ").unwrap_or((tree, tree));
            let mut path = prefix.clone();
            if name != "self" && name != "*" {
                path.push(name.to_owned());
            }
            found.push((path, alias.to_owned()));
        }
    }
}

fn split_at_depth_0(text: &str) -> Vec<&str> {
    let mut depth = 0;
    text.split(|letter: char| {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        letter == ',' && depth == 0
    })
    .collect()
}

fn lines(all: &BTreeSet<String>) -> String {
    all.iter().map(|line| format!("  {line}\n")).collect()
}

fn source_folder() -> PathBuf {
    root().join("src")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

const HEADING: &str = "//! # Layers";
const LIMITS: &str = "//! # Limits";
/// Folders that belong to no module of the crate around them, and unit tests, which may use what they test.
const OTHER_CRATES: [&str; 6] = ["tests", "sim", "fuzz", "benches", "examples", "target"];
