//! Files of several certificates or revocation lists: all of what is in them counts.

use std::time::Duration;

use crate::pki::{Pair, Pki};
use crate::process::run;
use crate::support::{CALLER, TestServer, logged, unary};

/// As `cat a.pem b.pem` makes it, where the first file has no last line break.
#[tokio::test]
async fn both_authorities_of_joined_files_let_their_clients_in() {
    let (pki, other) = (Pki::new(), Pki::new());
    let [first, second] = [&pki, &other].map(|pki| String::from_utf8(pki.read("ca.pem")).unwrap());
    pki.write("client-ca.pem", &format!("\u{FEFF}{}\u{FEFF}{second}", first.trim_end()));
    let bundle = pki.path("client-ca.pem");
    let server = TestServer::start_with(pki, |config| config.tls.client_ca = bundle).await;
    for client in [server.pki.client(CALLER, 1), other.client(CALLER, 2)] {
        assert!(is_let_in(&server, &client).await);
    }
    assert!(!is_let_in(&server, &Pki::new().client(CALLER, 3)).await);
}

/// The lists of one authority supersede one another, in whatever order they stand (RFC 5280 5.2.3).
#[tokio::test]
async fn of_two_revocation_lists_of_one_authority_the_newest_counts() {
    for newest_first in [false, true] {
        let pki = Pki::new();
        pki.write_crl(&[]);
        let old = String::from_utf8(pki.read("crl.pem")).unwrap();
        pki.write_crl(&[41]);
        let new = String::from_utf8(pki.read("crl.pem")).unwrap();
        let lists = if newest_first { [new, old] } else { [old, new] };
        pki.write("crl.pem", &lists.concat());
        let crl = pki.path("crl.pem");
        let server = TestServer::start_with(pki, |config| config.tls.client_crl = crl).await;
        assert!(is_let_in(&server, &server.pki.client(CALLER, 42)).await);
        assert!(!is_let_in(&server, &server.pki.client(CALLER, 41)).await, "newest first: {newest_first}");
        assert!(logged(&["older revocation lists of the same authorities are left out", "crl.superseded=1"]));
    }
}

/// A newer list of a part would take the place of the complete one, and let in whom only that one names.
#[test]
fn a_list_of_a_part_of_the_certificates_is_refused() {
    let pki = Pki::new();
    pki.write_crl(&[41]);
    let complete = String::from_utf8(pki.read("crl.pem")).unwrap();
    pki.write_partial_crl(&[1, 2, 3]);
    let partial = String::from_utf8(pki.read("crl.pem")).unwrap();
    // Another authority of the same name.
    let other = Pki::new();
    other.write_crl(&[]);
    let other = String::from_utf8(other.read("crl.pem")).unwrap();
    for (lists, said) in [
        (complete.clone() + &partial, "list 2 covers only a part"),
        (partial + &complete, "list 1 covers only a part"),
        (complete + &other, "list 2 is signed with another key of CN=test CA than an earlier list"),
    ] {
        pki.write("crl.pem", &lists);
        let settings = [
            ("certificate", "server.pem"),
            ("private_key", "server-key.pem"),
            ("client_ca", "ca.pem"),
            ("client_crl", "crl.pem"),
        ];
        let settings = settings.map(|(key, name)| format!("tls.{key}={}", pki.path(name).display()));
        let arguments = ["check-config"].into_iter().chain(settings.iter().flat_map(|setting| ["--set", setting]));
        let refused = run(pki.path("").as_path(), &arguments.collect::<Vec<_>>());
        let text = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && text.contains(said), "{said}\n{text}");
    }
}

#[test]
fn what_would_be_passed_over_is_refused_by_name() {
    let pki = Pki::new();
    let text = |name: &str| String::from_utf8(pki.read(name)).unwrap();
    let (ca, certificate, key) = (text("ca.pem"), text("server.pem"), text("server-key.pem"));
    let cut = ca.replace("-----END CERTIFICATE-----", "");
    let body: String = key.lines().filter(|line| !line.starts_with('-')).collect();
    let on_one_line = key.replace('\n', " ");
    for (name, content, said) in [
        ("ca.pem", format!("{ca}{key}"), "section 2 is PRIVATE KEY, which does not belong here"),
        ("ca.pem", ca.replace('\n', "\\n"), "the two characters \\n where its lines should break"),
        ("ca.pem", format!("{ca}authority: {ca}"), "only 1 of 2 sections can be read"),
        ("ca.pem", cut, "holds no usable certificate"),
        ("server-key.pem", format!("{key}{key}"), "there are several"),
        ("server-key.pem", on_one_line, "only 0 of 1 sections can be read"),
        ("server-key.pem", key.replace("KEY-----\n", "KEY----\n"), "only 0 of 1 sections can be read"),
        ("ca.pem", key.replace("KEY-----\n", "KEY----\n"), "only 0 of 1 sections can be read"),
        ("server.pem", format!("{certificate}{key}"), "section 2 is PRIVATE KEY, which does not belong here"),
    ] {
        pki.write("ca.pem", &ca);
        pki.write("server.pem", &certificate);
        pki.write("server-key.pem", &key);
        pki.write(name, &content);
        let setting = |key: &str, name: &str| format!("tls.{key}={}", pki.path(name).display());
        let [certificate, private_key, client_ca] =
            [("certificate", "server.pem"), ("private_key", "server-key.pem"), ("client_ca", "ca.pem")]
                .map(|(key, name)| setting(key, name));
        let arguments = ["check-config", "--set", &certificate, "--set", &private_key, "--set", &client_ca];
        let refused = run(pki.path("").as_path(), &arguments);
        let text = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && text.contains(said), "{name}: {said}\n{text}");
        // Neither the key nor its bytes in decimal.
        assert!(!text.contains(&body[..16]) && !text.contains("[45, "), "{name}: {text}");
    }
}

async fn is_let_in(server: &TestServer, client: &Pair) -> bool {
    match server.connect(client).await {
        Ok(channel) => unary(&channel, "Whoami", Duration::ZERO).await.is_ok(),
        Err(_) => false,
    }
}
