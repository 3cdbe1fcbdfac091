"""The same computation as `vjp.onnx`, in torch and float64: the independent side of the exporter's own check.

Group statistics are taken from the pixels of each group directly, and gradients come from autograd, so none of
the algebra of `backward/norm_site.py` is used here.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from acclimate.adapters.manifest import Site
from acclimate.export.branches import Branches, taken
from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import Array
from acclimate.export.passes.affines import Affine
from acclimate.export.passes.low_rank import Update
from acclimate.export.passes.sites import Adaptable
from acclimate.export.trace import Preprocessed, Preprocessing


@dataclass(frozen=True)
class RowBatch:
    """Rows as the runtime would send them; `group [B]` and `alpha [B]` as in `adapters.requests.Rows`."""

    inputs: Array
    theta: NDArray[np.float32]
    stats: NDArray[np.float32]
    group: NDArray[np.intp]
    alpha: NDArray[np.float32]
    cotangent: NDArray[np.float32]

    def mix(self) -> NDArray[np.float32]:
        """`[B, B]`: row i averages over the rows of its own group."""
        same = self.group[:, None] == self.group[None, :]
        mix: NDArray[np.float32] = (same / same.sum(1, keepdims=True)).astype(np.float32)
        return mix


@dataclass(frozen=True)
class RowResult:
    """Float64 logits `[B, C]`, gradients `[B, P]` and group statistics `[B, Q]`."""

    logits: NDArray[np.float64]
    grad_theta: NDArray[np.float64]
    batch_stats: NDArray[np.float64]


class _ReferenceSite(nn.Module):
    """A batch norm whose affine and statistics differ from row to row."""

    def __init__(self, site: Site, theta: Mapping[str, Tensor], stats: Mapping[str, Tensor], rows: RowBatch) -> None:
        super().__init__()
        self.site, self.theta, self.stats = site, theta, stats
        self.groups = [torch.from_numpy(np.flatnonzero(rows.group == g)) for g in np.unique(rows.group)]
        self.alpha = torch.from_numpy(rows.alpha).double()[:, None]
        self.seen: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `[B, C, ...]`, or `[B * L, C]` whose rows belong to B samples."""
        count, shape = len(self.alpha), x.shape
        if len(x) != count:
            x = x.reshape(count, -1, shape[-1]).transpose(1, 2)
        flat = x.flatten(2) if x.dim() > 2 else x[:, :, None]
        mean, var = flat.new_empty(flat.shape[:2]), flat.new_empty(flat.shape[:2])
        for rows in self.groups:
            members = flat[rows]
            mean = mean.index_copy(0, rows, members.mean((0, 2)).expand(len(rows), -1))
            var = var.index_copy(0, rows, members.var((0, 2), unbiased=False).expand(len(rows), -1))
        self.seen = mean, var
        mean = self.alpha * mean + (1 - self.alpha) * self.stats[self.site.mean]
        var = self.alpha * var + (1 - self.alpha) * self.stats[self.site.var]
        gain = self.theta[self.site.scale] / torch.sqrt(var + self.site.epsilon)
        y = (flat - mean[:, :, None]) * gain[:, :, None] + self.theta[self.site.shift][:, :, None]
        return y.transpose(1, 2).reshape(shape) if len(y) != shape[0] else y.reshape(shape)


class _RowWeights(nn.Module):
    """A layer that each row runs with weights of its own: `W + (alpha / rank) B A`, and its own bias."""

    def __init__(self, module: nn.Module, weights: Mapping[str, Sequence[Tensor]]) -> None:
        super().__init__()
        self.module, self.weights = module, weights

    def forward(self, x: Tensor) -> Tensor:
        """Run `[B, ...]`, or `[B * L, ...]` whose rows belong to B samples."""
        count = len(next(iter(self.weights.values())))
        answers = [
            torch.func.functional_call(self.module, {name: parts[i] for name, parts in self.weights.items()}, (rows,))
            for i, rows in enumerate(x.chunk(count))
        ]
        return torch.cat(answers)


def reference(
    model: nn.Module,
    preprocessing: Preprocessing,
    adaptable: Adaptable,
    rows: RowBatch,
    weights: Mapping[str, Array],
    branches: Branches | None = None,
) -> RowResult:
    """Run `rows` through a float64 copy of `model`, with some parameters replaced by `weights`.

    Rectifiers take the sides of `branches`, where these are given.

    Raises:
        UnsupportedModel: a site's name is not a module of `model`.
    """
    twin = copy.deepcopy(model).eval()
    parameters = dict(twin.named_parameters())
    with torch.no_grad():
        for name, array in weights.items():
            parameters[name].copy_(torch.from_numpy(np.array(array)))
    twin = twin.double().requires_grad_(False)
    if not adaptable.sites:
        return _rows_alone(Preprocessed(twin, preprocessing).double(), adaptable, rows, branches)
    theta = torch.from_numpy(rows.theta).double().requires_grad_()
    stats = torch.from_numpy(rows.stats).double()
    parts = {entry.name: theta[:, entry.span] for entry in adaptable.parameters.slices}
    norms = {entry.name: stats[:, entry.span] for entry in adaptable.statistics.slices}
    sites = [_ReferenceSite(site, parts, norms, rows) for site in adaptable.sites]
    for replacement in sites:
        _replace(twin, replacement.site.name, replacement)
    for affine in adaptable.affines:
        _with_row_affine(twin, affine, parts)
    _with_row_weights(twin, adaptable, theta)
    with taken(branches):
        logits: Tensor = Preprocessed(twin, preprocessing).double()(torch.from_numpy(rows.inputs))
    (gradient,) = torch.autograd.grad(logits, theta, torch.from_numpy(rows.cotangent).double())
    moments = torch.cat([stats[:, :0], *(moment for site in sites for moment in site.seen)], dim=1)
    return RowResult(logits.detach().numpy(), gradient.numpy(), moments.detach().numpy())


def _rows_alone(model: Preprocessed, adaptable: Adaptable, rows: RowBatch, branches: Branches | None) -> RowResult:
    """Without batch norms rows have nothing in common: each runs by itself, its parameters in the module's place."""
    logits, gradients = [], []
    for i in range(len(rows.inputs)):
        theta = torch.from_numpy(rows.theta[i]).double().requires_grad_()
        named = {e.name: theta[e.span].reshape(e.shape) for e in adaptable.parameters.slices}
        updated = {update.weight: _updated(model.model, update, named) for update in adaptable.updates}
        own = {f"model.{name}": tensor for name, tensor in (named | updated).items() if ".lora_" not in name}
        with taken(branches, i):
            answer: Tensor = torch.func.functional_call(model, own, torch.from_numpy(rows.inputs[i : i + 1]))
        (gradient,) = torch.autograd.grad(answer, theta, torch.from_numpy(rows.cotangent[i : i + 1]).double())
        logits.append(answer.detach().numpy()[0])
        gradients.append(gradient.numpy())
    return RowResult(np.stack(logits), np.stack(gradients), np.empty((len(logits), 0)))


def _updated(model: nn.Module, update: Update, theta: Mapping[str, Tensor]) -> Tensor:
    """`W + (alpha / rank) B A` of one row, as the module holds it.

    Raises:
        UnsupportedModel: the weight is not a parameter of the model.
    """
    weight = dict(model.named_parameters()).get(update.weight)
    if weight is None:
        raise UnsupportedModel(
            f"lora: {update.weight!r} is not a parameter of the model; its name was lost in tracing; leave it out"
        )
    a, b = theta[update.lora.a], theta[update.lora.b]
    product = (b.flatten(1) @ a.flatten(1)) * (update.lora.alpha / update.lora.rank)
    return weight + (product.T if update.transposed else product.reshape(weight.shape))


def _with_row_weights(model: nn.Module, adaptable: Adaptable, theta: Tensor) -> None:
    """Replace the modules whose weights or biases sessions adapt."""
    named = [{e.name: row[e.span].reshape(e.shape) for e in adaptable.parameters.slices} for row in theta.unbind()]
    weights: dict[str, dict[str, list[Tensor]]] = {}
    for update in adaptable.updates:
        rows = [_updated(model, update, row) for row in named]
        weights.setdefault(update.lora.name, {})[update.weight.removeprefix(f"{update.lora.name}.")] = rows
    for site in adaptable.biases:
        leaf = site.slice.removeprefix(f"{site.name}.")
        weights.setdefault(site.name, {})[leaf] = [row[site.slice] for row in named]
    for name, parts in weights.items():
        _replace(model, name, _RowWeights(_submodule(model, name), parts))


def _with_row_affine(model: nn.Module, affine: Affine, theta: Mapping[str, Tensor]) -> None:
    """Neutralise a norm's own affine, and apply each row's to what it returns."""
    module = _submodule(model, affine.name)
    torch.nn.init.ones_(module.get_parameter("weight"))
    if affine.shift is not None:
        torch.nn.init.zeros_(module.get_parameter("bias"))

    def apply(_: nn.Module, __: object, output: Tensor) -> Tensor:
        shape = [1] * output.dim()
        shape[0], shape[affine.axis] = -1, affine.channels
        copies = len(output) // len(theta[affine.scale])
        gain, shift = (
            theta[name].repeat_interleave(copies, 0).reshape(shape) if name else torch.zeros(())
            for name in (affine.scale, affine.shift)
        )
        return output * gain + shift

    module.register_forward_hook(apply)


def _submodule(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise UnsupportedModel(f"norm {name!r} is not a module of the model; its names were lost in tracing") from error


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    _submodule(model, name)
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
