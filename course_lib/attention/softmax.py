"""Softmax taken in pieces: safe, two-pass, online; and the merge of partial results.

Softmax divides exponentials by their sum, and both can be collected piece by piece if one remembers the largest
score so far. A partial result over some keys is a triple

    m    the largest score seen
    l    the sum of exp(score - m)
    o    the sum of exp(score - m) x value

and a new largest score only rescales what is there by exp(old m - new m). That is all of online softmax.

Source: Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018); Rabe and Staats (2021) and
FlashAttention (Dao et al., 2022) for attention; log-sum-exp merging as in flash-decoding (Dao et al., 2023).
"""

import torch


def safe_softmax(scores: torch.Tensor) -> torch.Tensor:
    """Softmax over the last axis, three passes: the largest score, the sum, the quotients.

    Without the first pass exp overflows: from 89 on in fp32, from 12 on in fp16.

    Args:
        scores: [..., S], float.

    Returns:
        [..., S], the dtype of the scores; a row of nothing but -inf gives zeros.

    Example:
        >>> safe_softmax(torch.tensor([1000.0, 1000.0]))
        tensor([0.5000, 0.5000])
    """
    work = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    weights = torch.exp(work - _finite(work.amax(dim=-1, keepdim=True)))
    return (weights / _not_zero(weights.sum(dim=-1, keepdim=True))).to(scores.dtype)


def online_softmax(scores: torch.Tensor, tile: int) -> torch.Tensor:
    """Softmax over the last axis, reading the scores tile by tile: maximum and sum in one pass, quotients in a second.

    Args:
        scores: [..., S], float.
        tile: scores that are read at a time.

    Returns:
        [..., S], the dtype of the scores.

    Raises:
        ValueError: a tile below 1.

    Example:
        >>> online_softmax(torch.tensor([0.0, 1000.0, 1000.0]), tile=2)
        tensor([0.0000, 0.5000, 0.5000])
    """
    if isinstance(tile, bool) or not isinstance(tile, int) or tile < 1:
        raise ValueError(f"tile must be a whole number of at least 1, got {tile!r}")
    work = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    largest = work.new_full((*work.shape[:-1], 1), -torch.inf)
    total = torch.zeros_like(largest)
    for part in work.split(tile, dim=-1):
        new_largest = torch.maximum(largest, part.amax(dim=-1, keepdim=True))
        shift = _finite(new_largest)
        total = total * torch.exp(largest - shift) + torch.exp(part - shift).sum(dim=-1, keepdim=True)
        largest = new_largest
    return (torch.exp(work - _finite(largest)) / _not_zero(total)).to(scores.dtype)


def merge_states(
    out_a: torch.Tensor, lse_a: torch.Tensor, out_b: torch.Tensor, lse_b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Join attention over two sets of keys into attention over both.

    Each side is normalised, and its log-sum-exp tells how much it weighs. The merge is associative and commutative,
    and a side that has seen nothing (lse -inf) is its identity.

    Args:
        out_a, out_b: [..., D], float.
        lse_a, lse_b: [...], natural logarithm of the sum of exp(score); -inf: no key seen.

    Returns:
        (out [..., D], lse [...]), the dtype of out_a and lse_a.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> one, nothing = torch.tensor([[2.0, 4.0]]), torch.zeros(1, 2)
        >>> merge_states(one, torch.tensor([0.5]), nothing, torch.tensor([-torch.inf]))
        (tensor([[2., 4.]]), tensor([0.5000]))
    """
    if not (out_a.shape == out_b.shape and lse_a.shape == lse_b.shape == out_a.shape[:-1]):
        shapes = [tuple(x.shape) for x in (out_a, lse_a, out_b, lse_b)]
        raise ValueError(
            f"out_a, lse_a, out_b, lse_b have shapes {shapes}: expected [..., D] and [...], twice"
        )
    largest = _finite(torch.maximum(lse_a, lse_b))
    weight_a, weight_b = torch.exp(lse_a - largest), torch.exp(lse_b - largest)  # [...]
    total = weight_a + weight_b
    lse = torch.log(total) + largest  # log(0) is -inf: nothing seen on either side
    share_a = (weight_a / _not_zero(total)).unsqueeze(-1)
    share_b = (weight_b / _not_zero(total)).unsqueeze(-1)
    # What a side that has seen nothing left in its output does not count, even if it is NaN.
    part_a, part_b = (
        torch.where(share > 0, out, 0) * share for out, share in ((out_a, share_a), (out_b, share_b))
    )
    return (part_a + part_b).to(out_a.dtype), lse.to(lse_a.dtype)


def _finite(largest: torch.Tensor) -> torch.Tensor:
    """-inf stands for "nothing seen": 0 takes its place, so that exp(-inf - 0) is 0 and not exp(nan)."""
    return torch.where(largest == -torch.inf, torch.zeros_like(largest), largest)


def _not_zero(total: torch.Tensor) -> torch.Tensor:
    return torch.where(total == 0, torch.ones_like(total), total)
