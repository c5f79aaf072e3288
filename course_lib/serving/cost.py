"""What a forward pass costs, counted from the shapes: floating-point operations and bytes moved."""

from dataclasses import dataclass

from course_lib.serving.model import LlamaConfig


def kv_bytes_per_token(num_layers: int, num_kv_heads: int, head_dim: int, bytes_per_number: int) -> int:
    """Bytes that one token leaves in the KV cache: a K and a V for every KV head of every layer.

    Raises:
        ValueError: an argument below 1.

    Example:
        >>> kv_bytes_per_token(num_layers=40, num_kv_heads=40, head_dim=128, bytes_per_number=2)  # OPT-13B, fp16
        819200

    Source: Kwon et al. (SOSP 2023), section 3, where OPT-13B's 800 KB are worked out.
    """
    factors = {
        "num_layers": num_layers,
        "num_kv_heads": num_kv_heads,
        "head_dim": head_dim,
        "bytes_per_number": bytes_per_number,
    }
    for name, value in factors.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    return 2 * num_layers * num_kv_heads * head_dim * bytes_per_number


@dataclass(frozen=True)
class Cost:
    """Work of one forward pass."""

    flops: int
    num_bytes: int

    @property
    def intensity(self) -> float:
        """Floating-point operations for each byte moved."""
        return self.flops / self.num_bytes


def forward_cost(
    config: LlamaConfig, new_tokens: list[int], context_lens: list[int], bytes_per_number: int = 4
) -> Cost:
    """Count one forward pass over a flat batch.

    A multiply and an add are two operations. Counted are the matrix products and attention (QK and PV);
    every weight is read once, however many tokens share it; each sequence's keys and values are read once
    and its new ones written once. Logits are taken for the last token of each sequence. Norms and
    rotations are left out, and so are activations, which fused kernels keep on the chip: a long prefill that writes
    them to memory moves several times the bytes counted here.

    Args:
        config: the model.
        new_tokens: tokens that each sequence brings: its prompt's length in prefill, 1 in decode.
        context_lens: tokens of each sequence after the step.
        bytes_per_number: 4 in fp32, 2 in fp16, for weights and cache alike.

    Raises:
        ValueError: lists of different length, or a context shorter than its new tokens.

    Example:
        >>> round(forward_cost(config, [1], [100]).intensity, 1)     # decode, batch 1, fp32     # doctest: +SKIP
        0.5
    """
    if len(new_tokens) != len(context_lens):
        raise ValueError(f"{len(new_tokens)} counts of new tokens for {len(context_lens)} contexts")
    for new, context in zip(new_tokens, context_lens, strict=True):
        if not 1 <= new <= context:
            raise ValueError(
                f"a sequence brings {new} tokens and has {context} then: it needs 1 <= new <= context"
            )
    query_width = config.num_query_heads * config.head_dim
    kv_width = config.num_kv_heads * config.head_dim
    layer_weights = (
        config.hidden_size * (query_width + 2 * kv_width)  # Q, K, V
        + query_width * config.hidden_size  # attention out
        + 3 * config.hidden_size * config.intermediate_size  # gate, up, down
    )
    head_weights = config.vocab_size * config.hidden_size
    total_new = sum(new_tokens)
    # Query i of a sequence sees context - new + i + 1 keys.
    pairs = sum(
        new * context - new * (new - 1) // 2 for new, context in zip(new_tokens, context_lens, strict=True)
    )
    flops = 2 * (config.num_layers * layer_weights * total_new + head_weights * len(new_tokens))
    flops += 4 * pairs * query_width * config.num_layers
    numbers = config.num_layers * layer_weights + head_weights
    numbers += 2 * config.num_layers * kv_width * (sum(context_lens) + total_new)
    return Cost(flops, numbers * bytes_per_number)


def recompute_or_swap(
    num_tokens: int,
    block_size: int,
    bytes_per_token: int,
    prefill_rate: float,
    link_rate: float,
    seconds_per_copy: float,
) -> tuple[float, float]:
    """What a preempted sequence costs before it can go on: (seconds to recompute, seconds to swap out and back in).

    A model of two sentences: recomputing is one prefill of all its tokens; swapping moves every block over a link to
    another memory and later back, and each block's copy has a cost to begin.

    Args:
        num_tokens: in the cache when it was preempted.
        prefill_rate: tokens a second.
        link_rate: bytes a second.
        seconds_per_copy: of one block, besides its bytes.

    Example:
        >>> recompute_or_swap(32, 16, 1000, prefill_rate=64.0, link_rate=64_000.0, seconds_per_copy=0.25)
        (0.5, 2.0)

    Source: Kwon et al. (SOSP 2023), sections 4.5 and 7.3, where both are measured.
    """
    num_blocks = -(-num_tokens // block_size)
    one_copy = seconds_per_copy + block_size * bytes_per_token / link_rate
    return num_tokens / prefill_rate, 2 * num_blocks * one_copy
