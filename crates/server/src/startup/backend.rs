//! The use cases behind the transport.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use jackfield_domain::{Result, TenantId};
use jackfield_service::Services;
use tonic::service::RoutesBuilder;

use super::keyring::{Stamp, watch_keyring};
use super::metrics::{self, KeyringReloads};
use crate::callback::CallbackApi;
use crate::config::{Callback, Config};
use crate::grpc::Api;
use crate::grpc::page_memory::PageMemory;
use crate::grpc::page_stream::policy::StreamPolicy;
use crate::grpc::reason::reason_names;
use crate::license_api::LicenseApi;
use jackfield_transport::backend::{Backend, CLOSE_TIMEOUT, RouteContext};
use jackfield_transport::call::fair_semaphore::FairSemaphore;
use jackfield_transport::call::http::HttpApi;
use jackfield_transport::call::identity::{ConfiguredPrincipal, Tenants};
use jackfield_transport::health::Readiness;
use jackfield_transport::telemetry::Meters;

/// The use cases as the transport needs them.
pub(super) struct ServiceBackend {
    pub(super) services: Services,
    /// The file that is watched for changes, and its state when it was read.
    pub(super) keyring_file: Option<(PathBuf, Stamp)>,
    pub(super) config: Config,
}

// === impl ServiceBackend ===

impl Backend for ServiceBackend {
    fn add_routes(&self, context: &RouteContext, routes: &mut RoutesBuilder) {
        let streams = &self.config.streams;
        let permits = FairSemaphore::new(streams.max_open, streams.max_open_per_identity, streams.max_open_per_tenant);
        let policy = StreamPolicy {
            permits: Arc::new(permits),
            memory: PageMemory::new(&self.config, metrics::lists_waiting(&context.meter)),
            tasks: context.tasks.clone(),
        };
        let max_request_message = self.config.limits.max_request_message.bytes();
        let api = Api::new(self.services.clone(), policy, context.drain.clone());
        api.add_routes(routes, max_request_message);
    }

    fn start(&self, context: &RouteContext) {
        let reloads = KeyringReloads::new(&context.meter);
        if let Some((path, seen)) = self.keyring_file.clone() {
            let (services, stop) = (self.services.clone(), context.drain.clone());
            context.tasks.spawn(watch_keyring(services, reloads, path, seen, self.config.vault.reload_interval, stop));
        }
    }

    fn add_instruments(&self, meters: &Meters) {
        let meter = meters.meter();
        metrics::register(&meter, &self.services.gauges());
        self.services.call_metrics().register(&meter);
    }

    fn http(&self, listener: &str) -> Option<Arc<dyn HttpApi>> {
        match listener {
            Callback::LISTENER => {
                let user_header = self.config.callback.user_header();
                Some(Arc::new(CallbackApi::new(self.services.clone(), user_header)))
            }
            _ => Some(Arc::new(LicenseApi { error_codes: self.config.license_api.error_codes })),
        }
    }

    fn descriptor_set(&self) -> &'static [u8] {
        jackfield_api::FILE_DESCRIPTOR_SET
    }

    fn error_reasons(&self) -> Vec<&'static str> {
        reason_names()
    }

    fn tenants(&self) -> Arc<dyn Tenants> {
        Arc::new(ServiceTenants(self.services.clone()))
    }

    fn probe(&self) -> BoxFuture<'static, Readiness> {
        let services = self.services.clone();
        async move {
            match services.ready().await {
                Ok(()) => Readiness::Ready,
                Err(error) => {
                    tracing::debug!(error.message = %error, "not ready");
                    Readiness::NotReady
                }
            }
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        self.services.clone().close().boxed()
    }

    fn close_timeout(&self) -> Duration {
        // A refresh that is cut may cost the grant.
        CLOSE_TIMEOUT + self.config.refresh.timeout
    }
}

struct ServiceTenants(Services);

impl Tenants for ServiceTenants {
    fn resolve(&self, principal: Arc<ConfiguredPrincipal>) -> BoxFuture<'static, Result<TenantId>> {
        let services = self.0.clone();
        async move { services.tenant_id_by_name(&principal.tenant).await }.boxed()
    }
}
