//! TLS of the gRPC listener: client certificates are required, and everything is read from files that may change while
//! the server runs.
//!
//! No session tickets, no session cache, no early data: a resumed session would not check the client certificate again, so
//! an expired or revoked one would be accepted.

mod clients;
mod crl;
mod crypto;
mod error;
mod file;
mod key_pair;
mod key_usage;
mod pair_reload;
mod reload;

pub use self::crypto::provider;
pub use self::error::TlsError;
pub use self::file::{certificates_pem, read_file};
pub use self::pair_reload::{PairReloader, PairState};
pub(crate) use self::reload::watch;
pub use self::reload::{Reload, TlsReloader, TlsState};
