"""Who asks whether there is room for an inference: the gate, before its message is read, or the edge, with the message.

Requests to language models have bounds of their own (`generation.*`), and are let in however crowded it is. Only the
message says which model it is for, so where language models are served all messages are read, and what is refused is
refused then, before it is decoded.
"""

from __future__ import annotations

from collections.abc import Callable

from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.runtime.errors import AcclimateError
from acclimate.runtime.scheduler.admission import Admission, Pass
from acclimate.runtime.security.caller import current

# Of `ModelInferRequest.model_name`: field 1, of a length. Lengths from LONG on take more than one byte.
TAG, LONG = 0x0A, 0x80


class Entrance:
    """Touched on the event loop's thread only.

    Args:
        admission: what says whether there is room.
        writes: whether a model of this name is a language model; None: none is.
    """

    def __init__(self, admission: Admission, writes: Callable[[str], bool] | None = None) -> None:
        self._admission = admission
        self._writes = writes

    def refuses_unread(self, tenant: str) -> AcclimateError | None:
        """Why a request need not be read, whichever model it is for; None if it has to be, or there is room."""
        return None if self._writes is not None else self._admission.refuses(tenant)

    def take(self, payload: bytes) -> Pass | None:
        """Let a request in, by its bytes; None: it is for a language model, as far as they tell.

        Raises:
            ResourceExhausted: there is no room.
        """
        if self._writes is None:
            return self._admission.enter(current().tenant)
        return None if self._writes(model_of(payload)) else self._enter()

    def take_after_all(self, message: oip.ModelInferRequest) -> Pass | None:
        """Let in what only seemed to be for a language model, now that it is decoded; as `take`."""
        return None if self._writes is not None and self._writes(message.model_name) else self._enter()

    def _enter(self) -> Pass:
        tenant = current().tenant
        # First, for it gives everybody the same error, which is put into words for gRPC once.
        full = self._admission.refuses(tenant)
        if full is not None:
            # Without the frames of those who were refused before.
            raise full.with_traceback(None)
        return self._admission.enter(tenant)


def model_of(payload: bytes) -> str:
    """The `model_name` of a ModelInferRequest, or empty: it has none, or the bytes do not begin with it.

    Protobuf writes fields in the order of their numbers. It is not the last word, for should a name come again further
    on, that one counts.
    """
    if len(payload) < 2 or payload[0] != TAG or payload[1] >= LONG:
        return ""
    return payload[2 : 2 + payload[1]].decode("utf-8", "replace")
