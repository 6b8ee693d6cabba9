//! The SQLite file of a server: only one server uses it at a time, by whatever path, and it must stay at its path.

use std::path::Path;
use std::process::{Command, Output};

use futures::future::join_all;
use jackfield_api::v1;
use jackfield_testkit::fixture::a_connector;
use jackfield_testkit::{Backend, Process, Program, Refusal, Site, TestServer};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tonic::{Code, Status};
use tonic_health::pb::health_check_response::ServingStatus;

use super::{create_connector, eventually, expect_unavailable, get_connector, wait_for_readiness};

#[track_caller]
fn fails(output: &Output, reason: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && text.contains(reason), "{output:?}");
}

async fn create(process: &Process, name: &str) -> Result<(), Status> {
    let request = v1::CreateConnectorRequest { connector: Some(a_connector(name)), ..Default::default() };
    process.client("alpha").connectors().create_connector(request).await.map(drop)
}

fn reports_the_loss(line: &&str) -> bool {
    line.contains("\"ERROR\",\"message\":\"the database file or its log was replaced or removed")
}

/// Runs a command of the site in a shell, after these shell commands.
fn in_shell(site: &Site, first: &str, arguments: &[&str]) -> Output {
    let command = site.command(arguments);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{first}; exec \"$@\""), "sh"]).arg(command.get_program()).args(command.get_args());
    shell.current_dir(site.directory()).output().unwrap()
}

fn with_suffix(path: &Path, suffix: &str) -> std::path::PathBuf {
    let mut path = path.to_owned().into_os_string();
    path.push(suffix);
    path.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_after_the_file_is_replaced_or_removed() {
    for is_replaced in [true, false] {
        let server = TestServer::start(Backend::Sqlite).await;
        create_connector(&server, "alpha", "before").await.unwrap();
        let (file, aside) = (server.sqlite_file(), server.data_dir().join("aside"));
        std::fs::rename(&file, &aside).unwrap();
        if is_replaced {
            std::fs::copy(&aside, &file).unwrap();
        }
        expect_unavailable(create_connector(&server, "alpha", "lost").await.unwrap_err());
        let cascade =
            v1::DeleteTenantRequest { reference: "name:alpha".to_owned(), cascade: true, ..Default::default() };
        expect_unavailable(server.client("operator").admin().delete_tenant(cascade).await.unwrap_err());
        eventually("it cannot be written", async || server.metric("jackfield_database_writable", &[]) == Some(0.0))
            .await;
        wait_for_readiness(&server, ServingStatus::NotServing).await;
        get_connector(&server, "alpha", "before").await.unwrap();
        let missing = get_connector(&server, "alpha", "lost").await.unwrap_err();
        Refusal::check(missing, Code::NotFound, "CONNECTOR_NOT_FOUND");
        assert_eq!(file.exists(), is_replaced, "no other file is created");

        // A server that starts with the file has everything that was acknowledged.
        let mut server = server;
        server.crash();
        std::fs::rename(&aside, &file).unwrap();
        server.restart().await;
        get_connector(&server, "alpha", "before").await.unwrap();
        create_connector(&server, "alpha", "after").await.unwrap();
    }
}

/// Many reads at once need more connections than one. None of them may open the other file: SQLite would copy the log into it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_acknowledged_just_before_the_file_was_replaced_stay() {
    let server = TestServer::start(Backend::Sqlite).await;
    let file = server.sqlite_file();
    let (aside, log) = (server.data_dir().join("aside"), with_suffix(&file, "-wal"));
    eventually("the log is empty", async || std::fs::metadata(&log).unwrap().len() == 0).await;
    let names: Vec<String> = (0..20).map(|number| format!("c{number}")).collect();
    for name in &names {
        create_connector(&server, "alpha", name).await.unwrap();
    }
    std::fs::rename(&file, &aside).unwrap();
    std::fs::copy(&aside, &file).unwrap();
    let copy = std::fs::read(&file).unwrap();
    let gets = (0..20 * names.len()).map(|number| get_connector(&server, "alpha", &names[number % names.len()]));
    join_all(gets).await.into_iter().for_each(|got| drop(got.unwrap()));
    expect_unavailable(create_connector(&server, "alpha", "lost").await.unwrap_err());
    assert!(log.exists());
    assert!(std::fs::read(&file).unwrap() == copy, "the other file is as it was");

    let mut server = server;
    server.crash();
    std::fs::rename(&aside, &file).unwrap();
    server.restart().await;
    for name in &names {
        get_connector(&server, "alpha", name).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_after_the_log_was_replaced_or_removed() {
    for is_replaced in [true, false] {
        let site = Site::new(Backend::Sqlite, Program::Jackfield);
        site.prepare().await;
        let process = site.start();
        create(&process, "before").await.unwrap();
        let log = with_suffix(&site.sqlite_file(), "-wal");
        std::fs::remove_file(&log).unwrap();
        if is_replaced {
            std::fs::write(&log, "").unwrap();
        }
        expect_unavailable(create(&process, "lost").await.unwrap_err());
        // A stop copies the log into the database.
        let said = tokio::task::spawn_blocking(move || process.stop()).await.unwrap();
        assert_eq!(said.lines().filter(reports_the_loss).count(), 1, "{said}");
        let process = site.start();
        create(&process, "lost").await.unwrap();
        assert_eq!(create(&process, "before").await.unwrap_err().code(), Code::AlreadyExists);
        tokio::task::spawn_blocking(move || process.stop()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_file_is_reported_and_the_other_file_is_not_backed_up() {
    let site = Site::new(Backend::Sqlite, Program::Jackfield);
    site.prepare().await;
    let process = site.start();
    let output = site.run(&["backup", "--to", "first"]);
    assert!(output.status.success(), "{output:?}");
    let (file, aside) = (site.sqlite_file(), site.data_dir().join("aside"));
    std::fs::rename(&file, &aside).unwrap();
    std::fs::copy(&aside, &file).unwrap();
    expect_unavailable(create(&process, "lost").await.unwrap_err());
    expect_unavailable(create(&process, "lost").await.unwrap_err());
    fails(&site.run(&["backup", "--to", "second"]), "if the file was replaced, stop the server");
    assert!(!site.directory().join("second").exists());
    let log = tokio::task::spawn_blocking(move || process.stop()).await.unwrap();
    assert_eq!(log.lines().filter(reports_the_loss).count(), 1, "{log}");
}

/// Earlier versions lock only the file beside the database, which they leave as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_beside_a_server_of_an_earlier_version_names_the_version() {
    let site = Site::new(Backend::Sqlite, Program::Jackfield);
    site.prepare().await;
    let process = site.start();
    let earlier = || {
        let lock = std::fs::File::options().write(true).open(with_suffix(&site.sqlite_file(), ".lock")).unwrap();
        lock.lock().unwrap();
        lock
    };
    process.kill();
    let lock = earlier();
    fails(&site.run(&["backup", "--to", "backup"]), "if the server is of an earlier version, use the program");
    drop(lock);
    let process = site.start();
    tokio::task::spawn_blocking(move || process.stop()).await.unwrap();
    let lock = earlier();
    fails(&site.run(&["backup", "--to", "backup"]), "is in use by a server of an earlier version");
    assert!(!site.directory().join("backup").exists());
    drop(lock);
    let output = site.run(&["backup", "--to", "backup"]);
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_is_refused_after_the_lock_file_is_removed() {
    let site = Site::new(Backend::Sqlite, Program::Jackfield);
    site.prepare().await;
    let lock = with_suffix(&site.sqlite_file(), ".lock");
    // This holds even if the first start created the database.
    let process = site.start();
    std::fs::remove_file(&lock).unwrap();
    fails(&site.run(&["serve"]), "is in use by another process");
    fails(&site.run(&["migrate"]), "is in use by another process");
    create(&process, "one").await.unwrap();
    // The served file can be backed up with or without the lock.
    let output = site.run(&["backup", "--to", "backup"]);
    assert!(output.status.success(), "{output:?}");
    tokio::task::spawn_blocking(move || process.stop()).await.unwrap();
}

/// The path has to say "mounts" where something must be mounted.
mod mounts {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_file_that_is_mounted_alone_is_refused() {
        let site = Site::new(Backend::Sqlite, Program::Jackfield);
        site.prepare().await;
        for arguments in [&["serve"][..], &["migrate"], &["backup", "--to", "backup"]] {
            let command = site.command(arguments);
            let mut mounted = Command::new("unshare");
            let first = "mv \"$0\" other && : >\"$0\" && mount --bind other \"$0\" && exec \"$@\"";
            mounted.args(["-rm", "sh", "-c", first]).arg(site.sqlite_file()).arg(command.get_program());
            let output = mounted.args(command.get_args()).current_dir(site.directory()).output().unwrap();
            fails(&output, "is mounted as a single file");
            std::fs::rename(site.directory().join("other"), site.sqlite_file()).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_on_the_size_of_files_is_like_a_full_disk() {
    let site = Site::new(Backend::Sqlite, Program::Jackfield);
    site.prepare().await;
    let mut process = site.start();
    create(&process, "one").await.unwrap();
    let id = Pid::from_raw(i32::try_from(process.id()).unwrap());
    let limit = |current| prlimit(id, Resource::Fsize, Rlimit { current, maximum: None }).unwrap();
    limit(Some(4_096));
    expect_unavailable(create(&process, "two").await.unwrap_err());
    expect_unavailable(create(&process, "two").await.unwrap_err());
    assert!(process.is_running());
    limit(None);
    eventually("it can be written again", async || create(&process, "two").await.is_ok()).await;
    tokio::task::spawn_blocking(move || process.stop()).await.unwrap();

    fails(&in_shell(&site, "ulimit -f 0", &["backup", "--to", "backup"]), "jackfield: ");
    assert!(!site.directory().join("backup").exists());
    let keyring = std::fs::read(site.data_dir().join("keyring.toml")).unwrap();
    fails(&in_shell(&site, "ulimit -f 0", &["keys", "new"]), "jackfield: ");
    assert_eq!(std::fs::read(site.data_dir().join("keyring.toml")).unwrap(), keyring);
    fails(&in_shell(&site, "ulimit -f 0", &["serve"]), "jackfield: ");
}
