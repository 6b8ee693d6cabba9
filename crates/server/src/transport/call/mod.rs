//! A call: who makes it, which method it is of, and how it ends. It is the floor that layers, listeners and handlers stand on,
//! and uses none of them.

pub mod attributes;
pub mod code;
pub mod context;
pub(crate) mod flow;
pub mod identity;
pub mod methods;
pub mod peer;
pub(crate) mod response;
pub(crate) mod shares;
pub(crate) mod stack;
pub mod status;

pub(crate) use self::response::ResponseBody;

pub(crate) type Request = http::Request<tonic::body::Body>;
pub(crate) type Response = http::Response<ResponseBody>;
