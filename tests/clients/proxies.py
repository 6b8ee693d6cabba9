"""Envoy and nginx in front of Jackfield, with the files of deploy/proxies.

    proxies.py envoy|nginx

The files run unchanged except for addresses and paths of certificates. The proxy and the server have the certificates of
the development authority.

Environment: as in session.sh. The server allows ten connections from one address, and sends no PINGs.
"""

import http.client
import json
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import uuid

import grpc
from google.protobuf import json_format
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from contract import compile_contract

ROOT = pathlib.Path(__file__).resolve().parents[2]
JACKFIELD = os.environ["JACKFIELD"]
ADDRESS = os.environ["JACKFIELD_ADDRESS"]
DATA = pathlib.Path(os.environ["JACKFIELD_DATA"])
PKI = DATA / "pki"
TIMEOUT = 30

# Longer than the proxies' default timeout of a stream without messages (route timeout; grpc_read_timeout, which counts
# from the last frame of any kind).
DEFAULT_TIMEOUT = {"envoy": 15, "nginx": 60}
MORE = 5

# limits.max_connections_per_ip of the server.
CONNECTIONS_PER_ADDRESS = 10

# Pages of lists are longer than what Envoy buffers by default.
LARGE = "x" * 60_000
LARGE_CONNECTORS = 25


def main(proxy):
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        subprocess.run(
            [JACKFIELD, "client-cert", "--data-dir", DATA, "--out", directory, "stranger"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        contract = compile_contract(directory)
        start = {"envoy": envoy, "nginx": nginx}[proxy]
        with Proxy(start, directory, {"envoy": "envoy.yaml", "nginx": "nginx.conf"}[proxy]) as port:
            # These take as long as the timeout whose absence they prove, so the rest runs in the meantime.
            watch = Background(watches_outlive_the_default, port, DEFAULT_TIMEOUT[proxy] + MORE)
            grpc_checks(proxy, contract, port, directory)
            callers_share_connections(proxy, port)
            if proxy == "envoy":
                with Proxy(start, directory, "envoy-json.yaml") as port:
                    json_checks(port)
            watch.join()
    print("done")


# --- The proxies ------------------------------------------------------------------------------------------------------


class Proxy:
    """A proxy on a free port; entering the context returns the port."""

    def __init__(self, start, directory, name):
        self._start, self._directory, self._name = start, directory, name

    def __enter__(self):
        # Another process may take the port first.
        for attempt in range(5):
            port = free_port()
            configuration = self._directory / f"{attempt}-{self._name}"
            configuration.write_text(configured(self._name, port, self._directory))
            self._log = self._directory / f"{attempt}-{self._name}.log"
            with self._log.open("wb") as log:
                self._process = self._start(configuration, self._directory, log)
            if answers(self._process, port):
                return port
        raise AssertionError(f"{self._name} did not start: {self._log.read_text()}")

    def __exit__(self, kind, *_):
        self._process.terminate()
        self._process.wait()
        if kind:
            print(self._log.read_text(), file=sys.stderr)


def configured(name, port, directory):
    """The file, with its addresses and paths replaced by those of this test. It must contain all of them."""
    text = (ROOT / "deploy" / "proxies" / name).read_text()
    host, upstream = ADDRESS.split(":")
    if name == "nginx.conf":
        places = {
            "listen 8443": f"listen 127.0.0.1:{port}",
            "server jackfield.internal:7443": f"server {ADDRESS}",
            "/etc/nginx/": f"{directory}/",
        }
        # Files of the machine rather than of the proxy.
        text = f"pid {directory}/nginx.pid; daemon off; error_log stderr warn;\n{text}"
        text = text.replace("http {", f"http {{ client_body_temp_path {directory}/body; proxy_temp_path {directory}/p; "
                            f"fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;", 1)
    else:
        places = {
            "{address: 0.0.0.0, port_value: 8443}": f"{{address: 127.0.0.1, port_value: {port}}}",
            "{address: jackfield.internal, port_value: 7443}": f"{{address: {host}, port_value: {upstream}}}",
            "/etc/envoy/": f"{directory}/",
        }
    places["jackfield.internal"] = "localhost"
    for named, ours in places.items():
        if named not in text:
            raise AssertionError(f"{name} does not contain {named}")
        text = text.replace(named, ours)
    for place in ["tls", "jackfield"]:
        (directory / place).mkdir(exist_ok=True)
    for copy, original in {
        "tls/server.pem": "server.pem",
        "tls/server-key.pem": "server-key.pem",
        "tls/clients-ca.pem": "ca.pem",
        "jackfield/ca.pem": "ca.pem",
        "jackfield/client.pem": "client.pem",
        "jackfield/client-key.pem": "client-key.pem",
    }.items():
        shutil.copy(PKI / original, directory / copy)
    subprocess.run([JACKFIELD, "descriptors", "--out", directory / "jackfield" / "jackfield.binpb"], check=True)
    return text


def envoy(configuration, directory, log):
    arguments = ["--config-path", configuration, "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]
    # The program in the package rather than its script, which would catch the signal itself.
    import envoy as package

    program = pathlib.Path(package.__file__).parent / "_bin" / "envoy"
    return subprocess.Popen([program, *arguments], stdout=log, stderr=log, cwd=directory)


def nginx(configuration, directory, log):
    # A master process of root would pass the certificates to workers of another user.
    arguments = ["-c", configuration, "-p", directory, "-g", "master_process off;"]
    return subprocess.Popen(["nginx", *arguments], stdout=log, stderr=log)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def answers(process, port):
    """Waits until a process listens there; false if this process ended before."""
    while process.poll() is None:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.1)
    return False


class Background(threading.Thread):
    """A check that runs beside the others; joining it raises its error."""

    def __init__(self, check, *arguments):
        super().__init__(daemon=True)
        self._check, self._arguments, self._error = check, arguments, None
        self.start()

    def run(self):
        try:
            self._check(*self._arguments)
        except BaseException as error:
            self._error = error

    def join(self):
        super().join()
        if self._error:
            raise self._error


# --- gRPC -------------------------------------------------------------------------------------------------------------


def grpc_checks(proxy, contract, port, directory):
    messages, stubs = contract["connector_pb2"], contract["connector_pb2_grpc"]
    parse = lambda kind, fields: json_format.ParseDict(fields, getattr(messages, kind)())
    stranger = (directory / "stranger-key.pem").read_bytes(), (directory / "stranger.pem").read_bytes()
    operator = "Hash=0;URI=spiffe://jackfield.local/client/operator"

    # Jackfield knows no principal with the stranger's certificate, whatever a header claims.
    with channel(ADDRESS, stranger) as direct:
        call = stubs.ConnectorServiceStub(direct).GetConnector
        for metadata in [(), (("x-forwarded-client-cert", operator),)]:
            request = parse("GetConnectorRequest", {"reference": "name:missing"})
            details = refused(grpc.StatusCode.UNAUTHENTICATED, lambda: call(request, timeout=TIMEOUT, metadata=metadata))
            equal(details["ErrorInfo"].reason, "CALLER_UNAUTHENTICATED")

    # Behind a proxy, every accepted caller is the proxy, and other callers are refused.
    with channel(f"127.0.0.1:{port}", (None, None)) as anonymous:
        request = parse("GetConnectorRequest", {"reference": "name:missing"})
        call = stubs.ConnectorServiceStub(anonymous).GetConnector
        # nginx answers with a page of status 400, which gRPC maps to INTERNAL.
        refused((grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL), lambda: call(request, timeout=TIMEOUT))
    with channel(f"127.0.0.1:{port}", stranger) as proxied:
        connectors = stubs.ConnectorServiceStub(proxied)
        for number in range(LARGE_CONNECTORS):
            connector = {"name": f"Large {number:02}", "httpBasic": {}, "data": {"large": LARGE}}
            request = parse("CreateConnectorRequest", {"connector": connector})
            created = connectors.CreateConnector(request, timeout=TIMEOUT).connector
            equal(created.name, connector["name"])

        # The id of an answer is Jackfield's own (a UUIDv7), whatever the proxy calls the request.
        request = parse("GetConnectorRequest", {"reference": "name:Large 00"})
        ids = (("x-request-id", "6f1e1f9c-51b5-4b47-9e11-000000000000"),)
        _, call = connectors.GetConnector.with_call(request, timeout=TIMEOUT, metadata=ids)
        answered = [value for key, value in call.initial_metadata() if key == "x-request-id"]
        equal([uuid.UUID(value).version for value in answered], [7])

        # Pages stream through, and continue from a token.
        request = parse("ListConnectorsRequest", {"pageSize": 10, "orderBy": "name"})
        pages = list(connectors.ListConnectors(request, timeout=TIMEOUT))
        equal([len(page.connectors) for page in pages], [10, 10, 5])
        request.page_token = pages[1].next_page_token
        equal(list(connectors.ListConnectors(request, timeout=TIMEOUT)), pages[2:])

        # The largest possible details arrive.
        labels = {f"鍵{number:02}" + "鍵" * 40: "x" for number in range(64)}
        connector = {"name": "Wrong", "httpBasic": {}, "labels": labels}
        request = parse("CreateConnectorRequest", {"connector": connector})
        details = refused(
            grpc.StatusCode.INVALID_ARGUMENT, lambda: connectors.CreateConnector(request, timeout=TIMEOUT)
        )
        equal(details["ErrorInfo"].reason, "FIELD_INVALID")
        size = sum(detail.ByteSize() for detail in details.values())
        equal((size > 4096, size), (True, size))

        # A large header neither ends the list beside it nor is refused before it reaches Jackfield's limit.
        request = parse("ListConnectorsRequest", {"pageSize": 1, "orderBy": "name"})
        beside = connectors.ListConnectors(request, timeout=TIMEOUT)
        listed = len(next(beside).connectors)
        request = parse("GetConnectorRequest", {"reference": "name:Large 00"})
        connectors.GetConnector(request, timeout=TIMEOUT, metadata=(("x-large", "x" * 9_000),))
        if proxy == "nginx":
            large = (("x-large", "x" * 20_000),)
            details = refused(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                lambda: connectors.GetConnector(request, timeout=TIMEOUT, metadata=large),
            )
            equal(details["ErrorInfo"].reason, "QUOTA_EXCEEDED")
        equal(listed + sum(len(page.connectors) for page in beside), LARGE_CONNECTORS)

        # Jackfield itself refuses a message that is too large, even beyond the 1 MiB at which nginx would.
        for length in [300 * 1024, 3 * 1024 * 1024]:
            request = parse("CreateConnectorRequest", {"connector": {"name": "x" * length}})
            details = refused(
                grpc.StatusCode.RESOURCE_EXHAUSTED, lambda: connectors.CreateConnector(request, timeout=TIMEOUT)
            )
            equal(details["ErrorInfo"].reason, "QUOTA_EXCEEDED")


def callers_share_connections(proxy, port):
    """Envoy runs many calls on a connection. nginx opens one for each, up to the server's limit for one address."""
    with channel(f"127.0.0.1:{port}", identity("client")) as proxied:
        watch = health_pb2_grpc.HealthStub(proxied).Watch
        watches = [watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT) for _ in range(CONNECTIONS_PER_ADDRESS + 1)]
        serving, refusals = 0, []
        for one in watches:
            try:
                equal(next(one).status, health_pb2.HealthCheckResponse.SERVING)
                serving += 1
            except grpc.RpcError as error:
                refusals.append((error.code(), rpc_status.from_call(error)))
        for one in watches:
            one.cancel()
    if proxy == "envoy":
        equal((serving, refusals), (len(watches), []))
    else:
        # The concurrent watch has one of them, and some may not be free again yet.
        equal((0 < serving <= CONNECTIONS_PER_ADDRESS, set(refusals)), (True, {(grpc.StatusCode.UNAVAILABLE, None)}))


def watches_outlive_the_default(port, seconds):
    """The caller's deadline ends a stream that is silent for this long, and no proxy does."""
    with channel(f"127.0.0.1:{port}", identity("client")) as proxied:
        watch = health_pb2_grpc.HealthStub(proxied).Watch(health_pb2.HealthCheckRequest(), timeout=seconds)
        states = []
        try:
            for answer in watch:
                states.append(answer.status)
            raise AssertionError("a watch ended without its deadline")
        except grpc.RpcError as error:
            equal((error.code(), states), (grpc.StatusCode.DEADLINE_EXCEEDED, [health_pb2.HealthCheckResponse.SERVING]))


def channel(address, identity):
    credentials = grpc.ssl_channel_credentials((PKI / "ca.pem").read_bytes(), *identity)
    # This client's own limit of headers is not tested here.
    options = [("grpc.max_metadata_size", 65536), ("grpc.absolute_max_metadata_size", 65536)]
    return grpc.secure_channel(address, credentials, options)


def identity(name):
    return (PKI / f"{name}-key.pem").read_bytes(), (PKI / f"{name}.pem").read_bytes()


def refused(code, call):
    """Makes a call that has to be refused, and returns its details by type name."""
    try:
        answer = call()
    except grpc.RpcError as error:
        if error.code() not in (code if isinstance(code, tuple) else (code,)):
            raise
        status = rpc_status.from_call(error)
        details = {}
        for packed in status.details if status else []:
            for kind in [error_details_pb2.ErrorInfo, error_details_pb2.BadRequest]:
                unpacked = kind()
                if packed.Unpack(unpacked):
                    details[kind.DESCRIPTOR.name] = unpacked
        return details
    raise AssertionError(f"expected {code}, not {answer}")


# --- JSON -------------------------------------------------------------------------------------------------------------


def json_checks(port):
    context = ssl.create_default_context(cafile=PKI / "ca.pem")
    context.load_cert_chain(PKI / "client.pem", PKI / "client-key.pem")

    def call(method, request):
        connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=TIMEOUT)
        path = f"/jackfield.v1.ConnectorService/{method}"
        connection.request("POST", path, json.dumps(request), {"content-type": "application/json"})
        answer = connection.getresponse()
        body = json.loads(answer.read())
        connection.close()
        return answer.status, body

    generic = {"authenticationUrl": "https://example.com/", "migrateUsers": False}
    connector = {"name": "JSON", "generic": generic, "headers": {"a": "b"}}
    status, body = call("CreateConnector", {"connector": connector})
    equal(status, 200)
    created = body["connector"]
    equal({field: created[field] for field in connector}, connector)

    update = {"reference": created["id"], "connector": {"headers": {"c": "d"}}, "updateMask": "headers", "etag": created["etag"]}
    status, body = call("UpdateConnector", update)
    equal((status, body["connector"]["headers"]), (200, {"c": "d"}))

    # Errors have their details in the body.
    status, body = call("UpdateConnector", update | {"connector": {}})
    equal((status, body["code"], reasons(body)), (409, 10, ["ETAG_MISMATCH"]))
    status, body = call("GetConnector", {"reference": "name:missing"})
    equal((status, body["code"], reasons(body)), (404, 5, ["CONNECTOR_NOT_FOUND"]))
    wrong = {"name": " ", "generic": {"authenticationUrl": "nowhere"}}
    status, body = call("CreateConnector", {"connector": wrong})
    equal((status, body["code"], reasons(body)), (400, 3, ["FIELD_INVALID"]))
    violations = [detail for detail in body["details"] if detail["@type"].endswith("/google.rpc.BadRequest")]
    fields = sorted(violation["field"] for violation in violations[0]["fieldViolations"])
    equal(fields, ["connector.generic.authentication_url", "connector.name"])

    # A list is an array of its pages, including one that is longer than what Envoy buffers by default.
    status, body = call("ListConnectors", {"pageSize": 1000, "filter": "name = Large*", "orderBy": "name"})
    equal((status, [len(page["connectors"]) for page in body]), (200, [LARGE_CONNECTORS]))
    status, body = call("ListConnectors", {"pageSize": 10, "filter": "name = Large*", "orderBy": "name"})
    equal((status, [len(page["connectors"]) for page in body]), (200, [10, 10, 5]))
    equal(["nextPageToken" in page for page in body], [True, True, False])


def reasons(body):
    kind = "type.googleapis.com/google.rpc.ErrorInfo"
    return [detail["reason"] for detail in body["details"] if detail["@type"] == kind and detail["domain"] == "jackfield"]


def equal(actual, expected):
    if actual != expected:
        raise AssertionError(f"{actual!r} is not {expected!r}")


if __name__ == "__main__":
    main(sys.argv[1])
