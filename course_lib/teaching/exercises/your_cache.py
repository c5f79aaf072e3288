"""Your exercises of notebook 01 inside the real model: a slab cache made of your two functions."""

from collections.abc import Callable

import torch

from course_lib.attention import attention
from course_lib.serving.model import LlamaModel
from course_lib.serving.static_batch import greedy
from course_lib.teaching.check import run_limited

TIME_LIMIT_SECONDS = 60.0


class YourSlab:
    """A cache for one sequence. Prompts go through your `append_kv`, single tokens through your `decode_step`."""

    def __init__(self, model: LlamaModel, max_len: int, append_kv: Callable, decode_step: Callable):
        config = model.config
        shape = (config.num_layers, max_len, config.num_kv_heads, config.head_dim)
        self.keys, self.values = torch.zeros(shape), torch.zeros(shape)  # [L, max_len, Hkv, D]
        self.append_kv, self.decode_step = append_kv, decode_step
        self.old_len = self.new_len = 0
        self.unwritten = False  # a stub was called

    def length(self, sequence: int) -> int:
        return self.new_len

    def begin_step(self, new_tokens: dict[int, int]) -> torch.Tensor:
        self.old_len, self.new_len = self.new_len, self.new_len + new_tokens[0]
        return torch.arange(self.old_len, self.new_len)

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        keys, values = self.keys[layer], self.values[layer]
        if len(query) == 1:
            out = self._written(self.decode_step(query[0], key[0], value[0], keys, values, self.old_len))
            if out.shape != query[0].shape:
                raise ValueError(f"decode_step returned {list(out.shape)}, not {list(query[0].shape)}")
            return out[None]
        end = self._written(self.append_kv(keys, values, self.old_len, key, value))
        return attention(query, keys[:end], values[:end])

    def _written(self, result: object) -> object:
        if result is ...:
            self.unwritten = True
            raise NotImplementedError("this function is still a stub")
        return result


def run(
    model: LlamaModel, prompt: list[int], expected: list[int], append_kv: Callable, decode_step: Callable
) -> None:
    """Let the model write with your cache, and hold its tokens against `expected`. Reports, never raises."""
    slab = YourSlab(model, len(prompt) + len(expected), append_kv, decode_step)
    tokens, error = run_limited(greedy, [model, [prompt], slab, len(expected)], TIME_LIMIT_SECONDS)
    total = len(expected)
    if slab.unwritten:
        print("○ your cache: write append_kv and decode_step first, then run this cell again")
    elif error:
        print(f"✗ your cache: {error}\n  look at   the checks of both exercises")
    elif tokens[0] != expected:
        same = next(n for n, (a, b) in enumerate(zip(tokens[0], expected, strict=True)) if a != b)
        print(f"✗ your cache: token {same} of {total} differs\n  look at   the checks of both exercises")
    else:
        layers = len(slab.keys)
        print(
            f"✓ your cache: {total} of {total} tokens are the same, through your functions in all {layers} layers"
        )
