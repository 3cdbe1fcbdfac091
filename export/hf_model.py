"""A classifier of the transformers library: which task, which class, its weights, and one tensor to feed it."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MethodType
from typing import Any

import torch
import transformers
from optimum.exporters.tasks import TasksManager
from optimum.utils import NormalizedConfigManager
from optimum.utils.normalized_config import NormalizedConfig
from torch import Tensor, nn

from acclimate.export.errors import ExportError, UnsupportedModel
from acclimate.export.torch_import import is_pickle

IMAGES, TEXTS = "image-classification", "text-classification"
TASKS = (IMAGES, TEXTS)
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def load_config(source: str) -> Any:
    """The checkpoint's configuration.

    Args:
        source: a folder that `save_pretrained` wrote, or an id of the Hugging Face hub.

    Raises:
        ExportError: no such folder, a folder without a safetensors checkpoint, or the hub does not have it or cannot
            be reached.
    """
    if Path(source).is_dir():
        _refuse_other_folders(Path(source))
    elif Path(source).exists() or not _HUB_ID.fullmatch(source):
        raise ExportError(f"model: {source!r} is neither a folder nor an id of the Hugging Face hub (owner/name)")
    with quiet(), _failures(source):
        return transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)


def task_of(config: Any, asked: str | None) -> str:
    """One of `TASKS`: as asked for, in one of optimum's spellings, or as the checkpoint's own class says.

    Raises:
        ExportError: another task, or none can be told.
    """
    if asked is not None:
        task: str = TasksManager.map_from_synonym(asked)
        if task not in TASKS:
            raise ExportError(f"task: {asked!r} is not one of {list(TASKS)}; sessions adapt classifiers")
        return task
    name = (config.architectures or ["none"])[0]
    try:
        task = TasksManager.infer_task_from_model(getattr(transformers, name))
    except (AttributeError, ValueError) as error:
        raise ExportError(f"task: architecture {name!r} does not tell it; say --task, one of {list(TASKS)}") from error
    if task not in TASKS:
        raise UnsupportedModel(
            f"task: architecture {name!r} is for {task!r} and answers no class; give a checkpoint with a "
            "classification head, for instance of a …ForSequenceClassification that was trained from it"
        )
    return task


def load_model(source: str, task: str, config: Any) -> nn.Module:
    """The module in float32 and inference mode, with attention written out in plain operators.

    Raises:
        ExportError: only pickles, damaged weights, or a head that the checkpoint does not have.
    """
    kind = TasksManager.get_model_class_for_task(task, "pt", model_type=config.model_type, library="transformers")
    with quiet(), _failures(source):
        model, found = kind.from_pretrained(
            source,
            config=config,
            use_safetensors=True,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
            trust_remote_code=False,
        )
    if found["missing_keys"]:
        raise UnsupportedModel(
            f"model: {source!r} has no weights for {sorted(found['missing_keys'])[:3]} of {type(model).__name__}; give "
            f"a checkpoint that was trained for {task} (a sentence encoder without a head has no classes to answer)"
        )
    loaded: nn.Module = model.eval()
    return loaded


def with_one_input(model: nn.Module, arguments: Callable[[Tensor], Mapping[str, Tensor]]) -> nn.Module:
    """The same module, fed by one tensor that `arguments` turns into keywords, and answering its logits alone.

    It is not wrapped, so that its parameters keep the names that they have in the checkpoint.
    """

    def forward(self: nn.Module, inputs: Tensor) -> Tensor:
        logits: Tensor = type(self).forward(self, **arguments(inputs)).logits
        return logits

    # A method, which deepcopy binds to the copy.
    setattr(model, forward.__name__, MethodType(forward, model))
    return model


def normalized(config: Any, fallback: type[NormalizedConfig]) -> Any:
    """The configuration under optimum's names, which are the same for all architectures."""
    try:
        return NormalizedConfigManager.get_normalized_config_class(config.model_type)(config)
    except KeyError:
        # Optimum lists the families whose names differ from the common ones, and few others.
        return fallback(config)


@contextmanager
def quiet() -> Iterator[None]:
    """Neither warnings nor bars of the libraries: what matters is said by our own errors."""
    log: Any = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(logging.CRITICAL)
    log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def first_line(error: BaseException) -> str:
    """What an error says first."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def _failures(source: str) -> Iterator[None]:
    """Whatever transformers raises while it loads, as one line."""
    try:
        yield
    except ModuleNotFoundError:
        raise
    except Exception as error:
        # Its loaders share no base class of errors: OSError, ValueError, KeyError, SafetensorError and more.
        if Path(source).is_dir():
            raise ExportError(f"model: {source!r} cannot be loaded ({first_line(error)})") from error
        raise ExportError(
            f"model: {source!r} is no folder here, and cannot be had from the hub ({first_line(error)}); fetch it "
            "where there is a network, and give the folder"
        ) from error


def _refuse_other_folders(folder: Path) -> None:
    names = sorted(entry.name for entry in folder.iterdir())
    if "config.json" not in names:
        raise ExportError(f"model: {str(folder)!r} has no config.json; give a folder that save_pretrained wrote")
    weights = [name for name in names if name.endswith(".safetensors")]
    pickles = [name for name in weights or names if (folder / name).is_file() and is_pickle(folder / name)]
    if weights and not pickles:
        return
    if not pickles:
        raise ExportError(f"model: {str(folder)!r} has no weights; give a folder with model.safetensors")
    raise ExportError(
        f"model: {str(folder / pickles[0])!r} is a pickle checkpoint, which may run code when it is opened; convert it "
        "where you trust it: transformers.AutoModelFor….from_pretrained(folder).save_pretrained(new_folder)"
    )
