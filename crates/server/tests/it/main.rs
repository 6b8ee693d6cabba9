//! The transport in front of a service of its own: nothing here needs a database.

mod deadlines;
mod drain;
mod health;
mod identity;
mod limits;
mod reload;
mod support;
mod telemetry;
mod unix;
