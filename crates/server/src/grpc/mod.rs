//! The gRPC services: thin handlers that parse a request, call a use case and render its answer. No business rule is decided
//! here.

mod admin;
mod api;
mod application;
mod configuration;
mod connection;
mod connector;
mod credentials;
mod document;
mod fields;
mod key;
pub mod page_memory;
pub mod page_stream;
mod parse;
pub mod reason;
mod render;
mod source;
mod update;
mod user;
mod user_connector;

pub use api::Api;
/// The wire form of a connection, for the benchmark, whose baseline sends the same.
pub use connection::to_message as connection_message;

#[cfg(test)]
mod tests {
    /// A handler parses, makes one call, and renders.
    const MAX_LINES: usize = 20;

    #[test]
    fn handlers_are_short() {
        let mut handlers = 0;
        for file in [
            include_str!("admin.rs"),
            include_str!("application.rs"),
            include_str!("configuration.rs"),
            include_str!("connection.rs"),
            include_str!("connector.rs"),
            include_str!("credentials.rs"),
            include_str!("key.rs"),
            include_str!("user.rs"),
            include_str!("user_connector.rs"),
        ] {
            let mut lines = file.lines();
            while let Some(start) = lines.find(|line| line.starts_with("    async fn ")) {
                let signature_ends = start.ends_with('{') || lines.any(|line| line.ends_with('{'));
                let body = lines.by_ref().take_while(|line| *line != "    }").count();
                assert!(signature_ends && body <= MAX_LINES, "{start}: {body} lines");
                handlers += 1;
            }
        }
        assert!(handlers > 30, "{handlers}");
    }
}
