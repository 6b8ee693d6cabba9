//! Who is calling: puts the [`Principal`](jackfield_domain::principal::Principal) of the connection's certificate into
//! the extensions of the request.

use std::sync::Arc;

use jackfield_domain::Error;

use super::{Handler, Layer};
use crate::transport::call::context::CallContext;
use crate::transport::call::identity::{Tenants, Unknown};
use crate::transport::call::methods::Kind;
use crate::transport::call::peer::ConnectInfo;
use crate::transport::call::response::refused;
use crate::transport::call::status::status;
use crate::transport::call::{Request, Response};

/// Health is for everybody whom the handshake let in; everything else, reflection too, is for known callers.
pub(super) struct IdentityLayer {
    pub(super) tenants: Arc<dyn Tenants>,
}

// === impl IdentityLayer ===

impl Layer for IdentityLayer {
    async fn handle<H: Handler>(&self, mut call: Request, inner: &H) -> Response {
        let context = CallContext::of(&call);
        if context.method.as_ref().is_some_and(|method| method.kind == Kind::Health) {
            return inner.handle(call).await;
        }
        let caller = match call.extensions().get::<ConnectInfo>() {
            Some(info) => info.caller(),
            None => Err(Error::from(&Unknown::NoCertificate)),
        };
        let caller = match caller {
            Ok(caller) => caller,
            Err(error) => return refused(status(error)),
        };
        context.set_principal(&caller);
        match self.tenants.resolve(&caller.tenant).await {
            Ok(tenant) => {
                call.extensions_mut().insert(caller.in_tenant(tenant));
                inner.handle(call).await
            }
            Err(error) => refused(status(error)),
        }
    }
}
