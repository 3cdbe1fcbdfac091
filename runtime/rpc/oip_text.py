"""Language models through the Open Inference Protocol: a text as a whole, or token by token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.runtime.clock import Clock
from acclimate.runtime.errors import DeadlineExceeded
from acclimate.runtime.generation.types import GenerateReply
from acclimate.runtime.inference import sequence_of
from acclimate.runtime.rpc import convert_oip, convert_text
from acclimate.runtime.scheduler.admission import step_aside
from acclimate.runtime.service_protocol import ServiceProtocol

Send = Callable[[oip.ModelInferResponse], None]
"""Takes every response to a request but the last."""


class Texts:
    """Answers requests to language models."""

    def __init__(self, service: ServiceProtocol, clock: Clock) -> None:
        self._service = service
        self._clock = clock

    def writes(self, model: str) -> bool:
        """Whether a model of this name writes texts."""
        return self._service.generating.writes(model)

    async def answer(
        self, message: oip.ModelInferRequest, remaining: float | None, send: Send | None = None
    ) -> oip.ModelInferResponse:
        """The last response to a request; those before it are sent, if `send` is there and the request wants them.

        Raises:
            AcclimateError: as `Generating.generate` and `Sequences.during`.
        """
        # Language models have bounds of their own; their seconds say nothing of what other requests wait for.
        step_aside()
        request = convert_oip.infer_request(message, self._clock.monotonic(), remaining)
        manifest = self._service.model(request.model, request.version)
        sequence = sequence_of(request.parameters)
        text = convert_text.text_request(request, sequence)
        generating, raw = self._service.generating, bool(message.raw_input_contents)

        def response(written: str, last: GenerateReply, final: bool) -> oip.ModelInferResponse:
            return convert_text.text_response(request, manifest.version, text, written, last, raw=raw, final=final)

        written, last = text.echo, GenerateReply(0)
        left = None if request.deadline is None else request.deadline - self._clock.monotonic()
        try:
            async with (
                asyncio.timeout(left),
                generating.sequences.during(request.model, sequence),
                aclosing(generating.generate(text.asked)) as replies,
            ):
                async for last in replies:
                    written += "" if last.token is None else last.token.text
                    if send is not None and text.stream and last.token is not None and not last.finish:
                        send(response(written, last, False))
                        written = ""
        except TimeoutError:
            raise DeadlineExceeded("DEADLINE_EXCEEDED", "the deadline passed before the text was written") from None
        return response(written, last, True)
