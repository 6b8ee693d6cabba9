//! OAuth servers that others wrote, of the registry npm: `oidc-provider`, a strict one, and `oauth2-mock-server`, whose answers a test changes.
//!
//! Tests that need them have the path segment `npm` in their names, so the test command can skip them where Node.js or the packages are
//! missing. A server is a process that runs a script of `tests/providers`. It speaks plain HTTP on the loopback interface, and TLS where a
//! client presents a certificate. It obeys commands on its standard input, and ends when that closes, however the test process ends.

mod browser;
mod http;

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

pub use self::http::Http;
pub use browser::{Browser, Decision, Landed};

/// A running server. It ends when this value is dropped.
pub struct NpmProvider {
    origin: String,
    pipes: Mutex<Pipes>,
    directory: TempDir,
    _child: Child,
}

/// The package whose server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NpmPackage {
    OidcProvider,
    MockServer,
}

struct Pipes {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

/// The variable that names the directory in which the packages are installed.
const VARIABLE: &str = "NPM_PROVIDERS";
/// The directory of the scripts.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/providers");
/// The script that the others import.
const COMMANDS: &str = "commands.mjs";
/// The time limit of one answer, and of the start.
const PATIENCE: Duration = Duration::from_secs(60);

// === impl NpmProvider ===

impl NpmProvider {
    /// Starts a server with these settings, which its script describes.
    ///
    /// # Panics
    /// Panics if the packages are not installed, or the server does not start.
    #[expect(clippy::disallowed_methods, reason = "a variable of the tests, not of the server")]
    pub async fn start(package: NpmPackage, settings: &Value) -> Self {
        let packages = std::env::var(VARIABLE).expect("NPM_PROVIDERS: tests/run installs the packages and sets it");
        let directory = TempDir::with_prefix("jackfield-npm-").expect("a directory");
        // A script finds its packages beside itself.
        let modules = Path::new(&packages).join("node_modules");
        std::os::unix::fs::symlink(modules, directory.path().join("node_modules")).expect("a link");
        for script in [package.script(), COMMANDS] {
            std::fs::copy(Path::new(SCRIPTS).join(script), directory.path().join(script)).expect("a script");
        }
        let log = File::create(directory.path().join("log")).expect("a log");
        let mut command = Command::new("node");
        command.arg(directory.path().join(package.script())).arg(settings.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut child = command.spawn().expect("node");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut provider =
            NpmProvider { origin: String::new(), pipes: Mutex::new(Pipes { input, output }), directory, _child: child };
        let said = provider.line(&mut *provider.pipes.lock().await).await;
        provider.origin = format!("http://localhost:{}", said["port"]);
        provider
    }

    /// Has the server obey a command, and returns its answer.
    ///
    /// # Panics
    /// Panics if the server does not answer.
    pub async fn tell(&self, command: &str, mut members: Value) -> Value {
        members["command"] = command.into();
        let mut pipes = self.pipes.lock().await;
        pipes.input.write_all(format!("{members}\n").as_bytes()).await.expect("the server listens");
        self.line(&mut pipes).await["answer"].take()
    }

    /// Its issuer.
    pub fn issuer(&self) -> &str {
        &self.origin
    }

    async fn line(&self, pipes: &mut Pipes) -> Value {
        let line = timeout(PATIENCE, pipes.output.next_line()).await.expect("the server answers").expect("a pipe");
        let line = line.unwrap_or_else(|| {
            let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            panic!("the server has ended:\n{log}")
        });
        serde_json::from_str(&line).expect("JSON")
    }
}

// === impl NpmPackage ===

impl NpmPackage {
    fn script(self) -> &'static str {
        match self {
            NpmPackage::OidcProvider => "oidc.mjs",
            NpmPackage::MockServer => "mock.mjs",
        }
    }
}
