"""Texts of one model, generated together: a thread owns the decoder, and texts join and leave between its steps.

A text is written to its end under the parameters it was asked for with. What is done with its tokens happens on the
event loop; the thread never waits for whoever reads them.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import structlog

from acclimate.adapters.language import Ids
from acclimate.adapters.layout import Float
from acclimate.runtime.engines.language import Decoder, Emitted, LanguageEngine, Sampling
from acclimate.runtime.errors import AcclimateError, ResourceExhausted, Unavailable

log = structlog.stdlib.get_logger("acclimate.generation")

RETRY_SECONDS = 0.5
Told = Emitted | BaseException | None
"""What a reader hears: None when its text begins, then tokens, or why there will be none."""


@dataclass(eq=False, slots=True)
class _Text:
    """A text that waits or is written; `left` is set once nobody reads it any more."""

    prompt: Ids
    theta: Float
    sampling: Sampling
    loop: asyncio.AbstractEventLoop
    heard: asyncio.Queue[Told] = field(default_factory=asyncio.Queue)
    left: bool = False


class Writer:
    """The texts of one model.

    Args:
        engine: whose decoder writes.
        slots: texts written at once.
        max_queue: texts that may wait for a slot.
    """

    def __init__(self, engine: LanguageEngine, slots: int, max_queue: int) -> None:
        self._engine, self.slots, self._max_queue = engine, slots, max_queue
        self._waiting: deque[_Text] = deque()
        self._writing: dict[int, _Text] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None
        self.idle = threading.Event()
        """Set while no text is written, for whatever should not get in the way."""
        self.idle.set()

    @property
    def waiting(self) -> int:
        """Texts without a slot."""
        return len(self._waiting)

    @property
    def in_use(self) -> int:
        """Texts being written."""
        return len(self._writing)

    def admit(self, texts: int = 1) -> None:
        """Whether so many more texts may wait.

        Raises:
            ResourceExhausted: too many wait. Unavailable: the daemon drains.
        """
        if self._closed:
            raise Unavailable("DRAINING", "the daemon is draining; send the request to another one")
        if len(self._waiting) + texts > self._max_queue:
            raise ResourceExhausted(
                "QUEUE_FULL",
                f"{len(self._waiting)} texts wait to be generated, and generation.max_queue allows {self._max_queue}",
                retry_after_seconds=RETRY_SECONDS,
                limit=self._max_queue,
            )

    async def write(self, prompt: Ids, theta: Float, sampling: Sampling) -> AsyncGenerator[Emitted | None, None]:
        """None once the text has its slot, then its tokens; whoever stops reading gives the slot back.

        Raises:
            see `admit`; InvalidArgument: the engine does not take the prompt.
        """
        self.admit()
        text = _Text(prompt, theta, sampling, asyncio.get_running_loop())
        with self._changed:
            self._waiting.append(text)
            self._start()
            self._changed.notify()
        try:
            while True:
                told = await text.heard.get()
                if isinstance(told, BaseException):
                    raise told
                yield told
                if told is not None and told.finish:
                    return
        finally:
            self._leave(text)

    def close(self) -> None:
        """Refuse further texts; those that wait or are written go on."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def release(self) -> None:
        """Cut off what is still written, and end the thread."""
        self.close()
        with self._changed:
            left = [*self._waiting, *self._writing.values()]
            self._waiting.clear()
            for text in left:
                text.left = True
            self._changed.notify()
        for text in left:
            text.heard.put_nowait(Unavailable("DRAINING", "the daemon stopped before the text was written"))
        if self._thread is not None:
            self._thread.join()

    def _leave(self, text: _Text) -> None:
        with self._changed:
            text.left = True
            if text in self._waiting:
                self._waiting.remove(text)
            self._changed.notify()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="write", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        decoder: Decoder | None = None
        while True:
            with self._changed:
                while not (self._waiting or self._writing):
                    self.idle.set()
                    if self._closed:
                        return
                    self._changed.wait()
                self.idle.clear()
                gone = [slot for slot, text in self._writing.items() if text.left]
                for slot in gone:
                    del self._writing[slot]
                # A prompt takes as long as many tokens: while texts are written, others join one at a time.
                room = min(self.slots - len(self._writing), 1 if self._writing else self.slots)
                joining = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
            try:
                decoder = decoder or self._engine.decoder(self.slots)
                for slot in gone:
                    decoder.release(slot)
                for text in joining:
                    self._join(decoder, text)
                if self._writing:
                    self._step(decoder)
            except Exception as error:
                log.exception("texts could not be continued", texts=len(self._writing))
                with self._changed:
                    lost = {*joining, *self._writing.values()}
                    self._writing.clear()
                decoder = None
                _tell([(text, error) for text in lost])

    def _join(self, decoder: Decoder, text: _Text) -> None:
        try:
            slot = decoder.admit(text.prompt, text.theta, text.sampling)
        except AcclimateError as error:
            _tell([(text, error)])
            return
        with self._changed:
            self._writing[slot] = text
        _tell([(text, None)])

    def _step(self, decoder: Decoder) -> None:
        """One token for each text."""
        emitted = decoder.step()
        _tell([(self._writing[token.slot], token) for token in emitted])
        with self._changed:
            for token in emitted:
                if token.finish:
                    del self._writing[token.slot]


def _tell(news: list[tuple[_Text, Told]]) -> None:
    """Tell readers on their event loop, all of a step at once."""

    def tell() -> None:
        for text, told in news:
            text.heard.put_nowait(told)

    if news:
        try:
            news[0][0].loop.call_soon_threadsafe(tell)
        except RuntimeError:
            # The loop has ended, and every reader with it.
            log.debug("nobody hears of a step any more")
