//! A call: who makes it, which method it is of, and how it ends. It is the floor of layers, listeners and handlers,
//! and uses none of them.

pub mod attributes;
pub mod code;
pub mod context;
pub mod fair_semaphore;
pub mod flow;
pub mod identity;
pub mod methods;
pub mod peer;
pub(crate) mod response;
pub(crate) mod stack;
pub mod status;

pub(crate) use self::response::{Response, ResponseBody};

pub(crate) type Request = http::Request<tonic::body::Body>;
