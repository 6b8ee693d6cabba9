//! A connector that was used a moment ago is used again without a query, and the next log-in after any change reflects it.

use std::time::{Duration, Instant};

use jackfield_api::v1;
use jackfield_domain::Clock as _;
use jackfield_testkit::{Backend, Client, Identity, ManualClock, System, TestServer, fixture, on_both};
use prost_types::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tonic_types::StatusExt as _;

use super::{a_login, a_system, connector, create};
use crate::steps;

/// A staleness limit far longer than any test.
const LONG: Duration = Duration::from_secs(60);

/// A connector for a system that accepts ada. It is asked for by id and by name.
struct Known {
    client: Client,
    system: System,
    connector: v1::Connector,
}

/// The outcome of a log-in, or the reason for which none was tried.
type Answer = Result<v1::LoginOutcome, String>;

const ACCEPTED: Answer = Ok(v1::LoginOutcome::Accepted);
const FAULT: Answer = Ok(v1::LoginOutcome::UpstreamFault);

impl Known {
    async fn on(server: &TestServer) -> Self {
        let (client, system) = (server.client("alpha"), a_system().await);
        let connector = create(&client, connector(&client, &system, "directory").await).await;
        Known { client, system, connector }
    }

    async fn log_in(&self, reference: &str) -> Answer {
        answer(&self.client, reference).await
    }

    /// Logs in twice: the first log-in finds the connector, the second one knows it.
    async fn expect(&self, by_id: Answer, by_name: Answer, why: &str) {
        for round in 0..2 {
            let answers = [self.log_in(&self.connector.id).await, self.log_in("name:Directory").await];
            assert_eq!(answers, [by_id.clone(), by_name.clone()], "{why}, round {round}");
        }
    }

    async fn update(&self, connector: v1::Connector, path: &str) {
        let request = v1::UpdateConnectorRequest {
            reference: self.connector.id.clone(),
            connector: Some(connector),
            update_mask: fixture::mask([path]),
            ..Default::default()
        };
        self.client.connectors().update_connector(request).await.unwrap();
    }

    /// Gives the identity another certificate, now or at a time, and returns it as DER.
    async fn rotate(&self, name: &str, activate_time: Option<Timestamp>) -> Vec<u8> {
        let leaf = self.system.pki().client(Identity::of(name));
        let der = CertificateDer::from_pem_slice(leaf.certificate_pem.as_bytes()).unwrap().to_vec();
        let imported = v1::KeyImport { certificate_pem: leaf.certificate_pem, private_key_pem: leaf.key_pem };
        let request = v1::RotateKeyRequest {
            reference: self.connector.client_identity_key().to_owned(),
            material: Some(v1::rotate_key_request::Material::Imported(imported)),
            activate_time,
            ..Default::default()
        };
        self.client.keys().rotate_key(request).await.unwrap();
        der
    }

    /// Trusts an authority in place of the one that was trusted before.
    async fn trust(&self, ca_pem: String) {
        let key = v1::Key { certificate_pem: ca_pem, ..Default::default() };
        let request = v1::UpdateKeyRequest {
            reference: self.connector.trust_bundle_key().to_owned(),
            key: Some(key),
            update_mask: fixture::mask(["certificate_pem"]),
            ..Default::default()
        };
        self.client.keys().update_key(request).await.unwrap();
    }

    /// The certificate of the last log-in that reached the system.
    fn presented(&self) -> Vec<u8> {
        self.system.received().pop().expect("the system was asked").certificate
    }
}

async fn answer(client: &Client, reference: &str) -> Answer {
    let response = client.connectors().authenticate_user(a_login(reference, "ada", "right")).await;
    response.map(|response| response.into_inner().outcome()).map_err(|status| {
        let info = status.get_details_error_info();
        info.map_or_else(|| format!("{status:?}"), |info| info.reason)
    })
}

fn refused(reason: &str) -> Answer {
    Err(reason.to_owned())
}

async fn patient(backend: Backend) -> TestServer {
    TestServer::start_with(backend, |config| {
        config.token_cache.max_staleness = LONG;
        config.login.rejection_interval = Duration::ZERO;
    })
    .await
}

on_both! {
    async fn a_known_connector_is_used_without_a_query(backend: Backend) {
        let server = patient(backend).await;
        let known = Known::on(&server).await;
        assert_eq!(known.log_in(&known.connector.id).await, ACCEPTED);
        // Directly in the database, so that the server cannot know.
        server.sql("DELETE FROM connector").await;
        assert_eq!(known.log_in(&known.connector.id).await, ACCEPTED);
        // A reference that was not used yet is looked up.
        assert_eq!(known.log_in("name:directory").await, refused("CONNECTOR_NOT_FOUND"));
        assert_eq!(known.system.received().len(), 2);
    }

    async fn changes_of_a_connector_are_seen_by_the_next_log_in(backend: Backend) {
        let server = patient(backend).await;
        let known = Known::on(&server).await;
        known.expect(ACCEPTED, ACCEPTED, "fresh").await;
        steps::enable(&known.client, &known.connector.id, false).await;
        known.expect(refused("CONNECTOR_DISABLED"), refused("CONNECTOR_DISABLED"), "disabled").await;
        steps::enable(&known.client, &known.connector.id, true).await;
        known.expect(ACCEPTED, ACCEPTED, "enabled").await;

        let named = |name: &str| v1::Connector { name: name.to_owned(), ..Default::default() };
        known.update(named("moved"), "name").await;
        known.expect(ACCEPTED, refused("CONNECTOR_NOT_FOUND"), "renamed").await;
        let disabled = v1::Connector { enabled: Some(false), ..fixture::a_connector("directory") };
        let namesake = create(&known.client, disabled).await.id;
        known.expect(ACCEPTED, refused("CONNECTOR_DISABLED"), "another of its name").await;
        let delete = |reference| v1::DeleteConnectorRequest { reference, ..Default::default() };
        known.client.connectors().delete_connector(delete(namesake)).await.unwrap();
        known.update(named("Directory"), "name").await;
        known.expect(ACCEPTED, ACCEPTED, "renamed back").await;

        known.client.connectors().delete_connector(delete(known.connector.id.clone())).await.unwrap();
        known.expect(refused("CONNECTOR_NOT_FOUND"), refused("CONNECTOR_NOT_FOUND"), "deleted").await;
    }

    async fn changes_of_its_keys_are_seen_by_the_next_log_in(backend: Backend) {
        let server = patient(backend).await;
        let known = Known::on(&server).await;
        known.expect(ACCEPTED, ACCEPTED, "fresh").await;
        for turn in 0..5 {
            let next = known.rotate(&format!("turn {turn}"), None).await;
            known.expect(ACCEPTED, ACCEPTED, "rotated").await;
            assert_eq!(known.presented(), next, "turn {turn}");
        }
        let another = a_system().await;
        known.trust(another.pki().ca_pem()).await;
        known.expect(FAULT, FAULT, "another authority is trusted").await;
        known.trust(known.system.pki().ca_pem()).await;
        known.expect(ACCEPTED, ACCEPTED, "trusted again").await;
    }

    async fn a_planned_identity_is_presented_from_its_time_on(backend: Backend) {
        let clock = ManualClock::at_present();
        let server =
            TestServer::start_at(backend, clock.clone(), |config| config.token_cache.max_staleness = LONG).await;
        let known = Known::on(&server).await;
        let soon = clock.now().seconds() + 60;
        let next = known.rotate("next", Some(Timestamp { seconds: soon, nanos: 0 })).await;
        known.expect(ACCEPTED, ACCEPTED, "planned").await;
        assert_ne!(known.presented(), next, "its time has not come");
        clock.advance(Duration::from_secs(61));
        assert_eq!(known.log_in(&known.connector.id).await, ACCEPTED);
        assert_eq!(known.presented(), next);
    }

    async fn a_deleted_tenant_asks_no_system(backend: Backend) {
        let server = patient(backend).await;
        let known = Known::on(&server).await;
        known.expect(ACCEPTED, ACCEPTED, "fresh").await;
        let reference = "name:alpha".to_owned();
        let request = v1::DeleteTenantRequest { reference, cascade: true, ..Default::default() };
        server.client("operator").admin().delete_tenant(request).await.unwrap();
        known.expect(refused("TENANT_UNKNOWN"), refused("TENANT_UNKNOWN"), "deleted").await;
    }
}

mod postgres {
    use super::*;

    /// A replica presents no identity that another replica has replaced, longer than the configured time.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn other_replicas_see_changes_in_time() {
        const STALENESS: Duration = Duration::from_millis(400);
        let server =
            TestServer::start_with(Backend::Postgres, |config| config.token_cache.max_staleness = STALENESS).await;
        let replica = server.replica().await.expect("PostgreSQL has replicas");
        let known = Known::on(&server).await;
        let there = replica.client("alpha");
        for turn in 0..5 {
            assert_eq!(answer(&there, &known.connector.id).await, ACCEPTED);
            let next = known.rotate(&format!("turn {turn}"), None).await;
            let acknowledged = Instant::now();
            assert_eq!(known.log_in(&known.connector.id).await, ACCEPTED);
            assert_eq!(known.presented(), next, "its own changes are visible at once");
            loop {
                let in_time = acknowledged.elapsed() < STALENESS;
                assert_eq!(answer(&there, &known.connector.id).await, ACCEPTED);
                if known.presented() == next {
                    break;
                }
                assert!(in_time, "a replaced identity after {:?}", acknowledged.elapsed());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}
