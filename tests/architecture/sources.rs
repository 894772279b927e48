//! The modules of a crate and the paths between them, from its source text.
//!
//! What is under `#[cfg(test)]` is left out. A module is a file; modules written inside a file belong to it.
//! A path leads to the file that defines what it names: re-exports (`pub use`) are followed. Macro calls are searched
//! for paths that begin with `crate`, `self` or `super`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree};

/// Re-exports of re-exports that are followed before a path counts as one that leads nowhere.
const MAX_REEXPORTS: usize = 16;

/// Source files of a crate by their path in the repository.
pub(crate) type Files = BTreeMap<PathBuf, String>;

/// A module: the names from the crate's root to it.
pub(crate) type ModulePath = Vec<String>;

/// The modules of one library or program.
#[derive(Default)]
pub(crate) struct ModuleTree {
    pub(crate) modules: BTreeMap<ModulePath, Module>,
}

/// One module and what it names.
#[derive(Default)]
pub(crate) struct Module {
    pub(crate) file: PathBuf,
    /// Paths that the module names, and their lines.
    pub(crate) paths: Vec<(Vec<String>, usize)>,
    items: BTreeSet<String>,
    imports: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
}

/// One module's use of another.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Edge {
    pub(crate) from: ModulePath,
    pub(crate) to: ModulePath,
    /// File and line of the path.
    pub(crate) place: (PathBuf, usize),
}

/// Rust files below a folder; paths are relative to `root`.
pub(crate) fn read_files(root: &Path, folder: &Path) -> Files {
    let mut files = Files::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("text");
                files.insert(path.strip_prefix(root).expect("a path below the root").to_owned(), text);
            }
        }
    }
    files
}

impl ModuleTree {
    /// Reads the modules that begin with the file `entry`, such as `src/lib.rs`.
    pub(crate) fn parse(files: &Files, entry: &Path) -> Self {
        let mut tree = Self::default();
        tree.add(files, entry, Vec::new(), true);
        tree
    }

    fn add(&mut self, files: &Files, file: &Path, path: ModulePath, owns_folder: bool) {
        let text = files.get(file).unwrap_or_else(|| panic!("no file {} for the module {path:?}", file.display()));
        let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let folder = if owns_folder { file.with_file_name("") } else { file.with_extension("") };
        self.add_items(files, &Place { file, folder: &folder }, path, &parsed.items);
    }

    fn add_items(&mut self, files: &Files, place: &Place<'_>, path: ModulePath, items: &[Item]) {
        let mut collector = Collector { module: Module { file: place.file.to_owned(), ..Module::default() } };
        for item in items.iter().filter(|item| !is_test(attributes(item))) {
            if let Item::Mod(declared) = item {
                let name = declared.ident.to_string();
                let child: ModulePath = path.iter().cloned().chain([name.clone()]).collect();
                if let Some((_, items)) = &declared.content {
                    let folder = place.folder.join(&name);
                    self.add_items(files, &Place { folder: &folder, ..*place }, child, items);
                } else {
                    let beside = place.folder.join(format!("{name}.rs"));
                    let inside = place.folder.join(&name).join("mod.rs");
                    if files.contains_key(&beside) {
                        self.add(files, &beside, child, false);
                    } else {
                        self.add(files, &inside, child, true);
                    }
                }
            } else {
                collector.module.items.extend(name_of(item));
                collector.visit_item(item);
            }
        }
        self.modules.insert(path, collector.module);
    }

    /// Uses of one file's module by another's; a module written inside a file counts as the file's.
    pub(crate) fn edges(&self) -> Vec<Edge> {
        let mut edges = BTreeSet::new();
        for (from, module) in &self.modules {
            for (path, line) in &module.paths {
                let Some(to) = self.resolve(from, path, 0) else { continue };
                let edge =
                    Edge { from: self.in_file(from), to: self.in_file(&to), place: (module.file.clone(), *line) };
                if edge.from != edge.to {
                    edges.insert(edge);
                }
            }
        }
        edges.into_iter().collect()
    }

    /// The outermost module in the same file.
    fn in_file(&self, path: &[String]) -> ModulePath {
        let file = &self.modules[path].file;
        let mut outer = path;
        while let Some((_, above)) = outer.split_last()
            && self.modules[above].file == *file
        {
            outer = above;
        }
        outer.to_vec()
    }

    /// The module that defines what `path` names in the module `from`; `None` if that is in another crate.
    fn resolve(&self, from: &[String], path: &[String], depth: usize) -> Option<ModulePath> {
        if depth > MAX_REEXPORTS {
            return None;
        }
        let mut at = from.to_vec();
        let mut rest = path;
        while let Some((first, others)) = rest.split_first() {
            match first.as_str() {
                "crate" => at.clear(),
                "self" => {}
                "super" => {
                    at.pop()?;
                }
                name => {
                    let child: ModulePath = at.iter().cloned().chain([name.to_owned()]).collect();
                    let is_start = rest.len() == path.len();
                    if self.modules.contains_key(&child) {
                        at = child;
                    } else {
                        return self.definition(&at, name, others, depth).or((!is_start).then_some(at));
                    }
                }
            }
            rest = others;
        }
        Some(at)
    }

    /// The module that defines the item `name`, which is no module of its own, of the module `at`.
    fn definition(&self, at: &[String], name: &str, rest: &[String], depth: usize) -> Option<ModulePath> {
        let module = &self.modules[at];
        if module.items.contains(name) {
            return Some(at.to_vec());
        }
        let onwards = |target: &[String]| [target, rest].concat();
        if let Some(target) = module.imports.get(name) {
            return self.resolve(at, &onwards(target), depth + 1);
        }
        module.globs.iter().find_map(|glob| {
            let target = self.resolve(at, glob, depth + 1)?;
            let is_there = self.modules[&target].items.contains(name);
            is_there.then_some(target)
        })
    }
}

/// Where a module is written.
struct Place<'a> {
    file: &'a Path,
    /// Folder of the files of its children.
    folder: &'a Path,
}

/// Gathers the paths of a module.
struct Collector {
    module: Module,
}

impl Collector {
    fn add_use(&mut self, tree: &UseTree, before: &[String]) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.add_use(&path.tree, &with(&path.ident)),
            UseTree::Name(name) if name.ident == "self" => {
                self.import(before.last().cloned(), before, name.ident.span());
            }
            UseTree::Name(name) => self.import(Some(name.ident.to_string()), &with(&name.ident), name.ident.span()),
            UseTree::Rename(name) => self.import(Some(name.rename.to_string()), &with(&name.ident), name.ident.span()),
            UseTree::Glob(glob) => {
                self.module.globs.push(before.to_vec());
                self.module.paths.push((before.to_vec(), glob.star_token.spans[0].start().line));
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_use(tree, before)),
        }
    }

    fn import(&mut self, name: Option<String>, path: &[String], span: proc_macro2::Span) {
        // `use foo;` of a name imports it from another crate: resolving it here would not end.
        if let Some(name) = name.filter(|_| path.len() > 1) {
            self.module.imports.insert(name, path.to_vec());
        }
        self.module.paths.push((path.to_vec(), span.start().line));
    }

    /// Paths among the tokens of a macro call.
    fn search(&mut self, tokens: TokenStream) {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Group(group) => self.search(group.stream()),
                TokenTree::Ident(first) if first == "crate" || first == "self" || first == "super" => {
                    let mut path = vec![first.to_string()];
                    while tokens.next_if(is_colon).is_some() && tokens.next_if(is_colon).is_some() {
                        let Some(TokenTree::Ident(next)) = tokens.next_if(|next| matches!(next, TokenTree::Ident(_)))
                        else {
                            break;
                        };
                        path.push(next.to_string());
                    }
                    if path.len() > 1 {
                        self.module.paths.push((path, first.span().start().line));
                    }
                }
                _ => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_use(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if let Some(first) = path.segments.first().filter(|_| path.segments.len() > 1) {
            let names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.module.paths.push((names, first.ident.span().start().line));
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.search(call.tokens.clone());
        visit::visit_macro(self, call);
    }
}

fn is_colon(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == ':')
}

fn name_of(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether an item is compiled for tests alone.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || (attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Ident>().is_ok_and(|argument| argument == "test"))
    })
}
