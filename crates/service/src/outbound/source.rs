//! Clients of credential sources. A source is never changed, so what is read for its id belongs together.

use std::collections::BTreeMap;
use std::sync::Arc;

use jackfield_domain::connector::Timeouts;
use jackfield_domain::credential_source::{
    CredentialSource, MAX_SOURCE_BYTES, SECRET_HEADERS_COLUMN, SourceEndpoint, SourceProtocol,
};
use jackfield_domain::key::Key;
use jackfield_domain::value::url::HttpUrl;
use jackfield_domain::{CredentialSourceId, Error, Result, Secret, SecretAddress, TenantId, Violation};
use jackfield_upstream::client::{Client, Definition, DefinitionError, HeaderMap, Limits, header_of};
use jackfield_upstream::clients::Revision;
use jackfield_upstream::egress::Target;

use super::keys::{identity_of, key_versions, trust_of, versions};
use super::{Outbound, RETRY_AFTER};

/// The secrets that a client of a source is made of.
struct Opened {
    headers: BTreeMap<String, Secret>,
    private_key: Option<Secret>,
}

// === impl Outbound ===

impl Outbound {
    /// Refuses the URL of a source that could never be called.
    pub(crate) fn check_source(&self, protocol: SourceProtocol, url: &HttpUrl) -> Result<()> {
        let field = format!("{}.url", protocol.field());
        let refused = |refusal| Violation::field(field, format!("cannot be called: {refusal}"));
        self.policy.check_url(url).map(|_| ()).map_err(|refusal| refused(refusal).into())
    }

    /// The client of a source with a URL.
    pub(crate) async fn source_client(
        &self,
        tenant: TenantId,
        source: &CredentialSource,
    ) -> Result<Result<Arc<Client>, DefinitionError>> {
        let SourceEndpoint::Remote { protocol: _, url, client_identity_key, trust_bundle_key, secret_header_names } =
            &source.endpoint
        else {
            return Err(Error::internal("a source without a URL is not called"));
        };
        // The source was replaced since it was read, and its keys and headers are gone.
        let replaced = || Error::ServerUnavailable { retry_after: RETRY_AFTER };
        let identity = self.key(tenant, *client_identity_key).await?.ok_or_else(replaced)?;
        let trust = self.key(tenant, *trust_bundle_key).await?.ok_or_else(replaced)?;
        let keys = [&identity, &trust].into_iter().flatten().flat_map(key_versions);
        let revision = Revision::of(versions(source.id.0, &source.meta).into_iter().chain(keys));
        let id = (tenant, source.id.0);
        if let Some(client) = self.clients.get(id, &revision) {
            return Ok(Ok(client));
        }
        let headers = match secret_header_names.is_empty() {
            true => BTreeMap::new(),
            false => self.secrets.headers(SecretAddress::of(tenant, source.id, SECRET_HEADERS_COLUMN)).await?,
        };
        if headers.len() != secret_header_names.len() {
            return Err(replaced());
        }
        let private_key = self.private_key(tenant, identity.as_ref()).await?;
        let opened = Opened { headers, private_key };
        let definition = || self.source_definition(tenant, source, url, (identity.as_ref(), trust.as_ref()), &opened);
        Ok(self.clients.get_or_insert_source(id, revision, definition))
    }

    /// Forgets the client of a source that was replaced or deleted, and the secrets in it.
    pub(crate) fn forget_source(&self, tenant: TenantId, source: CredentialSourceId) {
        self.clients.remove((tenant, source.0));
    }

    fn source_definition(
        &self,
        tenant: TenantId,
        source: &CredentialSource,
        url: &HttpUrl,
        (identity, trust): (Option<&Key>, Option<&Key>),
        opened: &Opened,
    ) -> Result<Definition, DefinitionError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &opened.headers {
            let (name, value) = header_of(name, value.expose(), true)?;
            headers.append(name, value);
        }
        let (read, total) = (source.timeout, source.timeout);
        Ok(Definition {
            origins: Target::parse(url).ok().into_iter().collect(),
            identity: identity_of(tenant, identity, opened.private_key.as_ref(), self.clients.keys())?,
            headers,
            identity_origins: None,
            trust: trust_of(tenant, trust, self.clients.keys())?,
            timeouts: Timeouts { connect: Timeouts::default().connect.min(total), read, total },
            limits: Limits { body: MAX_SOURCE_BYTES, ..Limits::default() },
            proxy: None,
            propagate_trace_context: false,
        })
    }
}
