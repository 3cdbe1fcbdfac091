r"""A batch-norm site with parameters and statistics per row, forward and backward, as one composite.

For row i, with x `[B, C, H, W]` and N = H W, all per channel:

    m_i, v_i   mean and centred variance of x_i over its pixels
    mu_b, v_b  mean and variance of all pixels of the rows that `mix` averages over
    mu, var    alpha of these and (1 - alpha) of the row's running statistics
    y          gamma (x - mu) / sqrt(var + eps) + beta

With d = m - c for any c (the batch mean keeps the squares small; E[x^2] - E[x]^2 of raw values would lose
two to three digits of the gradient), the law of total variance gives

    mu_b = mix d + c        v_b = mix (v + d d) - (mix d)^2

and, from S1 = sum gy, r = 1 / sqrt(var + eps), a = gamma r, the gradients

    T = sum gy x - mu S1    g_beta = S1    g_gamma = r T    g_mu = -a S1    g_var = -1/2 a r^2 T
    G = -2/N mix^T (alpha g_var)          M = 1/N mix^T (alpha g_mu - 2 alpha g_var (mix d))
    gx = a gy - G (x - c) + M

(Ioffe and Szegedy 2015, arXiv 1502.03167, section 3, extended to mixed rows and to alpha < 1.)

A large activation costs a pass through memory each time an operator touches it, and that is what this file saves: the
moments of a row come from one LayerNormalization, and what is affine in x, `y` and `M - G (x - c)`, from one
BatchNormalization that sees rows and channels as one axis of B C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from acclimate.export.backward.tape import Tape

# Keeps the inverse deviation of a row without any spread finite; far below what the norms' own epsilons are.
_SMALLEST_VARIANCE = 1e-12


@dataclass(frozen=True)
class RowInputs:
    """Tensors shared by all sites: `mix [B, B]`, its transpose, `alpha [B, 1]` and `1 - alpha`."""

    mix: str
    mixed_back: str
    alpha: str
    rest: str


@dataclass(frozen=True)
class SiteInputs:
    """The site's columns of theta and stats, each `[B, C]`."""

    gamma: str
    beta: str
    mean: str
    var: str


@dataclass(frozen=True)
class SiteTape:
    """What the backward needs of a site's forward.

    `x` is `[B, C, H, W]`, `wide` the same as `[1, B C, H, W]`, `flat_mean` and `flat_var` are `[B C]`; `centre` is
    `[1, C]`, and the others are `[B, C]`.
    """

    x: str
    wide: str
    flat_mean: str
    flat_var: str
    epsilon: float
    centre: str
    mixed: str
    mean: str
    deviation: str
    inverse: str
    gain: str
    group_mean: str
    group_var: str


def site_forward(x: str, site: SiteInputs, rows: RowInputs, epsilon: float, y: str, tape: Tape) -> SiteTape:
    """Append `y = norm(x)`, and return what its backward reads."""
    _, _, height, width = shape = tape.shape(x)
    row_mean, row_var = _row_moments(x, tape)
    centre = tape.add("ReduceMean", row_mean, tape.integers(0), keepdims=1)
    apart = tape.add("Sub", row_mean, centre)
    mixed = tape.add("MatMul", rows.mix, apart)
    second = tape.add("MatMul", rows.mix, tape.add("Add", row_var, tape.add("Mul", apart, apart)))
    group_mean = tape.add("Add", mixed, centre)
    group_var = tape.add("Sub", second, tape.add("Mul", mixed, mixed))
    mean = _blend(group_mean, site.mean, rows, tape)
    var = _blend(group_var, site.var, rows, tape)
    deviation = tape.add("Sqrt", tape.add("Add", var, tape.number(epsilon)))
    inverse = tape.add("Reciprocal", deviation)
    wide = tape.add("Reshape", x, tape.integers(1, -1, height, width))
    flat_mean, flat_var = _flat(mean, tape), _flat(var, tape)
    norm = (wide, _flat(site.gamma, tape), _flat(site.beta, tape), flat_mean, flat_var)
    tape.graph.add("Reshape", (tape.add("BatchNormalization", *norm, epsilon=epsilon), tape.integers(*shape)), name=y)
    gain = tape.add("Mul", site.gamma, inverse)
    return SiteTape(
        x, wide, flat_mean, flat_var, epsilon, centre, mixed, mean, deviation, inverse, gain, group_mean, group_var
    )


def site_backward(
    grad: str, saved: SiteTape, rows: RowInputs, tape: Tape, *, through: bool
) -> tuple[str, str, str | None]:
    """Gradients of gamma, beta `[B, C]`, and of x where `through` says that it is needed."""
    spatial = tape.integers(2, 3)
    first = tape.add("ReduceSum", grad, spatial, keepdims=0)
    second = tape.add("ReduceSum", tape.add("Mul", grad, saved.x), spatial, keepdims=0)
    total = tape.add("Sub", second, tape.add("Mul", saved.mean, first))
    gain_grad = tape.add("Mul", total, saved.inverse)
    if not through:
        return gain_grad, first, None
    _, _, height, width = shape = tape.shape(saved.x)
    weighted = tape.add("Mul", tape.add("Mul", rows.alpha, tape.number(-1 / (height * width))), saved.gain)
    mean_grad = tape.add("Mul", weighted, first)
    # 2/N alpha g_var: -a r^2 T = -a r g_gamma.
    var_grad = tape.add("Mul", tape.add("Mul", weighted, saved.inverse), gain_grad)
    spread = tape.add("MatMul", rows.mixed_back, var_grad)
    carried = tape.add("Sub", mean_grad, tape.add("Mul", var_grad, saved.mixed))
    shift = tape.add("MatMul", rows.mixed_back, carried)
    # The norm's own mean and variance stand for c and 1, since they are at hand as [B C].
    slope = tape.add("Mul", spread, saved.deviation)
    shift = tape.add("Add", shift, tape.add("Mul", spread, tape.add("Sub", saved.mean, saved.centre)))
    affine = (saved.wide, _flat(slope, tape), _flat(shift, tape), saved.flat_mean, saved.flat_var)
    indirect = tape.add(
        "Reshape", tape.add("BatchNormalization", *affine, epsilon=saved.epsilon), tape.integers(*shape)
    )
    direct = tape.add("Mul", grad, tape.add("Unsqueeze", saved.gain, spatial))
    return gain_grad, first, tape.add("Add", direct, indirect)


def _row_moments(x: str, tape: Tape) -> tuple[str, str]:
    """Mean and variance `[B, C]` of each row and channel over the pixels, in one pass and without cancellation."""
    _, channels, height, width = tape.shape(x)
    pixels = height * width
    ones = tape.graph.constant(np.ones(pixels, np.float32), name=f"ones.{pixels}")
    names = [tape.graph.fresh(hint) for hint in ("normalised", "row_mean", "row_inverse")]
    flat = tape.add("Reshape", x, tape.integers(-1, pixels))
    tape.graph.add_many("LayerNormalization", (flat, ones), names, axis=-1, epsilon=_SMALLEST_VARIANCE)
    mean, inverse = (tape.add("Reshape", name, tape.integers(-1, channels)) for name in names[1:])
    return mean, tape.add("Reciprocal", tape.add("Mul", inverse, inverse))


def _blend(group: str, running: str, rows: RowInputs, tape: Tape) -> str:
    return tape.add("Add", tape.add("Mul", rows.alpha, group), tape.add("Mul", rows.rest, running))


def _flat(per_row: str, tape: Tape) -> str:
    """`[B, C]` as `[B C]`."""
    return tape.add("Reshape", per_row, tape.integers(-1))
