//! The cryptography of TLS.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The one cryptography of the process.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
