"""A Llama decoder in plain torch, over a flat batch of tokens from many sequences.

Everything here works token by token, with one exception: attention, where a token meets the tokens before
it. That part is left to a *cache* object with one method,

    cache.attend(layer, query [T, Hq, D], key [T, Hkv, D], value [T, Hkv, D]) -> [T, Hq, D]

so that this file never learns where keys and values are kept. Change the cache and the model does not
notice; that is what makes PagedAttention possible.

Shapes use the legend of course_lib/attention: T tokens in the flat batch, Hq and Hkv heads, D head_dim.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F

from course_lib.serving.linear import linear


class KVCache(Protocol):
    """What a cache answers; the model itself only calls `attend`. See kv_cache.py for three of them."""

    def length(self, sequence: int) -> int: ...

    def begin_step(self, new_tokens: dict[int, int]) -> torch.Tensor: ...

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor: ...


@dataclass(frozen=True)
class LlamaConfig:
    """The numbers of a Llama checkpoint, as its config.json gives them."""

    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_query_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_position: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: dict | None = None
    tied_embeddings: bool = True
    eos_token_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class LlamaLayer:
    """The weights of one layer; matrices are laid out for `linear`, from `in` numbers to `out`.

    Q, K and V are one matrix, and so are gate and up: one large product is faster than three small ones.
    """

    attention_norm: torch.Tensor  # [hidden]
    qkv: torch.Tensor  # hidden -> (Hq + 2 Hkv) * D
    attention_out: torch.Tensor  # Hq * D -> hidden
    mlp_norm: torch.Tensor  # [hidden]
    gate_up: torch.Tensor  # hidden -> 2 * intermediate
    down: torch.Tensor  # intermediate -> hidden


class LlamaModel:
    """Tokens in, hidden states out.

    Args:
        config: the checkpoint's numbers.
        embedding: [vocab, hidden].
        layers: the weights, one record a layer.
        final_norm: [hidden].
        lm_head: hidden -> vocab, laid out for `linear`.

    Example:
        >>> model, tokenizer = load_model()                               # doctest: +SKIP
        >>> cache = GrowingCache()                                        # doctest: +SKIP
        >>> positions = cache.begin_step({0: 3})                          # doctest: +SKIP
        >>> hidden = model(torch.tensor([504, 3575, 282]), positions, cache)  # doctest: +SKIP
        >>> model.logits(hidden[-1]).argmax().item()                      # doctest: +SKIP
        260

    Source: Touvron et al., "LLaMA" (2023); Llama 3's rope scaling from the Llama 3.1 release.
    """

    def __init__(
        self,
        config: LlamaConfig,
        embedding: torch.Tensor,
        layers: list[LlamaLayer],
        final_norm: torch.Tensor,
        lm_head: torch.Tensor,
    ):
        self.config = config
        self.embedding = embedding
        self.layers = layers
        self.final_norm = final_norm
        self.lm_head = lm_head
        self.inverse_frequency = rope_inverse_frequency(config).to(embedding.device)  # [D / 2]

    @property
    def device(self) -> torch.device:
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.dtype

    @property
    def num_parameters(self) -> int:
        """Numbers in the checkpoint; a tied embedding counts once."""
        tensors = [self.embedding, self.final_norm]
        tensors += [weight for layer in self.layers for weight in vars(layer).values()]
        if not self.config.tied_embeddings:
            tensors.append(self.lm_head)
        return sum(tensor.numel() for tensor in tensors)

    @torch.inference_mode()
    def __call__(self, token_ids: torch.Tensor, positions: torch.Tensor, cache: KVCache) -> torch.Tensor:
        """One forward pass.

        Args:
            token_ids: [T] int64, the tokens of all sequences one after another.
            positions: [T] int64, where each token stands in its own sequence, from 0.
            cache: joins the tokens of one sequence; it was told before which tokens belong to which.

        Returns:
            [T, hidden], normalised and ready for `logits`.

        Raises:
            ValueError: a position at or past the model's context. The cache was told of the step by then: make a
                new one.
        """
        config = self.config
        if len(positions) and int(positions.max()) >= config.max_position:
            raise ValueError(
                f"position {int(positions.max())} is past the model's context of {config.max_position}"
            )
        num_turned = config.num_query_heads + config.num_kv_heads  # values are not turned
        cos, sin = rope_tables(positions, self.inverse_frequency, self.dtype)
        hidden = self.embedding[token_ids]  # [T, hidden]
        for index, layer in enumerate(self.layers):
            normed = rms_norm(hidden, layer.attention_norm, config.rms_norm_eps)
            qkv = linear(normed, layer.qkv).unflatten(-1, (-1, config.head_dim))  # [T, Hq + 2 Hkv, D]
            turned, value = rotate(qkv[:, :num_turned], cos, sin), qkv[:, num_turned:]
            query, key = turned[:, : config.num_query_heads], turned[:, config.num_query_heads :]
            mixed = cache.attend(index, query, key, value)  # [T, Hq, D]
            hidden = hidden + self.add_up(linear(mixed.flatten(1), layer.attention_out))

            normed = rms_norm(hidden, layer.mlp_norm, config.rms_norm_eps)
            gate, up = linear(normed, layer.gate_up).chunk(2, dim=-1)  # [T, intermediate] each
            hidden = hidden + self.add_up(linear(F.silu(gate) * up, layer.down))
        return rms_norm(hidden, self.final_norm, config.rms_norm_eps)

    def add_up(self, partial: torch.Tensor) -> torch.Tensor:
        """A sum over this process's heads or neurons -> the sum over all of them. Here one process has them all; see
        tensor_parallel.py for several."""
        return partial

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores of every token of the vocabulary as the next one: [..., hidden] -> [..., vocab]."""
        return linear(hidden, self.lm_head)


def rms_norm(hidden: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Scale each row to a root mean square of 1, then by `weight`. [T, hidden] -> [T, hidden].

    The sum of squares is taken in fp32, whatever the dtype. Source: Zhang and Sennrich (2019).
    """
    return F.rms_norm(hidden.float(), hidden.shape[-1:], eps=eps).to(hidden.dtype) * weight


def rope_inverse_frequency(config: LlamaConfig) -> torch.Tensor:
    """How fast each pair of numbers of a head turns, in radians a position: [D / 2] fp32.

    Plain rotary embeddings turn pair i by theta ** (-2 i / D). Llama 3.1 stretches the slow pairs by
    `factor`, leaves the fast ones alone, and blends in between.

    Source: Su et al., "RoFormer" (2021); Llama 3.1's config.json ("rope_type": "llama3").
    """
    exponent = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequency = 1.0 / config.rope_theta**exponent
    if config.rope_scaling is None:
        return frequency
    factor = config.rope_scaling["factor"]
    low, high = config.rope_scaling["low_freq_factor"], config.rope_scaling["high_freq_factor"]
    turns = config.rope_scaling["original_max_position_embeddings"] * frequency / (2 * math.pi)
    keep = ((turns - low) / (high - low)).clamp(0, 1)  # 1: fast pair, kept; 0: slow pair, stretched
    return frequency * keep + frequency / factor * (1 - keep)


def rope_tables(
    positions: torch.Tensor, inverse_frequency: torch.Tensor, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine for each token: two tensors [T, 1, D], the same for every head and layer."""
    angle = positions[:, None].float() * inverse_frequency  # [T, D / 2]
    angle = torch.cat([angle, angle], dim=-1)[:, None]  # [T, 1, D]
    return angle.cos().to(dtype), angle.sin().to(dtype)


def rotate(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn each pair (i, i + D/2) of a head by its token's angle. [T, H, D] -> [T, H, D]."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat([-second, first], dim=-1) * sin
