"""Every rpc that the daemon serves, a good message for each, and one way to send bytes to any of them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.oip.v1 import model_config_pb2 as model_config
from acclimate.oip.v1 import model_repository_pb2 as model_repository
from acclimate.oip.v1 import model_statistics_pb2 as model_statistics
from acclimate.runtime.rpc.reflection import descriptor_pool
from acclimate.runtime.rpc.server import SERVICES
from acclimate.v1 import generation_service_pb2 as generation_pb
from acclimate.v1 import server_service_pb2, session_pb2
from acclimate.v1 import session_service_pb2 as pb

OIP, SESSIONS = "/inference.GRPCInferenceService/", "/acclimate.v1.SessionService/"
GENERATION = "/acclimate.v1.GenerationService/"
HEALTH, SERVER = "/grpc.health.v1.Health/", "/acclimate.v1.ServerService/"
# They carry the name of one session and nothing else.
NAMED = tuple(
    SESSIONS + rpc
    for rpc in (
        "GetSession",
        "DeleteSession",
        "ResetSession",
        "ExportSession",
        "WatchSessions",
        "PauseSession",
        "ResumeSession",
        "SnapshotSession",
    )
)
SNAPSHOT = "kept"
MODEL = "digits"
LANGUAGE = "reference"

TIMEOUT_SECONDS = 30.0
# How long a watch that was not refused at once is given to be refused after all.
REFUSAL_SECONDS = 0.05
FIRST_ONLY = "/grpc.health.v1.Health/Watch"


@dataclass(frozen=True)
class Outcome:
    """How an rpc ended; `details` are the packed `google.rpc.Status`, replies as bytes."""

    code: grpc.StatusCode
    message: str = ""
    details: bytes = b""
    replies: tuple[bytes, ...] = ()


def methods() -> dict[str, MethodDescriptor]:
    """`/package.Service/Method` -> its descriptor, over every service but reflection itself."""
    pool = descriptor_pool()
    services = [pool.FindServiceByName(name) for name in SERVICES]
    return {f"/{service.full_name}/{method.name}": method for service in services for method in service.methods}


def messages(session: str) -> dict[str, Message]:
    """For each rpc a message that it answers with OK to whoever owns `session` of the digits; a new rpc needs one here.

    But that of RepositoryModelUnload, which would end every test, names a model that there is not. Three are about a
    session of the same id of a language model.

    CreateSession opens `new-{session}`, CreateSessions `one-{session}`, ForkSession `fork-{session}`; three are about
    its snapshot `kept`.
    """
    name = f"models/{MODEL}/sessions/{session}"
    snapshot, language = f"{name}/snapshots/{SNAPSHOT}", f"models/{LANGUAGE}/sessions/{session}"
    cases: dict[str, Message] = {rpc: getattr(pb, f"{rpc.rpartition('/')[2]}Request")(name=name) for rpc in NAMED}
    return cases | {
        OIP + "ServerLive": oip.ServerLiveRequest(),
        OIP + "ServerReady": oip.ServerReadyRequest(),
        OIP + "ModelReady": oip.ModelReadyRequest(name=MODEL),
        OIP + "ServerMetadata": oip.ServerMetadataRequest(),
        OIP + "ModelMetadata": oip.ModelMetadataRequest(name=MODEL),
        OIP + "ModelInfer": infer(session),
        OIP + "ModelStreamInfer": infer(session),
        OIP + "ModelConfig": model_config.ModelConfigRequest(name=MODEL),
        OIP + "ModelStatistics": model_statistics.ModelStatisticsRequest(name=MODEL),
        OIP + "RepositoryIndex": model_repository.RepositoryIndexRequest(),
        OIP + "RepositoryModelLoad": model_repository.RepositoryModelLoadRequest(model_name=MODEL),
        OIP + "RepositoryModelUnload": model_repository.RepositoryModelUnloadRequest(model_name="no-such-model"),
        SESSIONS + "CreateSession": pb.CreateSessionRequest(parent=f"models/{MODEL}", session_id=f"new-{session}"),
        SESSIONS + "CreateSessions": pb.CreateSessionsRequest(
            session={"parent": f"models/{MODEL}", "session_id": f"one-{session}"}, tag="0"
        ),
        SESSIONS + "ListSessions": pb.ListSessionsRequest(parent=f"models/{MODEL}"),
        SESSIONS + "UpdateSession": pb.UpdateSessionRequest(
            session={"name": name, "budget": {"capacity_ms": 5.0}}, update_mask={"paths": ["budget.capacity_ms"]}
        ),
        SESSIONS + "ForkSession": pb.ForkSessionRequest(name=name, session_id=f"fork-{session}"),
        SESSIONS + "GetSnapshot": pb.GetSnapshotRequest(name=snapshot),
        SESSIONS + "ListSnapshots": pb.ListSnapshotsRequest(parent=name),
        SESSIONS + "DeleteSnapshot": pb.DeleteSnapshotRequest(name=snapshot),
        SESSIONS + "RestoreSession": pb.RestoreSessionRequest(name=snapshot),
        SESSIONS + "SendFeedback": pb.SendFeedbackRequest(name=name, labels=[{"request_id": "r0"}]),
        GENERATION + "Generate": generation_pb.GenerateRequest(name=language, prompt="ab", sampling={"max_tokens": 2}),
        GENERATION + "Learn": generation_pb.LearnRequest(name=language, texts={"texts": ["a text"]}, max_tokens=1),
        GENERATION + "Score": generation_pb.ScoreRequest(name=language, texts=["a text"]),
        SERVER + "GetServerInfo": server_service_pb2.GetServerInfoRequest(),
        HEALTH + "Check": health_pb2.HealthCheckRequest(),
        HEALTH + "Watch": health_pb2.HealthCheckRequest(),
    }


def infer(session: str, rows: int = 2, **flags: bool) -> oip.ModelInferRequest:
    """Noise for a session of the digits."""
    image = np.random.default_rng(rows).integers(0, 256, (rows, 1, 28, 28), np.uint8)
    message = oip.ModelInferRequest(
        model_name=MODEL,
        inputs=[{"name": "image", "datatype": "UINT8", "shape": image.shape}],
        raw_input_contents=[image.tobytes()],
    )
    message.parameters["sequence_id"].string_param = session
    for name, value in flags.items():
        message.parameters[name].bool_param = value
    return message


def richer(session: str) -> list[tuple[str, Message]]:
    """More good messages, of the rpcs whose messages can say more."""
    name = f"models/{MODEL}/sessions/{session}"
    typed = infer(session, 1)
    typed.inputs[0].contents.uint_contents.extend(typed.raw_input_contents.pop())
    tensor = session_pb2.NamedTensor(name="bn1.weight", shape=[8], values=bytes(32))
    lora = session_pb2.Lora(name="fc", a="fc.lora_A", b="fc.lora_B", rank=1, alpha=1.0)
    created = pb.CreateSessionRequest(
        parent=f"models/{MODEL}",
        session_id=session,
        recipe="tent",
        recipe_parameters={"lr": 0.001, "batch_rows": 16},
        budget=session_pb2.Budget(refill_ms_per_s=10, capacity_ms=100),
        seed=session_pb2.Seed(tensors=[tensor], lora=[lora]),
        labels={"site": "hall 3"},
    )
    return [
        (OIP + "ModelInfer", infer(session, 1, sequence_start=True, sequence_end=True)),
        (OIP + "ModelInfer", infer(session, 16, sequence_start=True)),
        (OIP + "ModelInfer", infer(session, 3, acclimate_adapt=False)),
        (OIP + "ModelInfer", typed),
        (SESSIONS + "CreateSession", created),
        (SESSIONS + "CreateSessions", pb.CreateSessionsRequest(session=created, tag="1")),
        (SESSIONS + "CreateSession", pb.CreateSessionRequest(parent=f"models/{MODEL}", session_id=session)),
        (SESSIONS + "ListSessions", pb.ListSessionsRequest(parent="models/-", page_size=3, page_token="YQBiAGM=")),  # noqa: S106
        (
            SESSIONS + "ListSessions",
            pb.ListSessionsRequest(parent="models/-", filter='labels.site = "hall 3" AND paused = false', tenant="-"),
        ),
        (SESSIONS + "WatchSessions", pb.WatchSessionsRequest(name="models/-")),
        (
            SESSIONS + "UpdateSession",
            pb.UpdateSessionRequest(
                session={"name": name, "budget": {"capacity_ms": 5.0}, "ttl": {"seconds": 500}, "labels": {"a": "b"}},
                update_mask={"paths": ["budget.capacity_ms", "ttl", "labels.a"]},
            ),
        ),
        (SESSIONS + "PauseSession", pb.PauseSessionRequest(name=name, etag='W/"0"')),
        (SESSIONS + "SnapshotSession", pb.SnapshotSessionRequest(name=name, request_id="7", snapshot_id=SNAPSHOT)),
        (SESSIONS + "ForkSession", pb.ForkSessionRequest(name=name)),
        (SESSIONS + "ListSnapshots", pb.ListSnapshotsRequest(parent=name, page_size=3, page_token=SNAPSHOT)),
        (
            SESSIONS + "SendFeedback",
            pb.SendFeedbackRequest(name=name, labels=[{"request_id": f"r{n}", "row": n, "label": n} for n in range(5)]),
        ),
        *_written(session),
        (HEALTH + "Check", health_pb2.HealthCheckRequest(service="inference.GRPCInferenceService")),
    ]


def _written(session: str) -> list[tuple[str, Message]]:
    """Good messages to a language model and to its session; their sessions may not be there."""
    name, turn = f"models/{LANGUAGE}/sessions/{session}", {"role": "user", "content": "a question"}
    pair = {"prompt": "what?", "completion": " that"}
    asked = oip.ModelInferRequest(
        model_name=LANGUAGE,
        inputs=[{"name": "text_input", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [b"ab"]}}],
    )
    asked.parameters["max_tokens"].int64_param = 2
    asked.parameters["stream"].bool_param = True
    return [
        (SESSIONS + "CreateSession", pb.CreateSessionRequest(parent=f"models/{LANGUAGE}", session_id=session)),
        (OIP + "ModelInfer", asked),
        (OIP + "ModelStreamInfer", asked),
        (
            GENERATION + "Generate",
            generation_pb.GenerateRequest(
                name=f"models/{LANGUAGE}",
                conversation={"messages": [turn]},
                sampling={"max_tokens": 3, "temperature": 0.7, "top_p": 0.9, "stop": ["x"], "seed": 3},
                search={"strategy": 1, "samples": 2},
            ),
        ),
        (
            GENERATION + "Learn",
            generation_pb.LearnRequest(
                name=name,
                pairs={"pairs": [pair, pair]},
                recipe="supervised",
                recipe_parameters={"epochs": 1},
                max_tokens=400,
                max_ms=50,
            ),
        ),
        (
            GENERATION + "Generate",
            generation_pb.GenerateRequest(
                name=name,
                prompt="a prompt of some length, to be learnt from",
                budget={"max_tokens": 900, "max_ms": 50},
                learn={
                    "texts": {"texts": ["a text"]},
                    "recipe": "tlm",
                    "recipe_parameters": {"epochs": 1},
                    "share": 0.5,
                    "discard": True,
                },
            ),
        ),
        (GENERATION + "Learn", generation_pb.LearnRequest(name=name, demonstrations={"pairs": [pair]}, recipe="ttt")),
        (
            GENERATION + "Score",
            generation_pb.ScoreRequest(name=f"models/{LANGUAGE}", prompt="a ", texts=["b", "c"], each_token=True),
        ),
    ]


def ask(channel: Any, method: str, payload: bytes, descriptor: MethodDescriptor, metadata: Any = ()) -> Outcome:
    """Send one message, whatever the kind of the rpc, and say how it ended; a watch that stands is left, and OK."""
    try:
        return Outcome(grpc.StatusCode.OK, replies=_replies(channel, method, payload, descriptor, metadata))
    except grpc.RpcError as error:
        trailers: dict[str, Any] = dict(error.trailing_metadata() or ())  # type: ignore[arg-type]
        return Outcome(error.code(), error.details() or "", trailers.get("grpc-status-details-bin", b""))


def _replies(
    channel: Any, method: str, payload: bytes, descriptor: MethodDescriptor, metadata: Any
) -> tuple[bytes, ...]:
    options: dict[str, Any] = {"timeout": TIMEOUT_SECONDS, "metadata": tuple(metadata)}
    if descriptor.client_streaming:
        return tuple(channel.stream_stream(method)(iter([payload]), **options))
    if not descriptor.server_streaming:
        return (channel.unary_unary(method)(payload, **options),)
    call = channel.unary_stream(method)(payload, **options)
    if method == FIRST_ONLY:
        first = next(call)
        call.cancel()
        return (first,)
    ended = threading.Event()
    if not call.add_callback(ended.set) or ended.wait(REFUSAL_SECONDS):
        return tuple(call)
    call.cancel()
    return ()
