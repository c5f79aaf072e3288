"""The oldest way to serve a batch: all prompts start together, and the batch is done when the last one is.

It is the loop that notebook 01 builds, for any cache and any number of prompts.
"""

from collections.abc import Collection, Iterator

import torch

from course_lib.serving.model import KVCache, LlamaModel


def greedy_step(model: LlamaModel, texts: dict[int, list[int]], cache: KVCache) -> dict[int, int]:
    """Feed what the cache does not hold yet of each text, in one forward pass: {sequence: its next token}.

    That is everything with NoCache, and one token a sequence with the others once the prompts are in.
    """
    fed = {sequence: tokens[cache.length(sequence) :] for sequence, tokens in texts.items()}
    positions = cache.begin_step({sequence: len(tokens) for sequence, tokens in fed.items()})
    token_ids = torch.tensor([token for tokens in fed.values() for token in tokens])
    hidden = model(token_ids.to(model.device), positions.to(model.device), cache)
    last = torch.tensor([len(tokens) for tokens in fed.values()]).cumsum(0) - 1  # each one's last row
    chosen = model.logits(hidden[last.to(model.device)]).argmax(dim=-1).tolist()
    return dict(zip(texts, chosen, strict=True))


def greedy_steps(
    model: LlamaModel,
    prompts: list[list[int]],
    cache: KVCache,
    max_tokens: int,
    stop_token_ids: Collection[int] = (),
) -> Iterator[dict[int, int]]:
    """Decode greedily and yield each step's new tokens, {sequence: token id}.

    A sequence leaves at its stop token (which is yielded) or after `max_tokens`.

    Args:
        cache: empty. Sequence n is prompt n.

    Raises:
        ValueError: an empty prompt, max_tokens below 1, or a cache that still holds an earlier run.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, got {max_tokens}")
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {number} is empty: there is no token to continue from")
        if held := cache.length(number):
            raise ValueError(
                f"the cache still holds {held} tokens of sequence {number}: free it or make a new cache"
            )
    running = {sequence: list(prompt) for sequence, prompt in enumerate(prompts)}
    for _ in range(max_tokens):
        if not running:
            return
        new = greedy_step(model, running, cache)
        yield new
        for sequence, token in new.items():
            running[sequence].append(token)
            if token in stop_token_ids:
                del running[sequence]


def greedy(
    model: LlamaModel,
    prompts: list[list[int]],
    cache: KVCache,
    max_tokens: int,
    stop_token_ids: Collection[int] = (),
) -> list[list[int]]:
    """The new tokens of each prompt, without the stop token.

    Example:
        >>> greedy(model, [tokenizer.encode("The capital of France is").ids], NoCache(), 3)   # doctest: +SKIP
        [[7042, 30, 198]]
    """
    outputs: list[list[int]] = [[] for _ in prompts]
    for new in greedy_steps(model, prompts, cache, max_tokens, stop_token_ids):
        for sequence, token in new.items():
            if token not in stop_token_ids:
                outputs[sequence].append(token)
    return outputs
