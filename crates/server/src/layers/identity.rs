//! Who is calling: puts the [`Principal`](jackfield_domain::principal::Principal) of the connection's certificate into
//! the extensions of the request.

use std::sync::Arc;

use jackfield_domain::Error;

use super::context::CallContext;
use super::{Answer, BoxFuture, Call, Layer, Stack};
use crate::grpc::status::status;
use crate::identity::{Tenants, Unknown};
use crate::methods::Kind;
use crate::transport::ConnectInfo;

/// Health is for everybody whom the handshake let in; everything else, reflection too, is for known callers.
pub(super) struct IdentityLayer {
    pub(super) tenants: Arc<dyn Tenants>,
}

// === impl IdentityLayer ===

impl Layer for IdentityLayer {
    fn handle(&self, mut call: Call, inner: &Stack) -> BoxFuture<Answer> {
        let context = CallContext::of(&call);
        if context.method.as_ref().is_some_and(|method| method.kind == Kind::Health) {
            return inner.handle(call);
        }
        let caller = match call.extensions().get::<ConnectInfo>() {
            Some(info) => info.caller(),
            None => Err(Error::from(&Unknown::NoCertificate)),
        };
        let (tenants, inner) = (self.tenants.clone(), inner.clone());
        Box::pin(async move {
            let caller = match caller {
                Ok(caller) => caller,
                Err(error) => return status(error).into_http(),
            };
            context.set_principal(&caller.name);
            match tenants.resolve(&caller.tenant).await {
                Ok(tenant) => {
                    call.extensions_mut().insert(caller.in_tenant(tenant));
                    inner.handle(call).await
                }
                Err(error) => status(error).into_http(),
            }
        })
    }
}
