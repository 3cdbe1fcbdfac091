"""Language models: learning and generating for eight sessions at once, against what one would run without us.

    python -m benchmarks.lm [--json] [--model smollm2] [--precisions nf4,bf16] [--threads 1] [--rounds 3]
                            [--tokens 64] [--lengths 16,32,128] [--new 32] [--parts learning,generating,memory,llama]
                            [--device cuda]

The same base in the same precision, the same rank and projections, contestants taking turns. On one thread, the
default, times are processor times, which other work on the machine hardly disturbs, the least of each; on more, and on
CUDA, they are wall times, medians, and need a machine with nothing else to do.

lora_step_speedup_8     tokens a second of one step over eight sessions in one batch (gradient and Adam), over those
                        of eight steps of PEFT and torch's Adam, one session after the other, on the same tokens
lora_step_speedup_8_16_tokens
                        the same of texts of 16 tokens; a user's utterance with its label has 15 to 30
decode_speedup_8        tokens a second of eight texts with eight adapters, prompts included, over those of
                        `generate(adapter_names=...)` of PEFT
decode_over_llama_cpp   tokens a second of one text in int4, low-rank updates included, over llama-cpp-python's on the
                        same GGUF file, on the processor; left out, with the reason in the rows, where that is not
                        installed
bytes_per_session       memory that each of 100 sessions costs: theta and the moments of Adam
bytes_beyond_rows       of it, what is not theta or moments

The first two are in the first of the precisions; the others have theirs at the end of the name.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import math
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch

from acclimate.adapters.language import Ids
from acclimate.runtime.engines.torch_lm.converting import default_cache
from acclimate.runtime.engines.torch_lm.engine import TorchLanguageEngine
from acclimate.runtime.engines.torch_lm.finding import find, gguf_of
from acclimate.runtime.engines.torch_lm.options import LmOptions, Precision
from acclimate.runtime.metrics.process import rss_bytes
from benchmarks._lm_contestants import LlamaCpp, Peft, Rows, our_pace, our_step, our_texts
from benchmarks._report import Report, Value, emit, parser

PARTS = "learning,generating,memory,llama"
SESSIONS = 8
MANY = (1, 10, 100)
TEXT = Path(__file__).resolve().parents[1] / "CONTRIBUTING.md"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, then print."""
    options = parser(__doc__)
    options.add_argument("--model", default="smollm2", help="alias, directory or GGUF file (default smollm2)")
    options.add_argument("--precisions", default="nf4,bf16", help="of these, the first without a suffix")
    options.add_argument("--threads", type=int, default=1, help="threads of everyone (default 1)")
    options.add_argument("--rounds", type=int, default=3, help="turns of each contestant (default 3)")
    options.add_argument("--tokens", type=int, default=64, help="of a session's text in a step (default 64)")
    options.add_argument("--lengths", default="16,32,128", help="further lengths of texts to learn (default 16,32,128)")
    options.add_argument("--new", type=int, default=32, help="tokens to generate (default 32)")
    options.add_argument("--parts", default=PARTS, help=f"what to measure (default {PARTS})")
    options.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of both (default %(default)s)")
    chosen = options.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    figures: dict[str, float] = {}
    rows: list[Mapping[str, Value]] = []
    for number, precision in enumerate(chosen.precisions.split(",")):
        suffix = f"_{precision}" if number else ""
        engine = _engine(chosen, precision)
        texts = _texts(engine, chosen.tokens)
        figures |= {
            name + suffix: value for name, value in _against_peft(chosen, precision, engine, texts, rows).items()
        }
        if not number and "memory" in chosen.parts:
            figures |= _memory(engine, texts, rows)
    if "llama" in chosen.parts and chosen.device == "cpu":
        figures |= _against_llama(chosen, rows)
    emit(Report("lm", figures, rows), as_json=chosen.json)


def _engine(chosen: Namespace, precision: Precision) -> TorchLanguageEngine:
    options = LmOptions("lm", chosen.model, precision=precision, threads=chosen.threads, device=chosen.device)
    return TorchLanguageEngine(options)


def _texts(engine: TorchLanguageEngine, tokens: int) -> list[Ids]:
    """A text of so many tokens for each session."""
    ids = engine.tokenizer.encode(TEXT.read_text(encoding="utf-8"))
    return [ids[number * tokens : (number + 1) * tokens] for number in range(SESSIONS)]


def _learnt(engine: TorchLanguageEngine) -> np.ndarray:
    """Theta `[S, P]` of sessions that have learnt a step: updates that change nothing are not computed."""
    rows = Rows.of(engine.source.theta, SESSIONS)
    our_step(engine, rows, _texts(engine, 16), slice(0, SESSIONS))
    return rows.theta


def _row(what: str, who: str, rate: float, note: str = "") -> Mapping[str, Value]:
    return {"what": what, "who": who, "tokens_per_s": rate, "note": note}


def _against_peft(
    chosen: Namespace, precision: str, engine: TorchLanguageEngine, texts: list[Ids], rows: list[Mapping[str, Value]]
) -> dict[str, float]:
    if not {"learning", "generating"} & set(chosen.parts.split(",")):
        return {}
    directory = find(chosen.model, default_cache(), lambda _: None).directory
    peft = Peft(directory, precision, engine, SESSIONS, chosen.device)
    figures: dict[str, float] = {}
    lengths = [length for length in chosen.lengths.split(",") if length]
    for tokens, suffix in [(chosen.tokens, ""), *((int(length), f"_{length}_tokens") for length in lengths)]:
        if "learning" in chosen.parts:
            found = _learning(chosen, precision, engine, peft, tokens, rows)
            figures |= {name + suffix: value for name, value in found.items()}
    if "generating" in chosen.parts:
        figures |= _generating(chosen, precision, engine, peft, [text[:16] for text in texts], rows)
    return figures


def _generating(
    chosen: Namespace,
    precision: str,
    engine: TorchLanguageEngine,
    peft: Peft,
    prompts: list[Ids],
    rows: list[Mapping[str, Value]],
) -> dict[str, float]:
    thetas = _learnt(engine)
    generating: dict[str, Callable[[], int]] = {
        "continuous batch": lambda: our_texts(engine, thetas, prompts, chosen.new),
        "PEFT generate": lambda: peft.texts(prompts, chosen.new),
    }
    said = {who: call() for who, call in generating.items()}
    saying = {who: said[who] / spent for who, spent in _times(chosen, generating).items()}
    rows += [_row("generating", f"{who}, {precision}", pace) for who, pace in saying.items()]
    return {
        "decode_speedup_8": saying["continuous batch"] / saying["PEFT generate"],
        "decode_tokens_per_s": saying["continuous batch"],
    }


def _learning(
    chosen: Namespace,
    precision: str,
    engine: TorchLanguageEngine,
    peft: Peft,
    tokens: int,
    rows: list[Mapping[str, Value]],
) -> dict[str, float]:
    """Steps on texts of so many tokens, of sessions at the source."""
    texts, mine = _texts(engine, tokens), Rows.of(engine.source.theta, SESSIONS)
    peft.reset()
    everyone = slice(0, SESSIONS)
    learning: dict[str, Callable[[], float]] = {
        "one batch": lambda: our_step(engine, mine, texts, everyone),
        "PEFT one by one": lambda: peft.steps(texts),
    }
    first = {who: call() for who, call in learning.items()}
    if not math.isclose(*first.values(), rel_tol=0.02):
        raise ValueError(f"the contestants do not compute the same: losses {first}; fix that before measuring")
    times = _times(chosen, learning)
    paces = {who: SESSIONS * tokens / spent for who, spent in times.items()}
    rows += [_row("learning", f"{who}, {tokens} tokens each, {precision}", pace) for who, pace in paces.items()]
    return {
        "lora_step_speedup_8": paces["one batch"] / paces["PEFT one by one"],
        "lora_tokens_per_s": paces["one batch"],
    }


def _alone(chosen: Namespace) -> bool:
    """Whether all work is done by one thread of the processor."""
    return bool(chosen.threads == 1 and chosen.device == "cpu")


def _clock(chosen: Namespace) -> Callable[[], float]:
    return time.process_time if _alone(chosen) else time.perf_counter


def _times(chosen: Namespace, contestants: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of a call of each, which have been called once already; they take turns."""
    clock = _clock(chosen)
    spent: dict[str, list[float]] = {who: [] for who in contestants}
    for _ in range(chosen.rounds):
        for who, call in contestants.items():
            start = clock()
            call()
            spent[who].append(clock() - start)
    return {who: (min if _alone(chosen) else median)(times) for who, times in spent.items()}


def _against_llama(chosen: Namespace, rows: list[Mapping[str, Value]]) -> dict[str, float]:
    file = gguf_of(chosen.model)
    if importlib.util.find_spec("llama_cpp") is None or file is None:
        why = "the model is no GGUF file" if file is None else "llama-cpp-python is not installed"
        rows.append(_row("one text", "llama.cpp", 0.0, f"not measured: {why}"))
        return {}
    engine, other = _engine(chosen, "int4"), LlamaCpp(file, chosen.threads)
    theta, prompt = _learnt(engine)[0], _texts(engine, 16)[0]
    turns: dict[str, list[float]] = {"int4": [], "llama.cpp": []}
    for _ in range(chosen.rounds + 1):
        turns["int4"].append(our_pace(engine, theta, prompt, 2 * chosen.new, _clock(chosen)))
        turns["llama.cpp"].append(other.pace(prompt, 2 * chosen.new, _clock(chosen)))
    best = max if _alone(chosen) else median
    paces = {who: best(rates[1:]) for who, rates in turns.items()}
    rows += [_row("one text", who, pace) for who, pace in paces.items()]
    return {
        "decode_over_llama_cpp": paces["int4"] / paces["llama.cpp"],
        "decode_alone_tokens_per_s": paces["int4"],
    }


def _memory(engine: TorchLanguageEngine, texts: list[Ids], rows: list[Mapping[str, Value]]) -> dict[str, float]:
    """What sessions cost: each has learnt a step, eight at a time, when memory is looked at."""
    warm = Rows.of(engine.source.theta, SESSIONS)
    for _ in range(3):
        our_step(engine, warm, texts, slice(0, SESSIONS))
    before, held, figures = _held_bytes(), None, {}
    for count in MANY:
        held = None
        before = _held_bytes() if count == MANY[0] else before
        held = Rows.of(engine.source.theta, count)
        for start in range(0, count, SESSIONS):
            part = slice(start, min(start + SESSIONS, count))
            our_step(engine, held, texts[: part.stop - part.start], part)
        each = (_held_bytes() - before) / count
        rows.append(
            _row(
                "memory", f"{count} sessions", 0.0, f"{each / 1e6:.2f} MB each, {held.theta[0].nbytes / 1e6:.2f} theta"
            )
        )
        figures = {"bytes_per_session": each, "bytes_beyond_rows": each - 3 * held.theta[0].nbytes}
    return figures | {"base_bytes": float(engine.base_bytes)}


def _held_bytes() -> float:
    """Resident memory without what steps have given back to the C library, which keeps it for the next one."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    return rss_bytes()


if __name__ == "__main__":
    main()
