//! A disk that accepts SQLite's writes but does not confirm them: a crash may keep or lose them.
//!
//! The system calls that sync to disk are replaced in the server process, and fail as long as a file exists.

use std::path::{Path, PathBuf};
use std::process::Command;

use jackfield_api::v1;
use jackfield_testkit::{Backend, Program, Site, fixture};
use uuid::Uuid;

use super::outcome::expect_unknown;

/// The variable that names the file. The disk fails as long as that file exists.
const FAILS: &str = "JACKFIELD_TEST_DISK_FAILS";

/// The replacements of the system's calls.
const CALLS: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fails(int fd) {
    const char *flag = getenv("JACKFIELD_TEST_DISK_FAILS");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    int is_log = length > 4 && memcmp(path + length - 4, "-wal", 4) == 0;
    return is_log && flag != NULL && access(flag, F_OK) == 0;
}

int fsync(int fd) {
    if (fails(fd)) { errno = EIO; return -1; }
    return syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    if (fails(fd)) { errno = EIO; return -1; }
    return syscall(SYS_fdatasync, fd);
}
"#;

/// A library with these calls.
fn library(directory: &Path) -> PathBuf {
    let (source, library) = (directory.join("disk.c"), directory.join("disk.so"));
    std::fs::write(&source, CALLS).unwrap();
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status().unwrap();
    assert!(compiled.success());
    library
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_the_disk_does_not_confirm_have_an_unknown_outcome() {
    let site = Site::new(Backend::Sqlite, Program::Jackfield);
    site.prepare().await;
    let (library, flag) = (library(site.directory()), site.directory().join("disk-fails"));
    let process = site.start_by(|command| {
        command.env("LD_PRELOAD", &library).env(FAILS, &flag);
    });
    let client = process.client("alpha");
    let create = async |name: &str, request_id: &str| {
        let (connector, request_id) = (Some(fixture::a_connector(name)), request_id.to_owned());
        let request = v1::CreateConnectorRequest { connector, request_id, ..Default::default() };
        client.connectors().create_connector(request).await
    };
    create("before", "").await.unwrap();

    let request_id = Uuid::now_v7().to_string();
    std::fs::write(&flag, "").unwrap();
    expect_unknown(create("nameless", "").await.unwrap_err(), false);
    expect_unknown(create("repeated", &request_id).await.unwrap_err(), true);
    std::fs::remove_file(&flag).unwrap();

    // The process has not crashed, so none of them is there. The repeat takes effect once.
    let made = create("repeated", &request_id).await.unwrap().into_inner().connector.unwrap();
    assert_eq!(create("repeated", &request_id).await.unwrap().into_inner().connector.unwrap(), made);
    create("nameless", "").await.unwrap();
    process.stop();
}
