"""Keys and values that move to another engine: a prompt is computed here, and answered there.

What moves is the contents of blocks. Block ids are local: the receiver takes blocks of its own, and finds them by the
tokens, as it finds any cached prefix.

Source: Patel et al., "Splitwise" (ISCA 2024), and Zhong et al., "DistServe" (OSDI 2024), for prefill and decode on
different machines.
"""

from collections.abc import Sequence

from course_lib.memory import BlockTable
from course_lib.serving.engine import LLMEngine


def send_prefix(source: LLMEngine, target: LLMEngine, token_ids: Sequence[int]) -> int:
    """Copy the blocks of a prompt's cached prefix from one engine into the other's cache. Returns the bytes that moved.

    Args:
        source, target: both with prefix caching, the same model and the same block size.
        token_ids: the prompt. What the source has cached of it moves; its last, partly filled block does not.

    Raises:
        ValueError: caches that do not fit each other, or an engine without prefix caching.
        OutOfBlocks: the target has too few free blocks. Nothing has changed then.

    Example:
        >>> prefill.generate([prompt], SamplingParams(max_tokens=1))       # doctest: +SKIP
        >>> send_prefix(prefill, decode, prompt)                           # doctest: +SKIP
        2211840
    """
    pools = source.allocator.pool, target.allocator.pool
    if not all(pool.enable_prefix_caching for pool in pools):
        raise ValueError(
            "both engines need enable_prefix_caching: the receiver finds the blocks by their tokens"
        )
    shapes = [(engine.store.keys.shape[0], *engine.store.keys.shape[2:]) for engine in (source, target)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"blocks of {shapes[0]} do not fit into blocks of {shapes[1]} [L, P, Hkv, D]")
    sent, arrived = BlockTable(pools[0]), BlockTable(pools[1])
    sent.adopt(sent.find_prefix(token_ids))
    if not sent.num_tokens:
        return 0
    try:
        arrived.extend(sent.num_tokens)
        for here, there in zip(sent.block_ids, arrived.block_ids, strict=True):
            target.store.keys[:, there] = source.store.keys[:, here]  # [L, P, Hkv, D]
            target.store.values[:, there] = source.store.values[:, here]
        arrived.remember(token_ids)
        num_blocks = len(arrived.block_ids)
        arrived.free()  # free, and findable until somebody takes them
    finally:
        sent.free()
    block = source.store.keys[:, 0]
    return 2 * num_blocks * block.numel() * block.element_size()
