//! `[limits]`, `[streams]`, `[deadlines]`, `[drain]`: everything that a peer can make grow has a bound.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::values::{Size, duration};

/// Bounds on connections, HTTP/2 and messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Open connections.
    pub max_connections: u32,
    /// Open connections from one address (IPv6: one /64).
    pub max_connections_per_ip: u32,
    /// Open connections of one client: of one principal, or of one address without a principal.
    pub max_connections_per_identity: u32,
    /// Open connections of one tenant; unknown certificates count together as one.
    pub max_connections_per_tenant: u32,
    /// Age at which a connection gets a GOAWAY, plus or minus a tenth, so that clients spread over the servers again.
    #[serde(with = "duration")]
    pub connection_age: Duration,
    /// The time that calls have after that before the connection is closed. Lists continue for half of it, and have the
    /// rest for the page that is under way.
    #[serde(with = "duration")]
    pub connection_age_grace: Duration,
    /// The time that a connection may be without a call.
    #[serde(with = "duration")]
    pub connection_idle_timeout: Duration,
    /// The time for which a peer may leave data unread: first the stream is reset, then the connection closed.
    #[serde(with = "duration")]
    pub write_stall_timeout: Duration,
    /// Streams at once on a connection.
    pub max_concurrent_streams: u32,
    /// Streams that the server had to reset because of the client's errors, before the connection is closed.
    pub max_local_error_reset_streams: u32,
    /// Streams that the client opens and resets before the server handles them, before the connection is closed: this many
    /// at once, and a tenth of it a second. A response that the client reads offsets `max_concurrent_streams` of them.
    pub max_pending_accept_reset_streams: u32,
    /// Frames a second that bring nothing and that a client may keep sending without making calls: PING, SETTINGS,
    /// PRIORITY, empty DATA, acknowledgements of nothing, resets of streams that have ended, needless window updates,
    /// unknown frames.
    pub max_control_frames_per_second: u32,
    /// Size of the headers of a call, all together.
    pub max_header_list_size: Size,
    /// Flow-control window of a stream: what a client may send before the server reads it.
    pub stream_window: Size,
    /// Flow-control window of a connection.
    pub connection_window: Size,
    /// Size of an HTTP/2 frame.
    pub max_frame_size: Size,
    /// The bytes that are kept for a stream whose client does not read.
    pub send_buffer: Size,
    /// The interval at which a silent peer is pinged.
    #[serde(with = "duration")]
    pub keepalive_interval: Duration,
    /// The time that it has to answer.
    #[serde(with = "duration")]
    pub keepalive_timeout: Duration,
    /// Size of a request message.
    pub max_request_message: Size,
    /// Calls at once in the whole server, until their responses are taken; further ones get UNAVAILABLE. Health has a
    /// separate limit.
    pub max_calls: u32,
    /// Calls at once of one client.
    pub max_calls_per_identity: u32,
    /// Calls at once of one tenant; unknown callers count together as one.
    pub max_calls_per_tenant: u32,
}

/// Bounds on streaming lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Streams {
    /// The time for which a reader may take nothing of a stream.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// The time that a stream may last.
    #[serde(with = "duration")]
    pub total_timeout: Duration,
    /// Streams open at once in the whole server; further ones get UNAVAILABLE.
    pub max_open: u32,
    /// Streams open at once of one client; further ones get RESOURCE_EXHAUSTED.
    pub max_open_per_identity: u32,
    /// The same of one tenant.
    pub max_open_per_tenant: u32,
    /// Memory for the pages of all streams that their readers have not taken. With less room left, pages are smaller.
    pub page_memory: Size,
    /// The same of one tenant.
    pub page_memory_per_tenant: Size,
}

/// Deadlines of calls that are not lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deadlines {
    /// Deadline of a call whose client sets none.
    #[serde(with = "duration")]
    pub default: Duration,
    /// The latest deadline that a client can set; a later one is reduced to this.
    #[serde(with = "duration")]
    pub max: Duration,
}

/// The shutdown of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// The time for which it continues to serve while health says NOT_SERVING, so that load balancers notice.
    #[serde(with = "duration")]
    pub delay: Duration,
    /// The time that calls have after that; then everything is cut. Lists continue for half of it, and have the rest for
    /// the page that is under way.
    #[serde(with = "duration")]
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_connections: 2_000,
            max_connections_per_ip: 100,
            max_connections_per_identity: 200,
            max_connections_per_tenant: 1_500,
            connection_age: Duration::from_secs(30 * 60),
            connection_age_grace: Duration::from_secs(60),
            connection_idle_timeout: Duration::from_secs(5 * 60),
            write_stall_timeout: Duration::from_secs(20),
            max_concurrent_streams: 100,
            max_local_error_reset_streams: 1_000,
            max_pending_accept_reset_streams: 1_000,
            max_control_frames_per_second: 10,
            max_header_list_size: Size::kib(16),
            stream_window: Size::kib(64),
            connection_window: Size::mib(1),
            max_frame_size: Size::kib(16),
            send_buffer: Size::kib(64),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            max_request_message: Size::kib(256),
            max_calls: 1_000,
            max_calls_per_identity: 250,
            max_calls_per_tenant: 750,
        }
    }
}

impl Default for Streams {
    fn default() -> Self {
        Streams {
            idle_timeout: Duration::from_secs(60),
            total_timeout: Duration::from_secs(5 * 60),
            max_open: 1_000,
            max_open_per_identity: 200,
            max_open_per_tenant: 750,
            page_memory: Size::mib(48),
            page_memory_per_tenant: Size::mib(12),
        }
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines { default: Duration::from_secs(15), max: Duration::from_secs(60) }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Drain { delay: Duration::from_secs(5), grace: Duration::from_secs(20) }
    }
}
