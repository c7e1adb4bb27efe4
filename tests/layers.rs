//! The direction of the house: a room imports rooms of its own layer or below, never above, never in a circle, and verbs never
//! import each other. Read from the source text, without the tests inside it (which may use what they like).

// Outside of functions marked as tests clippy does not know that this is one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// From the ground up. A new room gets its place here.
const LAYERS: &[&[&str]] = &[
    &["pg", "error", "exit"],
    &["account", "codec", "config", "durable", "spool"],
    &["storage", "wire"],
    &["repo"],
    &["archive", "reach"],
    VERBS,
    &["cli"],
];

const VERBS: &[&str] =
    &["backup", "restore", "list", "check", "init", "demo", "verify", "prune", "stream", "drill", "serve", "provision"];

fn layer(room: &str) -> Option<usize> {
    LAYERS.iter().position(|rooms| rooms.contains(&room))
}

/// The source files below `directory`, with the path of their module: `storage/s3/mod.rs` is `[storage, s3]`.
fn modules(directory: &Path, path: &[String], found: &mut Vec<(PathBuf, Vec<String>)>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        if file.is_dir() {
            modules(&file, &[path, &[name]].concat(), found);
        } else if name == "mod" {
            found.push((file, path.to_vec()));
        } else if file.extension().is_some_and(|extension| extension == "rs") {
            found.push((file, [path, &[name]].concat()));
        }
    }
}

/// The text without comments and without what stands behind the first `#[cfg(test)]` at the start of a line.
fn code(text: &str) -> String {
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The rooms that a file names: behind `crate::`, also in braces, and behind as many `super::` as lead out of its own room.
fn named(code: &str, module: &[String]) -> BTreeSet<String> {
    let root = "super::".repeat(module.len());
    let mut rooms = BTreeSet::new();
    for way in ["crate::", root.as_str()] {
        for (at, _) in code.match_indices(way) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
                continue;
            }
            rooms.extend(first_names(&code[at + way.len()..]));
        }
    }
    rooms
}

/// `a::b` is a; `{a::b, c}` is a and c.
fn first_names(text: &str) -> Vec<String> {
    let name =
        |text: &str| -> String { text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let Some(group) = text.strip_prefix('{') else { return vec![name(text)] };
    let (mut depth, mut names, mut expect) = (1, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => expect = true,
            c if expect && !c.is_whitespace() => {
                names.push(name(&group[at..]));
                expect = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

/// Every room with the rooms that it imports, and the files that do.
fn imports() -> BTreeMap<String, BTreeMap<String, Vec<String>>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    modules(&source, &[], &mut files);
    let mut rooms: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    for (file, module) in files {
        let room = module.first().cloned().unwrap();
        if room == "lib" || room == "main" {
            continue;
        }
        let imported = rooms.entry(room.clone()).or_default();
        for name in named(&code(&std::fs::read_to_string(&file).unwrap()), &module) {
            if name != room && !name.is_empty() {
                let file = file.strip_prefix(&source).unwrap().display().to_string();
                imported.entry(name).or_default().push(file);
            }
        }
    }
    rooms
}

#[test]
fn nobody_imports_upwards_and_verbs_never_each_other() {
    let mut wrong = Vec::new();
    for (room, imported) in imports() {
        let Some(own) = layer(&room) else {
            wrong.push(format!("{room} has no layer: give it one in tests/layers.rs"));
            continue;
        };
        for (other, files) in imported {
            // A macro or an item of lib.rs itself is no room.
            let Some(its) = layer(&other) else { continue };
            if its > own {
                wrong.push(format!("{room} imports {other}, which lies above it: {files:?}"));
            } else if VERBS.contains(&room.as_str()) && VERBS.contains(&other.as_str()) {
                wrong.push(format!("the verb {room} imports the verb {other}: {files:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn there_are_no_circles() {
    let rooms = imports();
    for start in rooms.keys() {
        let (mut reached, mut todo) = (BTreeSet::new(), vec![start]);
        while let Some(room) = todo.pop() {
            for next in rooms.get(room).into_iter().flat_map(BTreeMap::keys) {
                assert!(next != start, "{start} imports {room}, by whatever way, and {room} imports {start}");
                if reached.insert(next) {
                    todo.push(next);
                }
            }
        }
    }
}

#[test]
fn imports_are_read_in_every_form() {
    let module = ["storage".to_owned(), "s3".to_owned()];
    let text = "use crate::{pg::{Lsn, Tli}, error as e, codec};\nuse crate::config::X; // crate::comment\n\
                fn f() { crate::repo::g(); super::super::wire::h(); super::sibling(); xcrate::no() }\n\
                #[cfg(test)]\nmod tests { use crate::cli; }";
    let found: Vec<String> = named(&code(text), &module).into_iter().collect();
    assert_eq!(found, ["codec", "config", "error", "pg", "repo", "wire"]);
}
