"""Compile the protos into the stubs beside them: `python proto/generate.py [OUTPUT]`.

The compiler is the one inside grpcio-tools 1.81: its output runs on protobuf 6.33 and 7, so that one
environment can hold tritonclient (protobuf below 7) and newer tools. The Open Inference service gets messages
but no service stubs, for it is registered under another name than its package says.
"""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent


def generate(output: Path) -> list[Path]:
    """Write every stub under `output`, which mirrors the proto folder.

    Returns:
        The files written, sorted.

    Raises:
        RuntimeError: the compiler refused a proto; its message is on stderr.
    """
    protos = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.proto"))
    services = [name for name in protos if name.endswith("_service.proto")]
    includes = [f"-I{ROOT}", f"-I{resources.files('grpc_tools') / '_proto'}"]
    messages = [f"--python_out={output}", f"--pyi_out={output}"]
    for options, names in ((messages, protos), ([f"--grpc_python_out={output}"], services)):
        if protoc.main(["protoc", *includes, *options, *names]) != 0:
            raise RuntimeError(f"protoc refused one of {names}")
    return sorted(path for path in output.rglob("*_pb2*.py*") if "__pycache__" not in path.parts)


if __name__ == "__main__":
    for written in generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT):
        sys.stdout.write(f"{written}\n")
