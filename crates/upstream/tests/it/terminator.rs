//! Programs that end TLS in front of systems, and demand client certificates: how they refuse those with flaws.

use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jackfield_upstream::client::Definition;
use jackfield_upstream::error::Fault;
use jackfield_upstream::tls::{ClientCertificateFault, TlsFault};
use rcgen::ExtendedKeyUsagePurpose;
use tempfile::TempDir;

use crate::mtls::with_identity;
use crate::pki::{Authority, Content, HOUR, Leaf};
use crate::support::{client, definition, development, fail, get};

/// A program with two ports: the first speaks TLS 1.2, the second TLS 1.3. It ends with this value, and with the test process.
pub(crate) struct Terminator {
    ports: [u16; 2],
    keeper: Child,
    _directory: TempDir,
}

/// Client certificates with a flaw, and one without.
pub(crate) struct Certificates {
    authority: Authority,
    right: Leaf,
    expired: Leaf,
    not_yet_valid: Leaf,
    for_servers: Leaf,
    foreign: Leaf,
    revoked: Leaf,
}

/// How a program refuses each flaw.
pub(crate) struct Refusals {
    pub(crate) foreign: ClientCertificateFault,
    pub(crate) revoked: ClientCertificateFault,
    /// The request was sent, in TLS 1.2 and in TLS 1.3. `None`: it depends on who is faster.
    pub(crate) sent: [Option<bool>; 2],
}

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs a program until the pipe on standard input closes. Arguments: the program with its own.
const KEEPER: &str = r#"
PATH=$PATH:/usr/sbin
"$@" </dev/null &
program=$!
cat >/dev/null
exec 2>/dev/null
kill -TERM "$program"
wait "$program"
"#;

// === impl Terminator ===

impl Terminator {
    /// Starts a program with a configuration for a directory and two ports. The directory has `server.pem` (certificate and
    /// private key), `ca.pem` and `crl.pem`.
    pub(crate) fn start(command: &[&str], certificates: &Certificates, text: fn(&Path, [u16; 2]) -> String) -> Self {
        // Another process may take a port in the meantime.
        (0..5).find_map(|_| Self::try_start(command, certificates, text)).expect("it did not come up in five attempts")
    }

    fn try_start(command: &[&str], certificates: &Certificates, text: fn(&Path, [u16; 2]) -> String) -> Option<Self> {
        let directory = TempDir::with_prefix("jackfield-terminator-").unwrap();
        let Certificates { authority, revoked, .. } = certificates;
        let server = authority.issue(&Content::server("localhost"));
        let listeners = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = listeners.map(|listener| listener.local_addr().unwrap().port());
        for (name, content) in [
            ("server.pem", server.certificate + &server.key),
            ("ca.pem", authority.pem()),
            ("crl.pem", authority.revokes(revoked)),
            ("configuration", text(directory.path(), ports)),
        ] {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "keeper"]).args(command).current_dir(directory.path());
        keeper.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        let terminator = Terminator { ports, keeper: keeper.spawn().unwrap(), _directory: directory };
        let begin = Instant::now();
        while begin.elapsed() < START_TIMEOUT {
            if ports.iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok()) {
                return Some(terminator);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// Checks that the right certificate is accepted, and that each flaw has its own fault.
    pub(crate) async fn assert_refuses(&self, certificates: &Certificates, refusals: &Refusals) {
        use ClientCertificateFault as Refused;
        let Certificates { authority, right, expired, not_yet_valid, for_servers, foreign, revoked } = certificates;
        for (port, sent) in self.ports.into_iter().zip(refusals.sent) {
            let url = format!("https://localhost:{port}/");
            let accepted = client(development(), with_identity(&url, authority, right));
            for _ in 0..3 {
                assert_eq!(get(&accepted, &url).await.body, "welcome");
            }
            let none = Definition { trust: authority.trust(), ..definition(&url) };
            for (mut definition, expected) in [
                (none, Refused::Required),
                (with_identity(&url, authority, expired), Refused::Expired),
                (with_identity(&url, authority, not_yet_valid), Refused::NotYetValid),
                (with_identity(&url, authority, for_servers), Refused::WrongUsage),
                (with_identity(&url, authority, foreign), refusals.foreign),
                (with_identity(&url, authority, revoked), refusals.revoked),
            ] {
                definition.limits.failures = 1000;
                let client = client(development(), definition);
                for _ in 0..10 {
                    let error = fail(&client, &url).await;
                    assert_eq!(error.fault, Fault::Tls(TlsFault::ClientCertificate(expected)), "{port}");
                    assert!(sent.is_none_or(|sent| sent == error.sent), "{expected:?}");
                }
            }
        }
    }
}

impl Drop for Terminator {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

// === impl Certificates ===

impl Certificates {
    pub(crate) fn issue() -> Self {
        let (authority, content) = (Authority::new("authority"), Content::client("caller.example"));
        Certificates {
            right: authority.issue(&content),
            expired: authority.issue(&Content { validity: (-2 * HOUR, -HOUR), ..content.clone() }),
            not_yet_valid: authority.issue(&Content { validity: (HOUR, 2 * HOUR), ..content.clone() }),
            for_servers: authority.issue(&Content { usage: ExtendedKeyUsagePurpose::ServerAuth, ..content.clone() }),
            foreign: Authority::new("another authority").issue(&content),
            revoked: authority.issue(&content),
            authority,
        }
    }
}
