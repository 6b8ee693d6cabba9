//! Shared tools of Jackfield's tests: separate servers on both databases, certificates of every kind, clients,
//! fixtures, assertions.
//!
//! A black-box test starts like this:
//!
//! ```ignore
//! on_both! {
//!     async fn a_blank_name_is_refused(server) {
//!         let request = v1::CreateConnectorRequest { connector: Some(a_connector(" ")), ..Default::default() };
//!         let result = server.client("alpha").connectors().create_connector(request).await;
//!         expect_status(result, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["connector.name"]);
//!     }
//! }
//! ```
//!
//! Everything here panics instead of returning errors: a test has nothing better to do with one.

pub mod backend;
pub mod canary;
pub mod chromium;
pub mod client;
pub mod clock;
pub mod cloudspot;
pub mod collect;
pub mod collector;
pub mod connect_proxy;
pub mod data;
pub mod fault;
pub mod fill;
pub mod fixture;
pub mod frame;
pub mod fuzz;
pub mod haproxy;
pub mod hostile;
pub mod http2;
pub mod keycloak;
pub mod ledger;
pub mod license;
pub mod list;
pub mod logs;
pub mod npm;
pub mod oauth;
mod opened;
pub mod pgbouncer;
pub mod pki;
pub mod postgres;
pub mod process;
pub mod proof;
pub mod provider;
pub mod proxy;
pub mod raw;
pub mod server;
pub mod source;
pub mod status;
pub mod system;

pub use backend::Backend;
pub use canary::Canary;
pub use chromium::{Chromium, Shown};
pub use client::{Callers, Client};
pub use clock::ManualClock;
pub use collector::Collector;
pub use connect_proxy::ConnectProxy;
pub use haproxy::HaProxy;
pub use hostile::{HostilePeer, Then};
/// The authorities that a server takes for public ones, for tests that make one up.
pub use jackfield_server::PublicRoots;
/// The configuration of a server, for changes to it.
pub use jackfield_server::config::Config;
pub use jackfield_server::grpc::connection_message;
pub use jackfield_server::grpc::reason::reason_name;
/// Bugs that all servers of a process can be given.
pub use jackfield_server::planted;
/// The store, for tests that look beneath the services.
pub use jackfield_store as store;
pub use keycloak::Keycloak;
pub use ledger::{Figures, Ledger, Verdict};
pub use license::LicenseServer;
pub use list::{Ask, List};
pub use npm::{NpmPackage, NpmProvider};
pub use oauth::{Brought, OAuthProvider};
pub use pgbouncer::PgBouncer;
pub use pki::{Flaw, Identity, Pki};
pub use process::{Process, Program, Site};
pub use proof::Rng;
pub use provider::{Provider, ProviderFault, ProviderOptions};
pub use proxy::Proxy;
pub use server::TestServer;
pub use source::GrpcSource;
pub use status::{Refusal, expect_status, reason_of};
pub use system::{Received, Reply, System};
