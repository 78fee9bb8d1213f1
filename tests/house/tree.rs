//! Reads the project once: its text files, and its packages as `cargo metadata` tells them.
//!
//! The tree is what lies in the directory, not what git tracks, so that a breach is found before it
//! is committed. Build output, data directories and hidden folders other than `.ci` and `.config`
//! are left out.

use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Folders that are never part of the project.
const FOLDERS_SKIPPED: [&str; 3] = ["target", "trefoil-data", "node_modules"];
/// Hidden entries that are.
const HIDDEN_KEPT: [&str; 3] = [".ci", ".config", ".gitignore"];

/// A text file of the project.
#[derive(Clone)]
pub(crate) struct SourceFile {
    /// Path inside the project, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl SourceFile {
    /// Whether the file holds only tests or benchmarks, by the conventions of the layout.
    pub(crate) fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.contains("/benches/")
            || self.path.ends_with("/tests.rs")
    }
}

/// All text files of the project, sorted by path.
pub(crate) struct Tree {
    pub(crate) files: Vec<SourceFile>,
}

impl Tree {
    /// Reads the project that this test was compiled in.
    pub(crate) fn read() -> Self {
        let root = root();
        let mut files = Vec::new();
        collect(&root, &root, &mut files);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        assert!(
            files.iter().any(|f| f.path == "Cargo.toml"),
            "{} is not the project",
            root.display()
        );
        Self { files }
    }

    /// The Rust files.
    pub(crate) fn rust(&self) -> impl Iterator<Item = &SourceFile> {
        self.files.iter().filter(|f| f.path.ends_with(".rs"))
    }

    /// The file at `path`, if the project has it.
    pub(crate) fn file(&self, path: &str) -> Option<&SourceFile> {
        self.files.iter().find(|f| f.path == path)
    }
}

/// The project's directory.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<SourceFile>) {
    for entry in fs::read_dir(folder).expect("read a folder of the project") {
        let entry = entry.expect("read a folder of the project");
        let name = entry.file_name().to_string_lossy().into_owned();
        let hidden = name.starts_with('.') && !HIDDEN_KEPT.contains(&name.as_str());
        if hidden || FOLDERS_SKIPPED.contains(&name.as_str()) {
            continue;
        }
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let inside = path.strip_prefix(root).expect("below the root");
            files.push(SourceFile {
                path: inside.to_string_lossy().replace('\\', "/"),
                text,
            });
        }
    }
}

/// A package of the workspace.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Its folder inside the project, with `/` at the end.
    pub(crate) folder: String,
    /// Names of all dependencies, outside ones too, with their kind (`None`: the normal one).
    pub(crate) dependencies: Vec<(String, Option<String>)>,
    /// Names of the cargo features that the package declares.
    pub(crate) features: Vec<String>,
}

/// The packages of the workspace, from `cargo metadata`.
pub(crate) fn packages() -> Vec<Package> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .expect("start cargo metadata");
    assert!(
        output.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON of cargo metadata");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    packages.iter().map(package).collect()
}

fn package(value: &Value) -> Package {
    let text = |v: &Value| v.as_str().map(str::to_owned);
    let dependencies = value["dependencies"].as_array().expect("dependencies");
    let features = value["features"].as_object().expect("features");
    let manifest = text(&value["manifest_path"]).expect("a package has a manifest");
    let inside = Path::new(&manifest)
        .strip_prefix(root())
        .expect("below the root");
    Package {
        name: text(&value["name"]).expect("a package has a name"),
        folder: inside.to_string_lossy().replace("Cargo.toml", ""),
        dependencies: dependencies
            .iter()
            .filter_map(|d| Some((text(&d["name"])?, text(&d["kind"]))))
            .collect(),
        features: features.keys().cloned().collect(),
    }
}
