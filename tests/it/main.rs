//! The tests of Jackfield over real gRPC, in one binary. Each module covers one resource or one guarantee;
//! CONTRIBUTING.md says where a new test goes.

#![expect(clippy::disallowed_methods, reason = "tests spawn their own tasks, and wait for them")]

mod admin;
mod application;
mod authorization;
mod backup;
mod behaviours;
mod canary;
mod cloudspot;
mod compression;
mod configuration;
mod connection;
mod connector;
mod connector_test;
mod contract;
mod credentials;
mod filter;
mod guide;
mod isolation;
mod key;
mod license_api;
mod login;
mod pagination;
mod plans;
mod promtool;
mod refresh;
mod refusals;
mod routing;
mod steps;
mod storage;
mod traces;
mod unchanged;
mod update;
mod user;
mod user_connector;
