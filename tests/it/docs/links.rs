//! Links of the README, the guides and the other pages lead somewhere, on a forge and in rustdoc.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A page: its path from the repository's root, and its lines without those of code blocks.
struct Page {
    path: String,
    prose: Vec<String>,
    /// The lines of its Rust code blocks.
    code: Vec<String>,
}

/// `[text](target)` or `[label]: target`.
struct Link {
    target: String,
    /// Of a definition.
    label: Option<String>,
}

const API: &str = "https://docs.rs/bearer-auth/latest/bearer_auth/";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files_below(folder: &str, extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            if root().join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path.to_str().unwrap().replace('\\', "/"));
            }
        }
    }
    found.sort();
    found
}

fn pages() -> Vec<Page> {
    let in_root = [
        "README",
        "CHANGELOG",
        "CONTRIBUTING",
        "RELEASING",
        "SECURITY",
    ];
    let in_root = in_root.iter().map(|name| format!("{name}.md"));
    let pages: Vec<_> = in_root
        .chain(files_below("docs", "md"))
        .map(|path| Page::read(&path))
        .collect();
    assert!(pages.len() > 15, "not all pages were found");
    pages
}

/// The pages that are modules of `bearer_auth::docs`.
fn guides() -> Vec<Page> {
    let modules = read("src/docs.rs");
    let files = modules.split("\"../").skip(1);
    let guides: Vec<_> = files
        .map(|rest| Page::read(rest.split('"').next().unwrap()))
        .collect();
    assert!(guides.len() > 10, "not all guides were found");
    guides
}

impl Page {
    fn read(path: &str) -> Self {
        Self::parse(path, &read(path))
    }

    fn parse(path: &str, text: &str) -> Self {
        let (mut prose, mut code) = (Vec::new(), Vec::new());
        let mut fence: Option<&str> = None;
        for line in text.lines() {
            match (line.strip_prefix("```"), fence) {
                (Some(info), None) => fence = Some(info),
                (Some(_), Some(_)) => fence = None,
                (None, None) => prose.push(line.to_owned()),
                (None, Some(info)) if info.is_empty() || info.starts_with("rust") => {
                    code.push(line.to_owned());
                }
                (None, Some(_)) => {}
            }
        }
        assert!(fence.is_none(), "{path}: a code block without an end");
        let path = path.to_owned();
        Self { path, prose, code }
    }

    /// The prose as one text. Inline code is empty: what is in it is no link.
    fn text(&self) -> String {
        let text = self.prose.join("\n");
        let parts = text.split('`').enumerate();
        parts
            .map(|(at, part)| if at % 2 == 0 { part } else { "`" })
            .collect()
    }

    fn links(&self) -> Vec<Link> {
        let definitions = self.prose.iter().filter_map(|line| {
            let (label, target) = line.strip_prefix('[')?.split_once("]: ")?;
            Some(Link {
                target: target.to_owned(),
                label: Some(label.to_owned()),
            })
        });
        let text = self.text();
        let inline = text.split("](").skip(1).map(|rest| Link {
            target: rest.split([')', ' ', '\n']).next().unwrap().to_owned(),
            label: None,
        });
        definitions.chain(inline).collect()
    }

    /// The labels of `[text][label]`, and of those in inline code, as in "[`Issuer`]".
    fn used_labels(&self) -> BTreeSet<String> {
        let text = self.prose.join("\n");
        let named = text
            .split("][")
            .skip(1)
            .map(|rest| rest.split(']').next().unwrap());
        let code = text.match_indices("[`").filter_map(|(at, start)| {
            let (label, after) = text[at + start.len()..].split_once("`]")?;
            let is_use = !after.starts_with(['(', '[', ':']);
            (is_use && !label.contains('`')).then_some(label)
        });
        let code: Vec<_> = code.map(|label| format!("`{label}`")).collect();
        named.map(str::to_owned).chain(code).collect()
    }

    /// The anchors that a forge gives to its headings.
    fn anchors(&self) -> BTreeSet<String> {
        let headings = self.prose.iter().filter(|line| line.starts_with('#'));
        headings
            .map(|line| anchor(line.trim_start_matches('#').trim()))
            .collect()
    }

    /// Where `target` is, from the repository's root; with its anchor.
    fn resolve<'a>(&self, target: &'a str) -> (PathBuf, Option<&'a str>) {
        let (path, anchor) = match target.split_once('#') {
            Some((path, anchor)) => (path, Some(anchor)),
            None => (target, None),
        };
        if path.is_empty() {
            return (PathBuf::from(&self.path), anchor);
        }
        let folder = Path::new(&self.path).parent().unwrap();
        (folder.join(path), anchor)
    }
}

fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

/// Whether the sources have what a page of docs.rs is about: `struct.Issuer.html#method.new`.
fn is_in_api(sources: &[String], page: &str) -> bool {
    let (page, anchor) = match page.split_once('#') {
        Some((page, anchor)) => (page, Some(anchor)),
        None => (page, None),
    };
    let has = |text: &str| sources.iter().any(|source| source.contains(text));
    let mut segments = page.rsplit('/');
    let item = segments.next().unwrap();
    let there = match *item.split('.').collect::<Vec<_>>() {
        ["index", "html"] => {
            let module = segments.next();
            module.is_none_or(|name| has(&format!("pub mod {name}")))
        }
        [
            kind @ ("struct" | "enum" | "trait" | "fn" | "type"),
            name,
            "html",
        ] => [' ', '<', '(', ';', ':']
            .iter()
            .any(|end| has(&format!("pub {kind} {name}{end}"))),
        _ => false,
    };
    let anchored = anchor.is_none_or(|anchor| match anchor.split_once('.') {
        Some(("method", name)) => has(&format!("fn {name}(")) || has(&format!("fn {name}<")),
        Some(("variant", name)) => has(&format!("    {name}")),
        _ => sources
            .iter()
            .flat_map(|source| source.lines())
            .filter_map(|line| {
                line.trim()
                    .trim_start_matches(['/', '!'])
                    .strip_prefix(" # ")
            })
            .any(|heading| self::anchor(heading) == anchor),
    });
    there && anchored
}

#[test]
fn relative_link_names_a_file_and_a_heading() {
    let mut dead = Vec::new();
    for page in pages() {
        for link in page.links() {
            let target = link.target.as_str();
            if target.contains("://") {
                continue;
            }
            let (path, anchor) = page.resolve(target);
            let path = path.to_str().unwrap();
            let found = root().join(path).exists()
                && anchor.is_none_or(|anchor| {
                    path.ends_with(".md") && Page::read(path).anchors().contains(anchor)
                });
            if !found {
                dead.push(format!("{}: {target}", page.path));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn link_to_docs_rs_names_an_item_of_the_sources() {
    let sources: Vec<_> = files_below("src", "rs")
        .iter()
        .map(|path| read(path))
        .collect();
    let (mut seen, mut dead) = (0, Vec::new());
    for page in pages() {
        for link in page.links() {
            if let Some(item) = link.target.strip_prefix(API) {
                seen += 1;
                if !is_in_api(&sources, item) {
                    dead.push(format!("{}: {item}", page.path));
                }
            }
        }
    }
    assert!(seen > 0, "no link was found");
    assert!(dead.is_empty(), "{dead:#?}");
}

/// A forge shows "[`Issuer`]" with its brackets if only rustdoc knows where it leads.
#[test]
fn reference_has_a_definition_and_definition_is_used() {
    let mut wrong = Vec::new();
    for page in pages() {
        let defined: BTreeSet<_> = page.links().into_iter().filter_map(|l| l.label).collect();
        let used = page.used_labels();
        for label in used.symmetric_difference(&defined) {
            wrong.push(format!("{}: [{label}]", page.path));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// In rustdoc, `src/docs.rs` defines where the other pages are.
#[test]
fn guide_refers_to_guides_by_labels_of_rustdoc() {
    let modules = read("src/docs.rs");
    for page in guides() {
        for link in page.links() {
            if link.target.contains("://") {
                continue;
            }
            let Some(label) = link.label else {
                panic!("{}: {} is no reference", page.path, link.target);
            };
            assert_eq!(label, link.target, "{}", page.path);
            let definition = format!("/// [{label}]: ");
            assert!(modules.contains(&definition), "{}: [{label}]", page.path);
        }
    }
}

#[test]
fn every_page_is_a_guide_or_linked_from_the_readme() {
    let readme: BTreeSet<_> = Page::read("README.md")
        .links()
        .into_iter()
        .map(|link| link.target)
        .collect();
    for path in files_below("docs", "md") {
        // The table of features is in the README itself.
        if path != "docs/features.md" {
            assert!(readme.contains(&path), "{path}");
        }
    }
}

#[test]
fn page_begins_with_a_title_and_hides_no_code() {
    let pages = pages().into_iter().chain(guides());
    for page in pages.filter(|page| page.path != "docs/features.md") {
        let title = page.prose.first().unwrap();
        assert!(title.starts_with("# "), "{}: {title}", page.path);
        for line in &page.code {
            let hidden = line.trim_start();
            let hidden = hidden == "#" || hidden.starts_with("# ");
            assert!(!hidden, "{}: a forge shows {line:?}", page.path);
        }
    }
}

#[test]
fn links_are_read_as_meant() {
    let text = "# A b, c\n[x](y.md#z) [`T`], [`t`][`T`] and [t][u.md] `[no](no)`\n```rust\n[no](no)\n```\n[u.md]: u.md";
    let page = Page::parse("docs/page.md", text);
    let targets: Vec<_> = page.links().into_iter().map(|link| link.target).collect();
    assert_eq!(targets, ["u.md", "y.md#z"]);
    let labels: Vec<_> = page.used_labels().into_iter().collect();
    assert_eq!(labels, ["`T`", "u.md"]);
    assert!(page.anchors().contains("a-b-c"));
    let there = (PathBuf::from("docs/y.md"), Some("z"));
    assert_eq!(page.resolve("y.md#z"), there);

    let sources = ["pub struct Issuer {}\n    pub fn new() {}\n/// # Two Words\n".to_owned()];
    assert!(is_in_api(&sources, "struct.Issuer.html#method.new"));
    assert!(is_in_api(&sources, "struct.Issuer.html#two-words"));
    assert!(!is_in_api(&sources, "struct.Issuer.html#method.old"));
    assert!(!is_in_api(&sources, "struct.Iss.html"));
    assert!(!is_in_api(&sources, "Issuer"));
}
