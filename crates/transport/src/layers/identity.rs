//! The caller: puts the [`Principal`](jackfield_domain::principal::Principal) of the connection's certificate into the
//! extensions of the request.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use jackfield_domain::{Error, Result, TenantId};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::intercept::Inner;
use crate::call::context::CallContext;
use crate::call::identity::{ConfiguredPrincipal, Tenants, Unknown};
use crate::call::methods::Kind;
use crate::call::peer::ConnectInfo;
use crate::call::response::refused;
use crate::call::status::status;
use crate::call::{Request, Response};

#[derive(Clone)]
pub(super) struct IdentityLayer {
    pub(super) tenants: Arc<dyn Tenants>,
}

/// Health is for every client that the handshake accepted. Everything else, including reflection, is for known callers.
#[derive(Clone)]
pub(super) struct Identified<S> {
    tenants: Arc<dyn Tenants>,
    inner: S,
}

pin_project! {
    /// The response to a known caller.
    #[project = Projected]
    pub(super) enum Identifying<S, F> {
        Refused { #[pin] response: Ready<Result<Response, Infallible>> },
        /// Its tenant is looked up. The rest is taken once the tenant is known.
        Tenant { tenant: BoxFuture<'static, Result<TenantId>>, rest: Option<(S, Request, Arc<ConfiguredPrincipal>)> },
        Inner { #[pin] response: F },
    }
}

// === impl IdentityLayer ===

impl<S> Layer<S> for IdentityLayer {
    type Service = Identified<S>;

    fn layer(&self, inner: S) -> Identified<S> {
        Identified { tenants: Arc::clone(&self.tenants), inner }
    }
}

// === impl Identified ===

impl<S: Inner + Clone> Service<Request> for Identified<S> {
    type Response = Response;
    type Error = Infallible;
    type Future = Identifying<S, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let context = CallContext::of(&request);
        if context.method.as_ref().is_some_and(|method| method.kind == Kind::Health) {
            return Identifying::Inner { response: self.inner.call(request) };
        }
        let caller = match request.extensions().get::<ConnectInfo>() {
            Some(info) => info.caller(),
            None => Err(Error::from(&Unknown::NoCertificate)),
        };
        let caller = match caller {
            Ok(caller) => caller,
            Err(error) => return Identifying::Refused { response: ready(Ok(refused(status(error)))) },
        };
        context.set_principal(&caller);
        let tenant = self.tenants.resolve(Arc::clone(&caller));
        // It is this service that has been polled to readiness, and not its clone.
        let clone = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, clone);
        Identifying::Tenant { tenant, rest: Some((inner, request, caller)) }
    }
}

// === impl Identifying ===

impl<S: Inner> Future for Identifying<S, S::Future> {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let response = match self.as_mut().project() {
                Projected::Refused { response } => return response.poll(cx),
                Projected::Inner { response } => return response.poll(cx),
                Projected::Tenant { tenant, rest } => {
                    let tenant = ready!(tenant.as_mut().poll(cx));
                    match (tenant, rest.take()) {
                        (Ok(tenant), Some((mut inner, mut request, caller))) => {
                            request.extensions_mut().insert(caller.in_tenant(tenant));
                            inner.call(request)
                        }
                        (Err(error), _) => return Poll::Ready(Ok(refused(status(error)))),
                        (Ok(_), None) => return Poll::Pending,
                    }
                }
            };
            self.set(Identifying::Inner { response });
        }
    }
}
