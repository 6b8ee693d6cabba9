//! nginx demands client certificates. It completes the handshake with every certificate in both versions of TLS, and then refuses
//! the request with a page.

use std::path::Path;

use jackfield_upstream::tls::ClientCertificateFault;

use crate::terminator::{Certificates, Refusals, Terminator};

fn configuration(directory: &Path, [tls12, tls13]: [u16; 2]) -> String {
    let directory = directory.display();
    let server = |port: u16, version: &str| {
        format!(
            "server {{ listen 127.0.0.1:{port} ssl; ssl_protocols {version}; location / {{ return 200 welcome; }} }}"
        )
    };
    let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {directory}/{name};"))
        .join(" ");
    format!(
        "pid {directory}/pid; daemon off; master_process off; error_log stderr warn; events {{}}
         http {{
           access_log off; {places}
           ssl_certificate server.pem; ssl_certificate_key server.pem;
           ssl_verify_client on; ssl_client_certificate ca.pem; ssl_crl crl.pem;
           {} {}
         }}",
        server(tls12, "TLSv1.2"),
        server(tls13, "TLSv1.3")
    )
}

#[tokio::test]
async fn client_certificates_with_flaws_are_refused_with_their_reason() {
    let certificates = Certificates::issue();
    // The path of the configuration is relative to the prefix.
    let command = ["sh", "-c", r#"exec nginx -e stderr -p "$PWD" -c configuration"#];
    let nginx = Terminator::start(&command, &certificates, configuration);
    // The page has one text for all flaws. Those that the certificate itself shows are named nevertheless.
    let refusals = Refusals {
        foreign: ClientCertificateFault::Other,
        revoked: ClientCertificateFault::Other,
        sent: [Some(true), Some(true)],
    };
    nginx.assert_refuses(&certificates, &refusals).await;
}
