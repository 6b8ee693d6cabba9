"""The contract, compiled with protoc's generators for Python, as users of grpcio do it."""

import importlib
import pathlib
import sys

import grpc_tools
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parents[2]
WELL_KNOWN = pathlib.Path(grpc_tools.__file__).parent / "_proto"
FILES = ["admin", "application", "configuration", "connection", "connector", "credentials", "key", "user", "user_connector"]


def compile_contract(directory):
    """The modules of the contract, by name."""
    files = sorted(str(file) for file in (ROOT / "proto" / "jackfield").rglob("*.proto"))
    paths = [f"-I{ROOT / 'proto'}", f"-I{WELL_KNOWN}", f"--python_out={directory}", f"--grpc_python_out={directory}"]
    if protoc.main(["protoc", *paths, *files]) != 0:
        raise AssertionError("the contract does not compile")
    sys.path.insert(0, str(directory))
    names = [name for file in FILES for name in (f"{file}_pb2", f"{file}_pb2_grpc")]
    return {name: importlib.import_module(f"jackfield.v1.{name}") for name in names}


def descriptor(file, directory):
    """What a file below proto/ says, without comments."""
    compiled = directory / "file.binpb"
    paths = [f"-I{ROOT / 'proto'}", f"-I{WELL_KNOWN}", f"--descriptor_set_out={compiled}"]
    if protoc.main(["protoc", *paths, file]) != 0:
        raise AssertionError(f"{file} does not compile")
    return descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes()).file[0]
