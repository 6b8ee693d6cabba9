//! Single entries of maps, by a mask with their keys. The others stay, even if callers cannot read them.

use std::collections::BTreeMap;

use jackfield_api::v1;
use jackfield_api::v1::credential_material::Material;
use jackfield_domain::{Resource, TenantId};
use jackfield_testkit::{Client, TestServer, fixture, on_both};
use tonic::{Code, Response, Status};

use super::refused;
use crate::steps;

on_both! {
    async fn one_secret_header_is_rotated_without_knowing_the_others(server) {
        let client = server.client("alpha");
        let given = [("X-Api-Key", "first key"), ("X-Tenant", "first tenant")];
        let id = with_secret_headers(&client, "Gmail", &given).await;

        // Another letter case is the same header.
        let after = secret_headers(&client, &id, &["secret_headers.x-api-key"], &[("X-API-KEY", "second key")]).await;
        assert_eq!(after.unwrap().secret_header_names, ["X-API-KEY", "X-Tenant"]);
        assert_eq!(opened(&server, &id).await, fixture::strings([("X-API-KEY", "second key"), ("X-Tenant", "first tenant")]));

        // One is added, one is removed, and entries outside the mask are ignored.
        let paths = ["secret_headers.X-Extra", "secret_headers.X-API-Key"];
        let after = secret_headers(&client, &id, &paths, &[("X-Extra", "more"), ("X-Tenant", "not named"), ("a b", "****")]);
        assert_eq!(after.await.unwrap().secret_header_names, ["X-Extra", "X-Tenant"]);
        let expected = fixture::strings([("X-Extra", "more"), ("X-Tenant", "first tenant")]);
        assert_eq!(opened(&server, &id).await, expected);

        // Removing an absent entry is not a change.
        let before = connector(&client, &id).await;
        assert_eq!(secret_headers(&client, &id, &["secret_headers.none"], &[]).await.unwrap(), before);
        // The same value again is a change, as with every secret.
        let after = secret_headers(&client, &id, &["secret_headers.X-Extra"], &[("X-Extra", "more")]).await.unwrap();
        assert_ne!(after.etag, before.etag);

        // Removing the last one removes the sealed value.
        let after = secret_headers(&client, &id, &["secret_headers.x-extra", "secret_headers.x-tenant"], &[]).await;
        assert_eq!(after.unwrap().secret_header_names, Vec::<String>::new());
        assert_eq!(server.opened(tenant(&server).await, Resource::Connector, &id, "secret_headers").await, None);
        let after = secret_headers(&client, &id, &["secret_headers.`X.Dot`"], &[("X.Dot", "v")]).await.unwrap();
        assert_eq!(after.secret_header_names, ["X.Dot"]);
        assert_eq!(opened(&server, &id).await, fixture::strings([("X.Dot", "v")]));
    }

    async fn an_invalid_secret_header_changes_nothing(server) {
        let client = server.client("alpha");
        let given: Vec<(String, String)> = (0..63).map(|number| (format!("x-{number}"), "v".to_owned())).collect();
        let given: Vec<(&str, &str)> = given.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let id = with_secret_headers(&client, "Gmail", &given).await;
        let before = (connector(&client, &id).await, opened(&server, &id).await);

        let sent = |paths: &'static [&'static str], headers: &'static [(&'static str, &'static str)]| {
            secret_headers(&client, &id, paths, headers)
        };
        let field = "connector.secret_headers";
        refused(sent(&["secret_headers.a", "secret_headers.b"], &[("a", "v"), ("b", "v")]).await).expect_fields(&[field]);
        refused(sent(&["secret_headers.a"], &[("a", "v"), ("A", "w")]).await).expect_fields(&[field]);
        refused(sent(&["secret_headers.a"], &[("a", "")]).await).expect_fields(&["connector.secret_headers.a"]);
        refused(sent(&["secret_headers.host"], &[("Host", "v")]).await).expect_fields(&[field]);
        refused(sent(&["secret_headers.Header1"], &[("header1", "v")]).await).expect_fields(&[field]);
        refused(sent(&["secret_headers.a b"], &[]).await).expect_fields(&["update_mask"]);
        let placeholder = sent(&["secret_headers.a"], &[("a", "****")]).await.map(Response::new);
        jackfield_testkit::expect_status(placeholder, Code::InvalidArgument, "PLACEHOLDER_SECRET")
            .expect_fields(&["connector.secret_headers.a"]);
        assert_eq!((connector(&client, &id).await, opened(&server, &id).await), before);
    }

    async fn entries_of_open_maps_are_named_in_the_same_way(server) {
        let client = server.client("alpha");
        let labels = fixture::strings([("env", "prod"), ("app.kubernetes.io/name", "a")]);
        let headers = fixture::strings([("Accept-Language", "de"), ("X-Trace", "on")]);
        let given = v1::Connector { labels, headers, ..fixture::a_connector("Gmail") };
        let id = steps::connector(&client, given).await.id;
        let given = v1::Connector {
            labels: fixture::strings([("env", "test"), ("other", "not named")]),
            headers: fixture::strings([("accept-language", "*")]),
            ..Default::default()
        };
        let paths = ["labels.env", "labels.`app.kubernetes.io/name`", "headers.`ACCEPT-LANGUAGE`"];
        let after = update_connector(&client, &id, &paths, given).await.unwrap();
        assert_eq!(after.labels, fixture::strings([("env", "test")]));
        assert_eq!(after.headers, fixture::strings([("X-Trace", "on"), ("accept-language", "*")]));
        let request = v1::ListConnectorsRequest { filter: "labels.env = test".to_owned(), ..Default::default() };
        let listed = jackfield_testkit::collect::items(client.connectors().list_connectors(request).await).await.unwrap();
        assert_eq!(listed, [after]);

        let connection = v1::Connection {
            tags: fixture::strings([("a", "1"), ("b", "2")]),
            parameters: fixture::strings([("access_type", "offline"), ("prompt", "consent")]),
            ..fixture::a_connection("login", &id)
        };
        let request = v1::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
        let reference = client.connections().create_connection(request).await.unwrap().into_inner().connection.unwrap().id;
        let connection = v1::Connection {
            tags: fixture::strings([("a", "3")]),
            parameters: fixture::strings([("hd", "example.com")]),
            ..Default::default()
        };
        let update_mask = fixture::mask(["tags.a", "parameters.hd", "parameters.prompt"]);
        let request = v1::UpdateConnectionRequest { reference, connection: Some(connection), update_mask, ..Default::default() };
        let after = client.connections().update_connection(request).await.unwrap().into_inner().connection.unwrap();
        assert_eq!(after.tags, fixture::strings([("a", "3"), ("b", "2")]));
        assert_eq!(after.parameters, fixture::strings([("access_type", "offline"), ("hd", "example.com")]));

        let link = steps::link(&client, "ada", &id).await;
        let facts = v1::Credential {
            labels: fixture::strings([("a", "1"), ("b", "2")]),
            ..fixture::a_credential("ada", &link.connector)
        };
        let credential = steps::credential(&client, facts, fixture::api_key_material("key")).await;
        let request = v1::UpdateCredentialRequest {
            reference: credential.id,
            credential: Some(v1::Credential::default()),
            update_mask: fixture::mask(["labels.a"]),
            ..Default::default()
        };
        let after = client.credentials().update_credential(request).await.unwrap().into_inner().credential.unwrap();
        assert_eq!(after.labels, fixture::strings([("b", "2")]));
    }

    async fn one_field_of_custom_material_is_rotated_without_knowing_the_others(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let custom = |fields: &[(&str, &str)]| {
            let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            v1::CredentialMaterial { material: Some(Material::Custom(v1::CustomMaterial { fields })) }
        };
        let facts = fixture::a_credential("ada", &link.connector);
        let id = steps::credential(&client, facts, custom(&[("key", "k1"), ("secret", "s1"), ("my field", "f1")])).await.id;

        let paths = ["material.custom.fields.secret", "material.custom.fields.`my field`"];
        let after = material(&client, &id, &paths, Some(custom(&[("secret", "s2"), ("key", "not named")]))).await.unwrap();
        assert_eq!(after.version, 2);
        assert_eq!(steps::revealed(&client, &id).await, custom(&[("key", "k1"), ("secret", "s2")]));
        let after = material(&client, &id, &paths[..1], None).await.unwrap();
        assert_eq!(after.version, 3);
        assert_eq!(steps::revealed(&client, &id).await, custom(&[("key", "k1")]));

        // One field must stay, and the mask must match the stored kind.
        let field = "material.custom.fields";
        refused(material(&client, &id, &["material.custom.fields.key"], None).await).expect_fields(&[field]);
        let other = Some(fixture::api_key_material("key"));
        refused(material(&client, &id, &paths[..1], other).await).expect_fields(&["material"]);
        refused(material(&client, &id, &[field], None).await).expect_fields(&["material"]);
        let nothing = Some(v1::CredentialMaterial::default());
        refused(material(&client, &id, &["labels"], nothing).await).expect_fields(&["material"]);
        let api_key = steps::api_key(&client, &link, "key").await.id;
        refused(material(&client, &api_key, &paths[..1], None).await).expect_fields(&["material"]);
        let wrong = Some(custom(&[("secret", "****")]));
        let wrong = material(&client, &id, &paths[..1], wrong).await.map(Response::new);
        jackfield_testkit::expect_status(wrong, Code::InvalidArgument, "PLACEHOLDER_SECRET");
        assert_eq!(steps::revealed(&client, &id).await, custom(&[("key", "k1")]));
    }

    /// An absent refresh token is kept; it is removed only if the mask names it. Then nothing else of the material changes.
    async fn a_refresh_or_id_token_is_changed_without_knowing_the_others(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let connection = Some(fixture::a_connection("Gmail", &link.connector));
        let request = v1::CreateConnectionRequest { connection, ..Default::default() };
        let connection = client.connections().create_connection(request).await.unwrap().into_inner().connection.unwrap().id;
        let facts = v1::Credential { connection, ..fixture::a_credential("ada", &link.connector) };
        let (refresh_path, id_path) = ("material.oauth2.refresh_token", "material.oauth2.id_token");
        let oauth2 = |access: &str, refresh: &str, id_token: &str| v1::OAuth2Material {
            access_token: access.to_owned(),
            refresh_token: refresh.to_owned(),
            id_token: id_token.to_owned(),
            ..Default::default()
        };
        let given = |tokens| Some(v1::CredentialMaterial { material: Some(Material::Oauth2(tokens)) });
        let first = v1::OAuth2Material {
            token_type: "DPoP".to_owned(),
            expire_time: Some(fixture::seconds_from_now(3600)),
            scopes: vec!["email".to_owned()],
            ..oauth2("access", "refresh", "id")
        };
        let mut before = steps::credential(&client, facts, given(first.clone()).unwrap()).await;
        let id = before.id.clone();
        for (paths, change, [refresh, id_token]) in [
            (&[refresh_path][..], Some(oauth2("", "refresh 2", "ignored")), ["refresh 2", "id"]),
            (&[id_path][..], Some(oauth2("", "ignored", "id 2")), ["refresh 2", "id 2"]),
            (&["labels", id_path][..], Some(oauth2("", "", "")), ["refresh 2", ""]),
            (&[refresh_path][..], None, ["", ""]),
            (&[refresh_path, id_path][..], Some(oauth2("ignored", "refresh 3", "id 3")), ["refresh 3", "id 3"]),
            (&[refresh_path, id_path][..], None, ["", ""]),
            // A token that the mask does not name is not checked.
            (&[refresh_path][..], Some(oauth2("a\nb", "refresh 4", "")), ["refresh 4", ""]),
        ] {
            let after = material(&client, &id, paths, change.map(|tokens| given(tokens).unwrap())).await.unwrap();
            assert_eq!((after.state(), after.version), (v1::CredentialState::Valid, before.version + 1), "{paths:?}");
            assert_eq!(after.scopes, before.scopes, "{paths:?}");
            assert_eq!((after.expire_time, after.refreshable), (before.expire_time, !refresh.is_empty()), "{paths:?}");
            let expected = v1::OAuth2Material {
                refresh_token: refresh.to_owned(),
                id_token: id_token.to_owned(),
                ..first.clone()
            };
            assert_eq!(steps::revealed(&client, &id).await, given(expected).unwrap(), "{paths:?}");
            before = after;
        }
        // Material that is given without its path is replaced, and an absent refresh token is kept.
        let replaced = material(&client, &id, &["labels"], given(oauth2("second", "", ""))).await.unwrap();
        assert!(replaced.refreshable && replaced.expire_time.is_none());

        // A mask that names all of it and a token replaces all of it, and the named token is removed if it is absent.
        for (paths, change, [refresh, id_token]) in [
            (["material.oauth2", id_path], oauth2("third", "", "id 3"), ["refresh 4", "id 3"]),
            (["material", refresh_path], oauth2("fourth", "", ""), ["", "id 3"]),
            (["material.oauth2", refresh_path], oauth2("fifth", "refresh 5", ""), ["refresh 5", ""]),
            (["material.oauth2", id_path], oauth2("sixth", "", "id 6"), ["refresh 5", "id 6"]),
            (["material.oauth2", id_path], oauth2("sixth", "", ""), ["refresh 5", ""]),
            (["material.oauth2", refresh_path], oauth2("seventh", "", ""), ["", ""]),
        ] {
            let expected = v1::OAuth2Material {
                refresh_token: refresh.to_owned(),
                id_token: id_token.to_owned(),
                token_type: "Bearer".to_owned(),
                ..change.clone()
            };
            let after = material(&client, &id, &paths, given(change)).await.unwrap();
            assert_eq!(after.refreshable, !refresh.is_empty(), "{paths:?}");
            assert_eq!(steps::revealed(&client, &id).await, given(expected).unwrap(), "{paths:?}");
        }

        let version = steps::credential_now(&client, &id).await.version;
        let line = given(oauth2("", "a\nb", ""));
        refused(material(&client, &id, &[refresh_path], line).await).expect_fields(&[refresh_path]);
        for (paths, change) in [
            (&[refresh_path][..], Some(fixture::api_key_material("key"))),
            (&[refresh_path, "material.custom.fields.a"][..], None),
            (&["material.custom.fields.a"][..], None),
            (&["material.custom.fields.a"][..], given(oauth2("third", "", ""))),
        ] {
            refused(material(&client, &id, paths, change).await).expect_fields(&["material"]);
        }
        assert_eq!(steps::credential_now(&client, &id).await.version, version);
        let key = steps::api_key(&client, &link, "key").await;
        refused(material(&client, &key.id, &[refresh_path], None).await).expect_fields(&["material"]);
    }
}

async fn tenant(server: &TestServer) -> TenantId {
    steps::tenant_id(server, "alpha").await
}

async fn with_secret_headers(client: &Client, name: &str, headers: &[(&str, &str)]) -> String {
    let secret_headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let headers = fixture::strings([("header1", "plain")]);
    steps::connector(client, v1::Connector { headers, secret_headers, ..fixture::a_connector(name) }).await.id
}

async fn connector(client: &Client, id: &str) -> v1::Connector {
    let request = v1::GetConnectorRequest { reference: id.to_owned() };
    client.connectors().get_connector(request).await.unwrap().into_inner().connector.unwrap()
}

async fn update_connector(
    client: &Client,
    id: &str,
    paths: &[&str],
    connector: v1::Connector,
) -> Result<v1::Connector, Status> {
    let request = v1::UpdateConnectorRequest {
        reference: id.to_owned(),
        connector: Some(connector),
        update_mask: Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }),
        ..Default::default()
    };
    Ok(client.connectors().update_connector(request).await?.into_inner().connector.unwrap())
}

async fn secret_headers(
    client: &Client,
    id: &str,
    paths: &[&str],
    headers: &[(&str, &str)],
) -> Result<v1::Connector, Status> {
    let secret_headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    update_connector(client, id, paths, v1::Connector { secret_headers, ..Default::default() }).await
}

async fn material(
    client: &Client,
    id: &str,
    paths: &[&str],
    material: Option<v1::CredentialMaterial>,
) -> Result<v1::Credential, Status> {
    let request = v1::UpdateCredentialRequest {
        reference: id.to_owned(),
        credential: Some(v1::Credential::default()),
        update_mask: Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }),
        material,
        ..Default::default()
    };
    Ok(client.credentials().update_credential(request).await?.into_inner().credential.unwrap())
}

/// The secret headers of a connector, unsealed.
async fn opened(server: &TestServer, id: &str) -> BTreeMap<String, String> {
    let opened = server.opened(tenant(server).await, Resource::Connector, id, "secret_headers").await.unwrap();
    serde_json::from_slice(&opened).unwrap()
}
