//! The validity of the certificate of a live connection.

use std::sync::Arc;
use std::time::Duration;

use jackfield_domain::Clock;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::tls::TlsReloader;

/// The interval of the check. The wall clock can be set, so the interval bounds how late an expiry is noticed.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Returns the reason once the certificate has expired, was revoked, or its authority is no longer trusted.
pub(super) async fn ends(chain: Vec<CertificateDer<'static>>, tls: Arc<TlsReloader>, clock: Arc<dyn Clock>) -> String {
    let not_after = not_after(&chain);
    let mut generation = tls.generation();
    loop {
        // Once at the start too: the files may have changed during the handshake.
        if let Err(error) = tls.current().verify(&chain) {
            return error.to_string();
        }
        loop {
            let left = not_after.saturating_sub(clock.now().seconds());
            if left < 0 {
                return "certificate expired".into();
            }
            let left = Duration::from_secs(u64::try_from(left).unwrap_or_default() + 1);
            tokio::select! {
                changed = generation.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return "the server stops".into(),
                },
                () = tokio::time::sleep(left.min(CHECK_INTERVAL)) => {}
            }
        }
    }
}

/// Returns the earliest end of validity in a chain, in seconds since 1970. A certificate that cannot be read has ended.
fn not_after(chain: &[CertificateDer<'static>]) -> i64 {
    let end = |certificate: &CertificateDer<'static>| match X509Certificate::from_der(certificate) {
        Ok((_, certificate)) => certificate.validity().not_after.timestamp(),
        Err(_) => 0,
    };
    chain.iter().map(end).min().unwrap_or_default()
}
