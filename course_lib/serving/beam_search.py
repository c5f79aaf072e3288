"""Beam search, as a function over an engine's blocks: beams share what they have in common.

Beams fork, write and die at every step. With block tables a fork copies no keys and no values: it shares all blocks,
and the block that is being written is copied when two beams write into it. The engine does not know about beams, as
vLLM's does not today.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from course_lib.memory import BlockTable, PagedAllocator
from course_lib.serving.engine import LLMEngine
from course_lib.serving.kv_cache import Run


@dataclass
class Beam:
    """One continuation."""

    token_ids: list[int]  # of the output, with the end token if it has one
    log_probability: float  # of all of it
    score: float  # log_probability / length ** length_penalty
    text: str


@dataclass
class _Alive:
    table: BlockTable
    token_ids: list[int]
    log_probability: float


@torch.inference_mode()
def beam_search(
    engine: LLMEngine,
    prompt: str | Sequence[int],
    beam_width: int,
    max_tokens: int,
    *,
    length_penalty: float = 1.0,
) -> list[Beam]:
    """The best continuations of a prompt that a search with `beam_width` beams finds, best first.

    In each step every beam is continued by its 2 x beam_width likeliest tokens; of all these the best go on, and those
    that end are set aside.

    Args:
        engine: paged, with nothing at work. Its blocks are used, and given back.
        max_tokens: of each continuation.
        length_penalty: exponent of the length by which the log probability is divided.

    Raises:
        ValueError: an engine on slabs or at work, a number below 1, a prompt that does not fit.
        OutOfBlocks: the beams need more blocks than there are. All are given back.

    Example:
        >>> [beam.text for beam in beam_search(engine, "The capital of France", 2, 4)]      # doctest: +SKIP
        [' is Paris. It', ' is Paris. The']

    Source: Kwon et al. (SOSP 2023), section 4.4.
    """
    for name, value in (("beam_width", beam_width), ("max_tokens", max_tokens)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    if not isinstance(engine.allocator, PagedAllocator):
        raise ValueError("beams share blocks: the engine must be paged")
    if engine.has_unfinished():
        raise ValueError(f"{len(engine.jobs)} requests are at work: finish them with step(), or abort them")
    tokens = engine.encode(prompt)
    if len(tokens) + max_tokens > engine.max_model_len:
        raise ValueError(
            f"a prompt of {len(tokens)} tokens and max_tokens {max_tokens} are more than max_model_len "
            f"{engine.max_model_len}"
        )
    alive = [_Alive(BlockTable(engine.allocator.pool), [], 0.0)]
    finished: list[_Alive] = []
    try:
        logits = _forward(engine, alive, [tokens])
        for length in range(1, max_tokens + 1):
            alive = _extend(engine, alive, logits, beam_width, finished)
            if not alive or length == max_tokens:
                break
            logits = _forward(engine, alive, [[beam.token_ids[-1]] for beam in alive])
    finally:
        for beam in alive:
            beam.table.free()
    found = [
        Beam(
            each.token_ids,
            each.log_probability,
            each.log_probability / len(each.token_ids) ** length_penalty,
            engine.tokenizer.decode(each.token_ids),
        )
        for each in finished + alive
    ]
    return sorted(found, key=lambda beam: -beam.score)[:beam_width]


def _extend(
    engine: LLMEngine, alive: list[_Alive], logits: torch.Tensor, beam_width: int, finished: list[_Alive]
) -> list[_Alive]:
    """The best beam_width beams of the next length. Those that end go to `finished`; the old ones are freed."""
    log_probabilities = torch.log_softmax(logits.double(), dim=-1)  # [beams, vocab]
    count = min(2 * beam_width, log_probabilities.shape[-1])
    best = log_probabilities.topk(count, dim=-1)
    candidates = [
        (beam.log_probability + gain, beam, token)
        for beam, gains, chosen in zip(alive, best.values.tolist(), best.indices.tolist(), strict=True)
        for gain, token in zip(gains, chosen, strict=True)
    ]
    candidates.sort(key=lambda candidate: -candidate[0])
    grown: list[_Alive] = []
    for log_probability, beam, token in candidates[: 2 * beam_width]:
        text = [*beam.token_ids, token]
        if token in engine.model.config.eos_token_ids:
            finished.append(_Alive(BlockTable(engine.allocator.pool), text, log_probability))
        elif len(grown) < beam_width:
            grown.append(_Alive(beam.table.fork(), text, log_probability))
    for beam in alive:
        beam.table.free()
    return grown


def _forward(engine: LLMEngine, beams: list[_Alive], new: list[list[int]]) -> torch.Tensor:
    """One step of all beams with their new tokens: scores of the next one, [beams, vocab]."""
    copies, runs, start = [], [], 0
    for number, (beam, tokens) in enumerate(zip(beams, new, strict=True)):
        copies += beam.table.extend(len(tokens))
        runs.append(Run(number, start, start + len(tokens), beam.table.num_tokens))
        start += len(tokens)
    device = engine.model.device
    tables = [beam.table.block_ids for beam in beams]
    positions = engine.store.begin_step(runs, copies, tables)
    token_ids = torch.tensor([token for tokens in new for token in tokens], device=device)
    hidden = engine.model(token_ids, positions.to(device), engine.store)
    return engine.model.logits(hidden[[run.stop - 1 for run in runs]])
