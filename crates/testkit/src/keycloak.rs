//! A Keycloak, which others wrote. It takes a minute or more to start, so the tests of a process share one, and the test command runs them on
//! demand alone: they have the path segment `keycloak` in their names.
//!
//! It is a Java program that speaks plain HTTP on the loopback interface, with a realm of `tests/providers/keycloak`. It ends with the test
//! process, however that ends.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tempfile::TempDir;

use crate::pki::{Identity, Leaf, Pki};

/// A running Keycloak.
pub struct Keycloak {
    origin: String,
    /// The key of its client `signer`, which signs assertions.
    pub signer: Leaf,
    /// It ends when the standard input of this process closes.
    _process: Child,
}

/// The variable that names the directory in which it is installed.
const VARIABLE: &str = "KEYCLOAK";
/// The realm, without the certificate of a client.
const REALM: &str = include_str!("../../../tests/providers/keycloak/realm.json");
const REALM_NAME: &str = "jackfield";
/// The parts of its directory that it reads. The rest is made for each process.
const PARTS: [&str; 4] = ["lib", "providers", "themes", "conf"];
/// Runs Java until the standard input closes, and then removes the directory.
const SCRIPT: &str = r#"directory=$1; shift
exec 3<&0
java "$@" 3<&- >"$directory/log" 2>&1 & program=$!
{
  read -r _ <&3; kill "$program"
  while kill -0 "$program"; do sleep 0.2; done
  rm -rf "$directory"
} 2>/dev/null &
wait "$program"
"#;
/// The arguments of Java, as those of its own script, with less memory.
const JAVA: [&str; 14] = [
    "-Xmx400m",
    "-XX:MaxMetaspaceSize=256m",
    "-XX:+UseSerialGC",
    "-Dfile.encoding=UTF-8",
    "-Djava.security.egd=file:/dev/urandom",
    "-Djava.util.concurrent.ForkJoinPool.common.threadFactory=io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory",
    "-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
    "-Dpicocli.disable.closures=true",
    "--add-opens=java.base/java.util=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
    "--add-opens=java.base/java.security=ALL-UNNAMED",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "-cp",
    "lib/quarkus-run.jar",
];
const START: [&str; 8] = [
    "io.quarkus.bootstrap.runner.QuarkusEntryPoint",
    "start",
    "--optimized",
    "--import-realm",
    "--cache=local",
    "--http-enabled=true",
    "--http-host=127.0.0.1",
    "--hostname-strict=false",
];
/// The time limit of the start.
const PATIENCE: Duration = Duration::from_secs(600);
/// The pause between two looks at whether it has started.
const PAUSE: Duration = Duration::from_millis(500);

// === impl Keycloak ===

impl Keycloak {
    /// The Keycloak of this process. The first call starts it.
    ///
    /// # Panics
    /// Panics if it is not installed, or does not start.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceLock<Keycloak> = OnceLock::new();
        let started = tokio::task::spawn_blocking(|| SHARED.get_or_init(Keycloak::start));
        started.await.expect("a Keycloak")
    }

    /// Its issuer.
    pub fn issuer(&self) -> String {
        format!("{}/realms/{REALM_NAME}", self.origin)
    }

    #[expect(clippy::disallowed_methods, reason = "a variable of the tests, not of the server")]
    fn start() -> Self {
        let installed = std::env::var(VARIABLE).expect("KEYCLOAK: tests/run --keycloak installs one and sets it");
        // The process removes it.
        let directory = TempDir::with_prefix("jackfield-keycloak-").expect("a directory");
        let home = directory.path();
        for part in PARTS {
            symlink(Path::new(&installed).join(part), home.join(part)).expect("a link");
        }
        let signer = Pki::create(&home.join("pki")).client(Identity::of("signer"));
        let imported = home.join("data/import");
        std::fs::create_dir_all(&imported).expect("a directory");
        std::fs::write(imported.join("realm.json"), realm(&signer)).expect("a realm");

        let port = free_port();
        let mut command = Command::new("sh");
        command.current_dir(home).args(["-c", SCRIPT, "sh"]).arg(home).args(JAVA);
        command.arg(format!("-Dkc.home.dir={}", home.display()));
        command.arg(format!("-Djboss.server.config.dir={}", home.join("conf").display()));
        command.args(START).arg(format!("--http-port={port}"));
        let mut process = command.stdin(Stdio::piped()).spawn().expect("a shell");
        let until = Instant::now() + PATIENCE;
        while !is_ready(port) {
            let has_ended = process.try_wait().expect("a process").is_some();
            if has_ended || Instant::now() > until {
                let log = std::fs::read_to_string(home.join("log")).unwrap_or_default();
                panic!("Keycloak does not start:\n{log}");
            }
            std::thread::sleep(PAUSE);
        }
        let _ = directory.keep();
        Keycloak { origin: format!("http://localhost:{port}"), signer, _process: process }
    }
}

/// The realm, whose client signs with this key.
fn realm(signer: &Leaf) -> String {
    let certificate = CertificateDer::from_pem_slice(signer.certificate_pem.as_bytes()).expect("a certificate");
    REALM.replace("\"CERTIFICATE\"", &format!("\"{}\"", STANDARD.encode(&certificate)))
}

fn free_port() -> u16 {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    socket.local_addr().expect("an address").port()
}

/// Returns whether the realm is served at a port.
fn is_ready(port: u16) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        let request =
            format!("GET /realms/{REALM_NAME} HTTP/1.1\r\nhost: localhost:{port}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = [0; 15];
        stream.read_exact(&mut answer)?;
        Ok::<_, std::io::Error>(answer.starts_with(b"HTTP/1.1 200"))
    };
    ask().unwrap_or_default()
}
