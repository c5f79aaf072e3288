"""Four rules that cut a context into splits, side by side.

What is written here follows how the rules are described; each project's own code has more cases.

    course           `attention.launch.choose_num_splits`: two programs for each multiprocessor, four tiles a split
    vLLM's Triton    16 splits while num_seqs <= 128 // num_kv_heads, else 1 (vllm/v1/attention/backends/triton_attn.py,
                     MIN_LAUNCH_GRID_SIZE_2D = 128, NUM_PAR_SOFTMAX_SEGMENTS = 16)
    FlashAttention-3 1 if the grid fills 0.8 of the multiprocessors or there are 4 tiles or fewer, else the smallest
                     count within 85% of the fullest waves (num_splits_heuristic, hopper/ in its repository)
    FlashInfer       the smallest piece, of 128 tokens at least, with which all pieces run at once (its plan step)
"""

import math
from collections.abc import Sequence

from course_lib.attention.launch import choose_num_splits


def course(num_seqs: int, num_kv_heads: int, context: int, tile: int, multiprocessors: int) -> int:
    """This course's rule."""
    return choose_num_splits(num_seqs * num_kv_heads, context, tile, multiprocessors)


def vllm_triton(num_seqs: int, num_kv_heads: int, context: int, tile: int, multiprocessors: int) -> int:
    """vLLM's Triton kernel: a fixed number, or none."""
    return 16 if num_seqs <= 128 // num_kv_heads else 1


def flash_attention_3(num_seqs: int, num_kv_heads: int, context: int, tile: int, multiprocessors: int) -> int:
    """The smallest number of splits whose waves are nearly as full as the best.

    Example:
        >>> flash_attention_3(num_seqs=1, num_kv_heads=48, context=8192, tile=64, multiprocessors=108)
        2
    """
    programs, tiles = num_seqs * num_kv_heads, math.ceil(context / tile)
    if programs >= 0.8 * multiprocessors or tiles <= 4:
        return 1
    fullness = {}
    for splits in range(1, min(128, multiprocessors, tiles) + 1):
        waves = programs * splits / multiprocessors
        fullness[splits] = waves / math.ceil(waves)
    best = max(fullness.values())
    return next(splits for splits, full in fullness.items() if full >= 0.85 * best)


def flash_infer(num_seqs: int, num_kv_heads: int, context: int, tile: int, multiprocessors: int) -> int:
    """As many pieces as run at once, two programs for each multiprocessor (our assumption) being able to."""
    tiles, room = math.ceil(context / tile), 2 * multiprocessors
    low, high = min(tiles, math.ceil(128 / tile)), tiles  # tiles in a piece
    while low < high:
        middle = (low + high) // 2
        if num_seqs * num_kv_heads * math.ceil(tiles / middle) > room:
            low = middle + 1
        else:
            high = middle
    return math.ceil(tiles / low)


RULES = {
    "this course": course,
    "vLLM's Triton kernel": vllm_triton,
    "FlashAttention-3": flash_attention_3,
    "FlashInfer": flash_infer,
}


def table(
    batches: Sequence[int], *, num_kv_heads: int, context: int, tile: int, multiprocessors: int
) -> dict[str, list[int]]:
    """Splits by rule, one for each batch.

    Example:
        >>> table([1, 64], num_kv_heads=8, context=32_768, tile=64, multiprocessors=132)["this course"]
        [33, 1]
    """
    shape = num_kv_heads, context, tile, multiprocessors
    return {name: [rule(batch, *shape) for batch in batches] for name, rule in RULES.items()}


def longest_walk(
    num_seqs: int, num_kv_heads: int, context: int, tile: int, splits: int, processors: int
) -> int:
    """Tiles that the busiest multiprocessor walks, one program at a time: waves x tiles in a split."""
    waves = math.ceil(num_seqs * num_kv_heads * splits / processors)
    return waves * math.ceil(math.ceil(context / tile) / splits)


def walks(
    splits: dict[str, list[int]],
    batches: Sequence[int],
    *,
    num_kv_heads: int,
    context: int,
    tile: int,
    multiprocessors: int,
) -> dict[str, list[int]]:
    """The longest walk with no split, and with each rule's splits, one for each batch."""
    chosen = {"no split": [1] * len(batches), **splits}
    return {
        name: [
            longest_walk(batch, num_kv_heads, context, tile, count, multiprocessors)
            for batch, count in zip(batches, counts, strict=True)
        ]
        for name, counts in chosen.items()
    }
