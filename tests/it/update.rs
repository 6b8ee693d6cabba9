//! Rules for every update: the identity of the resource, the state in which it was read, and that something changes.

mod maps;
mod presence;

use std::collections::BTreeSet;

use jackfield_api::v1;
use jackfield_testkit::{Client, Refusal, expect_status, fixture, on_both};
use prost_reflect::DescriptorPool;
use tonic::{Code, Response, Status};
use uuid::Uuid;

use crate::steps;

/// The methods of [`update`] by the field of the request that holds the resource.
const RESOURCES: [&str; 7] = ["application", "connector", "connection", "credential", "configuration", "key", "user"];

/// A stored resource as named by an update.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Known {
    resource: &'static str,
    id: String,
    etag: String,
}

/// The content of an update besides its reference.
#[derive(Clone, Copy, Debug, Default)]
struct Said<'a> {
    /// The field inside the resource.
    id: &'a str,
    /// The field inside the resource.
    inside: &'a str,
    /// The field of the request.
    etag: &'a str,
    /// The new name or external id; absent if empty.
    name: &'a str,
    mask: &'a [&'a str],
}

on_both! {
    /// Sending back a whole resource as it was read does not overwrite a concurrent change.
    async fn an_etag_counts_in_the_request_and_in_the_resource(server) {
        let client = server.client("alpha");
        for known in all(&client).await {
            let stale = known.clone();
            let first = Said { inside: &known.etag, name: "first", ..Said::default() };
            let known = changed(&client, &known, first).await;
            for mask in [&[][..], &[name_of(&known)]] {
                let said = Said { name: "late", mask, ..Said::default() };
                for said in [
                    Said { inside: &stale.etag, ..said },
                    Said { etag: &stale.etag, ..said },
                    Said { inside: &stale.etag, etag: &stale.etag, ..said },
                ] {
                    let refused = update(&client, &known, said).await;
                    let refused = expect_status(refused.map(Response::new), Code::Aborted, "ETAG_MISMATCH");
                    assert_eq!(refused.metadata("id"), known.id, "{said:?}");
                }
            }
            assert_eq!(read(&client, &known).await, known, "a refused update changes nothing");

            // Both must be equal, or it is unclear which one counts.
            for (etag, inside) in [(&*known.etag, &*stale.etag), (&*stale.etag, &*known.etag)] {
                let said = Said { etag, inside, name: "other", ..Said::default() };
                let refused = refused(update(&client, &known, said).await);
                refused.expect_fields(&["etag", &format!("{}.etag", known.resource)]);
                assert_eq!(refused.description("etag"), format!("differs from {}.etag", known.resource));
            }
            assert_eq!(read(&client, &known).await, known);

            let said = Said { etag: &known.etag, inside: &known.etag, name: "second", ..Said::default() };
            let known = changed(&client, &known, said).await;
            changed(&client, &known, Said { name: "third", ..Said::default() }).await;
        }
    }

    async fn an_id_inside_the_resource_must_match_the_reference(server) {
        let client = server.client("alpha");
        for known in all(&client).await {
            let field = format!("{}.id", known.resource);
            let other = Uuid::now_v7().to_string();
            // This holds for every mask, and is checked before the etag, which is another resource's here.
            for mask in [&[][..], &["id"], &[name_of(&known)]] {
                let said = Said { id: &other, inside: "W/\"of the other\"", name: "other", mask, ..Said::default() };
                let refused = refused(update(&client, &known, said).await);
                refused.expect_fields(&[&field]);
                assert!(refused.description(&field).contains(&known.id), "{refused:?}");
            }
            let said = Said { id: "no id", name: "other", ..Said::default() };
            let malformed = refused(update(&client, &known, said).await);
            malformed.expect_fields(&[&field]);
            assert_eq!(malformed.description(&field), "must be a UUID");
            assert_eq!(read(&client, &known).await, known);
            let upper = known.id.to_uppercase();
            changed(&client, &known, Said { id: &upper, name: "same", ..Said::default() }).await;
        }
    }

    async fn an_update_without_a_mask_or_any_change_is_refused(server) {
        let client = server.client("alpha");
        for known in all(&client).await {
            for said in [Said::default(), Said { id: &known.id, inside: &known.etag, ..Said::default() }] {
                let refused = refused(update(&client, &known, said).await);
                refused.expect_fields(&["update_mask"]);
                assert!(refused.description("update_mask").contains(&format!("present in {}", known.resource)));
            }
            assert_eq!(read(&client, &known).await, known);
        }
        // Settings of a kind that are all absent count as nothing, too.
        let connector = steps::connector(&client, fixture::an_oauth2_connector("empty settings")).await;
        let kind = Some(v1::connector::Kind::Oauth2(v1::OAuth2Connector::default()));
        let request = v1::UpdateConnectorRequest {
            reference: connector.id,
            connector: Some(v1::Connector { kind, ..Default::default() }),
            ..Default::default()
        };
        refused(client.connectors().update_connector(request).await.map(Response::into_inner)).expect_fields(&["update_mask"]);
    }
}

#[test]
fn every_update_is_covered() {
    let pool = DescriptorPool::decode(jackfield_api::FILE_DESCRIPTOR_SET).unwrap();
    let services = pool.services().filter(|service| service.package_name() == "jackfield.v1").collect::<Vec<_>>();
    let methods = services.iter().flat_map(|service| service.methods().collect::<Vec<_>>());
    let updates = methods.filter(|method| method.name().starts_with("Update")).collect::<Vec<_>>();
    let mut tried = BTreeSet::new();
    for method in updates {
        let request = method.input();
        let resource = method.name().trim_start_matches("Update").to_lowercase();
        let inner = request.get_field_by_name(&resource).unwrap().kind();
        let inner = inner.as_message().unwrap().clone();
        for (message, field) in [(&request, "reference"), (&request, "etag"), (&inner, "etag"), (&inner, "id")] {
            assert!(message.get_field_by_name(field).is_some(), "{}.{field}", message.name());
        }
        tried.insert(resource);
    }
    assert_eq!(tried, RESOURCES.map(str::to_owned).into());
}

/// One stored resource of each kind that can be updated.
async fn all(client: &Client) -> [Known; 7] {
    let connector = steps::connector(client, fixture::a_connector("main")).await;
    let connection = v1::CreateConnectionRequest {
        connection: Some(fixture::a_connection("main", &connector.id)),
        ..Default::default()
    };
    let connection = client.connections().create_connection(connection).await.unwrap().into_inner().connection.unwrap();
    let link = steps::link(client, "ada", &connector.id).await;
    let credential = steps::api_key(client, &link, "key").await;
    let configuration = steps::configuration(client, fixture::a_configuration(&credential.id, "main")).await;
    let key = v1::GenerateKeyRequest {
        key: Some(v1::Key { name: "main".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let key = client.keys().generate_key(key).await.unwrap().into_inner().key.unwrap();
    let user = steps::user(client, fixture::a_user("main")).await;
    let application = steps::application(client, fixture::an_application("main")).await;
    [
        Known { resource: "application", id: application.id, etag: application.etag },
        Known { resource: "connector", id: connector.id, etag: connector.etag },
        Known { resource: "connection", id: connection.id, etag: connection.etag },
        Known { resource: "credential", id: credential.id, etag: credential.etag },
        Known { resource: "configuration", id: configuration.id, etag: configuration.etag },
        Known { resource: "key", id: key.id, etag: key.etag },
        Known { resource: "user", id: user.id, etag: user.etag },
    ]
}

/// The field that [`Said::name`] changes.
fn name_of(known: &Known) -> &'static str {
    match known.resource {
        "application" | "connector" | "connection" | "key" => "name",
        "user" => "username",
        _ => "external_id",
    }
}

async fn update(client: &Client, known: &Known, said: Said<'_>) -> Result<Known, Status> {
    let Said { id, inside, etag, name, mask } = said;
    let (reference, id, inside, etag) = (known.id.clone(), id.to_owned(), inside.to_owned(), etag.to_owned());
    let external_id = (!name.is_empty()).then(|| name.to_owned());
    let name = name.to_owned();
    let update_mask = (!mask.is_empty())
        .then(|| prost_types::FieldMask { paths: mask.iter().map(|path| (*path).to_owned()).collect() });
    let (request_id, validate_only) = (String::new(), false);
    let (id, etag) = match known.resource {
        "application" => {
            let application = Some(v1::Application { id, etag: inside, name, ..Default::default() });
            let request =
                v1::UpdateApplicationRequest { reference, application, update_mask, etag, request_id, validate_only };
            let updated = client.applications().update_application(request).await?.into_inner().application.unwrap();
            (updated.id, updated.etag)
        }
        "connector" => {
            let connector = Some(v1::Connector { id, etag: inside, name, ..Default::default() });
            let request =
                v1::UpdateConnectorRequest { reference, connector, update_mask, etag, request_id, validate_only };
            let updated = client.connectors().update_connector(request).await?.into_inner().connector.unwrap();
            (updated.id, updated.etag)
        }
        "connection" => {
            let connection = Some(v1::Connection { id, etag: inside, name, ..Default::default() });
            let request =
                v1::UpdateConnectionRequest { reference, connection, update_mask, etag, request_id, validate_only };
            let updated = client.connections().update_connection(request).await?.into_inner().connection.unwrap();
            (updated.id, updated.etag)
        }
        "credential" => {
            let credential = Some(v1::Credential { id, etag: inside, external_id, ..Default::default() });
            let request = v1::UpdateCredentialRequest {
                reference,
                credential,
                update_mask,
                material: None,
                etag,
                request_id,
                validate_only,
            };
            let updated = client.credentials().update_credential(request).await?.into_inner().credential.unwrap();
            (updated.id, updated.etag)
        }
        "key" => {
            let key = Some(v1::Key { id, etag: inside, name, ..Default::default() });
            let request = v1::UpdateKeyRequest { reference, key, update_mask, etag, request_id, validate_only };
            let updated = client.keys().update_key(request).await?.into_inner().key.unwrap();
            (updated.id, updated.etag)
        }
        "user" => {
            let user = Some(v1::User { id, etag: inside, username: external_id, ..Default::default() });
            let request = v1::UpdateUserRequest { reference, user, update_mask, etag, request_id, validate_only };
            let updated = client.users().update_user(request).await?.into_inner().user.unwrap();
            (updated.id, updated.etag)
        }
        _ => {
            let configuration = Some(v1::Configuration { id, etag: inside, external_id, ..Default::default() });
            let request = v1::UpdateConfigurationRequest {
                reference,
                credential: String::new(),
                configuration,
                update_mask,
                etag,
                request_id,
                validate_only,
            };
            let updated = client.configurations().update_configuration(request).await?.into_inner();
            let updated = updated.configuration.unwrap();
            (updated.id, updated.etag)
        }
    };
    Ok(Known { resource: known.resource, id, etag })
}

/// Makes an update that has to succeed.
async fn changed(client: &Client, known: &Known, said: Said<'_>) -> Known {
    let after = update(client, known, said).await.unwrap_or_else(|status| panic!("{known:?} {said:?}: {status:?}"));
    assert_eq!((after.resource, &after.id), (known.resource, &known.id));
    assert_ne!(after.etag, known.etag, "{said:?}");
    assert_eq!(read(client, known).await, after);
    after
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Status>) -> Refusal {
    expect_status(result.map(Response::new), Code::InvalidArgument, "FIELD_INVALID")
}

/// Reads the current state of a resource.
async fn read(client: &Client, known: &Known) -> Known {
    let reference = known.id.clone();
    let etag = match known.resource {
        "application" => {
            let request = v1::GetApplicationRequest { reference };
            client.applications().get_application(request).await.unwrap().into_inner().application.unwrap().etag
        }
        "connector" => {
            let request = v1::GetConnectorRequest { reference };
            client.connectors().get_connector(request).await.unwrap().into_inner().connector.unwrap().etag
        }
        "connection" => {
            let request = v1::GetConnectionRequest { reference };
            client.connections().get_connection(request).await.unwrap().into_inner().connection.unwrap().etag
        }
        "credential" => steps::credential_now(client, &reference).await.etag,
        "key" => {
            let request = v1::GetKeyRequest { reference };
            client.keys().get_key(request).await.unwrap().into_inner().key.unwrap().etag
        }
        "user" => {
            let request = v1::GetUserRequest { reference };
            client.users().get_user(request).await.unwrap().into_inner().user.unwrap().etag
        }
        _ => {
            let request = v1::GetConfigurationRequest { reference, ..Default::default() };
            let found = client.configurations().get_configuration(request).await.unwrap().into_inner();
            found.configuration.unwrap().etag
        }
    };
    Known { etag, ..known.clone() }
}
