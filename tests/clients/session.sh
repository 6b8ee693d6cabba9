#!/usr/bin/env bash
# A session with grpcurl, from an empty server to a usable token and back. It takes the steps of docs/session.md and checks
# more: `expect` checks each answer with jq, and the first mismatch ends the session.
#
#   JACKFIELD          the binary
#   JACKFIELD_ADDRESS  the address of the server
#   JACKFIELD_DATA     its data directory, with the certificates it made on its first start
set -euo pipefail

: "${JACKFIELD:=target/debug/jackfield}" "${JACKFIELD_ADDRESS:=127.0.0.1:7443}" "${JACKFIELD_DATA:=data}"
PKI=$JACKFIELD_DATA/pki
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

# call METHOD REQUEST: makes a call with the certificate of the operator.
call() {
  grpcurl -format-error -cacert "$PKI/ca.pem" -cert "$PKI/client.pem" -key "$PKI/client-key.pem" \
    -d "$2" "$JACKFIELD_ADDRESS" "$1"
}

# rpc METHOD REQUEST: a call that has to succeed. Its answer, or the pages of its list, become ANSWER.
rpc() {
  ANSWER=$(call "$1" "$2" 2>&1) || surprise "$1 was refused"
  echo "$1" && printf '%s\n' "$ANSWER" >>"$WORK/answers"
}

# refused METHOD REQUEST REASON: a call that has to be refused for this reason.
refused() {
  ANSWER=$(call "$1" "$2" 2>&1) && surprise "$1 was not refused"
  echo "$1, refused: $3" && printf '%s\n' "$ANSWER" >>"$WORK/answers"
  expect '.details[] | select(."@type" | endswith("/google.rpc.ErrorInfo")) | .domain == "jackfield" and .reason == $reason' \
    --arg reason "$3"
}

# expect FILTER ARGUMENT…: checks ANSWER, all messages of a list at once with --slurp.
expect() {
  jq --exit-status "${@:2}" "$1" <<<"$ANSWER" >/dev/null || surprise "expected $1 ${*:2}"
}

# expect_pages FIELD COUNT: checks that ANSWER is COUNT pages of one item, with a token on all but the last.
expect_pages() {
  expect 'map(.[$field] | length) == [range($count) | 1]' --slurp --arg field "$1" --argjson count "$2"
  expect 'map(has("nextPageToken")) == [range($count) | . < $count - 1]' --slurp --argjson count "$2"
}

surprise() {
  printf '%s\n%s\n' "$1" "$ANSWER" >&2
  exit 1
}

# --- A connector: the example of the FusionAuth Generic Connector, field for field ------------------------------------

# The key it names: a client certificate under the id of the example.
"$JACKFIELD" client-cert --data-dir "$JACKFIELD_DATA" --out "$WORK" fusionauth
rpc jackfield.v1.KeyService/ImportKey "$(jq --null-input \
  --rawfile certificate "$WORK/fusionauth.pem" --rawfile key "$WORK/fusionauth-key.pem" '{
    id: "ce485a91-906f-4615-af75-81d37dc71e90",
    key: {name: "FusionAuth client", certificatePem: $certificate},
    privateKeyPem: $key
  }')"
expect '.key | .id == "ce485a91-906f-4615-af75-81d37dc71e90" and .type == "KEY_TYPE_CLIENT_IDENTITY" and .privateKeySet'

rpc jackfield.v1.ConnectorService/CreateConnector '{
  "connector": {
    "name": "My Generic Connector",
    "generic": {
      "authenticationUrl": "http://localhost:3000/api/authenticate",
      "httpAuthenticationUsername": "basicUsername",
      "httpAuthenticationPassword": "basicPassword"
    },
    "connectTimeout": "0.100s",
    "readTimeout": "0.100s",
    "headers": {"header1": "value1", "header2": "value2"},
    "clientIdentityKey": "ce485a91-906f-4615-af75-81d37dc71e90",
    "data": {"modifiedBy": "richard"},
    "debug": true
  }
}'
CONNECTOR=$(jq --raw-output .connector.id <<<"$ANSWER")
expect '.connector | .name == "My Generic Connector" and .debug and .enabled and .etag != ""'
expect '.connector.generic == {
  authenticationUrl: "http://localhost:3000/api/authenticate",
  httpAuthenticationUsername: "basicUsername",
  httpAuthenticationPasswordSet: true,
  migrateUsers: false
}'
expect '.connector | .connectTimeout == "0.100s" and .readTimeout == "0.100s"'
expect '.connector | .headers == {header1: "value1", header2: "value2"} and .data == {modifiedBy: "richard"}'
expect '.connector.clientIdentityKey == "ce485a91-906f-4615-af75-81d37dc71e90"'

# The same name in another letter case is taken, and the key cannot be deleted while it is in use.
refused jackfield.v1.ConnectorService/CreateConnector '{
  "connector": {"name": "my generic connector", "generic": {"authenticationUrl": "http://localhost:3000/"}}
}' NAME_TAKEN
refused jackfield.v1.KeyService/DeleteKey '{"reference": "name:FusionAuth client"}' IN_USE

# An update changes the fields in its mask, unless another change came first.
rpc jackfield.v1.ConnectorService/GetConnector '{"reference": "name:My Generic Connector"}'
update='{
  "reference": "name:My Generic Connector",
  "connector": {"data": {"modifiedBy": "monica"}, "readTimeout": "2s"},
  "updateMask": {"paths": ["data", "read_timeout"]},
  "etag": '$(jq .connector.etag <<<"$ANSWER")'
}'
rpc jackfield.v1.ConnectorService/UpdateConnector "$update"
expect '.connector | .data == {modifiedBy: "monica"} and .readTimeout == "2s" and .connectTimeout == "0.100s"'
refused jackfield.v1.ConnectorService/UpdateConnector "$(jq '.connector = {}' <<<"$update")" ETAG_MISMATCH

# One secret header is set and removed without knowing the others. Every given value counts, even false.
rpc jackfield.v1.ConnectorService/UpdateConnector '{
  "reference": "name:My Generic Connector",
  "connector": {"secretHeaders": {"X-Api-Key": "secretHeaderOfTheSession"}},
  "updateMask": {"paths": ["secret_headers.x-api-key"]}
}'
expect '.connector.secretHeaderNames == ["X-Api-Key"]'
rpc jackfield.v1.ConnectorService/UpdateConnector "$(jq '{
  reference: .connector.id, connector: {debug: false, etag: .connector.etag}, validateOnly: true
}' <<<"$ANSWER")"
expect '.connector | .debug == false and .secretHeaderNames == ["X-Api-Key"]'
refused jackfield.v1.ConnectorService/UpdateConnector '{
  "reference": "name:My Generic Connector", "connector": {}
}' FIELD_INVALID

# A patch is all or nothing, and a failed test of it changes nothing.
rpc jackfield.v1.ConnectorService/PatchConnector '{
  "reference": "name:My Generic Connector", "mergePatch": {"json": "{\"description\": \"patched\"}"}
}'
expect '.connector.description == "patched"'
refused jackfield.v1.ConnectorService/PatchConnector '{
  "reference": "name:My Generic Connector",
  "jsonPatch": {"json": "[{\"op\": \"remove\", \"path\": \"/description\"}, {\"op\": \"test\", \"path\": \"/debug\", \"value\": false}]"}
}' PATCH_TEST_FAILED

# Nothing listens at its URL. A test says so step by step, and a log-in says only that the system could not be asked.
rpc jackfield.v1.ConnectorService/TestConnector '{"reference": "name:My Generic Connector"}'
expect 'map(.reason) | .[4] == "CONNECTOR_TEST_REASON_CONNECT_FAILED" and length == 11' --slurp
rpc jackfield.v1.ConnectorService/AuthenticateUser '{
  "connector": "name:My Generic Connector", "loginId": "ada", "password": "passwordOfTheSession"
}'
expect '. == {outcome: "LOGIN_OUTCOME_UPSTREAM_FAULT", connector: $connector}' --arg connector "$CONNECTOR"

# --- A generated key, and its planned rotation ------------------------------------------------------------------------

rpc jackfield.v1.KeyService/GenerateKey '{"key": {"name": "Generated"}, "generation": {"commonName": "jackfield"}}'
expect '.key | .type == "KEY_TYPE_CLIENT_IDENTITY" and .certificates[0].subject == "CN=jackfield" and .privateKeySet'
rpc jackfield.v1.KeyService/RotateKey "$(jq --null-input '{
  reference: "name:Generated", generation: {algorithm: "KEY_ALGORITHM_ED25519"}, activateTime: (now + 86400 | todate)
}')"
expect '.key | [.certificates[0], .next.certificates[0]] | map(.publicKeyAlgorithm) == ["EC P-256", "Ed25519"]'
rpc jackfield.v1.KeyService/DeleteKey '{"reference": "name:Generated"}'

# --- A connection for it, with the fields of Authress -----------------------------------------------------------------

rpc jackfield.v1.ConnectionService/CreateConnection '{
  "connection": {
    "name": "Company login",
    "externalId": "company-login",
    "connector": "name:My Generic Connector",
    "type": "CONNECTION_TYPE_OAUTH2",
    "authenticationUrl": "https://login.example.com/authorize",
    "tokenUrl": "https://login.example.com/token",
    "issuerUrl": "https://login.example.com",
    "clientId": "jackfield",
    "clientSecrets": [{"secretId": "2026", "value": "clientSecretOfTheSession"}],
    "userDataLocation": "CH",
    "providerTenantId": "company",
    "supportedContentType": "TOKEN_CONTENT_TYPE_FORM",
    "userIdExpression": "{sub}",
    "scope": "profile email openid",
    "parameters": {"access_type": "offline"},
    "requireBusinessAccount": true,
    "linking": "LINKING_TYPE_EXPLICIT",
    "tags": {"team": "a"}
  }
}'
expect '.connection | .connector == $connector and .externalId == "company-login" and .active' --arg connector "$CONNECTOR"
expect '.connection.clientSecrets | length == 1 and .[0].secretId == "2026" and (.[0] | has("value") | not)'
expect '.connection | .parameters == {access_type: "offline"} and .linking == "LINKING_TYPE_EXPLICIT"'

# --- A user, linked to the connector, with a credential ---------------------------------------------------------------

rpc jackfield.v1.UserConnectorService/AddUserConnector '{"userId": "user-1", "connector": "name:My Generic Connector"}'
expect '.created and .userConnector.state == "USER_CONNECTOR_STATE_ATTACHED"'
rpc jackfield.v1.UserConnectorService/AddUserConnector '{"userId": "user-1", "connector": "name:My Generic Connector"}'
expect '(.created | not) and .warning != null'

rpc jackfield.v1.CredentialsService/CreateCredential '{
  "credential": {
    "externalId": "user-1-login",
    "userId": "user-1",
    "connector": "name:My Generic Connector",
    "connection": "ext:company-login"
  },
  "material": {
    "oauth2": {
      "accessToken": "accessTokenOfTheSession",
      "refreshToken": "refreshTokenOfTheSession",
      "expireTime": "2100-01-01T00:00:00Z",
      "scopes": ["profile", "email"]
    }
  }
}'
CREDENTIAL=$(jq --raw-output .credential.id <<<"$ANSWER")
expect '.credential | .state == "CREDENTIAL_STATE_VALID" and .kind == "CREDENTIAL_KIND_OAUTH2" and .isDefault and .refreshable'

# A usable token comes back: by reference, or by user and connector.
rpc jackfield.v1.CredentialsService/IssueAccessToken '{"userId": "user-1", "connector": "name:My Generic Connector"}'
expect '(.nextRefreshTime | startswith("20")) and del(.nextRefreshTime) == {
  accessToken: "accessTokenOfTheSession",
  tokenType: "Bearer",
  expireTime: "2100-01-01T00:00:00Z",
  scopes: ["profile", "email"],
  credential: $credential,
  credentialVersion: "1"
}' --arg credential "$CREDENTIAL"
sed -i.bak /accessTokenOfTheSession/d "$WORK/answers"

# --- A configuration of the credential --------------------------------------------------------------------------------

rpc jackfield.v1.ConfigurationService/CreateConfiguration '{
  "configuration": {
    "credential": "ext:user-1-login",
    "externalId": "Team A",
    "sharedSettings": {"language": "en"},
    "workflowSettings": {"sync": {"enabled": true, "settings": {"folder": "inbox"}}}
  }
}'
expect '.configuration | .credential == $credential and .externalId == "Team A"' --arg credential "$CREDENTIAL"
rpc jackfield.v1.ConfigurationService/GetConfiguration '{"reference": "ext:Team A", "credential": "ext:user-1-login"}'
expect '.configuration | .workflowSettings.sync == {enabled: true, settings: {folder: "inbox"}} and .userId == "user-1"'

# --- A user whose password is checked here ----------------------------------------------------------------------------

rpc jackfield.v1.UserService/CreateUser '{"user": {
  "userId": "user-2", "username": "Ada", "email": "ada@example.com", "password": "passwordOfTheSession",
  "registrations": [{"applicationId": "gallery", "roles": ["editor"]}]
}}'
expect '.user | .passwordSet and (has("password") | not) and .registrations == [{applicationId: "gallery", roles: ["editor"]}]'
refused jackfield.v1.UserService/CreateUser '{"user": {"username": "ADA@example.com"}}' LOGIN_ID_TAKEN
rpc jackfield.v1.UserService/GetUser '{"reference": "ext:user-2"}'
expect '.user | .username == "Ada" and .enabled'

# --- An application, what the user may do in it, and a session -------------------------------------------------------

rpc jackfield.v1.ApplicationService/CreateApplication '{"application": {
  "name": "Gallery", "externalId": "gallery", "permissions": [{"slug": "view"}]
}}'
rpc jackfield.v1.ApplicationService/SetPermissions '{
  "application": "ext:gallery", "userId": "user-2", "companyId": "c-1", "permissions": ["use_app", "view"]
}'
refused jackfield.v1.ApplicationService/SetPermissions '{
  "application": "ext:gallery", "userId": "user-2", "companyId": "c-1", "permissions": ["use_app", "delete"]
}' FIELD_INVALID
LOGIN='{"application": "ext:gallery", "username": "ADA@example.com", "password": "passwordOfTheSession"}'
rpc jackfield.v1.ApplicationService/AuthenticateApplicationUser "$(jq '.password = "another"' <<<"$LOGIN")"
expect '. == {outcome: "LOGIN_OUTCOME_REJECTED"}'
rpc jackfield.v1.ApplicationService/AuthenticateApplicationUser "$LOGIN"
expect '.outcome == "LOGIN_OUTCOME_ACCEPTED" and .permissions == ["use_app", "view"] and .user.userId == "user-2"'
SESSION=$(jq '{application: "ext:gallery", sessionToken}' <<<"$ANSWER")
rpc jackfield.v1.ApplicationService/GetSessionUser "$SESSION"
expect '.user.email == "ada@example.com"'
rpc jackfield.v1.ApplicationService/GetSessionPermissions "$SESSION"
expect '.companies == [{companyId: "c-1", companyName: "c-1", permissions: ["use_app", "view"]}]'
rpc jackfield.v1.ApplicationService/ListSessions '{"pageSize": 1, "userId": "user-2"}'
expect_pages sessions 1
rpc jackfield.v1.ApplicationService/ListPermissions '{"pageSize": 1}'
expect_pages grants 1
rpc jackfield.v1.ApplicationService/ListApplications '{"pageSize": 1}'
expect_pages applications 1
rpc jackfield.v1.ApplicationService/EndSession "$SESSION"
expect '.ended'
refused jackfield.v1.ApplicationService/GetSessionUser "$SESSION" SESSION_NOT_FOUND

# --- Routes -----------------------------------------------------------------------------------------------------------

rpc jackfield.v1.ConnectorService/ReplaceRoutingPolicy '{"routingPolicy": {"rules": [
  {"emailDomains": ["example.com"], "connector": "name:My Generic Connector"},
  {"emailDomains": ["*"], "connection": "ext:company-login"}
]}}'
rpc jackfield.v1.ConnectorService/ResolveRoute '{"loginId": "monica@Example.com"}'
expect '.routes | map(.reason) == ["ROUTE_REASON_RULE", "ROUTE_REASON_RULE"] and .[0].connector == $connector' \
  --arg connector "$CONNECTOR"
refused jackfield.v1.ConnectorService/AuthenticateUser '{"loginId": "monica", "password": "another"}' CONNECTION_REQUIRED
rpc jackfield.v1.ConnectorService/ReplaceRoutingPolicy '{"routingPolicy": {}}'
refused jackfield.v1.ConnectorService/ResolveRoute '{"loginId": "monica"}' ROUTING_RULE_NOT_FOUND

# --- Every list, page by page -----------------------------------------------------------------------------------------

rpc jackfield.v1.KeyService/ListKeys '{"pageSize": 1}'
expect_pages keys 1
rpc jackfield.v1.ConnectorService/ListConnectors '{"pageSize": 1}'
expect_pages connectors 1
rpc jackfield.v1.ConnectionService/ListConnections '{"pageSize": 1}'
expect_pages connections 1
rpc jackfield.v1.UserConnectorService/ListUserConnectors '{"pageSize": 1, "userId": "user-1"}'
expect_pages userConnectors 1
rpc jackfield.v1.CredentialsService/ListCredentials '{"pageSize": 1, "connection": "ext:company-login"}'
expect_pages credentials 1
rpc jackfield.v1.UserService/ListUsers '{"pageSize": 1, "filter": "email = \"ADA@example.com\""}'
expect_pages users 1
rpc jackfield.v1.AdminService/ListTenants '{"pageSize": 1}'
expect_pages tenants 1
# The one just created, and the default one that was created with the credential.
rpc jackfield.v1.ConfigurationService/ListConfigurations '{"pageSize": 1}'
expect_pages configurations 2

# A list can be left after any page and continued there, and it can be filtered.
TOKEN=$(jq --raw-output --slurp '.[0].nextPageToken' <<<"$ANSWER")
SECOND=$(jq --raw-output --slurp '.[1].configurations[0].id' <<<"$ANSWER")
rpc jackfield.v1.ConfigurationService/ListConfigurations '{"pageSize": 1, "pageToken": "'"$TOKEN"'"}'
expect_pages configurations 1
expect '.configurations[0].id == $second' --arg second "$SECOND"
rpc jackfield.v1.ConnectorService/ListConnectors '{"filter": "generic AND debug = true AND NOT url:example.com"}'
expect '.connectors | length == 1'

# --- The link is removed with everything that depends on it -----------------------------------------------------------

refused jackfield.v1.ConnectorService/DeleteConnector '{"reference": "name:My Generic Connector"}' IN_USE
rpc jackfield.v1.UserConnectorService/RemoveUserConnector '{"userId": "user-1", "connector": "name:My Generic Connector"}'
expect '. == {removed: true, credentialsDeleted: "1", configurationsDeleted: "2"}'
refused jackfield.v1.CredentialsService/GetCredential '{"reference": "ext:user-1-login"}' CREDENTIAL_NOT_FOUND
expect '.code == 5'
rpc jackfield.v1.UserConnectorService/RemoveUserConnector '{"userId": "user-1", "connector": "name:My Generic Connector"}'
expect '(.removed | not) and .warning != null'

# --- Watches: grpcurl keeps a reflection stream open beside each ------------------------------------------------------

WATCHES=()
for watch in $(seq 12); do
  {
    exec grpcurl -format-error -cacert "$PKI/ca.pem" -cert "$PKI/client.pem" -key "$PKI/client-key.pem" \
      -d '{}' "$JACKFIELD_ADDRESS" grpc.health.v1.Health/Watch >"$WORK/watch.$watch" 2>&1
  } &
  WATCHES+=($!)
done
for watch in $(seq 12); do
  for _ in $(seq 300); do
    [ ! -s "$WORK/watch.$watch" ] || break
    sleep 0.1
  done
  ANSWER=$(cat "$WORK/watch.$watch")
  expect '.status == "SERVING"'
done
rpc jackfield.v1.ConnectorService/GetConnector '{"reference": "name:My Generic Connector"}'
kill "${WATCHES[@]}"
wait "${WATCHES[@]}" 2>/dev/null || true

# --- No answer held a secret ------------------------------------------------------------------------------------------

ANSWER=$(grep -E 'basicPassword|passwordOfTheSession|clientSecretOfTheSession|secretHeaderOfTheSession|(access|refresh)TokenOfTheSession|PRIVATE KEY' "$WORK/answers") &&
  surprise "a secret was returned"
echo "done"
