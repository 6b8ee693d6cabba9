//! HAProxy demands client certificates. It refuses them with alerts: in TLS 1.2 during the handshake, in TLS 1.3 after it.

use std::path::Path;

use jackfield_upstream::tls::ClientCertificateFault;

use crate::terminator::{Certificates, Refusals, Terminator};

fn configuration(_: &Path, [tls12, tls13]: [u16; 2]) -> String {
    let listener = |port: u16, version: &str| {
        format!(
            "frontend of_{port}\n  bind 127.0.0.1:{port} ssl crt server.pem ca-file ca.pem crl-file crl.pem verify required \
             ssl-min-ver {version} ssl-max-ver {version}\n  \
             http-request return status 200 content-type text/plain string welcome\n"
        )
    };
    format!(
        "defaults\n  mode http\n  timeout connect 2s\n  timeout client 1m\n  timeout server 1m\n{}{}",
        listener(tls12, "TLSv1.2"),
        listener(tls13, "TLSv1.3")
    )
}

#[tokio::test]
async fn client_certificates_with_flaws_are_refused_with_their_reason() {
    let certificates = Certificates::issue();
    let haproxy = Terminator::start(&["haproxy", "-db", "-q", "-f", "configuration"], &certificates, configuration);
    let refusals = Refusals {
        foreign: ClientCertificateFault::UnknownAuthority,
        revoked: ClientCertificateFault::Revoked,
        sent: [Some(false), None],
    };
    haproxy.assert_refuses(&certificates, &refusals).await;
}
