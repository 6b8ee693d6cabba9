//! Every given value counts, even `false` and the empty text, and even without a mask.

use jackfield_api::v1;
use jackfield_api::v1::connector::Kind;
use jackfield_testkit::{fixture, on_both};
use prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, MessageDescriptor, ReflectMessage as _, Value};
use tonic::{Response, Status};

use crate::{contract, key, steps};

on_both! {
    async fn an_explicit_default_takes_effect_without_a_mask(server) {
        let client = server.client("alpha");
        key::import(&client, key::an_identity(&server, "identity")).await;
        key::import(&client, key::a_bundle(&server, "bundle")).await;
        let url = |path: &str| Some(format!("https://example.com/{path}"));
        let text = |text: &str| Some(text.to_owned());
        let kinds = [
            Kind::Generic(v1::GenericConnector {
                authentication_url: "https://example.com/login".to_owned(),
                http_authentication_username: text("user"),
                migrate_users: Some(true),
                ..Default::default()
            }),
            Kind::Oauth2(v1::OAuth2Connector {
                issuer_url: url("issuer"),
                authorization_url: url("authorization"),
                token_url: url("token"),
                profile_url: url("profile"),
                revocation_url: url("revocation"),
                jwks_url: url("jwks"),
                device_authorization_url: url("device"),
            }),
            Kind::ApiKey(v1::ApiKeyConnector {
                base_url: url("api"),
                header_name: text("X-Key"),
                value_prefix: text("Key "),
                query_parameter: None,
            }),
            Kind::ApiKey(v1::ApiKeyConnector { query_parameter: text("key"), ..Default::default() }),
            Kind::HttpBasic(v1::HttpBasicConnector { base_url: url("basic") }),
            Kind::ClientCertificate(v1::ClientCertificateConnector { base_url: url("certificate") }),
        ];
        let mut seen = Vec::new();
        for (index, kind) in kinds.into_iter().enumerate() {
            let needs_identity = matches!(kind, Kind::ClientCertificate(_));
            let given = v1::Connector {
                name: format!("connector {index}"),
                description: text("as it was"),
                kind: Some(kind),
                client_identity_key: text("name:identity"),
                trust_bundle_key: text("name:bundle"),
                debug: Some(true),
                egress_proxy: text("http://proxy.example:3128"),
                egress_proxy_username: text("user"),
                max_concurrent_requests: Some(8),
                max_response_bytes: Some(4_096),
                propagate_trace_context: Some(true),
                ..Default::default()
            };
            let stored = steps::connector(&client, given).await;
            let skipped = if needs_identity { &["client_identity_key"][..] } else { &[] };
            let reset = each_is_reset("Connector", &stored, skipped, async |connector: v1::Connector| {
                let (reference, connector) = (stored.id.clone(), Some(connector));
                let request = v1::UpdateConnectorRequest { reference, connector, ..Default::default() };
                client.connectors().update_connector(request).await.map(Response::into_inner).map(|it| it.connector.unwrap())
            });
            seen.extend(reset.await);
        }

        let client_key = key::import(&client, key::an_identity(&server, "of the connection")).await.id;
        let connection = v1::Connection {
            external_id: text("con_1"),
            authentication_url: url("a"),
            token_url: url("t"),
            issuer_url: text("issuer"),
            provider_certificate: text(&key::an_identity(&server, "x").key.unwrap().certificate_pem),
            client_id: text("client"),
            client_key: Some(client_key),
            user_data_location: text("CH"),
            provider_tenant_id: text("tenant"),
            developer_account_id: text("account"),
            oidc_user_endpoint_url: url("u"),
            user_id_expression: text("{tid}|{sub}"),
            trust_identity_user_id: Some(true),
            scope: text("email"),
            require_business_account: Some(true),
            active: Some(true),
            revocation_url: url("r"),
            jwks_url: url("j"),
            device_authorization_url: url("d"),
            iss_parameter_supported: Some(true),
            ..fixture::a_connection("full", "name:connector 0")
        };
        let request = v1::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
        let stored = client.connections().create_connection(request).await.unwrap().into_inner().connection.unwrap();
        let reset = each_is_reset("Connection", &stored, &[], async |connection: v1::Connection| {
            let (reference, connection) = (stored.id.clone(), Some(connection));
            let request = v1::UpdateConnectionRequest { reference, connection, ..Default::default() };
            client.connections().update_connection(request).await.map(Response::into_inner).map(|it| it.connection.unwrap())
        });
        seen.extend(reset.await);

        let link = steps::link(&client, "ada", "name:connector 0").await;
        let facts = v1::Credential {
            external_id: text("home"),
            provider_account_id: text("1000"),
            ..fixture::a_credential("ada", &link.connector)
        };
        let stored = steps::credential(&client, facts, fixture::api_key_material("key")).await;
        // The default mark can only be moved, not removed.
        let reset = each_is_reset("Credential", &stored, &["is_default"], async |credential: v1::Credential| {
            let (reference, credential) = (stored.id.clone(), Some(credential));
            let request = v1::UpdateCredentialRequest { reference, credential, ..Default::default() };
            client.credentials().update_credential(request).await.map(Response::into_inner).map(|it| it.credential.unwrap())
        });
        seen.extend(reset.await);

        let stored = steps::configuration(&client, fixture::a_configuration(&stored.id, "Team A")).await;
        let reset = each_is_reset("Configuration", &stored, &[], async |configuration: v1::Configuration| {
            let (reference, configuration) = (stored.id.clone(), Some(configuration));
            let request = v1::UpdateConfigurationRequest { reference, configuration, ..Default::default() };
            let updated = client.configurations().update_configuration(request).await?;
            Ok(updated.into_inner().configuration.unwrap())
        });
        seen.extend(reset.await);

        // Every field with presence in the contract was tried.
        let mut expected = ["Connector", "Connection", "Credential", "Configuration"].map(contract::message).to_vec();
        expected.extend(contract::message("Connector").oneofs().flat_map(|oneof| oneof.fields().collect::<Vec<_>>()).filter_map(inner));
        for field in expected.iter().flat_map(MessageDescriptor::fields).filter(is_optional) {
            let name = field.full_name().to_owned();
            assert!(seen.contains(&name) || name == "jackfield.v1.Credential.is_default", "{name}");
        }
    }

    async fn linking_is_disabled_by_an_explicit_value(server) {
        use v1::LinkingType;
        let client = server.client("alpha");
        steps::connector(&client, fixture::a_connector("main")).await;
        let connection = v1::Connection {
            linking: LinkingType::Automatic.into(),
            trust_identity_user_id: Some(true),
            ..fixture::a_connection("login", "name:main")
        };
        let request = v1::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
        client.connections().create_connection(request).await.unwrap();
        let update = async |linking: LinkingType, trust: Option<bool>, mask: Option<prost_types::FieldMask>| {
            let connection = v1::Connection { linking: linking.into(), trust_identity_user_id: trust, ..Default::default() };
            let request = v1::UpdateConnectionRequest {
                reference: "name:login".to_owned(),
                connection: Some(connection),
                update_mask: mask,
                ..Default::default()
            };
            let connection = client.connections().update_connection(request).await.unwrap().into_inner().connection.unwrap();
            (connection.linking(), connection.trust_identity_user_id)
        };
        assert_eq!(update(LinkingType::Unspecified, Some(false), None).await, (LinkingType::Automatic, Some(false)));
        assert_eq!(update(LinkingType::Disabled, None, None).await, (LinkingType::Disabled, Some(false)));
        assert_eq!(update(LinkingType::Explicit, Some(true), None).await, (LinkingType::Explicit, Some(true)));
        let mask = fixture::mask(["linking"]);
        assert_eq!(update(LinkingType::Unspecified, None, mask).await, (LinkingType::Disabled, Some(true)));
    }
}

/// Sets each field with presence to its default on its own, and checks that only this field changes. Returns their
/// names.
async fn each_is_reset<M, U>(name: &str, stored: &M, skipped: &[&str], update: U) -> Vec<String>
where
    M: Message + Default,
    U: AsyncFn(M) -> Result<M, Status>,
{
    let descriptor = contract::message(name);
    let read = |message: &M| DynamicMessage::decode(descriptor.clone(), message.encode_to_vec().as_slice()).unwrap();
    let mut before = read(stored);
    let mut names = Vec::new();
    for (path, outer, field) in optional_fields(&before) {
        if skipped.contains(&path.as_str()) || !has(&before, outer.as_ref(), &field) {
            continue;
        }
        let mut given = DynamicMessage::new(descriptor.clone());
        match outer {
            None => given.set_field(&field, Value::default_value_for_field(&field)),
            Some(outer) => {
                let mut settings = DynamicMessage::new(field.parent_message().clone());
                settings.set_field(&field, Value::default_value_for_field(&field));
                given.set_field(&outer, Value::Message(settings));
            }
        }
        let given = M::decode(given.encode_to_vec().as_slice()).unwrap();
        let after = read(&update(given).await.unwrap_or_else(|status| panic!("{path}: {status:?}")));
        assert_eq!(differences(&before, &after), [&*path]);
        names.push(field.full_name().to_owned());
        before = after;
    }
    names
}

/// The fields with presence of a message and of its settings: the path, the field of the settings, the field itself.
fn optional_fields(message: &DynamicMessage) -> Vec<(String, Option<FieldDescriptor>, FieldDescriptor)> {
    let mut found = Vec::new();
    for field in message.descriptor().fields() {
        if is_optional(&field) {
            found.push((field.name().to_owned(), None, field));
        } else if is_settings(&field) && message.has_field(&field) {
            let fields = inner(field.clone()).unwrap().fields().filter(is_optional).collect::<Vec<_>>();
            found.extend(
                fields.into_iter().map(|it| (format!("{}.{}", field.name(), it.name()), Some(field.clone()), it)),
            );
        }
    }
    found
}

fn is_optional(field: &FieldDescriptor) -> bool {
    field.field_descriptor_proto().proto3_optional()
}

/// Returns whether a field is a member of a oneof that a caller chooses from.
fn is_settings(field: &FieldDescriptor) -> bool {
    field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic())
}

fn inner(field: FieldDescriptor) -> Option<MessageDescriptor> {
    field.kind().as_message().cloned()
}

/// Returns whether there is a value other than the default.
fn has(message: &DynamicMessage, outer: Option<&FieldDescriptor>, field: &FieldDescriptor) -> bool {
    let settings = outer.map(|outer| message.get_field(outer).as_message().unwrap().clone());
    let value = settings.as_ref().unwrap_or(message).get_field(field).into_owned();
    value != Value::default_value_for_field(field)
}

/// The paths of differing fields, except those that change with every update.
fn differences(one: &DynamicMessage, other: &DynamicMessage) -> Vec<String> {
    let mut found = Vec::new();
    for field in one.descriptor().fields().filter(|field| !matches!(field.name(), "etag" | "update_time")) {
        let (left, right) = (one.get_field(&field), other.get_field(&field));
        match (left.as_message(), right.as_message()) {
            (Some(left), Some(right)) if is_settings(&field) => {
                found.extend(differences(left, right).into_iter().map(|name| format!("{}.{name}", field.name())));
            }
            _ if left != right => found.push(field.name().to_owned()),
            _ => {}
        }
    }
    found
}
