//! Keyring files: their permissions and their atomic replacement.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use jackfield_vault::KeyringError;
use jackfield_vault::provider::file;
use tempfile::TempDir;

use crate::support::{KEYRING, keyring};

#[test]
fn new_file_is_private_to_its_owner_and_reads_back() {
    let (directory, path) = directory();
    let keyring = file::create_new(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(fs::metadata(&path).unwrap().nlink(), 1);
    assert_eq!(file::load(&path).unwrap().keys(), keyring.keys());
    assert_eq!(names(&directory), ["keyring.toml"]);
}

#[test]
fn new_file_does_not_replace_an_existing_one() {
    let (directory, path) = directory();
    write(&path, KEYRING, 0o600);
    assert!(matches!(file::create_new(&path), Err(KeyringError::FileExists { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), KEYRING);
    assert_eq!(names(&directory), ["keyring.toml"]);
    // It does not follow a dangling link either.
    let link = directory.path().join("link.toml");
    symlink(directory.path().join("elsewhere.toml"), &link).unwrap();
    assert!(matches!(file::create_new(&link), Err(KeyringError::FileExists { .. })));
    assert_eq!(names(&directory), ["keyring.toml", "link.toml"]);
}

#[test]
fn one_of_many_concurrent_first_starts_creates_the_file() {
    let (directory, path) = directory();
    let made: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| file::create_new(&path))).collect();
        starts.into_iter().filter_map(|start| start.join().unwrap().ok()).collect()
    });
    assert_eq!(made.len(), 1);
    assert_eq!(file::load(&path).unwrap().keys(), made[0].keys());
    assert_eq!(names(&directory), ["keyring.toml"]);
}

/// The temporary files of killed processes hold keys. The next change of any kind removes them.
#[test]
fn leftovers_of_killed_processes_are_removed() {
    let (directory, path) = directory();
    let leave = || {
        for name in [".keyring-0123456789abcdef.tmp", ".keyring-fedcba9876543210.tmp"] {
            write(&directory.path().join(name), KEYRING, 0o600);
        }
    };
    leave();
    let keyring = file::create_new(&path).unwrap();
    assert_eq!(names(&directory), ["keyring.toml"]);
    leave();
    file::save(&path, &keyring).unwrap();
    assert_eq!(names(&directory), ["keyring.toml"]);
    leave();
    file::update(&path, |_| Ok(())).unwrap();
    assert_eq!(names(&directory), ["keyring.toml"]);
    // Files with similar names stay.
    for name in [".keyring-0123.tmp", ".keyring-0123456789abcdef.tmp.old", "keyring-0123456789abcdef.tmp"] {
        write(&directory.path().join(name), "", 0o600);
    }
    file::update(&path, |_| Ok(())).unwrap();
    assert_eq!(names(&directory).len(), 4);
}

#[test]
fn file_accessible_to_others_is_refused() {
    let (_directory, path) = directory();
    for mode in [0o640, 0o604, 0o660, 0o644, 0o620, 0o602, 0o610, 0o601, 0o777] {
        write(&path, KEYRING, mode);
        let error = file::load(&path).expect_err("others can use it");
        assert!(matches!(error, KeyringError::FileMode { mode: named, .. } if named == mode), "{error}");
        assert!(error.to_string().contains(&format!("mode {mode:04o}")), "{error}");
        assert!(error.to_string().contains("set it to 0600"), "{error}");
    }
    for mode in [0o600, 0o400, 0o700] {
        write(&path, KEYRING, mode);
        assert_eq!(file::load(&path).unwrap().ids(), ["kek-1"], "{mode:o}");
    }
}

#[test]
fn only_a_regular_file_is_read() {
    let (directory, path) = directory();
    assert!(matches!(file::load(&path), Err(KeyringError::FileMissing { path: named }) if named == path));
    assert!(matches!(file::load(directory.path()), Err(KeyringError::FileKind { found: "a directory", .. })));
    write(&path, KEYRING, 0o600);
    let link = directory.path().join("link.toml");
    symlink(&path, &link).unwrap();
    assert!(matches!(file::load(&link), Err(KeyringError::FileKind { found: "a symbolic link", .. })));
    let pipe = directory.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(matches!(file::load(&pipe), Err(KeyringError::FileKind { found: "a device, pipe or socket", .. })));
    let beyond = path.join("keyring.toml");
    assert!(matches!(file::load(&beyond), Err(KeyringError::Io { action: "open", .. })));
}

#[test]
fn parent_directory_may_be_a_link() {
    let (directory, path) = directory();
    write(&path, KEYRING, 0o600);
    let link = directory.path().join("..data");
    symlink(directory.path(), &link).unwrap();
    assert_eq!(file::load(&link.join("keyring.toml")).unwrap().ids(), ["kek-1"]);
}

#[test]
fn content_is_checked() {
    let (_directory, path) = directory();
    write(&path, "", 0o600);
    assert_eq!(file::load(&path).expect_err("empty").to_string(), "keyring: active is missing");
    write(&path, "# \u{e9}", 0o600);
    fs::write(&path, b"# \xff").unwrap();
    assert_eq!(file::load(&path).expect_err("not UTF-8").to_string(), "keyring: is not UTF-8");
    let longest = format!("{KEYRING}#{}", " ".repeat(65_536 - KEYRING.len() - 1));
    write(&path, &longest, 0o600);
    assert!(file::load(&path).is_ok());
    write(&path, &format!("{longest} "), 0o600);
    assert!(matches!(file::load(&path), Err(KeyringError::FileTooLong { limit: 65_536, .. })));
}

#[test]
fn saving_replaces_the_file_and_its_mode() {
    let (directory, path) = directory();
    write(&path, "not a keyring", 0o644);
    let before = fs::metadata(&path).unwrap().ino();
    file::save(&path, &keyring()).unwrap();
    assert_ne!(fs::metadata(&path).unwrap().ino(), before, "a new file replaces the old one");
    assert_eq!(mode(&path), 0o600);
    assert_eq!(file::load(&path).unwrap().ids(), ["kek-1"]);
    assert_eq!(names(&directory), ["keyring.toml"]);
}

#[test]
fn saving_replaces_only_a_regular_file() {
    let (directory, path) = directory();
    let target = directory.path().join("target.toml");
    write(&target, KEYRING, 0o600);
    symlink(&target, &path).unwrap();
    assert!(matches!(file::save(&path, &keyring()), Err(KeyringError::FileKind { found: "a symbolic link", .. })));
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    let nowhere = directory.path().join("missing").join("keyring.toml");
    assert!(matches!(file::save(&nowhere, &keyring()), Err(KeyringError::Io { .. })));
    assert!(matches!(file::create_new(&nowhere), Err(KeyringError::Io { .. })));
    assert_eq!(names(&directory), ["keyring.toml", "target.toml"]);
}

#[test]
fn failed_change_leaves_the_file() {
    let (directory, path) = directory();
    write(&path, KEYRING, 0o600);
    let result = file::update(&path, |keyring| {
        keyring.add_key(true)?;
        keyring.remove("no such key")
    });
    assert!(matches!(result, Err(KeyringError::UnknownKey { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), KEYRING);
    assert_eq!(names(&directory), ["keyring.toml"]);
}

#[test]
fn concurrent_changes_all_take_effect() {
    let (_directory, path) = directory();
    write(&path, KEYRING, 0o600);
    let added: Vec<String> = std::thread::scope(|scope| {
        let add = || file::update(&path, |keyring| keyring.add_key(false)).map(|(_, id)| id);
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(add)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect()
    });
    let ids = file::load(&path).unwrap().ids();
    assert_eq!(ids.len(), 9);
    assert!(added.iter().all(|id| ids.contains(id)), "{ids:?} {added:?}");
}

fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("keyring.toml");
    (directory, path)
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).expect("the file can be written");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the mode can be set");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("the file is there").mode() & 0o7777
}

fn names(directory: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path()).expect("the directory is there");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
