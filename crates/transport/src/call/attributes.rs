//! The attributes of calls in telemetry. The names are constants, because the conventions for RPC are not yet stable.

use std::sync::{Arc, OnceLock};

use opentelemetry::KeyValue;
use tonic::Code;

use super::code::{code_name, is_server_fault};

pub const RPC_SYSTEM: &str = "rpc.system.name";
pub const RPC_METHOD: &str = "rpc.method";
/// Recorded in place of a method that this server does not have, so that callers cannot create time series.
pub const RPC_METHOD_OTHER: &str = "_OTHER";
pub const RPC_STATUS: &str = "rpc.response.status_code";
pub const ERROR_TYPE: &str = "error.type";
/// The id that the client or a proxy gave the call.
pub const FOREIGN_REQUEST_ID: &str = "rpc.request.metadata.x-request-id";

/// The attributes of the calls of one method, made once.
#[derive(Debug)]
pub struct CallAttributes {
    open: [KeyValue; 1],
    /// By code.
    ended: [OnceLock<Vec<KeyValue>>; CODES],
}

/// The number of codes that gRPC has.
const CODES: usize = 17;

// === impl CallAttributes ===

impl CallAttributes {
    /// Makes the attributes of the method with this name.
    pub fn new(method: &Arc<str>) -> Self {
        let open = [KeyValue::new(RPC_METHOD, Arc::clone(method))];
        CallAttributes { open, ended: Default::default() }
    }

    /// The attributes of an open call.
    pub fn open(&self) -> &[KeyValue] {
        &self.open
    }

    /// The attributes of a call that ended with this code.
    pub fn ended(&self, code: Code) -> &[KeyValue] {
        let Some(ended) = self.ended.get(code as usize) else { return &self.open };
        ended.get_or_init(|| {
            let [method] = &self.open;
            let system = KeyValue::new(RPC_SYSTEM, "grpc");
            let mut attributes = vec![system, method.clone(), KeyValue::new(RPC_STATUS, code_name(code))];
            if is_server_fault(code) {
                attributes.push(KeyValue::new(ERROR_TYPE, code_name(code)));
            }
            attributes
        })
    }
}
