//! The common parts of handlers: the services behind them, and the beginning and the end of a call.

use jackfield_api::v1::admin_service_server::AdminServiceServer;
use jackfield_api::v1::application_service_server::ApplicationServiceServer;
use jackfield_api::v1::configuration_service_server::ConfigurationServiceServer;
use jackfield_api::v1::connection_service_server::ConnectionServiceServer;
use jackfield_api::v1::connector_service_server::ConnectorServiceServer;
use jackfield_api::v1::credentials_service_server::CredentialsServiceServer;
use jackfield_api::v1::key_service_server::KeyServiceServer;
use jackfield_api::v1::user_connector_service_server::UserConnectorServiceServer;
use jackfield_api::v1::user_service_server::UserServiceServer;
use jackfield_domain::principal::{Principal, RightType};
use jackfield_domain::{Error, Result};
use jackfield_service::{Caller, Services};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status};

use super::page_stream::policy::StreamPolicy;
use jackfield_transport::call::context::CallContext;
use jackfield_transport::call::status::status;

/// All services of `jackfield.v1`.
#[derive(Clone)]
pub struct Api {
    pub(super) services: Services,
    pub(super) streams: StreamPolicy,
    /// Watches end when this is cancelled.
    pub(super) drain: CancellationToken,
}

/// The largest message that a list sends: a page of the most bytes, and room for what its encoding adds.
const MAX_ENCODE_BYTES: usize = 4 * 1024 * 1024;

// === impl Api ===

impl Api {
    /// The services over their use cases.
    pub fn new(services: Services, streams: StreamPolicy, drain: CancellationToken) -> Self {
        Api { services, streams, drain }
    }

    /// Adds the services to a router; requests over `max_decode_bytes` are refused before they are read whole.
    pub fn add_routes(self, routes: &mut RoutesBuilder, max_decode_bytes: usize) {
        macro_rules! add {
            ($($server:ident),*) => {$(
                routes.add_service(
                    $server::new(self.clone())
                        .accept_compressed(CompressionEncoding::Gzip)
                        .max_decoding_message_size(max_decode_bytes)
                        .max_encoding_message_size(MAX_ENCODE_BYTES),
                );
            )*};
        }
        add!(
            AdminServiceServer,
            ApplicationServiceServer,
            ConfigurationServiceServer,
            ConnectionServiceServer,
            ConnectorServiceServer,
            CredentialsServiceServer,
            KeyServiceServer,
            UserConnectorServiceServer,
            UserServiceServer
        );
    }
}

/// Checks the right that the use case needs, and returns the caller and the message. The right is checked first, so that a
/// caller without it learns nothing, not even that a request was wrong.
pub(super) fn authorize<R: RightType, T>(request: Request<T>) -> Result<(Caller<R>, T)> {
    let (caller, _, message) = authorize_with_metadata(request)?;
    Ok((caller, message))
}

/// Authorizes a call as [`authorize`] does, and returns its metadata, too.
pub(super) fn authorize_with_metadata<R: RightType, T>(request: Request<T>) -> Result<(Caller<R>, MetadataMap, T)> {
    let (metadata, mut extensions, message) = request.into_parts();
    let principal = extensions.remove::<Principal>();
    let principal = principal.ok_or_else(|| Error::internal("a call without a principal passed the identity layer"))?;
    let call = CallContext::current();
    call.iter().for_each(|call| call.set_begun());
    let request_id = call.map(|call| call.request_id).unwrap_or_default();
    Ok((Caller::authorize(principal, request_id)?, metadata, message))
}

/// The time until which the caller waits, also for another system.
pub(super) fn deadline() -> Option<Instant> {
    CallContext::current()?.flow.deadline()
}

/// Ends a call.
pub(super) fn respond<T>(result: Result<T>) -> std::result::Result<Response<T>, Status> {
    result.map(Response::new).map_err(status)
}
