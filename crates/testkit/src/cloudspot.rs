//! The published Python client of the licence API, as other programs use it.

use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// The releases of the client that the test command installs: the first, and the newest.
pub const RELEASES: [&str; 2] = ["1.0.0", "1.4.3"];

/// The variable that names the directory in which each release has its own directory.
const VARIABLE: &str = "CLOUDSPOT_CLIENTS";
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/clients/cloudspot/calls.py");

/// Makes calls with a release of the client, for an application, to a server at a base URL. Calls and outcomes are JSON, as
/// `calls.py` describes them.
///
/// # Panics
/// Panics if the client is not installed, or the program fails.
#[expect(clippy::disallowed_methods, reason = "a variable of the tests, not of the server")]
pub async fn calls(release: &str, base: &str, application: &str, calls: &str) -> String {
    let clients = std::env::var(VARIABLE).expect("CLOUDSPOT_CLIENTS: tests/run installs the clients and sets it");
    let mut command = Command::new("python3");
    command.args(["-B", PROGRAM, base, application]).env("PYTHONPATH", Path::new(&clients).join(release));
    // The client obeys proxies of the environment.
    command.env("NO_PROXY", "*").env("no_proxy", "*");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
    child.stdin.take().expect("a pipe").write_all(calls.as_bytes()).await.expect("its input");
    let output = child.wait_with_output().await.expect("its end");
    assert!(output.status.success(), "calls.py: {}", output.status);
    String::from_utf8(output.stdout).expect("JSON")
}
