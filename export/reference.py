"""The same computation as `vjp.onnx`, in torch and float64: the independent side of the exporter's own check.

Group statistics are taken from the pixels of each group directly, and gradients come from autograd, so none of
the algebra of `backward/norm_site.py` is used here.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from acclimate.adapters.manifest import Site
from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import Array
from acclimate.export.passes.affines import Affine
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


def reference(
    model: nn.Module,
    preprocessing: Preprocessing,
    adaptable: Adaptable,
    rows: RowBatch,
    weights: Mapping[str, Array],
) -> RowResult:
    """Run `rows` through a float64 copy of `model`, with some parameters replaced by `weights`.

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
        return _rows_alone(Preprocessed(twin, preprocessing).double(), adaptable, rows)
    theta = torch.from_numpy(rows.theta).double().requires_grad_()
    stats = torch.from_numpy(rows.stats).double()
    parts = {entry.name: theta[:, entry.span] for entry in adaptable.parameters.slices}
    norms = {entry.name: stats[:, entry.span] for entry in adaptable.statistics.slices}
    sites = [_ReferenceSite(site, parts, norms, rows) for site in adaptable.sites]
    for replacement in sites:
        _replace(twin, replacement.site.name, replacement)
    for affine in adaptable.affines:
        _with_row_affine(twin, affine, parts)
    logits: Tensor = Preprocessed(twin, preprocessing).double()(torch.from_numpy(rows.inputs))
    (gradient,) = torch.autograd.grad(logits, theta, torch.from_numpy(rows.cotangent).double())
    moments = torch.cat([stats[:, :0], *(moment for site in sites for moment in site.seen)], dim=1)
    return RowResult(logits.detach().numpy(), gradient.numpy(), moments.detach().numpy())


def _rows_alone(model: nn.Module, adaptable: Adaptable, rows: RowBatch) -> RowResult:
    """Without batch norms rows have nothing in common: each runs by itself, its parameters in the module's place."""
    logits, gradients = [], []
    for i in range(len(rows.inputs)):
        theta = torch.from_numpy(rows.theta[i]).double().requires_grad_()
        own = {f"model.{e.name}": theta[e.span].reshape(e.shape) for e in adaptable.parameters.slices}
        answer: Tensor = torch.func.functional_call(model, own, torch.from_numpy(rows.inputs[i : i + 1]))
        (gradient,) = torch.autograd.grad(answer, theta, torch.from_numpy(rows.cotangent[i : i + 1]).double())
        logits.append(answer.detach().numpy()[0])
        gradients.append(gradient.numpy())
    return RowResult(np.stack(logits), np.stack(gradients), np.empty((len(logits), 0)))


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
