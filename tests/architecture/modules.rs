//! Dependencies between the modules of each crate.
//!
//! The rule: take any folder of modules. Each of its modules counts with all that is below it. Among these, uses must
//! not run in a circle. A module and those below it may use each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::root;
use crate::sources::{Edge, Files, ModulePath, ModuleTree, read_files};

/// Crates of the workspace that have modules, by their folders.
const CRATES: [&str; 8] = [
    "models",
    "server",
    "server/evaluation",
    "server/inference",
    "trainer",
    "trainer/checkpoints",
    "trainer/procedural",
    "vision",
];

/// Modules that alone may name a library, in the crates that have it: crate, library, module.
const WRAPPERS: [(&str, &str, &str); 2] =
    [("trainer", "ort", "onnx_session"), ("server/inference", "ort", "onnx_runtime")];

#[test]
fn modules_do_not_use_each_other_in_a_circle() {
    let mut report = String::new();
    for name in CRATES {
        for circle in circles(&edges(name)) {
            write!(report, "\n{name}: {circle}").expect("text can be written");
        }
    }
    assert!(
        report.is_empty(),
        "Modules use each other in a circle. To end one, move what both sides need into a module of its own, hand in \
         a value instead of reaching for it, or merge the modules if they are one thing.\n{report}"
    );
}

#[test]
fn libraries_stay_in_the_modules_that_wrap_them() {
    for (name, library, wrapper) in WRAPPERS {
        let trees = trees(name);
        let modules = trees.iter().flat_map(|tree| &tree.modules);
        let users: Vec<_> =
            modules.filter(|(_, module)| module.paths.iter().any(|(path, _)| path[0] == library)).collect();
        assert!(!users.is_empty(), "no module of {name} names `{library}`: this test watches nothing");
        let outside = users.iter().filter(|(path, _)| path.first().is_none_or(|first| first != wrapper));
        let files: BTreeSet<String> = outside.map(|(_, module)| module.file.display().to_string()).collect();
        assert!(
            files.is_empty(),
            "`{library}` is named outside the module `{wrapper}` of {name}, in {files:?}. Add what is needed to \
             `{wrapper}` and call that"
        );
    }
}

/// The library and the program of a crate.
fn trees(name: &str) -> Vec<ModuleTree> {
    let folder = Path::new(name).join("src");
    let files = read_files(root(), &folder);
    let entries: Vec<PathBuf> = ["lib.rs", "main.rs"]
        .map(|entry| folder.join(entry))
        .into_iter()
        .filter(|file| files.contains_key(file))
        .collect();
    entries.iter().map(|entry| ModuleTree::parse(&files, entry)).collect()
}

fn edges(name: &str) -> Vec<Edge> {
    trees(name).iter().flat_map(ModuleTree::edges).collect()
}

/// Every circle, as the modules in it and the uses that make it.
fn circles(edges: &[Edge]) -> Vec<String> {
    // Within a folder: which of its modules uses which, and one use for each.
    let mut folders: BTreeMap<ModulePath, BTreeMap<(String, String), Vec<&Edge>>> = BTreeMap::new();
    for edge in edges {
        let shared = edge.from.iter().zip(&edge.to).take_while(|(from, to)| from == to).count();
        let (Some(from), Some(to)) = (edge.from.get(shared), edge.to.get(shared)) else { continue };
        let uses = folders.entry(edge.from[..shared].to_vec()).or_default();
        uses.entry((from.clone(), to.clone())).or_default().push(edge);
    }
    folders.iter().flat_map(|(folder, uses)| circles_of_folder(folder, uses)).collect()
}

fn circles_of_folder(folder: &[String], uses: &BTreeMap<(String, String), Vec<&Edge>>) -> Vec<String> {
    let mut next: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (from, to) in uses.keys() {
        next.entry(from).or_default().insert(to);
    }
    let reach: BTreeMap<&str, BTreeSet<&str>> = next.keys().map(|&from| (from, reachable(&next, from))).collect();
    let reaches = |from: &str, to: &str| reach.get(from).is_some_and(|reached| reached.contains(to));
    let mut told: BTreeSet<&str> = BTreeSet::new();
    let mut circles = Vec::new();
    for &module in next.keys() {
        if !reaches(module, module) || told.contains(module) {
            continue;
        }
        let members: Vec<&str> = next.keys().copied().filter(|m| reaches(module, m) && reaches(m, module)).collect();
        told.extend(&members);
        let mut text = format!("in `{}`: {}", [&["crate".to_owned()], folder].concat().join("::"), members.join(", "));
        for ((from, to), edges) in uses {
            if members.contains(&from.as_str()) && members.contains(&to.as_str()) {
                for edge in edges {
                    let (file, line) = &edge.place;
                    write!(text, "\n    {}:{line} → {}", file.display(), edge.to.join("::"))
                        .expect("text can be written");
                }
            }
        }
        circles.push(text);
    }
    circles
}

/// Modules that can be reached from one by at least one use.
fn reachable<'a>(next: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&str> = next.get(from).into_iter().flatten().copied().collect();
    while let Some(module) = open.pop() {
        if found.insert(module) {
            open.extend(next.get(module).into_iter().flatten());
        }
    }
    found
}

fn circles_in(files: &[(&str, &str)]) -> Vec<String> {
    let files: Files = files.iter().map(|(file, text)| (PathBuf::from(file), (*text).to_owned())).collect();
    circles(&ModuleTree::parse(&files, Path::new("lib.rs")).edges())
}

#[test]
fn circles_are_found_through_imports_paths_macros_and_reexports() {
    for (a, b) in [
        ("use crate::b::B;", "use super::a::{self, A};"),
        ("fn f() { crate::b::g() }", "fn g() -> super::a::A { todo!() }"),
        ("fn f() { println!(\"{}\", crate::b::X) }", "use crate::A;"),
        ("mod inner { use super::super::b::B; }", "use crate::everything::A;"),
        ("use crate::b::*;", "impl From<crate::a::A> for B {}"),
    ] {
        let root = "mod a; mod b; pub use a::A; mod everything { pub use super::a::*; }";
        let a = format!("{a} pub struct A;");
        let b = format!("{b} pub struct B; pub const X: u8 = 0;");
        let found = circles_in(&[("lib.rs", root), ("a.rs", &a), ("b/mod.rs", &b)]);
        assert_eq!(found.len(), 1, "{a} {b}");
        assert!(found[0].starts_with("in `crate`: a, b\n    a.rs:1 → b\n    b/mod.rs:1 → a"), "{}", found[0]);
    }
}

#[test]
fn circles_of_folders_are_found_though_no_two_files_use_each_other() {
    let found = circles_in(&[
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "mod inner; pub struct A;"),
        ("a/inner.rs", "use crate::b::B;"),
        ("b.rs", "pub struct B; fn f(_: crate::a::A) {}"),
    ]);
    assert_eq!(found, ["in `crate`: a, b\n    a/inner.rs:1 → b\n    b.rs:1 → a"]);
}

#[test]
fn parents_children_and_tests_are_no_circle() {
    let found = circles_in(&[
        ("lib.rs", "mod a; mod b; pub use b::B; pub struct Root;"),
        ("a.rs", "mod inner; pub use inner::Inner; use crate::b::B; pub struct A; #[cfg(test)] mod tests;"),
        ("a/inner.rs", "use super::A; use crate::Root; pub struct Inner;"),
        (
            "b.rs",
            "use std::a::A; pub struct B; #[cfg(test)] mod tests { use crate::a::A; } #[cfg(test)] use crate::a::A;",
        ),
    ]);
    assert_eq!(found, Vec::<String>::new());
}
