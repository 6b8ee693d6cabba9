//! Files with several certificates or revocation lists: everything in them counts.

use std::time::Duration;

use crate::pki::{Pair, Pki};
use crate::process::run;
use crate::support::{CALLER, TestServer, logged, unary};

/// The files are joined as by `cat a.pem b.pem`, where the first lacks a final line break.
#[tokio::test]
async fn clients_of_both_authorities_in_a_joined_file_are_accepted() {
    let (pki, other) = (Pki::new(), Pki::new());
    let [first, second] = [&pki, &other].map(|pki| String::from_utf8(pki.read("ca.pem")).unwrap());
    pki.write("client-ca.pem", &format!("\u{FEFF}{}\u{FEFF}{second}", first.trim_end()));
    let bundle = pki.path("client-ca.pem");
    let server = TestServer::start_with(pki, |config| config.tls.client_ca = bundle).await;
    for client in [server.pki.client(CALLER, 1), other.client(CALLER, 2)] {
        assert!(is_accepted(&server, &client).await);
    }
    assert!(!is_accepted(&server, &Pki::new().client(CALLER, 3)).await);
}

/// The lists of one authority supersede one another, in any order (RFC 5280 5.2.3).
#[tokio::test]
async fn the_newest_of_two_revocation_lists_of_one_authority_counts() {
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
        assert!(is_accepted(&server, &server.pki.client(CALLER, 42)).await);
        assert!(!is_accepted(&server, &server.pki.client(CALLER, 41)).await, "newest first: {newest_first}");
        assert!(logged(&["older revocation lists of the same authorities are left out", "crl.superseded=1"]));
    }
}

/// A newer partial list would replace the complete one, and admit clients that only the complete one revokes.
#[test]
fn a_partial_revocation_list_is_refused() {
    let pki = Pki::new();
    pki.write_crl(&[41]);
    let complete = String::from_utf8(pki.read("crl.pem")).unwrap();
    pki.write_partial_crl(&[1, 2, 3]);
    let partial = String::from_utf8(pki.read("crl.pem")).unwrap();
    // Another authority with the same name.
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
fn unreadable_sections_are_refused_by_name() {
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
        // The error shows neither the key nor its bytes in decimal.
        assert!(!text.contains(&body[..16]) && !text.contains("[45, "), "{name}: {text}");
    }
}

async fn is_accepted(server: &TestServer, client: &Pair) -> bool {
    match server.connect(client).await {
        Ok(channel) => unary(&channel, "Whoami", Duration::ZERO).await.is_ok(),
        Err(_) => false,
    }
}
