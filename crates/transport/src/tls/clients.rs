//! The clients that may connect: their authorities, and the revocation lists of these.

use std::path::Path;
use std::sync::Arc;

use jackfield_domain::value::pem::Pem;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};

use super::crl::{complete, newest};
use super::crypto::provider;
use super::error::TlsError;
use super::file::{CERTIFICATE, CRL, content_error, parse, read};
use super::key_pair::not_after;
use super::key_usage::{self, KeyUsageVerifier};

use crate::config::TlsFiles;

/// The files as they were read.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Clients {
    authorities: Vec<u8>,
    lists: Option<Vec<u8>>,
}

// === impl Clients ===

impl Clients {
    pub(super) async fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Clients { authorities: Self::read_authorities(files).await?, lists: Self::read_lists(files).await? })
    }

    pub(super) async fn read_authorities(files: &TlsFiles) -> Result<Vec<u8>, TlsError> {
        read(&files.client_ca).await
    }

    pub(super) async fn read_lists(files: &TlsFiles) -> Result<Option<Vec<u8>>, TlsError> {
        match &files.client_crl {
            Some(path) => read(path).await.map(Some),
            None => Ok(None),
        }
    }

    /// Replaces the parts that are given.
    pub(super) fn with(&self, authorities: Option<&Vec<u8>>, lists: Option<&Option<Vec<u8>>>) -> Self {
        Clients {
            authorities: authorities.unwrap_or(&self.authorities).clone(),
            lists: lists.unwrap_or(&self.lists).clone(),
        }
    }

    pub(super) fn build(
        &self,
        files: &TlsFiles,
        enforce_crl_expiration: bool,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in parse::<CertificateDer<'static>>(&self.authorities, &files.client_ca, CERTIFICATE)? {
            key_usage::check_authority(&certificate)
                .map_err(|message| content_error(&files.client_ca, CERTIFICATE, &message))?;
            roots.add(certificate).map_err(|error| content_error(&files.client_ca, CERTIFICATE, &error))?;
        }
        let roots = Arc::new(roots);
        let mut builder = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider());
        let mut lists = Vec::new();
        if let (Some(bytes), Some(path)) = (&self.lists, &files.client_crl) {
            let crls = parse::<CertificateRevocationListDer<'static>>(bytes, path, CRL)?;
            complete(&crls).map_err(|message| content_error(path, CRL, &message))?;
            let (crls, superseded) = newest(crls);
            if superseded > 0 {
                tracing::info!(
                    crl.superseded = superseded,
                    "older revocation lists of the same authorities are left out"
                );
            }
            lists.clone_from(&crls);
            builder = builder.with_crls(crls);
            if enforce_crl_expiration {
                builder = builder.enforce_revocation_expiration();
            }
        }
        let verifier = KeyUsageVerifier::new(builder.build()?, roots, &lists, enforce_crl_expiration);
        let path = files.client_crl.as_deref().unwrap_or(Path::new(""));
        Ok(Arc::new(verifier.map_err(|error| content_error(path, CRL, &error))?))
    }

    /// The earliest end of validity of an authority.
    pub(super) fn authorities_valid_until(&self) -> Option<i64> {
        not_after(&self.authorities)
    }

    /// The earliest time at which a list should have been replaced.
    pub(super) fn lists_valid_until(&self) -> Option<i64> {
        let pem = Pem::new(self.lists.as_ref()?).ok()?;
        let lists = CertificateRevocationListDer::pem_slice_iter(pem.text().as_bytes()).filter_map(Result::ok);
        let ends = newest(lists.collect()).0.into_iter().filter_map(|list| {
            let (_, list) = x509_parser::parse_x509_crl(&list).ok()?;
            list.next_update().map(|time| time.timestamp())
        });
        ends.min()
    }
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}
