"""Log-probabilities and entropies from hidden states; and, in the same pass, the cotangents of the hidden states.

All logits at once would be `[N, V]`: for a thousand tokens of a vocabulary of 50,000 they are 200 MB, several times
over. Scores need a line of them at a time, so lines come in chunks that stay in the processor's cache. Cotangents of
scores are known before the forward pass, so no logits are kept or computed twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from acclimate.runtime.engines.torch_lm.weights import Weight

CHUNK = {"cpu": 64, "cuda": 2048}


@dataclass(frozen=True, slots=True)
class Scored:
    """`logprob [K]` and `entropy [K]`, and the cotangent of the hidden states `[K, width]` if it was asked for."""

    logprob: Tensor
    entropy: Tensor
    hidden: Tensor | None


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
def scores(hidden: Tensor, head: Weight, targets: Tensor, cotangents: tuple[Tensor, Tensor] | None = None) -> Scored:
    """Of the tokens `targets [K]` after `hidden [K, width]`.

    Args:
        hidden: what the head reads.
        head: the matrix of the vocabulary `[V, width]`.
        targets: the tokens that are there.
        cotangents: of log-probabilities and of entropies, `[K]` each.
    """
    matrix = head.dense()
    chunk = CHUNK.get(hidden.device.type, 2048)
    logprob = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
    entropy = torch.empty_like(logprob)
    back = None if cotangents is None else torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
    for start in range(0, len(hidden), chunk):
        span = slice(start, start + chunk)
        logits = F.linear(hidden[span].to(matrix.dtype), matrix).float()
        chosen = targets[span, None]
        sharpen(logits, hidden[span], matrix, chosen)
        logs = logits.sub_(logits.logsumexp(-1, keepdim=True))
        logprob[span] = logs.gather(1, chosen)[:, 0]
        shares = logs.exp()
        entropy[span] = -torch.linalg.vecdot(shares, logs)
        if back is None or cotangents is None:
            continue
        of_logprob, of_entropy = cotangents[0][span, None], cotangents[1][span, None]
        if of_entropy.any():
            # dH/dz = -p (log p + H), and d log p_t / dz = 1[t] - p.
            gradient = shares * -(of_logprob + of_entropy * (logs + entropy[span, None]))
        elif of_logprob.any():
            gradient = shares.mul_(-of_logprob)
        else:
            continue
        gradient.scatter_add_(1, chosen, of_logprob)
        back[span] = (gradient.to(matrix.dtype) @ matrix).float()
    return Scored(logprob, entropy, back)
