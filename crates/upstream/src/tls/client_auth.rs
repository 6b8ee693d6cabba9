//! The certificate of the client in a handshake: whether the server asked for it, and what is presented.

use std::cell::Cell;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;

use super::fault::ClientCertificateFault;
use super::identity::Identity;

tokio::task_local! {
    /// The course of the handshake that is under way. rustls asks for the certificate while the handshake is polled.
    static COURSE: Cell<ClientAuth>;
}

/// The part of the client's certificate in a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// The server did not ask for a certificate.
    NotRequested,
    /// A session was resumed, in which the server knows the certificate from before.
    Resumed,
    /// It asked, and there is none.
    Missing,
    /// A certificate was presented, with a flaw if this side can see one.
    Presented(Option<ClientCertificateFault>),
}

/// Presents the certificate of an identity, or none, to servers that ask.
#[derive(Debug)]
pub(super) struct Presenter(pub(super) Option<Identity>);

// === impl ClientAuth ===

impl ClientAuth {
    /// Runs a handshake, and notes what the server asked for.
    pub(crate) async fn of<T>(handshake: impl Future<Output = T>) -> (T, Self) {
        let noted = async {
            let outcome = handshake.await;
            (outcome, COURSE.get().get())
        };
        COURSE.scope(Cell::new(ClientAuth::NotRequested), noted).await
    }

    /// Returns true if the server asked for a certificate.
    pub(crate) fn is_asked(self) -> bool {
        matches!(self, ClientAuth::Missing | ClientAuth::Presented(_))
    }
}

// === impl Presenter ===

impl ResolvesClientCert for Presenter {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let course = match &self.0 {
            Some(identity) => ClientAuth::Presented(identity.flaw()),
            None => ClientAuth::Missing,
        };
        // A handshake outside of a call has no place to note it in.
        let _ = COURSE.try_with(|noted| noted.set(course));
        self.0.as_ref().map(|identity| identity.certified_key().clone())
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}
