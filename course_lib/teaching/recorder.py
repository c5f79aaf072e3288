"""A paged cache that remembers what was asked of it, so that attention weights can be looked at afterwards."""

import torch

from course_lib.serving.kv_cache import PagedCache
from course_lib.serving.model import LlamaConfig


class Recorder(PagedCache):
    """Keeps every query beside the keys and values.

    Example:
        >>> cache = Recorder(model.config, num_blocks=12)                          # doctest: +SKIP
        >>> greedy(model, [prompt], cache, 8)                                      # doctest: +SKIP
        >>> cache.weights(layer=0, head=0, sequence=0, position=3).sum()           # doctest: +SKIP
        tensor(1.)
    """

    def __init__(self, config: LlamaConfig, num_blocks: int, block_size: int = 16):
        super().__init__(config, num_blocks, block_size)
        self.owners: list[int] = []  # of the step's rows
        # (layer, sequence) -> [Hq, D] for each position
        self.queries: dict[tuple[int, int], list[torch.Tensor]] = {}

    def begin_step(self, new_tokens: dict[int, int]) -> torch.Tensor:
        self.owners = [sequence for sequence, count in new_tokens.items() for _ in range(count)]
        return super().begin_step(new_tokens)

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        for sequence, row in zip(self.owners, query, strict=True):
            self.queries.setdefault((layer, sequence), []).append(row.clone())
        return super().attend(layer, query, key, value)

    def weights(self, layer: int, head: int, sequence: int, position: int) -> torch.Tensor:
        """Attention weights of one query over what it sees: [position + 1]."""
        slots = [self.tables[sequence].slot(p) for p in range(position + 1)]
        keys = self.keys[layer].flatten(0, 1)[slots]  # [S, Hkv, D]
        query = self.queries[layer, sequence][position]  # [Hq, D]
        kv_head = head // (query.shape[0] // keys.shape[1])
        return (keys[:, kv_head] @ query[head] / query.shape[1] ** 0.5).softmax(dim=0)
