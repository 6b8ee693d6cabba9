//! A call: its caller, its method, and its end. Layers, listeners and handlers build on this module, and it uses none of
//! them.

pub mod attributes;
pub mod code;
pub mod context;
pub mod fair_semaphore;
pub mod flow;
pub mod http;
pub mod identity;
pub mod methods;
pub mod peer;
pub(crate) mod response;
pub(crate) mod stack;
pub mod status;

pub(crate) use self::response::{Response, ResponseBody};

pub(crate) type Request = ::http::Request<tonic::body::Body>;
