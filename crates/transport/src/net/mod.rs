//! Connections: accept, handshake, HTTP, and their end. It turns a listening socket into requests with a known caller.
//!
//! The server of tonic is not used: it cannot replace certificates, has no revocation lists, does not bound streams and
//! resets, spins when file descriptors run out, and closes old connections without notice.

mod accept;
mod activity;
mod admission;
mod authority;
mod certificate;
mod connection;
mod frame;
mod frames;
mod http1;
mod http2;
mod io;
mod listener;
mod scrub;
mod send_buffer;
mod stall;
mod state;
mod stream;

pub(crate) use self::accept::{Acceptor, Security};
pub(crate) use self::connection::CLOSE_DELAY;
pub(crate) use self::http1::HttpFront;
pub(crate) use self::listener::{ListenError, Listener};
pub(crate) use self::state::CutShort;
