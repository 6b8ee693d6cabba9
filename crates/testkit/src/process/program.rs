//! Programs, which are built if they are missing or older than their source.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use super::Program;

// === impl Program ===

impl Program {
    /// Its file, which is built if necessary.
    ///
    /// # Panics
    /// Panics if it cannot be built.
    pub fn path(self) -> &'static Path {
        static JACKFIELD: OnceLock<PathBuf> = OnceLock::new();
        static FAULTY: OnceLock<PathBuf> = OnceLock::new();
        match self {
            Program::Jackfield => JACKFIELD.get_or_init(|| built("jackfield-server", "jackfield")),
            Program::Faulty(_) => FAULTY.get_or_init(|| built("jackfield-testkit", "jackfield-faulty")),
        }
    }
}

/// A program, built with the profile of this test. Cargo runs only if the program is missing or older than its source,
/// because it would treat a different set of packages as a different build.
fn built(package: &str, name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let profile = test.ancestors().nth(2).expect("a test lies in target/<profile>/deps");
    let path = profile.join(name);
    let made = std::fs::metadata(&path).and_then(|metadata| metadata.modified());
    if made.is_ok_and(|made| made >= newest_source()) {
        return path;
    }
    let (target, profile) = (profile.parent(), profile.file_name().and_then(|name| name.to_str()));
    let profile = profile.map(|name| if name == "debug" { "dev" } else { name }).expect("a name of a profile");
    let output = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--package", package, "--bin", name, "--profile", profile, "--target-dir"])
        .arg(target.expect("the target directory"))
        .current_dir(workspace())
        .output()
        .expect("cannot run cargo");
    assert!(output.status.success(), "{name} does not build:\n{}", String::from_utf8_lossy(&output.stderr));
    path
}

fn workspace() -> &'static Path {
    let testkit = Path::new(env!("CARGO_MANIFEST_DIR"));
    testkit.ancestors().nth(2).expect("the workspace of the test kit")
}

/// The time of the last change to a source file.
fn newest_source() -> SystemTime {
    ["Cargo.toml", "Cargo.lock", "build.rs", "proto", "crates"]
        .map(|name| newest(&workspace().join(name)))
        .into_iter()
        .max()
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

fn newest(path: &Path) -> SystemTime {
    let Ok(metadata) = std::fs::metadata(path) else { return SystemTime::UNIX_EPOCH };
    if metadata.is_dir() {
        // The time of a directory also reflects deleted and temporary files, so only its files count.
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        return entries.map(|entry| newest(&entry.path())).max().unwrap_or(SystemTime::UNIX_EPOCH);
    }
    let tests = path.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs");
    if tests { SystemTime::UNIX_EPOCH } else { metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH) }
}
