"""One TENT step as it is written in torch: test-batch statistics, entropy, gradients of the norms' affines."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def prepared(model: nn.Module) -> nn.Module:
    """A copy whose batch norms use the batch's own statistics, with gradients for the norms' affines alone."""
    twin = copy.deepcopy(model).requires_grad_(False).train()
    for module in twin.modules():
        if isinstance(module, nn.BatchNorm2d):
            # Without running statistics a module normalises with the batch's, as Wang et al. 2021 do.
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            module.requires_grad_(True)
    return twin


def step(model: nn.Module, images: NDArray[np.float32]) -> Callable[[], list[NDArray[np.float32]]]:
    """Forward, entropy and backward on one batch; returns a call that gives the gradients."""
    inputs = torch.from_numpy(images)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def run() -> list[NDArray[np.float32]]:
        logits: Tensor = model(inputs)
        logp = logits.log_softmax(1)
        loss = -(logp.exp() * logp).sum(1).mean()
        return [gradient.numpy() for gradient in torch.autograd.grad(loss, parameters)]

    return run
