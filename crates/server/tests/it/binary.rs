//! The real binary, from its first start to its stop.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::Duration;

use jackfield_testkit::frame::{ACK, PREFACE, SETTINGS, frame, next_frame};
use prost::Message as _;
use tokio::io::AsyncWriteExt as _;

use crate::process::{Process, command, run, stdout};

#[test]
fn the_first_start_creates_what_it_needs_reports_it_once_and_serves() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let server = Process::start(path, &[]);
    let address = server.address.clone();
    assert!(server.first_words.contains("data/keyring.toml"), "{}", server.first_words);
    let line = format!(
        "grpcurl -cacert data/pki/ca.pem -cert data/pki/client.pem -key data/pki/client-key.pem {address} list"
    );
    assert!(server.first_words.contains(&line), "{}", server.first_words);
    for secret in ["keyring.toml", "jackfield.sqlite3", "pki/ca-key.pem", "pki/server-key.pem", "pki/client-key.pem"] {
        let mode = std::fs::metadata(path.join("data").join(secret)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }

    let to_server = ["--address", &address];
    assert_eq!(stdout(&run(path, &[&["health"], &to_server[..]].concat())), "SERVING\n");
    let unknown = run(path, &[&["health", "--service", "nothing"], &to_server[..]].concat());
    assert!(!unknown.status.success());

    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.child.id())).unwrap();
    let core: Vec<_> = limits.lines().find(|line| line.starts_with("Max core")).unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "{limits}");
    let files: Vec<_> = limits.lines().find(|line| line.starts_with("Max open")).unwrap().split_whitespace().collect();
    assert_eq!(files[3], files[4], "{limits}");

    assert!(stdout(&run(path, &["keys", "new", "--activate"])).contains("active key"));
    let keys = stdout(&run(path, &["keys", "list"]));
    assert_eq!(keys.lines().count(), 2, "{keys}");
    let active = keys.lines().find(|line| line.contains("active")).unwrap().split(' ').next().unwrap().to_owned();
    // The server may not have loaded the file yet; the command waits for that.
    let rewrapped = stdout(&run(path, &[&["keys", "rewrap"], &to_server[..]].concat()));
    assert!(rewrapped.contains(&active) && rewrapped.contains("0 failed"), "{rewrapped}");

    let made = stdout(&run(path, &["client-cert", "stranger"]));
    assert!(made.contains("spiffe://jackfield.local/client/stranger"), "{made}");
    let stranger = ["--cert", "data/pki/stranger.pem", "--key", "data/pki/stranger-key.pem"];
    stdout(&run(path, &[&["health"], &to_server[..], &stranger].concat()));
    let refused = run(path, &[&["keys", "rewrap"], &to_server[..], &stranger].concat());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no configured principal"), "{refused:?}");
    server.stop();

    let again = Process::start(path, &[]);
    let words = &again.first_words;
    assert!(words.starts_with("Try:\n  grpcurl") && !words.contains("Made"), "nothing is made twice: {words}");
    again.stop();
}

#[test]
fn a_database_without_its_keyring_is_not_opened_and_no_key_is_made() {
    let directory = tempfile::tempdir().unwrap();
    Process::start(directory.path(), &[]).stop();
    std::fs::remove_file(directory.path().join("data/keyring.toml")).unwrap();
    let refused = run(directory.path(), &["serve", "--listen", "127.0.0.1:0"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("there is no keyring data/keyring.toml"), "{refused:?}");
    let refused = run(directory.path(), &["keys", "new"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("restore the keyring"), "{refused:?}");
    assert!(!directory.path().join("data/keyring.toml").exists());
}

#[test]
fn created_files_are_reported_even_if_the_start_fails_and_are_private() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    // The database that is made has no schema.
    let refused = run(directory.path(), &["serve", "--listen", "127.0.0.1:0", "--set", "database.migrate=false"]);
    assert!(!refused.status.success());
    let printed = String::from_utf8_lossy(&refused.stdout);
    assert!(printed.contains("Made data/pki:") && printed.contains("Made data/keyring.toml:"), "{printed}");
    let mode = std::fs::metadata(data.join("jackfield.sqlite3")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn an_address_in_use_is_refused_before_anything_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let free = "listen.address=127.0.0.1:0".to_owned();
    let callback = ["callback.plaintext=true", "callback.public_url=http://localhost:8080"].map(str::to_owned);
    for settings in [
        vec![format!("listen.address={address}")],
        vec![free.clone(), format!("listen.health_address={address}")],
        vec![free.clone(), format!("telemetry.prometheus_address={address}")],
        [vec![free.clone(), format!("callback.address={address}")], callback.to_vec()].concat(),
    ] {
        let set = settings.iter().flat_map(|setting| ["--set", setting]);
        let refused = run(directory.path(), &["serve"].into_iter().chain(set).collect::<Vec<_>>());
        let text = String::from_utf8_lossy(&refused.stderr);
        assert!(
            !refused.status.success() && text.contains(&format!(" on {address}: Address already in use")),
            "{text}"
        );
        assert!(!directory.path().join("data").exists(), "{settings:?}");
    }
    drop(taken);
    let socket = directory.path().join("a.sock");
    let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let refused = run(directory.path(), &["serve", "--set", &free, "--set", "listen.unix_socket=a.sock"]);
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && text.contains("a.sock is used by a process"), "{text}");
    assert!(!directory.path().join("data").exists());
}

#[test]
fn the_log_says_where_a_data_directory_was_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap().join("data");
    let made = format!("\"data_dir.path\":\"{}\"", path.display());
    let log = Process::start(directory.path(), &[]).stop();
    let line = log.lines().find(|line| line.contains("\"message\":\"a new data directory was made\""));
    assert!(line.is_some_and(|line| line.contains(&made) && line.contains("INFO")), "{log}");
    let log = Process::start(directory.path(), &[]).stop();
    assert!(!log.contains("data directory was made"), "{log}");
}

/// Standard output may be closed, as with `jackfield serve | head -1` or a supervisor that has lost its pipe.
#[test]
fn a_server_serves_although_its_output_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = command(directory.path(), &["serve", "--listen", "127.0.0.1:0", "--set", "drain.delay=0s"]);
    let mut server = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(server.stderr.take().unwrap()).lines().map(Result::unwrap);
    let listening = log.find(|line| line.contains("\"message\":\"listening\""));
    let listening = listening.unwrap_or_else(|| panic!("{:?}", server.wait()));
    let listening: serde_json::Value = serde_json::from_str(&listening).unwrap();
    let address = listening["address"].as_str().unwrap();
    assert_eq!(stdout(&run(directory.path(), &["health", "--address", address])), "SERVING\n");
    let id = rustix::process::Pid::from_child(&server);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    log.for_each(drop);
    assert!(server.wait().unwrap().success());
}

/// A client without calls loses nothing, even if it does not answer the PING that comes with the GOAWAY.
#[tokio::test]
async fn a_silent_client_does_not_make_a_shutdown_incomplete() {
    for (grace, timeout) in
        [("drain.grace=1s", "limits.keepalive_timeout=10m"), ("drain.grace=1h", "limits.keepalive_timeout=1s")]
    {
        let directory = tempfile::tempdir().unwrap();
        let server = Process::start(directory.path(), &["listen.plaintext=true", grace, timeout]);
        let mut socket = tokio::net::TcpStream::connect(&server.address).await.unwrap();
        socket.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
        // The server has received its settings once it acknowledges them. From then on the client is silent.
        loop {
            let came = next_frame(&mut socket).await.unwrap();
            if (came.kind, came.flags) == (SETTINGS, ACK) {
                break;
            }
        }
        let log = server.stop();
        let closed =
            |line: &&str| line.contains("connections without calls closed because their clients do not answer");
        let line = log.lines().find(closed).unwrap_or_else(|| panic!("{log}"));
        assert!(line.contains("\"connections.closed\":1"), "{line}");
        let stopped = log.lines().find(|line| line.contains("\"message\":\"stopped\"")).unwrap();
        assert!(stopped.contains("\"complete\":true") && !log.contains("calls.cut"), "{log}");
    }
}

#[test]
fn a_second_signal_stops_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Process::start(directory.path(), &["drain.delay=60s"]);
    let id = rustix::process::Pid::from_child(&server.child);
    let begin = std::time::Instant::now();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(server.child.try_wait().unwrap().is_none(), "the first signal drains");
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    assert_eq!(server.child.wait().unwrap().code(), Some(1));
    assert!(begin.elapsed() < Duration::from_secs(20));
}

/// SIGHUP to a server without a terminal usually asks it to reload its files.
#[test]
fn a_hangup_without_a_terminal_does_not_stop_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Process::start(directory.path(), &[]);
    let id = rustix::process::Pid::from_child(&server.child);
    rustix::process::kill_process(id, rustix::process::Signal::HUP).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(server.child.try_wait().unwrap().is_none(), "it keeps running");
    let log = server.stop();
    assert_eq!(log.matches("SIGHUP changes nothing").count(), 1, "{log}");
}

/// A closed terminal asks for a shutdown, and a service manager may send SIGTERM as well: both together are one
/// request.
#[test]
fn a_closed_terminal_drains() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap_or_default();
    let wait_for = |what: &dyn Fn() -> bool| {
        (0..1_200).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            what()
        })
    };
    let serve = format!(
        "trap '' HUP; sh -c 'echo $$ >pid; exec {} serve --listen 127.0.0.1:0 --set drain.delay=1s 2>log'; echo $? >code",
        env!("CARGO_BIN_EXE_jackfield")
    );
    let mut terminal = std::process::Command::new("script");
    terminal.args(["--quiet", "--command", &serve, "/dev/null"]).current_dir(directory.path());
    let mut terminal = terminal.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    assert!(wait_for(&|| file("log").contains("\"listening\"")), "{}", file("log"));
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    assert!(wait_for(&|| file("log").contains("\"draining\"")), "the closed terminal is noticed: {}", file("log"));
    let id = rustix::process::Pid::from_raw(file("pid").trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert!(wait_for(&|| !file("code").is_empty()), "it ends: {}", file("log"));
    assert_eq!(file("code").trim(), "0", "{}", file("log"));
}

#[test]
fn production_creates_neither_keys_nor_certificates() {
    let directory = tempfile::tempdir().unwrap();
    let production = ["--set", "mode=production"];
    let refused = run(directory.path(), &[&["serve"], &production[..]].concat());
    assert!(!refused.status.success());
    assert!(!directory.path().join("data").exists());
    assert!(!run(directory.path(), &[&["client-cert", "x"], &production[..]].concat()).status.success());
}

#[test]
fn development_says_that_connectors_may_call_this_machine() {
    let directory = tempfile::tempdir().unwrap();
    let says = "\"message\":\"the mode is development: connectors may call this machine (loopback), also by http\"";
    let log = Process::start(directory.path(), &["listen.plaintext=true"]).stop();
    assert_eq!(log.matches(says).count(), 1, "{log}");
    let log = Process::start(directory.path(), &["listen.plaintext=true", "mode=production"]).stop();
    assert_eq!(log.matches("loopback").count(), 0, "{log}");
}

/// In the wrong directory the command makes an authority that no server knows.
#[test]
fn a_client_certificate_that_needs_a_new_authority_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let made = stdout(&run(directory.path(), &["client-cert", "a"]));
    assert!(made.starts_with("Made data/pki: an authority"), "{made}");
    let made = stdout(&run(directory.path(), &["client-cert", "b"]));
    assert!(made.starts_with("Made data/pki/b.pem"), "nothing is made twice: {made}");
}

#[test]
fn a_wrong_configuration_is_named_exactly() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("jackfield.toml"), "[limits]\nmax_callz = 1\n").unwrap();
    let refused = run(directory.path(), &["check-config"]);
    assert!(!refused.status.success());
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("file jackfield.toml") && text.contains("max_callz"), "{text}");

    std::fs::write(directory.path().join("jackfield.toml"), "[limits]\nmax_calls = 700\n").unwrap();
    let mut checked = command(directory.path(), &["check-config", "--set", "database.url=postgres://u:hunter2@h/d"]);
    let text = stdout(&checked.env("JACKFIELD__DRAIN__DELAY", "9s").output().unwrap());
    assert!(text.contains("max_calls = 700") && text.contains("delay = \"9s\"") && !text.contains("hunter2"), "{text}");
    let defaults = stdout(&run(directory.path(), &["check-config", "--defaults"]));
    assert_eq!(defaults.trim_end(), jackfield_server::config::DEFAULTS.trim_end());
}

#[test]
fn a_configuration_is_checked_with_its_certificates() {
    let directory = tempfile::tempdir().unwrap();
    let production = ["check-config", "--set", "mode=production"];
    let files =
        ["--set", "tls.certificate=here.pem", "--set", "tls.private_key=key.pem", "--set", "tls.client_ca=ca.pem"];
    let refused = run(directory.path(), &[&production[..], &files].concat());
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && text.contains("cannot read here.pem"), "{text}");
    std::fs::write(directory.path().join("here.pem"), "no certificate").unwrap();
    std::fs::write(directory.path().join("key.pem"), "no key").unwrap();
    std::fs::write(directory.path().join("ca.pem"), "no certificate").unwrap();
    let refused = run(directory.path(), &[&production[..], &files].concat());
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && text.contains("here.pem holds no usable certificate"), "{text}");
    stdout(&run(directory.path(), &["check-config", "--set", "mode=production", "--set", "listen.plaintext=true"]));
}

#[test]
fn commands_report_their_target_and_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for command in [&["health"][..], &["keys", "rewrap"]] {
        let refused = run(directory.path(), &[command, &["--address", &free, "--plaintext"]].concat());
        let text = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && text.contains(&free), "{text}");
        let refused = run(directory.path(), &[command, &["--address", &free, "--set", "mode=production"]].concat());
        let text = String::from_utf8_lossy(&refused.stderr);
        assert!(text.contains("ca.pem") && text.contains("--ca"), "{text}");
    }
    let refused = run(directory.path(), &["client-cert", "b", "--spiffe", "http://x"]);
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && text.contains("spiffe://"), "{text}");
    assert!(!directory.path().join("data/pki/b.pem").exists());
}

#[test]
fn descriptors_are_complete_and_follow_their_imports() {
    let directory = tempfile::tempdir().unwrap();
    let printed = run(directory.path(), &["descriptors"]);
    assert!(printed.status.success(), "{printed:?}");
    stdout(&run(directory.path(), &["descriptors", "--out", "jackfield.binpb"]));
    assert!(std::fs::read(directory.path().join("jackfield.binpb")).unwrap() == printed.stdout);

    let set = prost_types::FileDescriptorSet::decode(&printed.stdout[..]).unwrap();
    let mut names: Vec<&str> = Vec::new();
    for file in &set.file {
        for import in &file.dependency {
            assert!(names.contains(&import.as_str()), "{} imports {import}", file.name());
        }
        assert!(!names.contains(&file.name()), "{} is there twice", file.name());
        names.push(file.name());
    }
    // Files are listed under the paths by which others import them.
    for name in [
        "google/api/field_behavior.proto",
        "google/rpc/error_details.proto",
        "google/rpc/status.proto",
        "grpc/health/v1/health.proto",
        "jackfield/v1/connector.proto",
    ] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    let messages = set.file.iter().filter(|file| file.package() == "google.rpc").flat_map(|file| &file.message_type);
    let messages: Vec<&str> = messages.map(|message| message.name()).collect();
    for name in
        ["Status", "ErrorInfo", "BadRequest", "RetryInfo", "PreconditionFailure", "QuotaFailure", "ResourceInfo"]
    {
        assert!(messages.contains(&name), "{name} is not in {messages:?}");
    }
    // Options that prost does not know, such as debug_redact, are preserved: the output contains the compiled contract
    // as one piece.
    let contract = jackfield_api::FILE_DESCRIPTOR_SET;
    assert!(printed.stdout.starts_with(contract));
}

#[test]
fn migrate_works_without_keys() {
    let directory = tempfile::tempdir().unwrap();
    let text = stdout(&run(directory.path(), &["migrate"]));
    assert!(text.contains("schema is at m"), "{text}");
    assert!(directory.path().join("data/jackfield.sqlite3").exists());
}

#[test]
fn running_out_of_file_descriptors_does_not_spin_and_is_temporary() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::start(directory.path(), &["tls.handshake_timeout=60s"]);
    let id = rustix::process::Pid::from_child(&server.child);
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.child.id())).unwrap().count() as u64;
    let limit = rustix::process::Rlimit { current: Some(open + 10), maximum: Some(open + 10) };
    rustix::process::prlimit(Some(id), rustix::process::Resource::Nofile, limit).unwrap();
    let waiting: Vec<_> = (0..40).map(|_| TcpStream::connect(&server.address).unwrap()).collect();

    let before = server.ticks();
    std::thread::sleep(Duration::from_secs(1));
    let spent = server.ticks() - before;
    // A busy loop would spend the whole second: 100 ticks.
    assert!(spent < 25, "{spent} ticks of CPU time in an idle second");
    drop(waiting);
    assert_eq!(stdout(&run(directory.path(), &["health", "--address", &server.address])), "SERVING\n");
}
