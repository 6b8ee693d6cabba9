//! No other crate of the server connects to the outside, or resolves names.

use std::fs;
use std::path::Path;

const CRATES: [&str; 7] = ["domain", "vault", "store", "service", "transport", "server", "upstream"];
const DOORS: [&str; 7] =
    ["TcpStream::connect", "TcpSocket::", "UdpSocket::", "lookup_host", "to_socket_addrs", "client::conn", "hickory"];

/// The files below a directory that open a door.
fn doors(directory: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            doors(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            if DOORS.iter().any(|door| text.contains(door)) {
                found.push(path.file_name().unwrap().to_str().unwrap().to_owned());
            }
        }
    }
}

#[test]
fn only_this_crate_connects() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for name in CRATES {
        let mut found = Vec::new();
        doors(&crates.join(name).join("src"), &mut found);
        found.sort();
        let expected: &[&str] =
            if name == "upstream" { &["connection.rs", "dial.rs", "http2.rs", "resolve.rs"] } else { &[] };
        assert_eq!(found, expected, "{name}");
    }
}
