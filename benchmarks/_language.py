"""The language model that a benchmark measures."""

from __future__ import annotations

import argparse

from acclimate.runtime.engines.language import LanguageEngine


def add_model(options: argparse.ArgumentParser) -> None:
    """Options that choose the model and how it is held."""
    options.add_argument("--model", default="smollm2", help="alias, directory, GGUF file or hub id (default: smollm2)")
    options.add_argument("--precision", default="bf16", help="of the base: nf4, int8, int4, bf16 or fp32")
    options.add_argument("--rank", type=int, default=8)
    options.add_argument("--threads", type=int, default=1, help="torch spins where it has to share cores")


def add_parameters(options: argparse.ArgumentParser) -> None:
    """The option that sets parameters of the recipe, as pairs of a name and a number."""
    options.add_argument("--parameter", type=_parameter, action="append", default=[], metavar="NAME=VALUE")


def _parameter(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    return name, float(value)


def engine_of(chosen: argparse.Namespace) -> LanguageEngine:
    """The engine, loaded.

    Raises:
        SystemExit: the model cannot be found or loaded; the message says what to do.
    """
    try:
        from acclimate.runtime.engines.language import LanguageModelError
        from acclimate.runtime.engines.torch_lm.engine import TorchLanguageEngine
        from acclimate.runtime.engines.torch_lm.options import LmOptions
    except ImportError as error:
        raise SystemExit(f"{error}; language models need: pip install 'acclimate[llm]'") from error
    try:
        options = LmOptions(
            chosen.model, chosen.model, precision=chosen.precision, rank=chosen.rank, threads=chosen.threads
        )
        return TorchLanguageEngine(options)
    except LanguageModelError as error:
        raise SystemExit(str(error)) from error
