//! Files that others can change or read, and the files that the server creates.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::Path;

use jackfield_testkit::{Backend, Program, Site};

use super::{Before, keyring, refuses, refuses_with, served};

/// Files that others can change are refused, and so is a database with a second name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_others_can_change_are_refused() {
    let site = served(Before::Stopped).await;
    let mode = |path: &Path, mode: u32| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    let database = site.sqlite_file();
    for wrong in [0o666, 0o602] {
        mode(&database, wrong);
        let reason = format!(
            "the database {} has mode {wrong:04o}, so that others can change it; set it to 0600",
            database.display()
        );
        refuses(&site, &["serve"], &reason);
        refuses(&site, &["check-config"], &reason);
    }
    mode(&database, 0o600);

    for (wrong, reason) in [(0o777, "the keyring"), (0o703, "the keyring")] {
        mode(site.data_dir(), wrong);
        let directory = site.data_dir().display();
        let reason = format!(
            "the directory {directory} has mode {wrong:04o}, so that others can replace {reason} in it; set it to 0700"
        );
        refuses(&site, &["serve"], &reason);
    }
    mode(site.data_dir(), 0o700);

    let key = site.pki().path("server-key.pem");
    for wrong in [0o660, 0o606] {
        mode(&key, wrong);
        let reason = format!(
            "the private key {} has mode {wrong:04o}, so that others can change it; set it to 0600",
            key.display()
        );
        refuses(&site, &["serve"], &reason);
    }
    mode(&key, 0o600);

    let second = site.data_dir().join("second.sqlite3");
    std::fs::hard_link(&database, &second).unwrap();
    for url in [String::new(), format!("sqlite:{}", second.display())] {
        let named = if url.is_empty() { &database } else { &second };
        let reason = format!(
            "the database {} has 2 names (hard links): another server may have it under another name, and its log is beside \
             only one of them; stop the process that uses it, and remove the other names",
            named.display()
        );
        for command in ["serve", "migrate"] {
            refuses_with(&site, &[command], &[("JACKFIELD__DATABASE__URL", &url)], &reason);
        }
    }
    std::fs::remove_file(second).unwrap();
    site.start().stop();
}

/// Only root can change the owner of files. Root refuses to trust an unrelated user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_another_user_are_refused() {
    const OTHER: u32 = 54_321;
    let site = served(Before::Stopped).await;
    let own = |path: &Path, user: u32| std::os::unix::fs::chown(path, Some(user), None).unwrap();
    let who = format!("belongs to another user (uid {OTHER}), who can change it; give it to the user of the server");
    own(&keyring(&site), OTHER);
    refuses(&site, &["serve"], &format!("keyring file {} {who}", keyring(&site).display()));
    own(&keyring(&site), 0);
    let key = site.pki().path("server-key.pem");
    own(&key, OTHER);
    refuses(&site, &["serve"], &format!("the private key {} {who}", key.display()));
    own(&key, 0);
    // The owner of a directory can replace the file in it.
    own(site.data_dir(), OTHER);
    for (file, what) in [(keyring(&site), "the keyring"), (site.sqlite_file(), "the database")] {
        let reason = format!(
            "the directory {} belongs to another user (uid {OTHER}), who can replace {what} in it; give it to the user of the \
             server",
            site.data_dir().display()
        );
        refuses(&site, &["serve"], &reason);
        refuses(&site, &["check-config"], &reason);
        // Root acts for a user in that user's directory.
        own(&file, OTHER);
    }
    assert!(!site.start().stop().contains("belongs to another user"));
}

/// Files that others can only read are accepted with a warning.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_others_can_read_are_reported() {
    let site = served(Before::Stopped).await;
    let key = site.pki().path("server-key.pem");
    for path in [&site.sqlite_file(), &key] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
    }
    let lines = [
        format!("the database {} has mode 0644: every account can read it", site.sqlite_file().display()),
        format!("the private key {} has mode 0644: every account can read it", key.display()),
    ];
    let log = site.start().stop();
    let output = site.run(&["check-config"]);
    let said = String::from_utf8_lossy(&output.stderr);
    for line in lines {
        assert!(log.contains(&format!("\"level\":\"WARN\",\"message\":\"{line}\"")), "{log}");
        assert!(output.status.success() && said.contains(&format!("jackfield: {line}\n")), "{said}");
    }
}

/// Whatever the umask of the process, its files are for their owner only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn created_files_are_private_to_their_owner() {
    let mut site = Site::new(Backend::Sqlite, Program::Jackfield);
    let tls = &mut site.config_mut().tls;
    for path in [&mut tls.certificate, &mut tls.private_key, &mut tls.client_ca, &mut tls.client_crl] {
        path.clear();
    }
    let program = Program::Jackfield.path();
    let command = site.command(&["serve"]);
    let arguments: Vec<_> = command.get_args().map(std::ffi::OsStr::to_owned).collect();
    let mut child = std::process::Command::new("sh")
        .args(["-c", "umask 0; exec \"$@\"", "sh"])
        .arg(program)
        .args(arguments)
        .env_clear()
        .current_dir(site.directory())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("\"message\":\"listening\"") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut log, &mut line).unwrap() > 0, "it does not listen");
    }
    let mut modes = Vec::new();
    let mut directories = vec![site.data_dir().to_owned()];
    while let Some(directory) = directories.pop() {
        modes.push((directory.clone(), directory.metadata().unwrap().mode() & 0o7777, 0o700));
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            // Certificates are public.
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let is_public = name.ends_with(".pem") && !name.ends_with("-key.pem");
            modes.push((path.clone(), path.metadata().unwrap().mode() & 0o7777, if is_public { 0o644 } else { 0o600 }));
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(modes.len() > 10, "{modes:?}");
    let wrong: Vec<_> = modes.iter().filter(|(_, mode, expected)| mode != expected).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}
