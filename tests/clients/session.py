"""The session of docs/session.md with Python grpcio.

Besides the session itself, it tests what another gRPC library needs: the contract compiles with protoc's Python generator
(into a temporary directory, at run time), its fields have their annotations, health and reflection answer, error details
decode, an update has its mask and etag, a deadline and a cancelled stream end as they should, a caller without a certificate
is refused, and the Unix socket accepts calls of a client whose authority is the path of the socket.

Environment: as in session.sh, and JACKFIELD_SOCKET, the Unix socket of the same server.
"""

import json
import os
import pathlib
import subprocess
import tempfile

import grpc
from google.api import field_behavior_pb2
from google.protobuf import descriptor_pb2, json_format, message_factory
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

from contract import FILES, compile_contract, descriptor

JACKFIELD = os.environ.get("JACKFIELD", "target/debug/jackfield")
ADDRESS = os.environ.get("JACKFIELD_ADDRESS", "127.0.0.1:7443")
SOCKET = os.environ["JACKFIELD_SOCKET"]
DATA = pathlib.Path(os.environ.get("JACKFIELD_DATA", "data"))
TIMEOUT = 20

KEY_ID = "ce485a91-906f-4615-af75-81d37dc71e90"
SECRETS = ["basicPassword", "passwordOfTheSession", "clientSecretOfTheSession", "secretHeaderOfTheSession", "refreshTokenOfTheSession", "PRIVATE KEY"]


class Service:
    """A service of the contract: its methods take and return JSON, lists return a list of pages."""

    def __init__(self, stub, messages, received):
        self._stub, self._messages, self._received = stub, messages, received

    def __getattr__(self, method):
        (service,) = self._messages.DESCRIPTOR.services_by_name.values()
        message = message_factory.GetMessageClass(service.methods_by_name[method].input_type)

        def call(**fields):
            request = json_format.ParseDict(fields, message())
            answer = getattr(self._stub, method)(request, timeout=TIMEOUT)
            if not hasattr(answer, "__next__"):
                return self._note(method, answer)
            return [self._note(method, page) for page in answer]

        return call

    def _note(self, method, message):
        self._received.append((method, message.SerializeToString()))
        return json_format.MessageToDict(message)


def main():
    with tempfile.TemporaryDirectory() as directory:
        contract = compile_contract(pathlib.Path(directory))
        fields_say_how_they_are_used(contract, pathlib.Path(directory))
        with channel(client_certificate=True) as secure:
            received = []
            services = {}
            for file in FILES:
                messages, stubs = contract[f"{file}_pb2"], contract[f"{file}_pb2_grpc"]
                name = next(name for name in dir(stubs) if name.endswith("ServiceStub"))
                stub = getattr(stubs, name)(secure)
                services[name.removesuffix("ServiceStub")] = Service(stub, messages, received)
            answers_health_and_reflection(secure)
            session(services, pathlib.Path(directory))
            deadlines_and_cancelling(secure, services["Connector"])
            no_answer_held_a_secret(received)
        without_certificate(contract)
        over_socket(contract)
    print("done")


def fields_say_how_they_are_used(contract, directory):
    # Generated code imports the public file instead of ours, so both have to be the same.
    ours, public = descriptor("google/api/field_behavior.proto", directory), descriptor_pb2.FileDescriptorProto()
    field_behavior_pb2.DESCRIPTOR.CopyToProto(public)
    for file in (ours, public):
        file.extension[0].ClearField("json_name")  # one generator writes it, another derives it
    equal(ours, public)
    fields = contract["connector_pb2"].Connector.DESCRIPTOR.fields_by_name
    for name, behaviours in {
        "id": ["IDENTIFIER"], "name": ["REQUIRED"], "secret_headers": ["OPTIONAL", "INPUT_ONLY"], "create_time": ["OUTPUT_ONLY"]
    }.items():
        said = fields[name].GetOptions().Extensions[field_behavior_pb2.field_behavior]
        equal([field_behavior_pb2.FieldBehavior.Name(number) for number in said], behaviours)


def session(services, directory):
    # A connector: the example of the FusionAuth Generic Connector, field for field.
    certificate, private_key = client_certificate(directory)
    key = services["Key"].ImportKey(
        id=KEY_ID, key={"name": "FusionAuth client", "certificatePem": certificate}, privateKeyPem=private_key
    )["key"]
    equal((key["id"], key["type"], key["privateKeySet"]), (KEY_ID, "KEY_TYPE_CLIENT_IDENTITY", True))

    connector = services["Connector"].CreateConnector(
        connector={
            "name": "My Generic Connector",
            "generic": {
                "authenticationUrl": "http://localhost:3000/api/authenticate",
                "httpAuthenticationUsername": "basicUsername",
                "httpAuthenticationPassword": "basicPassword",
            },
            "connectTimeout": "0.100s",
            "readTimeout": "0.100s",
            "headers": {"header1": "value1", "header2": "value2"},
            "clientIdentityKey": KEY_ID,
            "data": {"modifiedBy": "richard"},
            "debug": True,
        }
    )["connector"]
    generic = {
        "authenticationUrl": "http://localhost:3000/api/authenticate",
        "httpAuthenticationUsername": "basicUsername",
        "httpAuthenticationPasswordSet": True,
        "migrateUsers": False,
    }
    expected = {
        "name": "My Generic Connector",
        "generic": generic,
        "connectTimeout": "0.100s",
        "readTimeout": "0.100s",
        "headers": {"header1": "value1", "header2": "value2"},
        "clientIdentityKey": KEY_ID,
        "data": {"modifiedBy": "richard"},
        "debug": True,
        "enabled": True,
    }
    equal({field: connector.get(field) for field in expected}, expected)
    equal(services["Connector"].GetConnector(reference="name:my generic connector")["connector"], connector)

    # All violations of a request are reported at once.
    details = refused(
        "FIELD_INVALID",
        grpc.StatusCode.INVALID_ARGUMENT,
        services["Connector"].CreateConnector,
        connector={"name": " ", "generic": {"authenticationUrl": "nowhere"}, "connectTimeout": "0s"},
    )
    fields = sorted(violation.field for violation in details["BadRequest"].field_violations)
    equal(fields, ["connector.connect_timeout", "connector.generic.authentication_url", "connector.name"])

    # An update changes the fields in its mask; with the replaced etag it is refused.
    update = {
        "reference": "name:My Generic Connector",
        "connector": {"name": "ignored", "data": {"modifiedBy": "monica"}},
        "updateMask": "data",
        "etag": connector["etag"],
    }
    updated = services["Connector"].UpdateConnector(**update)["connector"]
    equal((updated["name"], updated["data"]), ("My Generic Connector", {"modifiedBy": "monica"}))
    refused("ETAG_MISMATCH", grpc.StatusCode.ABORTED, services["Connector"].UpdateConnector, **update | {"connector": {}})

    # Sending back a whole resource as it was read does not overwrite a concurrent change.
    late = {"reference": connector["id"], "connector": connector, "updateMask": "*"}
    refused("ETAG_MISMATCH", grpc.StatusCode.ABORTED, services["Connector"].UpdateConnector, **late)
    # Every given value counts, even false; and one secret header can be set without naming the others.
    update = {"reference": connector["id"], "connector": {"debug": False, "etag": updated["etag"]}}
    updated = services["Connector"].UpdateConnector(**update)["connector"]
    equal((updated["debug"], updated["headers"]), (False, connector["headers"]))
    secret = {"secretHeaders": {"x-api-key": "secretHeaderOfTheSession"}, "etag": updated["etag"]}
    update = {"reference": connector["id"], "connector": secret, "updateMask": "secretHeaders.x-api-key"}
    updated = services["Connector"].UpdateConnector(**update)["connector"]
    equal(updated["secretHeaderNames"], ["x-api-key"])

    # buf curl writes masks as in protobuf's JSON, one string in camel case; grpcurl does not.
    update = {"reference": connector["id"], "connector": {"readTimeout": "2s"}, "updateMask": "readTimeout"}
    answer = buf_curl("ConnectorService/UpdateConnector", update)
    equal((answer["connector"]["readTimeout"], answer["connector"]["data"]), ("2s", updated["data"]))

    # A connection for it, with the fields of Authress.
    connection = services["Connection"].CreateConnection(
        connection={
            "name": "Company login",
            "externalId": "company-login",
            "connector": "name:My Generic Connector",
            "authenticationUrl": "https://login.example.com/authorize",
            "tokenUrl": "https://login.example.com/token",
            "issuerUrl": "https://login.example.com",
            "clientId": "jackfield",
            "clientSecrets": [{"secretId": "2026", "value": "clientSecretOfTheSession"}],
            "supportedContentType": "TOKEN_CONTENT_TYPE_FORM",
            "parameters": {"access_type": "offline"},
            "linking": "LINKING_TYPE_EXPLICIT",
            "tags": {"team": "a"},
        }
    )["connection"]
    equal(connection["connector"], connector["id"])
    equal((connection["type"], connection["scope"]), ("CONNECTION_TYPE_OAUTH2", "profile email openid"))
    equal([set(secret) for secret in connection["clientSecrets"]], [{"secretId", "createTime"}])

    # A user, linked to the connector, with a credential.
    link = {"userId": "user-1", "connector": "name:My Generic Connector"}
    added = services["UserConnector"].AddUserConnector(**link)
    equal((added["created"], added["userConnector"]["state"]), (True, "USER_CONNECTOR_STATE_ATTACHED"))
    again = services["UserConnector"].AddUserConnector(**link)
    equal(("created" in again, bool(again["warning"])), (False, True))

    credential = services["Credentials"].CreateCredential(
        credential={"externalId": "user-1-login", **link, "connection": "ext:company-login"},
        material={
            "oauth2": {
                "accessToken": "accessTokenOfTheSession",
                "refreshToken": "refreshTokenOfTheSession",
                "expireTime": "2100-01-01T00:00:00Z",
                "scopes": ["profile", "email"],
            }
        },
    )["credential"]
    equal((credential["state"], credential["isDefault"]), ("CREDENTIAL_STATE_VALID", True))

    # A usable token comes back.
    token = services["Credentials"].IssueAccessToken(reference="ext:user-1-login")
    expected = {
        "accessToken": "accessTokenOfTheSession",
        "tokenType": "Bearer",
        "expireTime": "2100-01-01T00:00:00Z",
        "scopes": ["profile", "email"],
        "credential": credential["id"],
        "credentialVersion": "1",
    }
    equal(token.pop("nextRefreshTime")[:2], "20")
    equal(token, expected)

    # A configuration of it, beside the default one that was created with the credential.
    configuration = services["Configuration"].CreateConfiguration(
        configuration={
            "credential": "ext:user-1-login",
            "externalId": "Team A",
            "sharedSettings": {"language": "en", "retries": 3.0, "nested": {"list": [1.0, None, True]}},
        }
    )["configuration"]
    equal(configuration["sharedSettings"], {"language": "en", "retries": 3.0, "nested": {"list": [1.0, None, True]}})

    # A user whose password is checked here.
    user = services["User"].CreateUser(user={"userId": "user-2", "username": "Ada", "password": "passwordOfTheSession"})
    equal((user["user"]["userId"], user["user"]["passwordSet"], "password" in user["user"]), ("user-2", True, False))

    # A test of the connector streams a verdict for each step: nothing listens at its URL.
    verdicts = services["Connector"].TestConnector(reference=connector["id"])
    equal(len(verdicts), 11)
    equal(verdicts[4]["reason"], "CONNECTOR_TEST_REASON_CONNECT_FAILED")
    login = {"connector": connector["id"], "loginId": "ada", "password": "passwordOfTheSession"}
    outcome = services["Connector"].AuthenticateUser(**login)
    equal(outcome, {"outcome": "LOGIN_OUTCOME_UPSTREAM_FAULT", "connector": connector["id"]})

    # An application, and a session of the user in it.
    gallery = {"application": "ext:gallery"}
    services["Application"].CreateApplication(
        application={"name": "Gallery", "externalId": "gallery", "permissions": [{"slug": "view"}]}
    )
    services["Application"].SetPermissions(
        **gallery, userId="user-2", companyId="c-1", companyName="North Ltd", permissions=["use_app", "view"]
    )
    login = {**gallery, "username": "ADA", "password": "passwordOfTheSession"}
    rejected = services["Application"].AuthenticateApplicationUser(**login | {"password": "another"})
    equal(rejected, {"outcome": "LOGIN_OUTCOME_REJECTED"})
    opened = services["Application"].AuthenticateApplicationUser(**login)
    equal((opened["outcome"], opened["permissions"]), ("LOGIN_OUTCOME_ACCEPTED", ["use_app", "view"]))
    session = {**gallery, "sessionToken": opened["sessionToken"]}
    permitted = services["Application"].GetSessionPermissions(**session)
    equal(permitted["companies"], opened["companies"])
    equal(services["Application"].EndSession(**session), {"ended": True})
    refused("SESSION_NOT_FOUND", grpc.StatusCode.NOT_FOUND, services["Application"].GetSessionUser, **session)

    # Every list, page by page, to its end and continued from a token.
    lists = [
        (services["Key"].ListKeys, "keys", 1),
        (services["Connector"].ListConnectors, "connectors", 1),
        (services["Connection"].ListConnections, "connections", 1),
        (services["UserConnector"].ListUserConnectors, "userConnectors", 1),
        (services["Credentials"].ListCredentials, "credentials", 1),
        (services["Configuration"].ListConfigurations, "configurations", 2),
        (services["User"].ListUsers, "users", 1),
        (services["Application"].ListApplications, "applications", 1),
        (services["Application"].ListPermissions, "grants", 1),
        (services["Admin"].ListTenants, "tenants", 1),
    ]
    for method, field, count in lists:
        pages = method(pageSize=1)
        equal([len(page[field]) for page in pages], [1] * count)
        equal(["nextPageToken" in page for page in pages], [True] * (count - 1) + [False])
    rest = services["Configuration"].ListConfigurations(pageToken=pages_token(services), pageSize=1)
    equal(len(rest), 1)

    # The link is removed together with everything that depends on it.
    removed = services["UserConnector"].RemoveUserConnector(**link)
    equal(removed, {"removed": True, "credentialsDeleted": "1", "configurationsDeleted": "2"})
    details = refused(
        "CREDENTIAL_NOT_FOUND",
        grpc.StatusCode.NOT_FOUND,
        services["Credentials"].GetCredential,
        reference="ext:user-1-login",
    )
    equal("ResourceInfo" in details, True)
    again = services["UserConnector"].RemoveUserConnector(**link)
    equal(("removed" in again, bool(again["warning"])), (False, True))


def pages_token(services):
    return services["Configuration"].ListConfigurations(pageSize=1, limit=1)[0]["nextPageToken"]


def answers_health_and_reflection(secure):
    health = health_pb2_grpc.HealthStub(secure)
    for service in ["", "jackfield.v1.ConnectorService"]:
        status = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT).status
        equal(status, health_pb2.HealthCheckResponse.SERVING)
    database = ProtoReflectionDescriptorDatabase(secure)
    described = {service for service in database.get_services() if service.startswith("jackfield.v1.")}
    equal(len(described), len(FILES))
    equal(database.FindFileContainingSymbol("jackfield.v1.Connector").package, "jackfield.v1")
    equal(database.FindFileByName("google/api/field_behavior.proto").package, "google.api")


def deadlines_and_cancelling(secure, connectors):
    # A watch of health never ends by itself: the deadline of the call ends it.
    watch = health_pb2_grpc.HealthStub(secure).Watch(health_pb2.HealthCheckRequest(), timeout=0.5)
    try:
        for _ in watch:
            pass
        raise AssertionError("a watch ended without its deadline")
    except grpc.RpcError as error:
        equal(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
    stream = connectors._stub.ListConnectors(connectors._messages.ListConnectorsRequest(), timeout=TIMEOUT)
    stream.cancel()
    equal(stream.code(), grpc.StatusCode.CANCELLED)


def no_answer_held_a_secret(received):
    for method, message in received:
        secrets = SECRETS if method == "IssueAccessToken" else [*SECRETS, "accessTokenOfTheSession"]
        for secret in secrets:
            if secret.encode() in message:
                raise AssertionError(f"{method} returned {secret}")


def without_certificate(contract):
    with channel(client_certificate=False) as insecure:
        connectors = contract["connector_pb2_grpc"].ConnectorServiceStub(insecure)
        try:
            list(connectors.ListConnectors(contract["connector_pb2"].ListConnectorsRequest(), timeout=TIMEOUT))
            raise AssertionError("a caller without a certificate was answered")
        except grpc.RpcError as error:
            # UNAVAILABLE: the handshake failed, so the server never saw a call.
            if error.code() not in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE):
                raise


def over_socket(contract):
    messages, stubs = contract["connector_pb2"], contract["connector_pb2_grpc"]
    with grpc.insecure_channel(f"unix:{SOCKET}") as local:
        connectors = Service(stubs.ConnectorServiceStub(local), messages, [])
        # Several calls, so that the authority of the later ones comes from the HPACK table.
        for _ in range(3):
            found = connectors.GetConnector(reference="name:My Generic Connector")["connector"]
            equal(found["clientIdentityKey"], KEY_ID)
        refused(
            "CONNECTOR_NOT_FOUND",
            grpc.StatusCode.NOT_FOUND,
            connectors.GetConnector,
            reference="name:missing",
        )


def refused(reason, code, method, **fields):
    """Makes a call that has to be refused like this, and returns its details by type name."""
    try:
        answer = method(**fields)
    except grpc.RpcError as error:
        equal(error.code(), code)
        kinds = [error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.ResourceInfo]
        details = {}
        for packed in rpc_status.from_call(error).details:
            for kind in kinds:
                unpacked = kind()
                if packed.Unpack(unpacked):
                    details[kind.DESCRIPTOR.name] = unpacked
        equal((details["ErrorInfo"].domain, details["ErrorInfo"].reason), ("jackfield", reason))
        return details
    raise AssertionError(f"expected {reason}, not {answer}")


def client_certificate(directory):
    subprocess.run(
        [JACKFIELD, "client-cert", "--data-dir", DATA, "--out", directory, "fusionauth-python"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return [(directory / name).read_text() for name in ["fusionauth-python.pem", "fusionauth-python-key.pem"]]


def buf_curl(method, request):
    pki = DATA / "pki"
    certificates = ["--cacert", pki / "ca.pem", "--cert", pki / "client.pem", "--key", pki / "client-key.pem"]
    url = f"https://{ADDRESS}/jackfield.v1.{method}"
    command = ["buf", "curl", "--protocol", "grpc", *certificates, "--data", json.dumps(request), url]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def channel(client_certificate):
    pki = DATA / "pki"
    read = lambda name: (pki / name).read_bytes()
    identity = (read("client-key.pem"), read("client.pem")) if client_certificate else (None, None)
    return grpc.secure_channel(ADDRESS, grpc.ssl_channel_credentials(read("ca.pem"), *identity))


def equal(actual, expected):
    if actual != expected:
        raise AssertionError(f"{actual!r} is not {expected!r}")


if __name__ == "__main__":
    main()
