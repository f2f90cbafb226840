//! The modules of `src` form one direction: every `use` is an arrow of the drawing in
//! `docs/architecture.md`, every arrow points down, and no files of a module use each other in a circle.
//!
//! The sources are parsed. A re-export is followed to the file that defines the name, and tests
//! (`#[cfg(test)]`, fuzzing) are left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{
    Attribute, Item, ItemMod, ItemUse, UseTree, Visibility,
    visit::{self, Visit},
};

/// A path of modules from the crate's root, such as `["cache", "fetch"]`.
type Module = Vec<String>;

/// What a file says.
#[derive(Default)]
struct Source {
    /// Absolute paths that it imports or names, as they are written.
    uses: Vec<Module>,
    /// Names that it re-exports, and the paths that they come from.
    reexports: BTreeMap<String, Module>,
    /// Names that it defines.
    defines: BTreeSet<String>,
}

struct Sources(BTreeMap<Module, Source>);

impl Sources {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        find(&root, &mut files);
        let mut sources = BTreeMap::new();
        for file in files {
            let module = module_of(&root, &file);
            let parsed = syn::parse_file(&fs::read_to_string(&file).unwrap()).unwrap();
            if parsed.attrs.iter().any(is_for_tests) {
                continue;
            }
            let mut reader = Reader {
                module: module.clone(),
                nested: 0,
                source: Source::default(),
                tests: Vec::new(),
            };
            reader.visit_file(&parsed);
            sources.insert(module, reader);
        }
        // Modules that are declared for tests only.
        let tests: Vec<_> = sources
            .values()
            .flat_map(|reader| reader.tests.clone())
            .collect();
        sources.retain(|module, _| !tests.iter().any(|test| module.starts_with(test)));
        Self(
            sources
                .into_iter()
                .map(|(module, reader)| (module, reader.source))
                .collect(),
        )
    }

    /// The file that defines what a path names.
    fn definition(&self, path: &[String]) -> Module {
        let mut module = path.to_vec();
        while !module.is_empty() && !self.0.contains_key(&module) {
            module.pop();
        }
        let Some(source) = self.0.get(&module) else {
            return module;
        };
        match path.get(module.len()) {
            Some(name) if !source.defines.contains(name) => match source.reexports.get(name) {
                Some(from) if from != path => self.definition(from),
                _ => module,
            },
            _ => module,
        }
    }

    /// Every arrow from a file to another, with the path that it comes from.
    fn arrows(&self) -> BTreeMap<(Module, Module), String> {
        let mut arrows = BTreeMap::new();
        for (from, source) in &self.0 {
            for path in &source.uses {
                let to = self.definition(path);
                if to != *from {
                    arrows.insert((from.clone(), to), path.join("::"));
                }
            }
        }
        arrows
    }
}

struct Reader {
    module: Module,
    /// How many inline modules are around the current item.
    nested: usize,
    source: Source,
    tests: Vec<Module>,
}

impl Reader {
    fn absolute(&self, path: &[String]) -> Option<Module> {
        let (first, rest) = path.split_first()?;
        let mut base = self.module.clone();
        match first.as_str() {
            "crate" => base.clear(),
            "self" => {}
            "super" => {
                // In an inline module, that is the file itself.
                if self.nested == 0 {
                    base.pop();
                }
            }
            _ => return None,
        }
        let mut rest = rest;
        while let Some(("super", more)) = rest.split_first().map(|(f, more)| (f.as_str(), more)) {
            base.pop();
            rest = more;
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        if attributes(item).iter().any(is_for_tests) {
            if let Item::Mod(ItemMod {
                ident,
                content: None,
                ..
            }) = item
            {
                let mut module = self.module.clone();
                module.push(ident.to_string());
                self.tests.push(module);
            }
            return;
        }
        if self.nested == 0
            && let Some(name) = name(item)
        {
            self.source.defines.insert(name);
        }
        if let Item::Mod(ItemMod {
            content: Some(_), ..
        }) = item
        {
            self.nested += 1;
            visit::visit_item(self, item);
            self.nested -= 1;
        } else {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let mut leaves = Vec::new();
        flatten(&item.tree, &mut Vec::new(), &mut leaves);
        for (path, name) in leaves {
            let Some(path) = self.absolute(&path) else {
                continue;
            };
            let is_reexport = !matches!(item.vis, Visibility::Inherited);
            if is_reexport && self.nested == 0 {
                self.source.reexports.insert(name, path.clone());
            }
            // A module that only re-exports its own files does not use them.
            if !(is_reexport && path.starts_with(&self.module)) {
                self.source.uses.push(path);
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        if segments.len() > 1
            && segments[0] != "self"
            && let Some(path) = self.absolute(&segments)
        {
            self.source.uses.push(path);
        }
        visit::visit_path(self, path);
    }
}

fn flatten(tree: &UseTree, prefix: &mut Module, leaves: &mut Vec<(Module, String)>) {
    match tree {
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            flatten(&path.tree, prefix, leaves);
            prefix.pop();
        }
        UseTree::Group(group) => group
            .items
            .iter()
            .for_each(|tree| flatten(tree, prefix, leaves)),
        UseTree::Name(name) if name.ident == "self" => {
            let last = prefix.last().cloned().unwrap_or_default();
            leaves.push((prefix.clone(), last));
        }
        UseTree::Name(name) => {
            let path = [&prefix[..], &[name.ident.to_string()]].concat();
            leaves.push((path, name.ident.to_string()));
        }
        UseTree::Rename(rename) => {
            let path = [&prefix[..], &[rename.ident.to_string()]].concat();
            leaves.push((path, rename.rename.to_string()));
        }
        UseTree::Glob(_) => leaves.push((prefix.clone(), "*".to_owned())),
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn name(item: &Item) -> Option<String> {
    Some(match item {
        Item::Const(item) => item.ident.to_string(),
        Item::Enum(item) => item.ident.to_string(),
        Item::Fn(item) => item.sig.ident.to_string(),
        Item::Macro(item) => item.ident.as_ref()?.to_string(),
        Item::Static(item) => item.ident.to_string(),
        Item::Struct(item) => item.ident.to_string(),
        Item::Trait(item) => item.ident.to_string(),
        Item::Type(item) => item.ident.to_string(),
        Item::Mod(item) if item.content.is_some() => item.ident.to_string(),
        _ => return None,
    })
}

/// Whether an attribute is a `cfg` that only tests or fuzz targets have.
fn is_for_tests(attribute: &Attribute) -> bool {
    let syn::Meta::List(list) = &attribute.meta else {
        return false;
    };
    let condition = list.tokens.to_string().replace(' ', "");
    list.path.is_ident("cfg")
        && ["test", "any(test,fuzzing)", "fuzzing", "any(doc,doctest)"]
            .iter()
            .any(|tests| condition == *tests || condition.starts_with(&format!("all({tests},")))
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn module_of(root: &Path, file: &Path) -> Module {
    let relative = file.strip_prefix(root).unwrap().with_extension("");
    let mut module: Module = relative
        .iter()
        .map(|part| part.to_str().unwrap().to_owned())
        .collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
        module.pop();
    }
    module
}

/// The drawing: each module, from the top down, and the modules that it uses.
fn drawing() -> Vec<(String, Vec<String>)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once("```text drawing\n").expect("a drawing");
    let (drawing, _) = rest.split_once("```").expect("its end");
    drawing
        .lines()
        .filter_map(|line| line.split_once('→'))
        .map(|(from, to)| {
            let to = to.split_whitespace().map(str::to_owned).collect();
            (from.trim().to_owned(), to)
        })
        .collect()
}

#[test]
fn every_use_between_modules_is_an_arrow_of_the_drawing_and_points_down() {
    let drawing = drawing();
    let order: Vec<_> = drawing.iter().map(|(module, _)| module.as_str()).collect();
    let mut drawn = BTreeSet::new();
    for (at, (from, tos)) in drawing.iter().enumerate() {
        for to in tos {
            let below = order.iter().position(|module| module == to);
            assert!(
                below.is_some_and(|below| below > at),
                "{from} → {to} points up"
            );
            drawn.insert((from.clone(), to.clone()));
        }
    }
    let sources = Sources::read();
    let (mut used, mut undrawn) = (BTreeSet::new(), BTreeMap::new());
    for ((from, to), path) in sources.arrows() {
        let Some(from_module) = from.first() else {
            continue;
        };
        let Some(to_module) = to.first() else {
            panic!(
                "{}: import `{path}` from where it is defined",
                from.join("::")
            );
        };
        if from_module == to_module {
            continue;
        }
        let arrow = (from_module.clone(), to_module.clone());
        if !drawn.contains(&arrow) {
            undrawn.insert(arrow, format!("{} uses {path}", from.join("::")));
        } else {
            used.insert(arrow);
        }
    }
    assert!(
        undrawn.is_empty(),
        "arrows that the drawing does not have: {undrawn:#?}"
    );
    let unused: Vec<_> = drawn.difference(&used).collect();
    assert!(
        unused.is_empty(),
        "arrows that the code does not have: {unused:?}"
    );
    let modules: BTreeSet<_> = sources
        .0
        .keys()
        .filter_map(|m| m.first().cloned())
        .collect();
    let missing: Vec<_> = modules
        .iter()
        .filter(|m| !order.contains(&m.as_str()))
        .collect();
    assert!(
        missing.is_empty(),
        "modules that the drawing does not have: {missing:?}"
    );
}

#[test]
fn files_of_a_module_do_not_use_each_other_in_a_circle() {
    let arrows = Sources::read().arrows();
    let mut below: BTreeMap<&Module, BTreeSet<&Module>> = BTreeMap::new();
    for (from, to) in arrows.keys() {
        if from.first() == to.first() && !from.is_empty() {
            below.entry(from).or_default().insert(to);
        }
    }
    // Takes away files that use no other that is left, until there are none, or only circles.
    loop {
        let left: BTreeSet<_> = below.keys().copied().collect();
        let before = below.len();
        below.retain(|_, tos| tos.iter().any(|to| left.contains(to)));
        if below.len() == before {
            break;
        }
    }
    assert!(
        below.is_empty(),
        "in circles, or above one: {:#?}",
        below
            .iter()
            .map(|(from, tos)| {
                let tos: Vec<_> = tos.iter().filter(|to| below.contains_key(*to)).collect();
                (
                    from.join("::"),
                    tos.iter().map(|to| to.join("::")).collect::<Vec<_>>(),
                )
            })
            .collect::<Vec<_>>()
    );
}

#[test]
fn reader_finds_arrows_that_are_there() {
    let sources = Sources::read();
    let arrows = sources.arrows();
    let has = |from: &[&str], to: &[&str]| {
        let owned = |path: &[&str]| path.iter().map(|&part| part.to_owned()).collect::<Module>();
        arrows.contains_key(&(owned(from), owned(to)))
    };
    // By a plain import, through a re-export of another module, and by a path in code.
    assert!(has(&["cache", "fetch"], &["cache", "flight"]));
    assert!(has(&["cache", "fetch"], &["token", "access_token"]));
    assert!(has(&["middleware", "layer"], &["middleware", "redirects"]));
    // Not by what tests import.
    assert!(
        sources
            .0
            .keys()
            .all(|module| !module.iter().any(|part| part == "tests"))
    );
}
