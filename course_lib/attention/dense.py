"""Attention over keys and values that lie side by side: the oracle for everything that scatters them."""

import math

import torch
import torch.nn.functional as F


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    causal: bool = True,
    scale: float | None = None,
) -> torch.Tensor:
    """Softmax attention of one sequence, written as the formula is written.

    Each query looks at every key it may see, turns the scores into weights with a softmax, and takes the
    weighted mean of the values. With fewer queries than keys the queries are the *last* positions, which is
    the case of a decode step: one query, a long context.

    Args:
        query: [T, Hq, D], any float dtype.
        key: [S, Hkv, D], same dtype; Hq % Hkv == 0.
        value: [S, Hkv, D].
        causal: query i, at position S - T + i, sees keys 0 .. S - T + i.
        scale: factor on the scores; 1 / sqrt(D) by default.

    Returns:
        [T, Hq, D], the dtype of the query.

    Raises:
        ValueError: shapes that do not fit each other, or more queries than keys under `causal`.

    Example:
        >>> query, key = torch.zeros(1, 2, 4), torch.zeros(3, 1, 4)
        >>> value = torch.arange(3.0).reshape(3, 1, 1).expand(3, 1, 4)
        >>> attention(query, key, value)[0, 0, 0].item()    # equal scores: the mean of 0, 1, 2
        1.0

    Source: Vaswani et al., "Attention Is All You Need" (2017), equation 1; grouped heads from Ainslie et
    al., "GQA" (2023).
    """
    num_tokens, num_query_heads, head_dim = query.shape
    context_len, num_kv_heads, key_dim = key.shape
    if key.shape != value.shape:
        raise ValueError(f"key {tuple(key.shape)} and value {tuple(value.shape)} must have one shape")
    if key_dim != head_dim:
        raise ValueError(f"key has head_dim {key_dim}, query has {head_dim}")
    if num_query_heads % num_kv_heads:
        raise ValueError(f"{num_query_heads} query heads cannot share {num_kv_heads} KV heads evenly")
    if causal and num_tokens > context_len:
        raise ValueError(f"{num_tokens} queries but only {context_len} keys: a query must see itself")

    group = num_query_heads // num_kv_heads
    key = key.repeat_interleave(group, dim=1)  # [S, Hq, D]
    value = value.repeat_interleave(group, dim=1)  # [S, Hq, D]
    scores = torch.einsum("thd,shd->hts", query, key)  # [Hq, T, S]
    scores = scores * (1 / math.sqrt(head_dim) if scale is None else scale)
    if causal:
        position = torch.arange(context_len - num_tokens, context_len, device=query.device)  # [T]
        future = torch.arange(context_len, device=query.device) > position[:, None]  # [T, S]
        scores = scores.masked_fill(future, -math.inf)
    return torch.einsum("hts,shd->thd", scores.softmax(dim=-1), value)


def attend_one(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Causal attention of one sequence's newest tokens: [T, Hq, D] over [S, Hkv, D] -> [T, Hq, D].

    The same result as `attention`, through torch's fused kernel.
    """
    num_tokens, context_len = len(query), len(key)
    visible = None
    if 1 < num_tokens < context_len:  # some context is old: the causal triangle ends bottom right
        position = torch.arange(context_len - num_tokens, context_len, device=query.device)
        visible = torch.arange(context_len, device=query.device) <= position[:, None]  # [T, S]
    out = F.scaled_dot_product_attention(
        query.transpose(0, 1)[None],  # [1, Hq, T, D]
        key.transpose(0, 1)[None],  # [1, Hkv, S, D]
        value.transpose(0, 1)[None],
        attn_mask=visible,
        is_causal=num_tokens == context_len,
        enable_gqa=True,
    )
    return out[0].transpose(0, 1)
