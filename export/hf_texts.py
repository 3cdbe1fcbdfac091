"""How a checkpoint of the transformers library wants its texts: the tokenizer, one length, and the padding."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from numpy.typing import NDArray
from optimum.utils import DummyTextInputGenerator, NormalizedTextConfig
from tokenizers import Tokenizer
from torch import Tensor, nn

from acclimate.export.calibration import CalibrationData
from acclimate.export.errors import CalibrationError, ExportError, UnsupportedModel
from acclimate.export.hf_model import TEXTS, first_line, normalized, quiet

LONGEST = 128
_SAVE_IT = "save it beside the weights with tokenizer.save_pretrained(folder)"


@dataclass(frozen=True)
class TextFormat:
    """What a client sends: token ids of one length, padded with `pad`, and the keywords a model takes of them.

    Attributes:
        tokenizer: pads and cuts to the length, as `tokenizer.json` among the files does.
        length: tokens of a text.
        pad: id of the padding token; the attention mask is where the ids are others.
        words: size of the vocabulary; ids are below.
        masked: whether the model takes an attention mask; few do without.
        files: the tokenizer's files by name.
    """

    tokenizer: Tokenizer
    length: int
    pad: int
    words: int
    masked: bool
    files: Mapping[str, bytes]

    def arguments(self, ids: Tensor) -> Mapping[str, Tensor]:
        """Keywords of the model for token ids `[B, length]`; token types are left at the model's zeros."""
        mask = {"attention_mask": (ids != self.pad).long()} if self.masked else {}
        return {"input_ids": ids, **mask}

    def ids(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Token ids `[N, length]`.

        Raises:
            UnsupportedModel: padding cannot be told from text by the ids alone.
        """
        encoded = self.tokenizer.encode_batch(list(texts))
        ids = np.array([entry.ids for entry in encoded], np.int64).reshape(len(encoded), self.length)
        mask = np.array([entry.attention_mask for entry in encoded], bool).reshape(ids.shape)
        if not np.array_equal(ids != self.pad, mask):
            raise UnsupportedModel(
                f"model: the padding token (id {self.pad}) also occurs in texts, so that the mask cannot be made from "
                "the ids; give the tokenizer a padding token of its own"
            )
        return ids

    def checked(self, data: CalibrationData) -> CalibrationData:
        """The same data, if these ids can be fed.

        Raises:
            CalibrationError: not ids, another length, or an id outside the vocabulary.
        """
        ids = data.inputs
        if ids.ndim != 2 or ids.shape[1] != self.length:
            raise CalibrationError(
                f"calibration: samples have shape {list(ids.shape[1:])}; expected token ids [N, {self.length}]: give "
                "--length, or a file of texts"
            )
        wrong = ids[(ids < 0) | (ids >= self.words)]
        if wrong.size:
            raise CalibrationError(
                f"calibration: token id {int(wrong[0])} is outside 0..{self.words - 1}; tokenize with this "
                "checkpoint's own tokenizer"
            )
        return data


def text_format(source: str, config: Any, model: nn.Module, length: int | None) -> TextFormat:
    """From the checkpoint's configuration and tokenizer.

    Args:
        source: folder or hub id.
        config: the checkpoint's.
        model: the checkpoint's.
        length: tokens of every text; by default what the model takes, at most 128.

    Raises:
        ExportError: no tokenizer, or a length that the model does not take. UnsupportedModel: no padding token.
    """
    names = normalized(config, NormalizedTextConfig)
    words, masked = int(names.vocab_size), "attention_mask" in signature(type(model).forward).parameters
    with quiet():
        outer = _loaded(source, words)
        backend, pad, chosen = outer.backend_tokenizer, _padding(outer, config), _length(outer, names, length)
        outer.model_max_length = chosen
        backend.enable_truncation(chosen, direction=outer.truncation_side)
        backend.enable_padding(
            direction=outer.padding_side, pad_id=pad, pad_token=outer.pad_token or "[PAD]", length=chosen
        )
        return TextFormat(backend, chosen, pad, words, masked, _files(outer))


def dummy(config: Any, texts: TextFormat) -> Tensor:
    """Random token ids `[2, length]`."""
    names = normalized(config, NormalizedTextConfig)
    generator = DummyTextInputGenerator(TEXTS, names, batch_size=2, sequence_length=texts.length)
    made: Tensor = generator.generate("input_ids")
    return made


def _loaded(source: str, words: int) -> Any:
    """The tokenizer in transformers' wrapping.

    Where its files are missing, transformers makes one up that knows special tokens alone.
    """
    try:
        outer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:
        # Its loaders share no base class of errors.
        raise ExportError(
            f"model: {source!r} has no tokenizer that can be loaded ({first_line(error)}); {_SAVE_IT}"
        ) from error
    backend = getattr(outer, "backend_tokenizer", None)
    if backend is None:
        raise UnsupportedModel(f"model: {type(outer).__name__} is not a tokenizer of the `tokenizers` library")
    known = backend.get_vocab()
    if not set(known) - set(outer.all_special_tokens):
        raise ExportError(f"model: {source!r} has no tokenizer files; {_SAVE_IT}")
    if max(known.values()) >= words:
        raise UnsupportedModel(
            f"model: the tokenizer has ids up to {max(known.values())}, the model's vocabulary is {words}; are they of "
            "one checkpoint?"
        )
    return outer


def _padding(outer: Any, config: Any) -> int:
    pad = outer.pad_token_id if outer.pad_token_id is not None else getattr(config, "pad_token_id", None)
    if pad is None:
        raise UnsupportedModel(
            "model: neither tokenizer nor config.json names a padding token, which the attention mask is made from"
        )
    return int(pad)


def _length(outer: Any, names: Any, asked: int | None) -> int:
    positions = int(names.max_position_embeddings) if names.has_attribute("max_position_embeddings") else None
    most = min(outer.model_max_length, positions or outer.model_max_length)
    if asked is None:
        return int(min(most, LONGEST))
    if not 2 <= asked <= most:
        raise ExportError(f"length: {asked} tokens were asked for; this checkpoint takes 2 to {most}")
    return asked


def _files(outer: Any) -> dict[str, bytes]:
    """What `save_pretrained` writes, as it will lie in the bundle."""
    with tempfile.TemporaryDirectory() as folder:
        outer.save_pretrained(folder)
        return {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir()) if file.is_file()}
