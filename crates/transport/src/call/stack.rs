//! A stack of layers whose type is erased, because the type grows with each layer.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use tower::{Service, ServiceExt as _};

use super::{Request, Response};

/// The outermost service. Clones share it.
#[derive(Clone)]
pub(crate) struct Stack(Arc<dyn Serve>);

/// The layers of a call are one future, in one allocation.
type BoxResponse = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

trait Serve: Send + Sync {
    fn serve(&self, request: Request) -> BoxResponse;
}

// === impl Stack ===

impl Stack {
    pub(crate) fn new<S>(service: S) -> Self
    where
        S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static,
    {
        Stack(Arc::new(service))
    }

    /// Answers a call.
    pub(crate) async fn call(&self, request: Request) -> Response {
        let Ok(response) = self.0.serve(request).await;
        response
    }
}

impl<S> Serve for S
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static,
{
    fn serve(&self, request: Request) -> BoxResponse {
        Box::pin(self.clone().oneshot(request))
    }
}
