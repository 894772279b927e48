//! Dependencies between crates, and on libraries that only some crates may have.
//!
//! Normal and build dependencies count, for the platform that the test runs on; those of tests do not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;

use crate::root;

/// Heading in ARCHITECTURE.md above the drawing of the crates.
const HEADING: &str = "### Which crate uses which";
const ARROW: &str = "──▶";

type Graph = BTreeMap<String, BTreeSet<String>>;

/// Crates of the workspace, and libraries that none of them may reach, directly or through others.
const UNREACHABLE: [(&str, &[&str]); 8] = [
    ("models", &["axum", "ort", "tch", "tokio", "torch-sys"]),
    ("vision", &["axum", "ort", "tch", "tokio", "torch-sys"]),
    ("evaluation", &["axum", "ort", "tch", "tokio", "torch-sys"]),
    ("inference", &["axum", "tch", "torch-sys"]),
    ("server", &["tch", "torch-sys", "densecl-trainer", "densecl-checkpoints", "densecl-procedural"]),
    ("checkpoints", &["axum", "ort", "tch", "tokio", "torch-sys"]),
    ("procedural", &["axum", "ort", "tch", "tokio", "torch-sys"]),
    ("trainer", &["axum", "densecl-server", "densecl-inference", "densecl-evaluation"]),
];

/// Libraries, and the only crates of the workspace that may name them in their manifest.
const DIRECT: [(&str, &[&str]); 4] = [
    ("axum", &["server", "tests"]),
    ("ort", &["inference", "trainer"]),
    ("tch", &["tests", "trainer"]),
    ("torch-sys", &["trainer"]),
];

#[test]
fn crates_depend_on_each_other_as_architecture_md_draws() {
    let packages = &*PACKAGES;
    let found: Graph = packages
        .members
        .iter()
        .map(|member| {
            let used = packages.uses[member].iter().filter(|used| packages.members.contains(*used));
            (short(member).to_owned(), used.map(|used| short(used).to_owned()).collect::<BTreeSet<_>>())
        })
        .filter(|(_, used)| !used.is_empty())
        .collect();
    let drawn = drawing();
    let mut wrong = Vec::new();
    for (from, to) in edges(&found).difference(&edges(&drawn)) {
        wrong.push(format!("`{from}` uses `{to}`, which is not drawn"));
    }
    for (from, to) in edges(&drawn).difference(&edges(&found)) {
        wrong.push(format!("`{from} {ARROW} {to}` is drawn, but the manifest of `{from}` does not name it"));
    }
    assert!(
        wrong.is_empty(),
        "{}\nThe drawing stands in ARCHITECTURE.md under \"{HEADING}\". A new dependency is a change of the design: \
         move the code to a crate that may use what it needs, or change the drawing and say why.",
        wrong.join("\n")
    );
}

#[test]
fn libraries_stay_behind_the_crates_that_wrap_them() {
    let packages = &*PACKAGES;
    let mut wrong = Vec::new();
    for (member, forbidden) in UNREACHABLE {
        for library in forbidden {
            if let Some(path) = packages.path(&full(member), library) {
                wrong.push(format!("`{member}` must not reach `{library}`, but does: {}", path.join(" → ")));
            }
        }
    }
    for (library, allowed) in DIRECT {
        for member in packages.members.iter().filter(|member| packages.uses[*member].contains(library)) {
            if !allowed.contains(&short(member)) {
                wrong.push(format!(
                    "`{}` names `{library}` in its manifest; only {} may",
                    short(member),
                    allowed.join(" and ")
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\nThe reasons stand in ARCHITECTURE.md. Move the code to a crate that may use the library, or leave the \
         library out of the dependency's features.",
        wrong.join("\n")
    );
}

#[test]
fn a_build_at_the_root_needs_no_libtorch() {
    let packages = &*PACKAGES;
    assert!(!packages.default_members.is_empty());
    for member in &packages.default_members {
        for library in ["tch", "torch-sys"] {
            if let Some(path) = packages.path(member, library) {
                panic!(
                    "`{}` is in `default-members` of Cargo.toml and reaches `{library}`: {}. `cargo build` at the root \
                     must work without libtorch: take it out of `default-members`, or move what needs libtorch to the \
                     trainer",
                    short(member),
                    path.join(" → ")
                );
            }
        }
    }
}

static PACKAGES: LazyLock<Packages> = LazyLock::new(Packages::read);

/// Packages of `cargo metadata`, by their names.
struct Packages {
    members: BTreeSet<String>,
    default_members: BTreeSet<String>,
    /// Normal and build dependencies. Versions of one package are taken together.
    uses: Graph,
}

impl Packages {
    fn read() -> Self {
        let cargo = || Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        let version = cargo().arg("-vV").output().expect("cargo runs").stdout;
        let version = String::from_utf8(version).expect("text");
        let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("a line with the platform");
        let output = cargo()
            .args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform", host])
            .current_dir(root())
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        Self::from_metadata(&serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    fn from_metadata(metadata: &Value) -> Self {
        let names: BTreeMap<&str, &str> =
            list(metadata, "packages").iter().map(|package| (text(package, "id"), text(package, "name"))).collect();
        let named = |ids: &[Value]| ids.iter().map(|id| names[id.as_str().expect("an id")].to_owned()).collect();
        let mut uses = Graph::new();
        for node in list(&metadata["resolve"], "nodes") {
            let used = uses.entry(names[text(node, "id")].to_owned()).or_default();
            for dependency in list(node, "deps") {
                if list(dependency, "dep_kinds").iter().any(|kind| kind["kind"] != "dev") {
                    used.insert(names[text(dependency, "pkg")].to_owned());
                }
            }
        }
        Self {
            members: named(list(metadata, "workspace_members")),
            default_members: named(list(metadata, "workspace_default_members")),
            uses,
        }
    }

    /// The shortest chain of dependencies from one package to another.
    fn path(&self, from: &str, to: &str) -> Option<Vec<String>> {
        let mut paths = vec![vec![from.to_owned()]];
        let mut seen = BTreeSet::from([from.to_owned()]);
        while !paths.is_empty() {
            let mut longer = Vec::new();
            for path in paths {
                for next in &self.uses[path.last().expect("it begins with `from`")] {
                    let path = [path.as_slice(), std::slice::from_ref(next)].concat();
                    if next == to {
                        return Some(path);
                    }
                    if seen.insert(next.clone()) {
                        longer.push(path);
                    }
                }
            }
            paths = longer;
        }
        None
    }
}

/// The graph in ARCHITECTURE.md: lines of the form `server ──▶ inference, vision`.
fn drawing() -> Graph {
    let document = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let (_, section) = document
        .split_once(&format!("{HEADING}\n"))
        .unwrap_or_else(|| panic!("ARCHITECTURE.md has no heading \"{HEADING}\" above a drawing of the crates"));
    let block = section.split("```").nth(1).expect("a fenced block under the heading");
    let mut drawn = Graph::new();
    for line in block.lines() {
        let Some((from, to)) = line.split_once(ARROW) else { continue };
        drawn.entry(from.trim().to_owned()).or_default().extend(to.split(',').map(|name| name.trim().to_owned()));
    }
    assert!(!drawn.is_empty(), "the block under \"{HEADING}\" has no line with {ARROW}");
    drawn
}

fn edges(graph: &Graph) -> BTreeSet<(&str, &str)> {
    graph.iter().flat_map(|(from, to)| to.iter().map(move |to| (from.as_str(), to.as_str()))).collect()
}

/// Name of a crate of the workspace in the drawing.
fn short(package: &str) -> &str {
    package.strip_prefix("densecl-").unwrap_or(package)
}

fn full(crate_name: &str) -> String {
    format!("densecl-{crate_name}")
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("cargo metadata has no list `{key}`"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("cargo metadata has no text `{key}`"))
}

#[test]
fn chains_of_dependencies_are_found_and_those_of_tests_ignored() {
    let node = |id: &str, deps: &[(&str, Value)]| {
        let deps: Vec<Value> =
            deps.iter().map(|(pkg, kind)| serde_json::json!({ "pkg": pkg, "dep_kinds": [{ "kind": kind }] })).collect();
        serde_json::json!({ "id": id, "deps": deps })
    };
    let packages = ["a", "b", "c", "d"].map(|name| serde_json::json!({ "id": name, "name": name }));
    let metadata = serde_json::json!({
        "packages": packages,
        "workspace_members": ["a"],
        "workspace_default_members": ["a"],
        "resolve": { "nodes": [
            node("a", &[("b", Value::Null), ("d", "dev".into())]),
            node("b", &[("c", "build".into())]),
            node("c", &[("a", "dev".into())]),
            node("d", &[]),
        ] },
    });
    let packages = Packages::from_metadata(&metadata);
    assert_eq!(packages.path("a", "c").expect("a chain"), ["a", "b", "c"]);
    assert_eq!(packages.path("a", "d"), None);
    assert_eq!(packages.path("c", "a"), None);
}
