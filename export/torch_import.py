"""A torch module from where a user keeps it: a factory in an importable module, weights in a safetensors file."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from acclimate.export.errors import ExportError, UnsupportedModel

PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".tar"})
# A zip archive (torch.save since 1.6), and a bare pickle of protocol 2 or later (before that).
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
# A counter that BatchNorm2d keeps for training; files made by other tools leave it out.
_OPTIONAL = ".num_batches_tracked"


def make_module(target: str) -> nn.Module:
    """What `pkg.module:factory` returns when it is called without arguments.

    The working directory is searched first, as `python -m` does.

    Raises:
        UnsupportedModel: the module or the factory cannot be found, fails, or returns no `nn.Module`.
    """
    name, _, attribute = target.partition(":")
    if not name or not attribute:
        raise UnsupportedModel(f"target: {target!r} must be written pkg.module:factory")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        factory = getattr(import_module(name), attribute)
    except (ImportError, AttributeError) as error:
        raise UnsupportedModel(f"target: {target!r} cannot be imported ({_first_line(error)})") from error
    try:
        model = factory()
    except Exception as error:
        # The factory is the user's code; whatever it raises is the reason.
        raise UnsupportedModel(
            f"target: {target}() failed with {type(error).__name__}: {_first_line(error)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise UnsupportedModel(f"target: {target}() returned {type(model).__name__}; expected a torch.nn.Module")
    return model.eval()


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill `model` from a safetensors file that names exactly its parameters and buffers.

    Raises:
        ExportError: a pickle, not a readable safetensors file, or tensors that do not fit the module.
    """
    refuse_pickle(path)
    try:
        tensors = load_file(path)
        missing, unexpected = model.load_state_dict(tensors, strict=False)
    except OSError as error:
        raise ExportError(f"weights: {str(path)!r} cannot be read ({error.strerror or error})") from error
    except SafetensorError as error:
        raise ExportError(f"weights: {str(path)!r} is not a safetensors file ({_first_line(error)})") from error
    except RuntimeError as error:
        # load_state_dict puts each tensor of another shape on a line of its own, under a headline.
        detail = str(error).splitlines()[-1].strip()
        raise ExportError(f"weights: {str(path)!r} does not fit the module: {detail}") from error
    lacking = [name for name in missing if not name.endswith(_OPTIONAL)]
    if lacking or unexpected:
        raise ExportError(
            f"weights: {str(path)!r} does not fit the module: it lacks {lacking[:3]} and has {unexpected[:3]} besides"
        )


def refuse_pickle(path: Path) -> None:
    """Raise for a file that only unpickling, which runs code, could open, whatever its suffix says."""
    try:
        found = is_pickle(path)
    except OSError as error:
        raise ExportError(f"weights: {str(path)!r} cannot be read ({error.strerror or error})") from error
    if found:
        raise ExportError(
            f"weights: {str(path)!r} is a pickle checkpoint, which may run code when it is opened; convert it where "
            "you trust it: safetensors.torch.save_file(torch.load(path, weights_only=True), 'weights.safetensors')"
        )


def is_pickle(path: Path) -> bool:
    """Whether a file is named or begins like a pickle.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(4).startswith(_PICKLE_STARTS) or path.suffix.lower() in PICKLE_SUFFIXES


def class_count(model: nn.Module, sample_shape: tuple[int, ...]) -> int:
    """Width of the logits that `model` returns for pictures `[2, C, H, W]` float32, or token ids `[2, length]` int64.

    Raises:
        UnsupportedModel: it fails on such samples, or returns something else than `[2, classes]`.
    """
    dtype = torch.int64 if len(sample_shape) == 1 else torch.float32
    try:
        with torch.no_grad():
            logits = model(torch.zeros((2, *sample_shape), dtype=dtype))
    except Exception as error:
        # Whatever the user's module raises, most likely because of the samples' shape.
        raise UnsupportedModel(
            f"calibration: the model fails on samples of shape {list(sample_shape)}: {_first_line(error)}"
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != 2:
        shape = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise UnsupportedModel(f"the model returns {shape} for 2 samples; expected logits [2, classes]")
    return int(logits.shape[1])


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
