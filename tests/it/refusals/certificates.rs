//! Certificates that a start refuses: of the gRPC listener, and of the licence API.

use std::path::Path;
use std::sync::Arc;

use jackfield_domain::{Clock as _, SystemClock, Timestamp};
use jackfield_testkit::pki::Pki;
use jackfield_testkit::{Backend, Process, Program, Site};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Before, refuses, served};

/// Settings that serve the licence API.
const SERVED: [&str; 4] = ["--set", "license_api.address=127.0.0.1:0", "--set", "license_api.tenant=alpha"];

/// Returns the reason for which a command says that a certificate of a minute ago has expired.
fn expired(site: &Site, arguments: &[&str], expiry: Timestamp, reason: impl Fn(Timestamp) -> String) -> String {
    let output = site.run(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    // The clock may have advanced by a second in between.
    let reasons = (0..3).map(|second| reason(expiry.plus_micros(second * 1_000_000)));
    let reason = reasons.into_iter().find(|reason| said == format!("jackfield: {reason}\n"));
    reason.unwrap_or_else(|| panic!("{said}"))
}

fn a_minute_ago() -> Timestamp {
    Timestamp(SystemClock.now().plus_micros(-60_000_000).seconds() * 1_000_000)
}

/// A site on which no server has run, whose certificates are to be made.
fn first_start() -> Site {
    let mut site = Site::new(Backend::Sqlite, Program::Jackfield);
    let tls = &mut site.config_mut().tls;
    for path in [&mut tls.certificate, &mut tls.private_key, &mut tls.client_ca, &mut tls.client_crl] {
        path.clear();
    }
    site
}

/// Arguments that name the pair of the licence API.
fn with_pair<'a>(command: &'a str, settings: &'a [String; 2]) -> Vec<&'a str> {
    let [certificate, private_key] = settings;
    [&[command], &SERVED[..], &["--set", certificate, "--set", private_key]].concat()
}

fn pair(certificate: &Path, private_key: &Path) -> [String; 2] {
    let (certificate, private_key) = (certificate.display(), private_key.display());
    [format!("license_api.certificate={certificate}"), format!("license_api.private_key={private_key}")]
}

/// Makes a TLS connection to the licence API of a process that made its certificates.
async fn handshake(site: &Site, process: &Process) -> std::io::Result<()> {
    let log = process.log();
    let line = log.lines().find(|line| line.contains("\"listener\":\"license_api\"")).expect("it listens");
    let address = line.split("\"address\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("its address");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(site.data_dir().join("pki/ca.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_server_certificate() {
    let site = served(Before::Stopped).await;
    let expiry = a_minute_ago();
    site.pki().expire_server();
    let path = site.pki().path("server.pem").display().to_string();
    let reason = expired(&site, &["serve"], expiry, |time| {
        format!("the certificate of the server in {path} expired at {time}: put a new one there")
    });
    refuses(&site, &["serve"], &reason);
    // Nothing is created in an empty directory either.
    refuses(&site, &["serve", "--data-dir", "elsewhere"], &reason);
    assert!(!site.directory().join("elsewhere").exists());
    site.pki().renew_server();
    site.start().stop();
}

/// As the pair of gRPC is refused, and the reason names the key of the configuration.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_of_the_licence_api_that_cannot_be_used() {
    for (site, was_used) in [(served(Before::Stopped).await, true), (first_start(), false)] {
        let (site, other) = (&site, Pki::create(&site.directory().join("other")));
        let (certificate, private_key) = (other.path("server.pem"), other.path("server-key.pem"));
        let (missing, text) = (site.directory().join("missing.pem"), site.directory().join("text.pem"));
        std::fs::write(&text, "a text").unwrap();
        let not_found = "No such file or directory (os error 2)";
        for (pair, reason) in [
            (
                pair(&missing, &private_key),
                format!("license_api.certificate: cannot read {}: {not_found}", missing.display()),
            ),
            (
                pair(&certificate, &missing),
                format!("license_api.private_key: cannot read {}: {not_found}", missing.display()),
            ),
            (
                pair(&text, &private_key),
                format!("license_api.certificate: {} holds no usable certificate: there is none", text.display()),
            ),
            (
                pair(&certificate, &text),
                format!("license_api.private_key: {} holds no usable private key: there is none", text.display()),
            ),
            (
                pair(&certificate, &site.pki().path("server-key.pem")),
                "license_api.certificate: certificate and private key do not match: keys may not be consistent: KeyMismatch"
                    .to_owned(),
            ),
        ] {
            for command in ["check-config", "serve"] {
                refuses(site, &with_pair(command, &pair), &reason);
            }
        }
        let expiry = a_minute_ago();
        other.expire_server();
        let pair = pair(&certificate, &private_key);
        let reason = expired(site, &with_pair("serve", &pair), expiry, |time| {
            let path = certificate.display();
            format!(
                "license_api.certificate: the certificate of the server in {path} expired at {time}: put a new one there"
            )
        });
        for command in ["check-config", "serve"] {
            refuses(site, &with_pair(command, &pair), &reason);
        }
        other.renew_server();
        assert!(site.run(&with_pair("check-config", &pair)).status.success());
        assert_eq!(site.data_dir().exists(), was_used);
        let process = site.start_by(|command| {
            command.args(&with_pair("serve", &pair)[1..]);
        });
        process.stop();
    }
}

/// The licence API may use the development certificates although gRPC does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn development_certificates_of_the_licence_api() {
    for plaintext in [&[][..], &["--set", "listen.plaintext=true"]] {
        let site = first_start();
        let settings = [&SERVED[..], plaintext].concat();
        let check = || site.run(&[&["check-config"], &settings[..]].concat());
        assert!(check().status.success(), "they are still to be made");
        assert!(!site.data_dir().exists());
        for again in [false, true] {
            let process = site.start_by(|command| {
                command.args(&settings);
            });
            handshake(&site, &process).await.unwrap_or_else(|error| panic!("{settings:?}, again: {again}: {error}"));
            process.stop();
            assert!(check().status.success());
        }
        std::fs::remove_file(site.data_dir().join("pki/server-key.pem")).unwrap();
        let key = site.data_dir().join("pki/server-key.pem");
        let cause = format!("cannot read {}: No such file or directory (os error 2)", key.display());
        // The key of the configuration is that of gRPC: the licence API has no other.
        let reason = if plaintext.is_empty() { cause } else { format!("tls.private_key: {cause}") };
        for command in ["check-config", "serve"] {
            refuses(&site, &[&[command], &settings[..]].concat(), &reason);
        }
    }
    // Production makes none.
    let site = first_start();
    let settings = [&SERVED[..], &["--set", "listen.plaintext=true", "--set", "mode=production"]].concat();
    let certificate = site.data_dir().join("pki/server.pem");
    let reason =
        format!("tls.certificate: cannot read {}: No such file or directory (os error 2)", certificate.display());
    for command in ["check-config", "serve"] {
        refuses(&site, &[&[command], &settings[..]].concat(), &reason);
    }
    // A licence API in plaintext needs none either.
    let site = first_start();
    let settings = [&SERVED[..], &["--set", "listen.plaintext=true", "--set", "license_api.plaintext=true"]].concat();
    let process = site.start_by(|command| {
        command.args(&settings);
    });
    process.stop();
    assert!(!site.data_dir().join("pki").exists());
}
