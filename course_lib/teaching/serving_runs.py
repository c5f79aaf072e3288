"""Traffic for a real engine, and what came of it: notebooks 07 and 08 measure with this."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from course_lib.memory import Request, sharegpt_like
from course_lib.serving import LLMEngine, SamplingParams

TEXT = "The quick brown fox jumps over the lazy dog, and the dog sleeps on. "


@dataclass
class Run:
    """What an engine did with some requests, from the moment that it had them all."""

    outputs: list[list[int]]  # the tokens of each request's first output
    seconds: float
    num_tokens: int
    running: list[int] = field(default_factory=list)  # sequences that still ran after each step
    first_token: list[float] = field(default_factory=list)  # seconds until each request's first token
    num_preemptions: int = 0
    num_batched_tokens: int = 0  # that went through the model, prompts and all

    @property
    def tokens_per_second(self) -> float:
        return self.num_tokens / self.seconds

    @property
    def mean_running(self) -> float:
        return statistics.mean(self.running)


def serve(engine: LLMEngine, prompts: Sequence[list[int]], params: Sequence[SamplingParams]) -> Run:
    """Give an engine all requests at once, and step until they are done.

    Args:
        engine: with nothing at work.
        params: one for each prompt.
    """
    before = engine.stats.num_preemptions
    numbers = {
        engine.add_request(prompt, each): number
        for number, (prompt, each) in enumerate(zip(prompts, params, strict=True))
    }
    made = [0] * len(prompts)
    first: list[float] = [0.0] * len(prompts)
    run = Run([[] for _ in prompts], 0.0, 0)
    start = time.perf_counter()
    while engine.has_unfinished():
        outputs = engine.step()
        now = time.perf_counter() - start
        run.running.append(engine.stats.num_running)
        run.num_batched_tokens += engine.stats.num_batched_tokens
        for output in outputs:
            number = numbers[output.request_id]
            first[number] = first[number] or now
            made[number] = sum(len(each.token_ids) for each in output.outputs)
            run.outputs[number] = output.outputs[0].token_ids
    run.seconds, run.num_tokens, run.first_token = time.perf_counter() - start, sum(made), first
    run.num_preemptions = engine.stats.num_preemptions - before
    return run


def scaled(requests: Sequence[Request], by: int) -> list[Request]:
    """The same requests, all lengths divided by `by`: chats for a small model.

    Example:
        >>> scaled([Request(0.0, 160, 330)], 8)
        [Request(arrival_time=0.0, prompt_len=20, output_len=41)]
    """
    return [
        Request(each.arrival_time, max(1, each.prompt_len // by), max(1, each.output_len // by))
        for each in requests
    ]


def chats(count: int, by: int = 8, seed: int = 1) -> list[Request]:
    """Chats as on ShareGPT, all there at once, their lengths divided by `by`.

    Example:
        >>> [(each.prompt_len, each.output_len) for each in chats(2)]
        [(22, 30), (41, 69)]
    """
    found = scaled(sharegpt_like(count, rate=1.0, seed=seed), by)
    return [Request(0.0, each.prompt_len, each.output_len) for each in found]


def texts_for(engine: LLMEngine, requests: Sequence[Request]) -> tuple[list[list[int]], list[SamplingParams]]:
    """Prompts of the lengths asked for, all different, and parameters that make outputs of exactly theirs."""
    tokens = engine.encode(TEXT * (2 + (len(requests) + max(each.prompt_len for each in requests)) // 15))
    prompts = [tokens[number : number + each.prompt_len] for number, each in enumerate(requests)]
    return prompts, [SamplingParams(max_tokens=each.output_len, ignore_eos=True) for each in requests]


def prompt_arrives(
    engine: LLMEngine, num_decoding: int, prompt_len: int, arrival: int, num_steps: int
) -> tuple[list[int], list[float]]:
    """Some requests decode, and after `arrival` steps a long prompt comes.

    Returns:
        (tokens that went through the model, milliseconds) of each of num_steps steps.
    """
    tokens = engine.encode(TEXT * (2 + (num_decoding + prompt_len + 16) // 15))
    for number in range(num_decoding):
        prompt = tokens[number : number + 16]
        engine.add_request(prompt, SamplingParams(max_tokens=num_steps + 32, ignore_eos=True))
    while len(engine.step()) < num_decoding:  # until all prompts are in, and everybody makes a token a step
        pass
    counts, milliseconds = [], []
    for step in range(num_steps):
        if step == arrival:
            engine.add_request(tokens[:prompt_len], SamplingParams(max_tokens=num_steps, ignore_eos=True))
        start = time.perf_counter()
        engine.step()
        milliseconds.append(1000 * (time.perf_counter() - start))
        counts.append(engine.stats.num_batched_tokens)
    return counts, milliseconds


def with_a_shared_prompt(
    engine: LLMEngine, shared: list[int], num_users: int, question_len: int = 16, max_tokens: int = 8
) -> Run:
    """Users whose prompts begin with the same tokens and go on with a question of their own, all there at once."""
    tokens = engine.encode(TEXT * (3 + (num_users + question_len) // 15))
    prompts = [shared + tokens[number : number + question_len] for number in range(num_users)]
    return serve(engine, prompts, [SamplingParams(max_tokens=max_tokens, ignore_eos=True)] * num_users)


class BlockCount:
    """Counts, in every forward pass of a paged engine, the blocks that its sequences hold, and how many these would be
    if nothing were shared.

    Example:
        >>> count = BlockCount(engine)                                                  # doctest: +SKIP
        >>> engine.generate([prompt], SamplingParams(n=4, seed=1, max_tokens=20))       # doctest: +SKIP
        >>> f"{count.saved:.0%} saved"                                                  # doctest: +SKIP
        '52% saved'
    """

    def __init__(self, engine: LLMEngine):
        self.held: list[int] = []
        self.unshared: list[int] = []
        self._tables = engine.allocator.tables
        self._begin_step = engine.store.begin_step
        engine.store.begin_step = self._count

    def _count(self, runs, copies=(), tables=None):
        held = tables or [self._tables[run.sequence].block_ids for run in runs]
        self.held.append(len({block for table in held for block in table}))
        self.unshared.append(sum(map(len, held)))
        return self._begin_step(runs, copies, tables)

    @property
    def saved(self) -> float:
        """Share of the blocks that sharing saved, over all steps."""
        return 1 - sum(self.held) / sum(self.unshared)


def saved_by_sharing(requests: Sequence[Request], num_outputs: int, block_size: int = 16) -> float:
    """What BlockCount would find for these requests, each with so many outputs that all have its length. No model runs:
    a block that is full and of the prompt is there once, every other block once for each output.

    Example:
        >>> saved_by_sharing([Request(0.0, prompt_len=10, output_len=6)], num_outputs=3, block_size=4) == 1 - 37 / 57
        True
    """
    held = unshared = 0
    for request in requests:
        shared = request.prompt_len // block_size
        once = -(-request.prompt_len // block_size)
        held, unshared = held + once, unshared + once  # the step that computes the prompt
        for length in range(request.prompt_len + 1, request.prompt_len + request.output_len):
            blocks = -(-length // block_size)
            held += shared + num_outputs * (blocks - shared)
            unshared += num_outputs * blocks
    return 1 - held / unshared
