//! Naming of connectors: ids, names, references, and their visibility.

use jackfield_api::v1;
use jackfield_testkit::{Client, Refusal, expect_status, fixture, on_both};
use tonic::{Code, Response, Status};
use uuid::Uuid;

use super::{create, get, list, try_create, update};

on_both! {
    async fn the_caller_may_choose_the_id(server) {
        let alpha = server.client("alpha");
        let id = Uuid::now_v7().to_string();
        let created = create_with_id(&alpha, "lower", &id).await.unwrap().into_inner().connector.unwrap();
        assert_eq!(created.id, id);
        let other = "ABCDEF01-2345-4789-8BCD-EF0123456789";
        let created = create_with_id(&alpha, "upper", other).await.unwrap().into_inner().connector.unwrap();
        assert_eq!(created.id, other.to_lowercase());
        assert_eq!(get(&alpha, other).await.unwrap(), created);
        for wrong in [
            "00000000-0000-0000-0000-000000000000",
            "1",
            " ",
            &format!(" {id}"),
            &format!("{{{id}}}"),
            &format!("urn:uuid:{id}"),
            &id.replace('-', ""),
            &format!("{id}0"),
            &id.replace(['0', '1'], "g"),
        ] {
            let refused = create_with_id(&alpha, "wrong", wrong).await;
            expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["id"]);
        }
        let taken = create_with_id(&alpha, "another", &id).await;
        let taken = expect_status(taken, Code::AlreadyExists, "ID_TAKEN");
        assert_eq!((taken.metadata("resource"), taken.metadata("id")), ("connector", &*id));
        assert_eq!(list(&alpha).await.len(), 2);
        assert_eq!(get(&alpha, &id).await.unwrap().name, "lower");
    }

    async fn names_differ_in_more_than_letter_case_and_composition(server) {
        let alpha = server.client("alpha");
        let pairs = [
            ("Gmail", " gMAIL "),
            ("Zürich", "ZÜRICH"),
            ("Straße", "STRASSE"),
            ("Σίσυφος", "ΣΊΣΥΦΟΣ"),
            ("Жук 1", "жУК 1"),
            ("ﬁnance", "FInance"),
            ("Cafe\u{301}", "Caf\u{e9}"),
            ("Re\u{301}sume\u{301}", "R\u{c9}SUM\u{c9}"),
            ("\u{ac01}", "\u{1100}\u{1161}\u{11a8}"),
            ("10 \u{2126}", "10 \u{3c9}"),
        ];
        for (name, other) in pairs {
            let created = create(&alpha, fixture::a_connector(name)).await;
            for taken in [name, other] {
                let refused = try_create(&alpha, fixture::a_connector(taken)).await;
                let refused = expect_status(refused, Code::AlreadyExists, "NAME_TAKEN");
                assert_eq!((refused.metadata("resource"), refused.metadata("name")), ("connector", taken.trim()));
            }
            let renamed = create(&alpha, fixture::a_connector("to be renamed")).await;
            let refused = update(&alpha, &renamed.id, ["name"], fixture::a_connector(other)).await;
            expect_status(refused.map(Response::new), Code::AlreadyExists, "NAME_TAKEN");
            let request = v1::DeleteConnectorRequest { reference: renamed.id, ..Default::default() };
            alpha.connectors().delete_connector(request).await.unwrap();
            for reference in [format!("name:{name}"), format!("name:{other}"), format!(" name: {other} ")] {
                assert_eq!(get(&alpha, &reference).await.unwrap(), created, "{reference}");
            }
        }
        // A name may be changed to itself in another letter case, and is shown as last given.
        let renamed = update(&alpha, "name:gmail", ["name"], fixture::a_connector("GMail")).await.unwrap();
        assert_eq!(renamed.name, "GMail");
        assert_eq!(get(&alpha, "name:gmail").await.unwrap(), renamed);
        // A released name is free again.
        update(&alpha, "name:gmail", ["name"], fixture::a_connector("Outlook")).await.unwrap();
        create(&alpha, fixture::a_connector("GMAIL")).await;
        // These are different letters.
        for name in ["Zurich", "Strase", "Gmai1", "Cafe"] {
            create(&alpha, fixture::a_connector(name)).await;
        }
    }

    async fn references_have_two_forms(server) {
        let alpha = server.client("alpha");
        let connector = create(&alpha, fixture::a_connector("Gmail")).await;
        let id = &connector.id;
        for reference in [id.clone(), id.to_uppercase(), format!(" {id} "), "name:GMAIL".to_owned()] {
            assert_eq!(get(&alpha, &reference).await.unwrap().id, *id);
            assert_eq!(update(&alpha, &reference, ["debug"], v1::Connector::default()).await.unwrap().id, *id);
            let request = v1::DeleteConnectorRequest { reference, validate_only: true, ..Default::default() };
            assert!(alpha.connectors().delete_connector(request).await.unwrap().into_inner().deleted);
        }
        let long = format!("name:{}", "n".repeat(192));
        for reference in
            ["", " ", "Gmail", "gmail:", "ext:Gmail", "name:", "name: ", "NAME:Gmail", "name:a\nb", &long, &id[1..]]
        {
            for refused in on_each_method(&alpha, reference).await {
                let refused = expect_status(refused, Code::InvalidArgument, "REFERENCE_INVALID");
                refused.expect_fields(&["reference"]);
            }
        }
        for reference in [&*Uuid::now_v7().to_string(), "name:Outlook", &format!("name:{id}")] {
            for refused in on_each_method(&alpha, reference).await {
                let refused = expect_status(refused, Code::NotFound, "CONNECTOR_NOT_FOUND");
                assert_eq!((refused.metadata("resource"), refused.metadata("reference")), ("connector", reference));
            }
        }
    }

    async fn resources_of_another_tenant_are_invisible(server) {
        let (alpha, beta) = (server.client("alpha"), server.client("beta"));
        let connector = create(&alpha, fixture::a_connector("Gmail")).await;
        let references = [connector.id.clone(), "name:Gmail".to_owned()];
        let mut seen = Vec::new();
        for reference in &references {
            for refused in on_each_method(&beta, reference).await {
                seen.push(facts(&expect_status(refused, Code::NotFound, "CONNECTOR_NOT_FOUND")));
            }
        }
        assert_eq!(list(&beta).await, []);
        // The id and the name are free for the other tenant.
        create_with_id(&beta, "Gmail", &connector.id).await.unwrap();
        assert_eq!(get(&alpha, &connector.id).await.unwrap(), connector);
        for client in [&alpha, &beta] {
            let request = v1::DeleteConnectorRequest { reference: connector.id.clone(), ..Default::default() };
            client.connectors().delete_connector(request).await.unwrap();
        }
        let mut absent = Vec::new();
        for reference in &references {
            for refused in on_each_method(&beta, reference).await {
                absent.push(facts(&expect_status(refused, Code::NotFound, "CONNECTOR_NOT_FOUND")));
            }
        }
        assert_eq!(seen, absent);
    }

    async fn keys_of_another_tenant_cannot_be_used(server) {
        let (alpha, beta) = (server.client("alpha"), server.client("beta"));
        let key = crate::key::import(&beta, crate::key::an_identity(&server, "identity")).await;
        for reference in [key.id, "name:identity".to_owned(), Uuid::now_v7().to_string()] {
            let connector =
                v1::Connector { client_identity_key: Some(reference.clone()), ..fixture::a_connector("with a key") };
            let refused = expect_status(try_create(&alpha, connector).await, Code::NotFound, "KEY_NOT_FOUND");
            assert_eq!((refused.metadata("resource"), refused.metadata("reference")), ("key", &*reference));
        }
        assert_eq!(list(&alpha).await, []);
    }

    async fn references_to_keys_have_two_forms(server) {
        let alpha = server.client("alpha");
        for wrong in [" ", "mine", "ext:mine", "name:", "name:\u{1}"] {
            let key = wrong.to_owned();
            let identity = v1::Connector { client_identity_key: Some(key.clone()), ..fixture::a_connector("x") };
            let bundle = v1::Connector { trust_bundle_key: Some(key), ..fixture::a_connector("x") };
            for (connector, field) in
                [(identity, "connector.client_identity_key"), (bundle, "connector.trust_bundle_key")]
            {
                let refused = try_create(&alpha, connector).await;
                expect_status(refused, Code::InvalidArgument, "REFERENCE_INVALID").expect_fields(&[field]);
            }
        }
        assert_eq!(list(&alpha).await, []);
    }

    async fn a_reader_cannot_change_anything(server) {
        let (alpha, reader) = (server.client("alpha"), server.client("reader"));
        let connector = create(&alpha, fixture::a_connector("Gmail")).await;
        assert_eq!(get(&reader, "name:Gmail").await.unwrap(), connector);
        let refused = try_create(&reader, v1::Connector::default()).await;
        let refused = expect_status(refused, Code::PermissionDenied, "SCOPE_DENIED");
        assert_eq!(refused.metadata("right"), "connectors.write");
        for refused in on_each_method(&reader, &connector.id).await.into_iter().skip(1) {
            expect_status(refused, Code::PermissionDenied, "SCOPE_DENIED");
        }
        assert_eq!(list(&reader).await, [connector]);
    }
}

async fn create_with_id(
    client: &Client,
    name: &str,
    id: &str,
) -> Result<Response<v1::CreateConnectorResponse>, Status> {
    let connector = Some(fixture::a_connector(name));
    let request = v1::CreateConnectorRequest { connector, id: id.to_owned(), ..Default::default() };
    client.connectors().create_connector(request).await
}

/// The answers to a get, an update and a delete.
async fn on_each_method(client: &Client, reference: &str) -> [Result<Response<()>, Status>; 3] {
    let delete = v1::DeleteConnectorRequest { reference: reference.to_owned(), ..Default::default() };
    [
        get(client, reference).await.map(|_| Response::new(())),
        update(client, reference, ["debug"], v1::Connector::default()).await.map(|_| Response::new(())),
        client.connectors().delete_connector(delete).await.map(|_| Response::new(())),
    ]
}

/// The whole content of a refusal.
pub(crate) fn facts(refusal: &Refusal) -> Vec<String> {
    let info = refusal.details.error_info().unwrap();
    let resource = refusal.details.resource_info().unwrap();
    let mut facts: Vec<String> = info.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
    facts.sort_unstable();
    facts.push(info.reason.clone());
    facts.extend(
        [&resource.resource_type, &resource.resource_name, &resource.owner, &resource.description].map(Clone::clone),
    );
    facts.push(format!("{:?} {}", refusal.status.code(), refusal.status.message()));
    facts.push(format!("{} bytes", refusal.status.details().len()));
    facts
}
