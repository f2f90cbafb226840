//! Run `cargo test --manifest-path tests/public-api/Cargo.toml`. `UPDATE=1` writes the list.

use std::{env, error::Error, fs, path::Path, process::Command};

use public_api::Builder;

/// Unstable auto traits: the crate does not promise them, and they differ between compilers.
const UNSTABLE: [&str; 2] = ["core::marker::Freeze", "core::marker::UnsafeUnpin"];

/// Lists the public API with all features. Includes auto traits such as `Send`, whose loss breaks users.
fn listing(root: &Path) -> Result<String, Box<dyn Error>> {
    let target = root.join("target");
    let documented = Command::new(env!("CARGO"))
        .args(["rustdoc", "--quiet", "--locked", "--package", "bearer-auth"])
        .args(["--lib", "--all-features", "--target-dir"])
        .arg(&target)
        .args(["--", "-Z", "unstable-options", "--output-format", "json"])
        .env("RUSTDOC", root.join("tests/public-api/rustdoc"))
        .current_dir(root)
        .status()?;
    assert!(documented.success(), "cargo rustdoc: {documented}");
    let api = Builder::from_rustdoc_json(target.join("doc/bearer_auth.json"))
        .omit_blanket_impls(true)
        .build()?;
    Ok(api
        .items()
        .map(|item| format!("{item}\n"))
        .filter(|line| !UNSTABLE.iter().any(|name| line.contains(name)))
        .collect())
}

#[test]
fn public_api_equals_the_list() -> Result<(), Box<dyn Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = here.join("public-api.txt");
    let root = here.parent().and_then(Path::parent).ok_or("no root")?;
    let listing = listing(root)?;
    if env::var_os("UPDATE").is_some() {
        fs::write(&file, &listing)?;
    }
    let listed = fs::read_to_string(&file)?;
    let (is, was): (Vec<_>, Vec<_>) = (listing.lines().collect(), listed.lines().collect());
    let added = is.iter().filter(|line| !was.contains(line));
    let removed = was.iter().filter(|line| !is.contains(line));
    let changes: Vec<_> = removed
        .map(|line| format!("- {line}"))
        .chain(added.map(|line| format!("+ {line}")))
        .collect();
    assert!(
        listing == listed,
        "the public API differs from {}:\n{}\nif the change is intended, run this test with UPDATE=1 and \
         commit the list",
        file.display(),
        changes.join("\n"),
    );
    Ok(())
}
