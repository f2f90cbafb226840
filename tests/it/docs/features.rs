//! One table of features: `docs/features.md`, which `src/lib.rs` includes and the README repeats.

#[test]
fn readme_has_the_table_of_features_verbatim() {
    let table = include_str!("../../../docs/features.md");
    let readme = include_str!("../../../README.md");
    let (_, section) = readme.split_once("\n## Features\n").expect("the section");
    let (section, _) = section.split_once("\n## ").expect("the next section");
    assert_eq!(section.trim(), table.trim());
}

#[test]
fn table_of_features_has_each_feature() {
    let table = include_str!("../../../docs/features.md");
    let manifest = include_str!("../../../Cargo.toml");
    let (_, features) = manifest.split_once("\n[features]\n").expect("the section");
    let (features, _) = features.split_once("\n[").expect("the next section");
    let names = features
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name)
        .filter(|name| *name != "default");
    let mut seen = 0;
    for name in names {
        assert!(table.contains(&format!("\n| `{name}` ")), "{name}");
        seen += 1;
    }
    assert_eq!(seen, table.lines().count() - 2);
}
