"""The protos are linted, documented and compiled as committed, and the wire of the public protocol is pinned."""

from __future__ import annotations

import ast
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.runtime.errors import AcclimateError
from acclimate.runtime.rpc.server import methods
from acclimate.v1 import session_service_pb2 as pb
from tests.conftest import CI, ROOT


def test_stubs_are_current(tmp_path: Path) -> None:
    generate = runpy.run_path(str(ROOT / "proto" / "generate.py"))["generate"]
    made = generate(tmp_path)
    assert len(made) == 21
    for path in made:
        committed = ROOT / "proto" / path.relative_to(tmp_path)
        assert path.read_bytes() == committed.read_bytes(), f"{committed} is stale: run `make proto`"
    names = {path.relative_to(tmp_path) for path in made}
    stray = {path.relative_to(ROOT / "proto") for path in (ROOT / "proto").rglob("*_pb2*.py*")} - names
    assert not [path for path in stray if "__pycache__" not in path.parts]


def test_protos_pass_buf_lint() -> None:
    buf = shutil.which("buf", path=str(Path(sys.executable).parent)) or shutil.which("buf")
    reason = "no buf; pip install '.[dev]'"
    if buf is None and CI:
        pytest.fail(reason)
    if buf is None:
        pytest.skip(reason)
    result = subprocess.run([buf, "lint", str(ROOT / "proto")], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_rpc_is_documented() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    missing = [name for name in methods() if f"`{name.partition('/')[2]}`" not in page]
    assert not missing, missing


# Field numbers of the public specification: a change here breaks every client there is.
OIP_FIELDS = {
    "ModelInferRequest": "model_name=1 model_version=2 id=3 parameters=4 inputs=5 outputs=6 raw_input_contents=7",
    "ModelInferRequest.InferInputTensor": "name=1 datatype=2 shape=3 parameters=4 contents=5",
    "ModelInferRequest.InferRequestedOutputTensor": "name=1 parameters=2",
    "ModelInferResponse": "model_name=1 model_version=2 id=3 parameters=4 outputs=5 raw_output_contents=6",
    "ModelInferResponse.InferOutputTensor": "name=1 datatype=2 shape=3 parameters=4 contents=5",
    "ModelMetadataRequest": "name=1 version=2",
    "ModelMetadataResponse": "name=1 versions=2 platform=3 inputs=4 outputs=5 properties=6",
    "ModelMetadataResponse.TensorMetadata": "name=1 datatype=2 shape=3",
    "ModelReadyRequest": "name=1 version=2",
    "ModelReadyResponse": "ready=1",
    "ServerLiveResponse": "live=1",
    "ServerReadyResponse": "ready=1",
    "ServerMetadataResponse": "name=1 version=2 extensions=3",
    "InferParameter": "bool_param=1 int64_param=2 string_param=3 double_param=4 uint64_param=5",
    "InferTensorContents": "bool_contents=1 int_contents=2 int64_contents=3 uint_contents=4 uint64_contents=5 "
    "fp32_contents=6 fp64_contents=7 bytes_contents=8",
}


@pytest.mark.parametrize("name", OIP_FIELDS)
def test_open_inference_field_numbers(name: str) -> None:
    outer, _, inner = name.partition(".")
    message = oip.DESCRIPTOR.message_types_by_name[outer]
    if inner:
        message = message.nested_types_by_name[inner]
    assert " ".join(f"{field.name}={field.number}" for field in message.fields) == OIP_FIELDS[name]


def test_golden_bytes_of_our_own_messages() -> None:
    message = pb.CreateSessionRequest(parent="models/m", session_id="s", recipe="eata")
    message.recipe_parameters["lr"] = 0.5
    golden = "0a086d6f64656c732f6d1201731a0465617461220d0a026c7211000000000000e03f"
    assert message.SerializeToString(deterministic=True).hex() == golden


def test_every_reason_is_documented_and_every_documented_one_exists() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    table = page.partition("| code | reasons |")[2].partition("\n\n")[0]
    documented = set(re.findall(r"`([A-Z][A-Z_]+)`", table))
    kinds = {kind.__name__ for kind in AcclimateError.__subclasses__()}
    raised = {"INTERNAL"}
    for path in sorted((ROOT / "runtime").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in kinds and node.args:
                reason = node.args[0]
                assert isinstance(reason, ast.Constant), f"{path}:{node.lineno}: a reason must be a literal"
                raised.add(reason.value)
    assert documented == raised
