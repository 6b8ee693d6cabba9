"""Everyday behaviour of clients on gRPC's C core that a limit could mistake for an attack, with Python grpcio's defaults.

Sixty calls cancelled at once beside five good ones, repeatedly on one connection; an invalid request with violations in
Japanese, whose answer has to fit into the headers that the library accepts; a channel that compresses with gzip.

Environment: as in session.sh.
"""

import pathlib
import tempfile

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from contract import compile_contract
from session import ADDRESS, DATA, TIMEOUT, equal

ROUNDS = 400
GIVEN_UP = 60
GOOD = 5


def main():
    with tempfile.TemporaryDirectory() as directory:
        contract = compile_contract(pathlib.Path(directory))
        messages, stubs = contract["connector_pb2"], contract["connector_pb2_grpc"]
        with channel() as plain:
            connectors = stubs.ConnectorServiceStub(plain)
            calls_that_are_given_up(connectors, messages)
            errors_in_japanese(connectors, messages)
        with channel(grpc.Compression.Gzip) as compressed:
            gzip(compressed, stubs.ConnectorServiceStub(compressed), messages)
    print("done")


def calls_that_are_given_up(connectors, messages):
    connector = messages.Connector(name="Ordinary", generic={"authentication_url": "https://example.com/"})
    created = connectors.CreateConnector(messages.CreateConnectorRequest(connector=connector), timeout=TIMEOUT)
    request = messages.GetConnectorRequest(reference=created.connector.id)
    for _ in range(ROUNDS):
        given_up = [connectors.GetConnector.future(request, timeout=TIMEOUT) for _ in range(GIVEN_UP)]
        good = [connectors.GetConnector.future(request, timeout=TIMEOUT) for _ in range(GOOD)]
        for call in given_up:
            call.cancel()
        for call in good:
            equal(call.result().connector.name, "Ordinary")


def errors_in_japanese(connectors, messages):
    # 64 labels, each with a different invalid name and a value that is too long.
    labels = {f"とても長い名前のラベル{number}" * 4: "値" * 300 for number in range(64)}
    request = messages.CreateConnectorRequest(connector=messages.Connector(name=" ", labels=labels))
    for _ in range(ROUNDS):
        try:
            connectors.CreateConnector(request, timeout=TIMEOUT)
            raise AssertionError("an invalid request was accepted")
        except grpc.RpcError as error:
            equal(error.code(), grpc.StatusCode.INVALID_ARGUMENT)
            details = rpc_status.from_call(error).details
            info, violations = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
            equal(sum(packed.Unpack(info) or packed.Unpack(violations) for packed in details), 2)
            equal(info.reason, "FIELD_INVALID")
            left_out = int(info.metadata["violations_left_out"])
            note = violations.field_violations[-1]
            equal((note.field, note.description), ("", f"… and {left_out} more"))


def gzip(compressed, connectors, messages):
    status = health_pb2_grpc.HealthStub(compressed).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT).status
    equal(status, health_pb2.HealthCheckResponse.SERVING)
    for number in range(30):
        connector = messages.Connector(name=f"Compressed {number}", generic={"authentication_url": "https://example.com/"})
        connectors.CreateConnector(messages.CreateConnectorRequest(connector=connector), timeout=TIMEOUT)
    pages = connectors.ListConnectors(messages.ListConnectorsRequest(page_size=10, filter="Compressed"), timeout=TIMEOUT)
    equal([len(page.connectors) for page in pages], [10, 10, 10])
    equal(dict(pages.initial_metadata()).get("grpc-encoding", "gzip"), "gzip")


def channel(compression=None):
    read = lambda name: (DATA / "pki" / name).read_bytes()
    credentials = grpc.ssl_channel_credentials(read("ca.pem"), read("client-key.pem"), read("client.pem"))
    return grpc.secure_channel(ADDRESS, credentials, compression=compression)


if __name__ == "__main__":
    main()
