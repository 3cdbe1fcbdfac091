"""Log-probabilities and entropies from hidden states; and, in the same pass, their gradients.

All logits at once would be `[K, V]`: for a thousand tokens of a vocabulary of 50,000 they are 200 MB, several times
over. The vocabulary comes in blocks instead, each of which is read once for all tokens, and its logits stay in the
processor's cache: sums over it are kept relative to the largest logit so far and scaled when a larger one comes, as
attention over blocks does it (Dao et al. 2022, arXiv 2205.14135). Gradients are means over the vocabulary as well, so
they need no cotangents and no second look.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from acclimate.runtime.engines.torch_lm.arena import Arena
from acclimate.runtime.engines.torch_lm.weights import Weight

BLOCK = {"cpu": 2048, "cuda": 16384}
AT_ONCE = 1024
"""Tokens whose logits are made together."""
NEVER = -1e4
"""A logit of no probability."""


Cotangents = tuple[Tensor, Tensor]
"""Of log-probabilities and of entropies, `[K]` each."""


@dataclass(frozen=True, slots=True)
class Scored:
    """`logprob [K]` and `entropy [K]`, and their gradients by the hidden states `[K, width]`, None: not asked for."""

    logprob: Tensor
    entropy: Tensor
    of_logprob: Tensor | None
    of_entropy: Tensor | None

    def pull(self, cotangents: Cotangents) -> Tensor:
        """The gradient `[K, width]` of scores times cotangents; those of what has no gradient here must be zero."""
        assert self.of_logprob is not None  # noqa: S101 - it is asked for where this is
        gradient = self.of_logprob * cotangents[0][:, None]
        return gradient if self.of_entropy is None else gradient.addcmul_(self.of_entropy, cotangents[1][:, None])


def sharpen(logits: Tensor, hidden: Tensor, matrix: Tensor, ids: Tensor) -> None:
    """Put the logits of `ids [n, k]` right in place: bfloat16 rounds one of 25 to an eighth of a nat.

    Args:
        logits: `[n, V]` from a product in the working precision.
        hidden: `[n, width]` float32, what the head read.
        matrix: `[V, width]`.
        ids: for each line the tokens that matter.
    """
    if matrix.dtype != torch.float32:
        exact = torch.linalg.vecdot(matrix[ids].float(), hidden.float()[:, None])
        logits.scatter_(1, ids, exact)


@torch.no_grad()
def scores(
    arena: Arena, hidden: Tensor, head: Weight, targets: Tensor, *, logprob: bool = False, entropy: bool = False
) -> Scored:
    """Of the tokens `targets [K]` after `hidden [K, width]`.

    Args:
        arena: for what is needed on the way.
        hidden: what the head reads, float32.
        head: the matrix of the vocabulary `[V, width]`.
        targets: the tokens that are there.
        logprob: the gradient of log-probabilities is wanted.
        entropy: that of entropies, and with it the other one.
    """
    matrix, block = head.dense(), BLOCK.get(hidden.device.type, 2048)
    parts = []
    for start in range(0, len(hidden), AT_ONCE):
        span = slice(start, start + AT_ONCE)
        with arena.scratch():
            sums = _Sums(arena, hidden[span], matrix, targets[span], 2 if entropy else int(logprob))
            for first in range(0, len(matrix), block):
                with arena.scratch():
                    sums.take(first, matrix[first : first + block])
            parts.append(sums.scored())
    return Scored(
        torch.cat([part.logprob for part in parts]),
        torch.cat([part.entropy for part in parts]),
        _joined([part.of_logprob for part in parts]),
        _joined([part.of_entropy for part in parts]),
    )


def pulled(
    arena: Arena, hidden: Tensor, head: Weight, targets: Tensor, cotangents: Cotangents
) -> tuple[Scored, Tensor]:
    """Scores, and the gradient `[K, width]` of scores times cotangents: work is done for those that are not zero."""
    entropy = bool(cotangents[1].any())
    some = (cotangents[0] != 0) | (cotangents[1] != 0)
    found = Scored(torch.empty_like(cotangents[0]), torch.empty_like(cotangents[0]), None, None)
    gradient = torch.zeros_like(hidden)
    for chosen, wanted in ((some, True), (~some, False)):
        at = chosen.nonzero()[:, 0]
        if not len(at):
            continue
        part = scores(arena, hidden[at], head, targets[at], logprob=wanted, entropy=wanted and entropy)
        found.logprob[at], found.entropy[at] = part.logprob, part.entropy
        if wanted:
            gradient[at] = part.pull((cotangents[0][at], cotangents[1][at]))
    return found, gradient


class _Sums:
    """Sums over the vocabulary of some tokens, the target of each left out.

    With m the largest logit so far and e the exponential of a logit less m: of e; of e times (logit - m); and, for
    gradients, of each times its line of the matrix. What is left out is put in at the end as it is: of a likely
    target the gradient is a small difference, which rounding would spoil.
    """

    def __init__(self, arena: Arena, hidden: Tensor, matrix: Tensor, targets: Tensor, gradients: int) -> None:
        self._arena, self._targets = arena, targets[:, None]
        self._read = hidden.to(matrix.dtype)
        self._own = matrix[targets].float()
        self._logit = torch.linalg.vecdot(self._own, hidden)[:, None]
        self._largest = self._logit.clone()
        self._shares, self._along = torch.zeros_like(self._logit), torch.zeros_like(self._logit)
        self._means = [arena.empty(*hidden.shape).zero_() for _ in range(gradients)]

    def take(self, first: int, lines: Tensor) -> None:
        """Add tokens from the first one on, whose lines of the matrix these are."""
        arena, size = self._arena, (len(self._read), len(lines))
        product = torch.mm(self._read, lines.mT, out=arena.empty(*size, dtype=lines.dtype))
        logits = arena.empty(*size).copy_(product)
        at = self._targets - first
        column = at.clamp(0, len(lines) - 1)
        logits.scatter_(1, column, logits.gather(1, column).masked_fill_(at == column, NEVER))
        largest = torch.maximum(self._largest, logits.amax(1, keepdim=True))
        less = self._largest - largest
        scale = less.exp()
        shares = torch.exp(logits.sub_(largest), out=arena.empty(*size))
        along = logits.mul_(shares)
        self._along = scale * (self._along + less * self._shares) + along.sum(1, keepdim=True)
        self._shares = scale * self._shares + shares.sum(1, keepdim=True)
        self._largest = largest
        if len(self._means) > 1:
            self._means[1].addcmul_(self._means[0], less).mul_(scale)
            product.copy_(along)
            self._means[1].add_(torch.mm(product, lines, out=arena.empty(*self._own.shape, dtype=lines.dtype)))
        if self._means:
            product.copy_(shares)
            part = torch.mm(product, lines, out=arena.empty(*self._own.shape, dtype=lines.dtype))
            self._means[0].mul_(scale).add_(part)

    def scored(self) -> Scored:
        """Once all tokens are taken."""
        above = self._logit - self._largest
        own = above.exp()
        total = self._shares + own
        entropy = total.log() - (self._along + above * own) / total
        found = (-F.softplus(self._shares.log() - above)[:, 0], entropy[:, 0])
        # d log p_t / dz = 1[t] - p, and dH / dz = -p (log p + H).
        of_logprob = of_entropy = None
        if self._means:
            of_logprob = (self._own * self._shares - self._means[0]) / total
        if len(self._means) > 1:
            rest = entropy - total.log()
            of_entropy = (self._means[1] + rest * self._means[0] + (above + rest) * own * self._own) / -total
        return Scored(*found, of_logprob, of_entropy)


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None
