"""The page of the Fiscus SDK about connectors of users, line for line, over the gRPC API with Python grpcio.

The class User has the methods of that page. The function that set_auth_callback takes answers on a ServeCredentials stream, so
it stays in the process of the agent. What follows "The page" is the code of the page. After it, the example of a source over
gRPC is asked in place of the stream.

Environment: as in session.sh; JACKFIELD_EXAMPLE, the host and port of the example.
"""

import importlib
import os
import pathlib
import queue
import random
import tempfile
import threading
import time

import grpc
from google.protobuf import json_format
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from contract import compile_contract
from session import DATA, TIMEOUT, channel, equal


# The pause before a stream that has ended is opened again, in seconds. It doubles with each one that does not last.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30
# The time after which a stream has lasted.
LASTING = 10


class FiscusAuthenticationError(Exception):
    """The credentials are missing or cannot be used. The reason is that of the error of Jackfield."""

    def __init__(self, reason, message):
        super().__init__(f"{reason}: {message}")
        self.reason = reason


class User:
    """A user of the platform, with the methods of the Fiscus SDK."""

    def __init__(self, user_id, secure, contract):
        self._user_id, self._messages = user_id, contract["user_connector_pb2"]
        self._sources = importlib.import_module("jackfield.v1.credential_source_pb2")
        self._stub = contract["user_connector_pb2_grpc"].UserConnectorServiceStub(secure)
        self._lock, self._opened, self._closed = threading.Lock(), threading.Event(), threading.Event()
        self._answers = self._questions = self._serving = None

    def add_connector(self, name):
        request = self._messages.AddUserConnectorRequest(user_id=self._user_id, connector=f"name:{name}")
        return self._stub.AddUserConnector(request, timeout=TIMEOUT).warning

    def remove_connector(self, name):
        request = self._messages.RemoveUserConnectorRequest(user_id=self._user_id, connector=f"name:{name}")
        return self._stub.RemoveUserConnector(request, timeout=TIMEOUT).warning

    def authenticate_connector(self, name, credentials=None):
        request = self._messages.AuthenticateUserConnectorRequest(user_id=self._user_id, connector=f"name:{name}")
        if credentials is None:
            request.use_source = True
        else:
            json_format.ParseDict(material(credentials), request.material)
        try:
            return self._stub.AuthenticateUserConnector(request, timeout=TIMEOUT)
        except grpc.RpcError as error:
            raise FiscusAuthenticationError(reason_of(error), error.details()) from error

    def set_auth_callback(self, callback):
        """Has the function asked for credentials from now on."""
        source = self._sources.CredentialSource(user_id=self._user_id, stream={})
        self._stub.SetCredentialSource(self._sources.SetCredentialSourceRequest(source=source), timeout=TIMEOUT)
        self._serving = threading.Thread(target=self._serve, args=(callback,), daemon=True)
        self._serving.start()
        self._opened.wait(TIMEOUT)

    def set_tenant_source(self, **grpc):
        """Has a gRPC endpoint asked for the credentials of all users who have no callback."""
        source = self._sources.CredentialSource(tenant_wide=True, grpc=grpc)
        self._stub.SetCredentialSource(self._sources.SetCredentialSourceRequest(source=source), timeout=TIMEOUT)

    def list_connected_connectors(self):
        request = self._messages.ListUserConnectorsRequest(user_id=self._user_id)
        pages = self._stub.ListUserConnectors(request, timeout=TIMEOUT)
        return [link.connector_name for page in pages for link in page.user_connectors]

    def close(self):
        """Ends the stream."""
        with self._lock:
            self._closed.set()
            if self._answers is not None:
                self._answers.put(None)
        if self._serving is not None:
            self._serving.join()

    def lose_stream(self):
        """Ends the stream as a network does."""
        self._questions.cancel()

    def _serve(self, callback):
        """Holds a stream open. It ends after a while, or with its server or its network, and is then opened again."""
        pause = FIRST_PAUSE
        while not self._closed.is_set():
            begin = time.monotonic()
            try:
                self._answer_on_stream(callback)
            except grpc.RpcError:
                # It cannot be opened, or it was lost.
                pass
            pause = FIRST_PAUSE if time.monotonic() - begin > LASTING else min(2 * pause, LONGEST_PAUSE)
            # Clients that lost their streams together do not come back together.
            self._closed.wait(pause * random.uniform(0.5, 1))

    def _answer_on_stream(self, callback):
        with self._lock:
            if self._closed.is_set():
                return
            answers = self._answers = queue.SimpleQueue()
        self._questions = self._stub.ServeCredentials(iter(answers.get, None))
        try:
            # The server has the stream once it has sent its headers.
            self._questions.initial_metadata()
            self._opened.set()
            for question in self._questions:
                answer = self._sources.ServeCredentialsRequest(fetch_id=question.fetch_id)
                # Streams of a tenant are asked for all of its users.
                credentials = callback(question.connector_name) if question.user_id == self._user_id else None
                if credentials is not None:
                    json_format.ParseDict(material(credentials), answer.material)
                answers.put(answer)
        finally:
            # The thread that sends answers ends.
            answers.put(None)


def material(credentials):
    """A map of credentials as material: its keys say of which kind it is."""
    if "access_token" in credentials or "refresh_token" in credentials:
        return {"oauth2": credentials}
    if "client_secret" in credentials:
        return {"client_credentials": credentials}
    if "api_key" in credentials:
        return {"api_key": credentials}
    return {"custom": {"fields": credentials}}


def reason_of(error):
    info = error_details_pb2.ErrorInfo()
    status = rpc_status.from_call(error)
    return next((info.reason for packed in status.details if packed.Unpack(info)), "")


def main():
    with tempfile.TemporaryDirectory() as directory:
        contract = compile_contract(pathlib.Path(directory))
        with channel(client_certificate=True) as secure:
            messages = contract["connector_pb2"]
            connectors = contract["connector_pb2_grpc"].ConnectorServiceStub(secure)
            for name in ["Gmail", "Salesforce", "Slack"]:
                connector = messages.Connector(name=name, generic={"authentication_url": "https://example.com/"})
                connectors.CreateConnector(messages.CreateConnectorRequest(connector=connector), timeout=TIMEOUT)
            user = User("fiscus-1", secure, contract)
            the_page(user)
            a_lost_stream_is_opened_again(user)
            user.close()
            ask_a_server(user, User("ada", secure, contract), secure, contract)
    print("done")


def a_lost_stream_is_opened_again(user):
    user.lose_stream()
    end = time.monotonic() + TIMEOUT
    while True:
        try:
            equal(user.authenticate_connector("Gmail").created, False)
            return
        except FiscusAuthenticationError as error:
            is_away = error.reason in ["CREDENTIAL_SOURCE_NOT_CONNECTED", "CREDENTIAL_SOURCE_FAILED"]
            if not is_away or time.monotonic() > end:
                raise
            time.sleep(0.05)


def ask_a_server(other, ada, secure, contract):
    """Has the example give credentials of all users who have no callback of their own."""
    keys, key_stub = contract["key_pb2"], contract["key_pb2_grpc"].KeyServiceStub(secure)
    example = lambda name: (DATA / "example" / f"{name}.pem").read_text()
    for name, certificate, private_key in [
        ("Jackfield to the source", example("client"), example("client-key")),
        ("authority of the source", example("ca"), ""),
    ]:
        key = keys.Key(name=name, certificate_pem=certificate)
        key_stub.ImportKey(keys.ImportKeyRequest(key=key, private_key_pem=private_key), timeout=TIMEOUT)
    ada.set_tenant_source(
        url=f"https://{os.environ['JACKFIELD_EXAMPLE']}",
        client_identity_key="name:Jackfield to the source",
        trust_bundle_key="name:authority of the source",
    )
    ada.add_connector("Gmail")
    equal(ada.authenticate_connector("Gmail").created, True)
    ada.add_connector("Slack")
    expect_reason("CREDENTIAL_SOURCE_EMPTY", ada, "Slack")
    # The other user still has a callback, and it is gone.
    expect_reason("CREDENTIAL_SOURCE_NOT_CONNECTED", other, "Gmail")


def expect_reason(reason, user, name):
    try:
        user.authenticate_connector(name)
    except FiscusAuthenticationError as error:
        equal(error.reason, reason)
        return
    raise AssertionError(f"{name} was authenticated without credentials")


# --- The page ---------------------------------------------------------------------------------------------------------


def the_page(user):
    # Add a Gmail connector for the user, and a Salesforce connector.
    equal(user.add_connector("Gmail"), "")
    equal(user.add_connector("Salesforce"), "")
    # If Gmail was already added, logs a warning and skips adding.
    equal(user.add_connector("Gmail"), "user fiscus-1 is linked to connector Gmail already; nothing was changed")

    # Authenticate the Gmail connector using client_id and client_secret.
    user.authenticate_connector("Gmail", {"client_id": "YOUR_CLIENT_ID", "client_secret": "YOUR_CLIENT_SECRET"})
    # Authenticate the Salesforce connector using OAuth.
    tokens = {"access_token": "USER_ACCESS_TOKEN", "refresh_token": "USER_REFRESH_TOKEN"}
    user.authenticate_connector("Salesforce", tokens)

    # Define an authentication callback for multiple services.
    def auth_callback(connector_name):
        if connector_name == "Gmail":
            return {"client_id": "YOUR_CLIENT_ID", "client_secret": "YOUR_CLIENT_SECRET"}
        elif connector_name == "Salesforce":
            return {"access_token": "USER_ACCESS_TOKEN", "refresh_token": "USER_REFRESH_TOKEN"}
        else:
            return None

    # Set the callback for user authentication.
    user.set_auth_callback(auth_callback)
    equal(user.authenticate_connector("Gmail").created, False)
    equal(user.authenticate_connector("Salesforce").credential.version, 2)

    # A connector that the callback does not know.
    user.add_connector("Slack")
    expect_reason("CREDENTIAL_SOURCE_EMPTY", user, "Slack")

    # List all connected connectors for the user.
    equal(user.list_connected_connectors(), ["Gmail", "Salesforce", "Slack"])

    # Remove a connector; if it was not added, logs a warning.
    equal(user.remove_connector("Slack"), "")
    equal(user.remove_connector("Slack"), "there is no such link; nothing was changed")
    equal(user.list_connected_connectors(), ["Gmail", "Salesforce"])


if __name__ == "__main__":
    main()
