//! `jackfield health`: for probes that run a command.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::client::{ClientArguments, plaintext, reachable};
use super::{CommandError, say};
use crate::config::Config;

const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Health {
    /// Full name of a gRPC service [default: the server as a whole].
    #[arg(long, default_value = "", hide_default_value = true)]
    service: String,
    #[command(flatten)]
    client: ClientArguments,
}

pub(super) async fn run(config: &Config, command: Health) -> Result<(), CommandError> {
    let Health { service, client } = command;
    let ask = async {
        // The health listener needs no certificate.
        let channel = match config.listen.health_address.parse::<SocketAddr>() {
            Ok(address) if !client.has_address() => plaintext(reachable(address)).await?,
            _ => client.connect(config).await?,
        };
        let answer = HealthClient::new(channel).check(HealthCheckRequest { service }).await?;
        Ok::<_, CommandError>(answer.into_inner().status())
    };
    match tokio::time::timeout(TIMEOUT, ask).await.map_err(|_| "no answer in 5 seconds")?? {
        ServingStatus::Serving => say("SERVING"),
        status => Err(status.as_str_name().into()),
    }
}
