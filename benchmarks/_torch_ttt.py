"""The engines of `torch-ttt` (Apache-2.0 on PyPI), as shipped and with the least that makes them run as published.

Its package imports torchvision when it is loaded, for augmentations that neither TENT nor EATA uses; torchvision does
not install beside the CPU build of torch, so empty modules stand in under that name while it loads.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from acclimate.adapters.source import Source

LEARNING_RATE = 1e-3
Predict = Callable[[Tensor], Tensor]
Make = Callable[[nn.Module, Source], Predict]


INSTALL = "pip install --no-deps torch-ttt==0.0.2 einops"
"""Without what it would bring: another torch than the one that is pinned."""


def installed() -> bool:
    """Whether the package and what it imports are on this machine."""
    return all(find_spec(name) is not None for name in ("torch_ttt", "einops"))


def tent_by_default(model: nn.Module, _: Source) -> Predict:
    """`TentEngine` with the settings it has: three Adam steps at 1e-2 an input, on a copy that is then thrown away."""
    return _running(_engine("tent")(copy.deepcopy(model), {}), batch_statistics=False)


def tent_that_keeps(model: nn.Module, _: Source) -> Predict:
    """`TentEngine` that keeps what it learns, one Adam step an input; its norms keep the source's statistics."""
    return _running(_engine("tent")(copy.deepcopy(model), _settings()), batch_statistics=False)


def tent_with_batch_statistics(model: nn.Module, _: Source) -> Predict:
    """`TentEngine` with its model left in train mode, so that it normalises with the batch as its paper does."""
    return _running(_engine("tent")(copy.deepcopy(model), _settings()), batch_statistics=True)


def eata_least_repaired(model: nn.Module, source: Source) -> Predict:
    """`EataEngine` with the settings it has, and only what it cannot run as its paper without.

    A Fisher (its own estimate raises TypeError), margins that fit the number of classes (its default lets everything
    through on ten), batch statistics, and a model that is not copied for each call, which would forget its filter.
    """
    return _eata(model, source, {"copy_model": False})


def eata_repaired(model: nn.Module, source: Source) -> Predict:
    """The same with one Adam step an input at the rate of public CIFAR-10 settings."""
    return _eata(model, source, _settings())


def _eata(model: nn.Module, source: Source, settings: Mapping[str, Any]) -> Predict:
    parts = {name: torch.from_numpy(array.copy()) for name, array in source.parameters.unpack(source.fisher).items()}
    initial = source.parameters.unpack(source.theta)
    fishers = {name: (part, torch.from_numpy(initial[name].copy())) for name, part in parts.items()}
    engine = _engine("eata")(
        copy.deepcopy(model),
        settings,
        e_margin=0.4 * math.log(source.classes),
        d_margin=0.4,
        fisher_alpha=1.0,
        fishers=fishers,
    )
    return _running(engine, batch_statistics=True)


def _settings() -> Mapping[str, Any]:
    """One step an input, kept: the defaults take three at ten times the rate on a copy that is then thrown away."""
    return {"lr": LEARNING_RATE, "num_steps": 1, "copy_model": False}


def _running(engine: Any, *, batch_statistics: bool) -> Predict:
    engine.eval()
    if batch_statistics:
        engine.model.train()

    def predict(images: Tensor) -> Tensor:
        logits: Tensor = engine(images)[0]
        return logits

    return predict


def _engine(name: str) -> Any:
    with _without_torchvision():
        from torch_ttt.engine_registry import EngineRegistry

        return EngineRegistry.get_engine(name)


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """Empty modules under torchvision's names, unless it is there."""
    if "torchvision" in sys.modules or find_spec("torchvision") is not None:
        yield
        return
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    modules = [ModuleType(name) for name in names]
    modules[0].transforms, modules[1].functional = modules[1], modules[2]  # type: ignore[attr-defined]
    sys.modules.update(zip(names, modules, strict=True))
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
