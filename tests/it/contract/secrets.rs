//! Secrets in the contract: their fields, the answers that may contain them, and that `Debug` never shows them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jackfield_api::v1;
use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

use super::{PACKAGE, field_comment, messages, methods};

/// Words that mark a field as a possible secret.
const SUSPECT: [&str; 7] = ["secret", "password", "token", "private_key", "api_key", "material", "passphrase"];

/// Fields with such a word in the name that are not secrets, each with the reason.
const NO_SECRETS: &[(&str, &str)] = &[
    ("Connector.egress_proxy_password_set", "a flag"),
    ("Connection.client_secrets", "its values are redacted one by one"),
    ("Connection.token_parameters", "settings that anyone may read who may read the connection"),
    ("Connection.token_url", "a URL"),
    ("ClientSecret.secret_id", "which secret, not the secret"),
    ("RotateConnectionSecretRequest.secret_id", "which secret, not the secret"),
    ("Connector.api_key", "a kind of connector"),
    ("Connector.secret_header_names", "names only"),
    ("GenericConnector.http_authentication_password_set", "a flag"),
    ("CredentialMaterial.api_key", "its value is redacted"),
    ("Connection.refresh_token_grace_period", "a time"),
    ("RemoteSource.secret_header_names", "names only"),
    ("IssueAccessTokenResponse.token_type", "how to use it"),
    ("Key.private_key_set", "a flag"),
    ("ListApplicationsRequest.page_token", "a place in a list"),
    ("ListApplicationsResponse.next_page_token", "a place in a list"),
    ("ListConfigurationsRequest.page_token", "a place in a list"),
    ("ListConfigurationsResponse.next_page_token", "a place in a list"),
    ("ListConnectionsRequest.page_token", "a place in a list"),
    ("ListConnectionsResponse.next_page_token", "a place in a list"),
    ("ListConnectorEventsRequest.page_token", "a place in a list"),
    ("ListConnectorEventsResponse.next_page_token", "a place in a list"),
    ("ListConnectorsRequest.page_token", "a place in a list"),
    ("ListConnectorsResponse.next_page_token", "a place in a list"),
    ("ListCredentialsRequest.page_token", "a place in a list"),
    ("ListCredentialsResponse.next_page_token", "a place in a list"),
    ("ListKeysRequest.page_token", "a place in a list"),
    ("ListKeysResponse.next_page_token", "a place in a list"),
    ("ListPermissionsRequest.page_token", "a place in a list"),
    ("ListPermissionsResponse.next_page_token", "a place in a list"),
    ("ListSessionsRequest.page_token", "a place in a list"),
    ("ListSessionsResponse.next_page_token", "a place in a list"),
    ("ListTenantsRequest.page_token", "a place in a list"),
    ("ListTenantsResponse.next_page_token", "a place in a list"),
    ("ListUserConnectorsRequest.page_token", "a place in a list"),
    ("ListUserConnectorsResponse.next_page_token", "a place in a list"),
    ("ListUsersRequest.page_token", "a place in a list"),
    ("ListUsersResponse.next_page_token", "a place in a list"),
    ("OAuth2Connector.token_url", "a URL"),
    ("OAuth2Material.token_type", "how to use it"),
    ("Rewrap.secrets_done", "a count"),
    ("Rewrap.secrets_total", "a count"),
    ("User.password_set", "a flag"),
];

/// The methods that return secrets.
pub(super) const HAND_OUT: [&str; 6] = [
    "AuthenticateApplicationUser",
    "GetUserConnectionCredentials",
    "IssueAccessToken",
    "ReportTokenRejected",
    "RevealCredential",
    "StartAuthorization",
];

pub(super) fn redacted(field: &FieldDescriptor) -> bool {
    field.options().get_field_by_name("debug_redact").and_then(|value| value.as_bool()) == Some(true)
}

/// A message and everything that can be in it, of this package.
pub(super) fn reachable(message: &MessageDescriptor, found: &mut BTreeMap<String, MessageDescriptor>) {
    if found.insert(message.full_name().to_owned(), message.clone()).is_none() {
        for field in message.fields() {
            if let Kind::Message(inner) = field.kind() {
                reachable(&inner, found);
            }
        }
    }
}

/// Messages that can contain a secret, at any depth.
fn secret_messages() -> Vec<MessageDescriptor> {
    let has_secret = |message: &MessageDescriptor| {
        let mut inside = BTreeMap::new();
        reachable(message, &mut inside);
        inside.values().any(|message| message.fields().any(|field| redacted(&field)))
    };
    messages().into_iter().filter(has_secret).collect()
}

#[test]
fn fields_that_sound_like_secrets_are_redacted_or_explained() {
    let mut explained: BTreeSet<_> = NO_SECRETS.iter().map(|(name, _)| *name).collect();
    let mut bare = Vec::new();
    for field in messages().iter().flat_map(|message| message.fields().collect::<Vec<_>>()) {
        let name = field.full_name().trim_start_matches(PACKAGE).trim_start_matches('.').to_owned();
        let explained = explained.remove(name.as_str());
        if SUSPECT.iter().any(|word| field.name().contains(word)) && redacted(&field) == explained {
            bare.push(name);
        }
    }
    assert_eq!(bare, Vec::<String>::new(), "redact them or explain them, not both");
    assert!(explained.is_empty(), "no such fields: {explained:?}");
}

/// Every field of credential material is secret, whatever its name.
#[test]
fn material_is_redacted() {
    let no_secrets = ["token_type", "scopes", "key"];
    let materials = messages().into_iter().filter(|message| {
        message.name().ends_with("Material") && message.name() != "CredentialMaterial" // which holds only these
    });
    let mut fields = 0;
    for field in materials.flat_map(|message| message.fields().collect::<Vec<_>>()) {
        let text = field.kind() == Kind::String || field.is_map();
        assert_eq!(text && !no_secrets.contains(&field.name()), redacted(&field), "{}", field.full_name());
        fields += usize::from(redacted(&field));
    }
    assert_eq!(fields, 9);
}

#[test]
fn answers_contain_secrets_only_where_they_are_returned() {
    let mut answers = BTreeMap::new();
    for method in methods().iter().filter(|method| !HAND_OUT.contains(&method.name())) {
        reachable(&method.output(), &mut answers);
    }
    let mut write_only = Vec::new();
    for field in answers.values().flat_map(|message| message.fields().collect::<Vec<_>>()).filter(redacted) {
        assert!(field_comment(&field).starts_with("Write-only."), "{} can be in an answer", field.full_name());
        write_only.push(field.full_name().to_owned());
    }
    write_only.sort();
    let known = [
        "jackfield.v1.ClientSecret.value",
        "jackfield.v1.Connector.egress_proxy_password",
        "jackfield.v1.Connector.secret_headers",
        "jackfield.v1.GenericConnector.http_authentication_password",
        "jackfield.v1.RemoteSource.secret_headers",
        "jackfield.v1.User.password",
    ];
    assert_eq!(write_only, known, "the canary sweep has to cover these");
}

#[test]
fn write_only_fields_are_redacted() {
    for field in messages().iter().flat_map(|message| message.fields().collect::<Vec<_>>()) {
        if field_comment(&field).starts_with("Write-only.") {
            assert!(redacted(&field), "{}", field.full_name());
        }
    }
}

/// Prints a message of the generated type from its wire bytes.
type Printer = fn(&[u8]) -> String;

fn print<M: prost::Message + Default + std::fmt::Debug>(wire: &[u8]) -> String {
    format!("{:?}", M::decode(wire).expect("the message decodes"))
}

macro_rules! printers {
    ($($message:ident,)*) => {
        HashMap::from([$((stringify!($message), print::<v1::$message> as Printer),)*])
    };
}

fn printers() -> HashMap<&'static str, Printer> {
    printers![
        ApiKeyMaterial,
        AuthenticateApplicationUserRequest,
        AuthenticateApplicationUserResponse,
        AuthenticateUserConnectorRequest,
        AuthenticateUserRequest,
        BasicMaterial,
        CompleteAuthorizationRequest,
        ClientCredentialsMaterial,
        ClientSecret,
        Connection,
        Connector,
        CreateConnectionRequest,
        CreateConnectionResponse,
        CreateConnectorRequest,
        CreateConnectorResponse,
        CreateCredentialRequest,
        CreateUserRequest,
        CreateUserResponse,
        CredentialMaterial,
        CredentialSource,
        CustomMaterial,
        EndSessionRequest,
        GenericConnector,
        GetConnectionResponse,
        GetCredentialSourceResponse,
        GetConnectorResponse,
        GetSessionPermissionsRequest,
        GetSessionUserRequest,
        GetUserResponse,
        RemoteSource,
        ImportKeyRequest,
        KeyImport,
        GetUserConnectionCredentialsResponse,
        IssueAccessTokenResponse,
        JsonMergePatch,
        JsonPatch,
        ListConnectionsResponse,
        ListConnectorsResponse,
        ListUsersResponse,
        OAuth2Material,
        PatchConnectorRequest,
        PatchConnectorResponse,
        ReportTokenRejectedResponse,
        RevealCredentialResponse,
        RotateConnectionSecretRequest,
        RotateConnectionSecretResponse,
        RotateKeyRequest,
        ServeCredentialsRequest,
        SetCredentialSourceRequest,
        SetCredentialSourceResponse,
        StartAuthorizationResponse,
        TestConnectorRequest,
        UpdateConnectionRequest,
        UpdateConnectionResponse,
        UpdateConnectorRequest,
        UpdateConnectorResponse,
        UpdateCredentialRequest,
        UpdateUserRequest,
        UpdateUserResponse,
        User,
    ]
}

/// Fills every text field of a message, and in each oneof the member whose turn it is.
fn filled(message: &MessageDescriptor, secret: bool, turn: usize, depth: usize) -> DynamicMessage {
    let mut filled = DynamicMessage::new(message.clone());
    for field in message.fields() {
        let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
        let its_turn =
            oneof.is_none_or(|oneof| oneof.fields().nth(turn % oneof.fields().len()).as_ref() == Some(&field));
        if !its_turn || depth == 0 {
            continue;
        }
        let secret = secret || redacted(&field);
        let one = |field: &FieldDescriptor| match field.kind() {
            Kind::String => Some(Value::String(format!("{} {}", canary(secret), field.name()))),
            Kind::Message(inner) => Some(Value::Message(self::filled(&inner, secret, turn, depth - 1))),
            _ => None,
        };
        let value = match field.kind() {
            Kind::Message(entry) if entry.is_map_entry() => one(&entry.map_entry_value_field()).map(|value| {
                let key = MapKey::String(format!("{} key", canary(secret)));
                Value::Map(HashMap::from([(key, value)]))
            }),
            _ if field.is_list() => one(&field).map(|value| Value::List(vec![value])),
            _ => one(&field),
        };
        if let Some(value) = value {
            filled.set_field(&field, value);
        }
    }
    filled
}

const fn canary(secret: bool) -> &'static str {
    if secret { "CANARY" } else { "plain" }
}

#[test]
fn debug_shows_no_secret() {
    let mut printers = printers();
    for message in secret_messages() {
        let print = printers.remove(message.name()).unwrap_or_else(|| panic!("{} is not in the list", message.name()));
        let mut redactions = 0;
        for turn in 0..8 {
            let wire = filled(&message, false, turn, 6).encode_to_vec();
            let planted = String::from_utf8_lossy(&wire).matches("CANARY").count();
            let printed = print(&wire);
            assert!(!printed.contains("CANARY"), "{printed}");
            assert!(planted == 0 || printed.contains("[redacted]"), "{printed}");
            let plain = String::from_utf8_lossy(&wire).matches("plain").count();
            assert_eq!(printed.matches("plain").count(), plain, "other values are shown: {printed}");
            redactions += planted;
        }
        assert!(redactions > 0, "no canary was planted in {}", message.name());
    }
    assert!(printers.is_empty(), "no secrets in {:?}", printers.keys());
}
