"""A language model on torch, as `engines/language.py` has it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from acclimate.adapters.language import TokenRows, TokenScores
from acclimate.adapters.layout import Float, Layout
from acclimate.adapters.manifest import LANGUAGE_TASK, Calibration, Cost, FileEntry, Manifest, TensorSpec
from acclimate.adapters.source import Source
from acclimate.runtime.engines.language import Decoder, LanguageModelError, Pullback, Tokenizer
from acclimate.runtime.engines.torch_lm.arena import Arenas
from acclimate.runtime.engines.torch_lm.converting import default_cache
from acclimate.runtime.engines.torch_lm.decoder import Model, TorchDecoder
from acclimate.runtime.engines.torch_lm.finding import find
from acclimate.runtime.engines.torch_lm.learning_pass import LearningPass
from acclimate.runtime.engines.torch_lm.llama import Shape
from acclimate.runtime.engines.torch_lm.loading import load
from acclimate.runtime.engines.torch_lm.lowrank import Plan, Sizes
from acclimate.runtime.engines.torch_lm.options import LmOptions
from acclimate.runtime.engines.torch_lm.packing import pack, parts, taken
from acclimate.runtime.engines.torch_lm.scoring import pulled, scores
from acclimate.runtime.engines.torch_lm.text import HfTokenizer
from acclimate.runtime.errors import InvalidArgument


def _quiet(text: str) -> None:
    """Tells nobody."""


class TorchLanguageEngine:
    """A frozen base in memory, and what sessions' rows of theta make of it."""

    def __init__(self, options: LmOptions, progress: Callable[[str], None] = _quiet) -> None:
        """Find, convert if need be, and load a model.

        Args:
            options: which, and how.
            progress: told of what takes more than a moment.

        Raises:
            LanguageModelError: it cannot be loaded; the message says what was tried and what to do.
        """
        if options.threads:
            torch.set_num_threads(options.threads)
        self._device = _device(options.device)
        found = find(options.path, options.cache or default_cache(), progress)
        progress(f"loading {options.name} in {options.precision}")
        loaded = load(found.directory, options.precision, options.context, self._device)
        tokenizer = HfTokenizer(found.directory)
        shape = loaded.base.shape
        self._plan = Plan(
            Sizes(shape.layers, shape.projections), options.targets, options.rank, options.alpha, loaded.pairs
        )
        ends = loaded.ends | ({tokenizer.end} if tokenizer.end is not None else frozenset())
        self._model = Model(loaded.base, self._plan, tokenizer, ends, loaded.context)
        self._step_tokens = options.step_tokens
        self._order = self._plan.order.to(self._device)
        self._arenas = Arenas(self._device)
        self._manifest = _manifest(options, found.files, self._plan, shape, loaded.context)
        self._source = _source(self._manifest, self._plan.initial())

    @property
    def manifest(self) -> Manifest:
        """Task `text-generation`, and the layout of theta."""
        return self._manifest

    @property
    def source(self) -> Source:
        """The unadapted row of theta."""
        return self._source

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own."""
        return self._model.tokenizer

    @property
    def context(self) -> int:
        """Most tokens of a row."""
        return self._model.context

    @property
    def flops_per_token(self) -> float:
        """Two for each weight that a token meets."""
        return _flops(self._model.base.shape)

    @property
    def base_bytes(self) -> int:
        """Memory of the base."""
        return self._model.base.bytes

    def score(self, rows: TokenRows, theta: Float) -> TokenScores:
        """Scores of rows under `theta [S, P]`."""
        self._check(rows, theta)
        found = _zeros(rows)
        for part in parts(rows, self._step_tokens):
            self._part(taken(rows, part), theta, None, found, part)
        return found

    def vjp(self, rows: TokenRows, theta: Float, cotangents: TokenScores | Pullback) -> tuple[TokenScores, Float]:
        """Scores, and the gradient `[S, P]` of `(scores * cotangents).sum()`."""
        self._check(rows, theta)
        several = parts(rows, self._step_tokens)
        if callable(cotangents):
            if len(several) == 1:
                found, gradient = _zeros(rows), np.zeros(theta.shape, np.float32)
                present, added = self._part(taken(rows, several[0]), theta, cotangents, found, several[0])
                gradient[present] += added
                return found, gradient
            cotangents = cotangents(self.score(rows, theta))
        for name, array in (("logprob", cotangents.logprob), ("entropy", cotangents.entropy)):
            if array.shape != rows.ids.shape:
                raise InvalidArgument(
                    "INVALID_ROWS", f"cotangents.{name} has shape {array.shape}; rows have {rows.ids.shape}"
                )
        found = _zeros(rows)
        gradient = np.zeros(theta.shape, np.float32)
        for part in several:
            some = taken(rows, part)
            width = some.ids.shape[1]
            some_cotangents = TokenScores(cotangents.logprob[part, :width], cotangents.entropy[part, :width])
            present, added = self._part(some, theta, some_cotangents, found, part)
            gradient[present] += added
        return found, gradient

    def decoder(self, slots: int) -> Decoder:
        """An empty decoder for up to `slots` texts at once."""
        if slots < 1:
            raise InvalidArgument("INVALID_SLOTS", f"slots is {slots}; use 1 or more")
        with torch.inference_mode():
            return TorchDecoder(self._model, slots)

    def close(self) -> None:
        """Release the memory of steps; the base goes with the engine."""
        self._arenas.close()

    def _part(
        self,
        rows: TokenRows,
        theta: Float,
        cotangents: TokenScores | Pullback | None,
        found: TokenScores,
        part: np.ndarray,
    ) -> tuple[np.ndarray, Float]:
        """Score some rows into `found`; with cotangents also which rows of theta have a gradient, and it.

        Cotangents that depend on the scores are those of all rows: there is one part, then.
        """
        packed = pack(rows, self._device)
        if not len(packed.ids):
            return packed.present, np.zeros((0, theta.shape[1]), np.float32)
        base, learning = self._model.base, cotangents is not None
        with torch.no_grad(), self._arenas.one() as arena:
            mine = self._tensor(theta[packed.present]).index_select(1, self._order)
            updates = self._plan.updates(self._plan.leaves(mine))
            passed = LearningPass(base, packed, updates, self._plan.scale, arena)
            read = passed.read(keep=learning)
            row, position = packed.where
            given = None
            if cotangents is None or callable(cotangents):
                scored = scores(arena, read, base.head, packed.targets, logprob=learning)
            else:
                scored, given = pulled(arena, read, base.head, packed.targets, self._at(cotangents, packed.where))
            found.logprob[part[row], position] = scored.logprob.cpu().numpy()
            found.entropy[part[row], position] = scored.entropy.cpu().numpy()
            if callable(cotangents):
                known = self._at(cotangents(found), (part[row], position))
                entropies = known[1].any()
                given = pulled(arena, read, base.head, packed.targets, known)[1] if entropies else scored.pull(known)
            if given is None:
                return packed.present, np.zeros((0, theta.shape[1]), np.float32)
            gradient = torch.empty_like(mine)
            passed.pull(given, self._plan.updates(self._plan.leaves(gradient)))
            return packed.present, self._plan.restored(gradient).cpu().numpy()

    def _at(self, cotangents: TokenScores, where: tuple[np.ndarray, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """The cotangents of the tokens that are scored."""
        return self._tensor(cotangents.logprob[where]), self._tensor(cotangents.entropy[where])

    def _tensor(self, values: Float) -> torch.Tensor:
        return torch.from_numpy(np.array(values, np.float32)).to(self._device)

    def _check(self, rows: TokenRows, theta: Float) -> None:
        size, tokens = self._plan.layout.size, self._model.base.shape.vocabulary
        longest = int(rows.lengths.max(initial=0))
        faults = [
            (theta.ndim != 2 or theta.shape[-1] != size, f"theta has shape {theta.shape}; expected (S, {size})"),
            (longest > self.context, f"a row has {longest} tokens; the context holds {self.context}"),
            (longest > rows.ids.shape[1], f"lengths go to {longest}; ids have {rows.ids.shape[1]} columns"),
            (
                rows.ids.size > 0 and not (rows.ids.min() >= 0 and rows.ids.max() < tokens),
                f"ids lie outside 0 to {tokens - 1}",
            ),
            (
                rows.group.size > 0 and not (rows.group.min() >= 0 and rows.group.max() < len(theta)),
                f"group names rows of theta outside 0 to {len(theta) - 1}",
            ),
        ]
        if wrong := [text for fault, text in faults if fault]:
            raise InvalidArgument("INVALID_ROWS", "; ".join(wrong))


def _device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise LanguageModelError("device is 'cuda', but torch finds no GPU here; use 'auto' or 'cpu'")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def _zeros(rows: TokenRows) -> TokenScores:
    return TokenScores(np.zeros(rows.ids.shape, np.float32), np.zeros(rows.ids.shape, np.float32))


def _flops(shape: Shape) -> float:
    of_layer = sum(math.prod(sizes) for sizes in shape.projections.values())
    return 2.0 * (shape.layers * of_layer + shape.vocabulary * shape.width)


def _manifest(options: LmOptions, files: dict[str, FileEntry], plan: Plan, shape: Shape, context: int) -> Manifest:
    text = TensorSpec("text", "BYTES", (-1, 1))
    provenance = {
        "engine": "torch",
        "precision": options.precision,
        "context": context,
        "rank": options.rank,
        "alpha": options.alpha,
        "targets": list(options.targets),
    }
    forward = _flops(shape)
    made = Manifest(
        name=options.name,
        version="1",
        task=LANGUAGE_TASK,
        classes=(),
        inputs=(text,),
        outputs=(text,),
        parameters=plan.layout,
        statistics=Layout(()),
        sites=(),
        calibration=Calibration(0.0, False, 0.0, 0.0, 0.0),
        cost=Cost(forward, 2 * forward, 0.0, 0.0),
        files=files,
        provenance=provenance,
        lora=plan.lora,
    )
    # Read back, so that it is checked as one from a file is.
    return Manifest.from_json(made.to_json())


def _source(manifest: Manifest, theta: Float) -> Source:
    nothing = np.zeros(0, np.float32)
    return Source(
        parameters=manifest.parameters,
        statistics=manifest.statistics,
        theta=theta,
        stats=nothing,
        fisher=np.zeros_like(theta),
        class_prior=nothing,
        canary_inputs=np.zeros((0, 1), np.int64),
        canary_labels=np.zeros(0, np.int64),
        calibration=manifest.calibration,
    )
