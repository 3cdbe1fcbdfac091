r"""A batch-norm site with parameters and statistics per row, forward and backward, as one composite.

For row i, with x `[B, C, H, W]` and N = H W, all per channel:

    m_i, v_i   mean and centred variance of x_i over its pixels
    mu_b, v_b  mean and variance of all pixels of the rows that `mix` averages over
    mu, var    alpha of these and (1 - alpha) of the row's running statistics
    y          gamma (x - mu) / sqrt(var + eps) + beta

With d = m - c for any c (the batch mean keeps the squares small; E[x^2] - E[x]^2 of raw values would lose
two to three digits of the gradient), the law of total variance gives

    mu_b = mix d + c        v_b = mix (v + d d) - (mix d)^2

and, from S1 = sum gy, S2 = sum gy (x - m), r = 1 / sqrt(var + eps), a = gamma r, the gradients

    T = S2 + (m - mu) S1    g_beta = S1    g_gamma = r T    g_mu = -a S1    g_var = -1/2 a r^2 T
    G = mix^T (alpha g_var)                 g_v = G
    M = mix^T (alpha g_mu - 2 alpha g_var (mix d))   g_m = 2 d G + M
    gx = a gy + (2/N) G (x - m) + g_m / N

(Ioffe and Szegedy 2015, arXiv 1502.03167, section 3, extended to mixed rows and to alpha < 1.)
"""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.export.backward.tape import Tape


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
    """What the backward needs of a site's forward: `[B, C]` each but `centred`, `[B, C, H, W]`."""

    pixels: int
    centred: str
    row_mean: str
    deviation: str
    mixed: str
    mean: str
    inverse: str
    gain: str
    group_mean: str
    group_var: str


def site_forward(x: str, site: SiteInputs, rows: RowInputs, epsilon: float, y: str, tape: Tape) -> SiteTape:
    """Append `y = norm(x)`, and return what its backward reads."""
    _, channels, height, width = tape.shape(x)
    pixels, flat = height * width, tape.integers(-1, channels)
    spatial = tape.integers(2, 3)
    mean4 = tape.add("ReduceMean", x, spatial, keepdims=1)
    centred = tape.add("Sub", x, mean4)
    row_mean = tape.add("Reshape", mean4, flat)
    row_var = tape.add("ReduceMean", tape.add("Mul", centred, centred), spatial, keepdims=0)
    centre = tape.add("ReduceMean", row_mean, tape.integers(0), keepdims=1)
    deviation = tape.add("Sub", row_mean, centre)
    mixed = tape.add("MatMul", rows.mix, deviation)
    second = tape.add("MatMul", rows.mix, tape.add("Add", row_var, tape.add("Mul", deviation, deviation)))
    group_mean = tape.add("Add", mixed, centre)
    group_var = tape.add("Sub", second, tape.add("Mul", mixed, mixed))
    mean = _blend(group_mean, site.mean, rows, tape)
    var = _blend(group_var, site.var, rows, tape)
    inverse = tape.add("Reciprocal", tape.add("Sqrt", tape.add("Add", var, tape.number(epsilon))))
    gain = tape.add("Mul", site.gamma, inverse)
    offset = tape.add("Add", site.beta, tape.add("Mul", gain, tape.add("Sub", row_mean, mean)))
    scaled = tape.add("Mul", centred, _pixelwise(gain, tape))
    tape.graph.add("Add", (scaled, _pixelwise(offset, tape)), name=y)
    return SiteTape(pixels, centred, row_mean, deviation, mixed, mean, inverse, gain, group_mean, group_var)


def site_backward(
    grad: str, saved: SiteTape, rows: RowInputs, tape: Tape, *, through: bool
) -> tuple[str, str, str | None]:
    """Gradients of gamma, beta `[B, C]`, and of x where `through` says that it is needed."""
    spatial = tape.integers(2, 3)
    first = tape.add("ReduceSum", grad, spatial, keepdims=0)
    second = tape.add("ReduceSum", tape.add("Mul", grad, saved.centred), spatial, keepdims=0)
    shift = tape.add("Mul", tape.add("Sub", saved.row_mean, saved.mean), first)
    total = tape.add("Add", second, shift)
    gain_grad = tape.add("Mul", total, saved.inverse)
    if not through:
        return gain_grad, first, None
    weighted = tape.add("Mul", rows.alpha, saved.gain)
    mean_grad = tape.add("Mul", weighted, first)
    # alpha g_var, doubled and with its sign changed: a r^2 T = a r g_gamma.
    var_grad = tape.add("Mul", tape.add("Mul", weighted, saved.inverse), gain_grad)
    spread = tape.add("MatMul", rows.mixed_back, var_grad)
    carried = tape.add("Sub", tape.add("Mul", var_grad, saved.mixed), mean_grad)
    through_mean = tape.add(
        "Sub", tape.add("MatMul", rows.mixed_back, carried), tape.add("Mul", saved.deviation, spread)
    )
    share = tape.number(1 / saved.pixels)
    direct = tape.add("Mul", grad, _pixelwise(saved.gain, tape))
    by_var = tape.add("Mul", saved.centred, _pixelwise(tape.add("Mul", spread, share), tape))
    by_mean = _pixelwise(tape.add("Mul", through_mean, share), tape)
    return gain_grad, first, tape.add("Add", tape.add("Sub", direct, by_var), by_mean)


def _blend(group: str, running: str, rows: RowInputs, tape: Tape) -> str:
    return tape.add("Add", tape.add("Mul", rows.alpha, group), tape.add("Mul", rows.rest, running))


def _pixelwise(per_channel: str, tape: Tape) -> str:
    """`[B, C]` as `[B, C, 1, 1]`."""
    return tape.add("Unsqueeze", per_channel, tape.integers(2, 3))
