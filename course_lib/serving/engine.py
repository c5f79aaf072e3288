"""An engine: many requests, one model, one KV cache, one step at a time.

    engine = LLMEngine(model, tokenizer, kv_cache_bytes=2**28)
    engine.add_request("Once upon a time", SamplingParams(max_tokens=20))
    while engine.has_unfinished():
        for output in engine.step():
            print(output.outputs[0].text)

The Scheduler of memory/ decides who runs, an allocator of memory/ who owns which slots; a store has the tensors, the
model computes. What is left is written here: tokens in, tokens out.

Source: Kwon et al. (SOSP 2023), section 5; the step as in Orca (Yu et al., OSDI 2022).
"""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from tokenizers import Tokenizer

from course_lib.memory import FitRegion, PagedAllocator, Request, ReservingAllocator, Scheduler
from course_lib.memory.block_pool import positive_int
from course_lib.serving.cost import kv_bytes_per_token
from course_lib.serving.kv_cache import Run, plan_runs
from course_lib.serving.model import LlamaModel
from course_lib.serving.sampling import Draw, SamplingParams, choose
from course_lib.serving.stores import BlockStore, SlabStore


@dataclass
class Completion:
    """One output of a request, so far."""

    index: int
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None  # stop, length or abort; None while it runs
    tokenizer: Tokenizer | None = field(default=None, repr=False, compare=False)

    @property
    def text(self) -> str:
        """The tokens as text, without special tokens."""
        return self.tokenizer.decode(self.token_ids)


@dataclass
class RequestOutput:
    """What a request has made so far. The next step makes a new one."""

    request_id: int
    prompt_token_ids: list[int]
    outputs: list[Completion]
    num_cached_tokens: int  # of the prompt, taken over from the cache
    finished: bool


@dataclass
class _Sequence:
    """One text that grows: a prompt and one of its outputs."""

    key: int
    request_id: int
    index: int
    token_ids: list[int]  # prompt and output: the scheduler sees this very list
    prompt_len: int
    finish_reason: str | None = None


@dataclass
class _Job:
    """A request as the engine keeps it."""

    params: SamplingParams
    seed: int
    prompt: list[int]
    sequences: list[_Sequence]
    num_cached: int | None = None  # of the prompt, when it was first admitted

    @property
    def finished(self) -> bool:
        return all(sequence.finish_reason for sequence in self.sequences)


@dataclass(frozen=True)
class EngineStats:
    """What the engine holds, now."""

    num_running: int
    num_waiting: int
    num_batched_tokens: int  # that went through the model in the last step
    num_preemptions: int  # since it began
    num_cached_tokens: int  # taken over from the cache, since it began
    slots_used: int  # of the KV cache: they hold a token's keys and values
    slots_reserved: int  # they belong to a sequence, and hold none yet
    slots_free: int


class LLMEngine:
    """Continuous batching of a real LLM on a paged KV cache, or on slabs.

    Args:
        model, tokenizer: from `load_model`.
        kv_cache_bytes: for keys and values of all layers.
        block_size: tokens in a block (paged).
        allocator: "paged", or "reserve_max": a slab of max_model_len for each sequence.
        max_model_len: of prompt and output together.
        max_num_seqs: sequences that run at once.
        max_num_batched_tokens: tokens that go through the model in one step; longer prompts come in chunks.
        enable_prefix_caching: begin with the blocks of an earlier text that began the same (paged).
        attention_backend: "torch", "triton", or "auto": triton on a GPU, torch elsewhere.

    Raises:
        ValueError: a number out of range, an unknown name, or kv_cache_bytes below one block or slab.

    Example:
        >>> engine = LLMEngine(model, tokenizer, kv_cache_bytes=2**26)                     # doctest: +SKIP
        >>> engine.generate(["The capital of France is"])[0].outputs[0].text               # doctest: +SKIP
        ' Paris.\\n\\nThe'
    """

    def __init__(
        self,
        model: LlamaModel,
        tokenizer: Tokenizer,
        *,
        kv_cache_bytes: int,
        block_size: int = 16,
        allocator: str = "paged",
        max_model_len: int = 2048,
        max_num_seqs: int = 256,
        max_num_batched_tokens: int = 512,
        enable_prefix_caching: bool = False,
        attention_backend: str = "auto",
    ):
        config = model.config
        for name, value in (
            ("block_size", block_size),
            ("max_model_len", max_model_len),
            ("max_num_seqs", max_num_seqs),
            ("max_num_batched_tokens", max_num_batched_tokens),
        ):
            positive_int(name, value)
        if max_model_len > config.max_position:
            raise ValueError(
                f"max_model_len {max_model_len} is beyond the model's context of {config.max_position}"
            )
        if max_num_batched_tokens < max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens {max_num_batched_tokens} is below max_num_seqs {max_num_seqs}: each "
                "sequence that runs makes a token a step"
            )
        if attention_backend not in ("auto", "torch", "triton"):
            raise ValueError(f"unknown attention_backend {attention_backend!r}: auto, torch or triton")
        if attention_backend == "auto":
            attention_backend = "triton" if model.device.type == "cuda" else "torch"
        self.model, self.tokenizer, self.max_model_len = model, tokenizer, max_model_len
        where = dict(dtype=model.dtype, device=model.device)
        itemsize = torch.finfo(model.dtype).bits // 8
        bytes_per_slot = kv_bytes_per_token(config.num_layers, config.num_kv_heads, config.head_dim, itemsize)
        unit = {"paged": block_size, "reserve_max": max_model_len}.get(allocator)
        if unit is None:
            raise ValueError(f"unknown allocator {allocator!r}: paged or reserve_max")
        num_units = int(kv_cache_bytes // (unit * bytes_per_slot))
        if num_units < 1:
            what = "block" if allocator == "paged" else "slab"
            raise ValueError(
                f"kv_cache_bytes {kv_cache_bytes:,} is below one {what} of {unit} tokens, "
                f"{unit * bytes_per_slot:,} bytes"
            )
        num_slots = num_units * unit
        if allocator == "paged":
            self.allocator = PagedAllocator(
                num_slots, block_size, enable_prefix_caching=enable_prefix_caching
            )
            self.store = BlockStore(config, self.allocator, attention_backend, **where)
        else:
            if enable_prefix_caching:
                raise ValueError(
                    "enable_prefix_caching needs the paged allocator: a slab is one request's own"
                )
            region = FitRegion(num_slots, best=False)
            self.allocator = ReservingAllocator("reserve_max", num_slots, max_model_len, region)
            self.store = SlabStore(config, self.allocator, **where)
        self.scheduler = Scheduler(
            self.allocator, max_num_seqs=max_num_seqs, max_num_batched_tokens=max_num_batched_tokens
        )
        self.jobs: dict[int, _Job] = {}  # by request_id: those that are not finished
        self.sequences: dict[int, _Sequence] = {}  # by key: those that run or wait
        self.num_cached_tokens = self.num_batched_tokens = 0
        self._copies: list[tuple[int, int]] = []  # blocks that are to be copied before the next forward pass
        self._request_ids, self._keys = itertools.count(), itertools.count()

    # -- requests come and go ---------------------------------------------------------------------------------

    def encode(self, prompt: str | Sequence[int]) -> list[int]:
        """A prompt as tokens. Text is encoded as it stands: special tokens are recognised, no template is added.

        Raises:
            ValueError: an empty prompt, or a token that the model does not have.
        """
        if isinstance(prompt, str):
            tokens = self.tokenizer.encode(prompt, add_special_tokens=False).ids
        else:
            tokens = list(prompt)
        if not tokens:
            raise ValueError("the prompt is empty: there is no token to continue from")
        vocab_size = self.model.config.vocab_size
        for token in tokens:
            if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < vocab_size:
                raise ValueError(f"{token!r} is no token: they go from 0 to {vocab_size - 1}")
        return tokens

    def add_request(self, prompt: str | Sequence[int], params: SamplingParams | None = None) -> int:
        """A request arrives; it runs in one of the next steps. Returns its request_id.

        Raises:
            ValueError: an empty prompt or an unknown token; more than max_model_len tokens; more than the cache holds,
                even alone; more outputs than max_num_seqs. Nothing has changed then.
        """
        params = params or SamplingParams()
        tokens = self.encode(prompt)
        request = self._check(tokens, params)
        request_id, key = next(self._request_ids), next(self._keys)
        first = _Sequence(key, request_id, 0, list(tokens), len(tokens))
        self.scheduler.add(key, request, first.token_ids)
        seed = random.getrandbits(63) if params.seed is None else params.seed
        self.jobs[request_id] = _Job(params, seed, tokens, [first])
        self.sequences[key] = first
        return request_id

    def _check(self, tokens: list[int], params: SamplingParams) -> Request:
        total = len(tokens) + params.max_tokens
        if total > self.max_model_len:
            raise ValueError(
                f"a prompt of {len(tokens)} tokens and max_tokens {params.max_tokens} are {total}: more than "
                f"max_model_len {self.max_model_len}"
            )
        if params.n > self.scheduler.max_num_seqs:
            raise ValueError(f"n {params.n} is more than max_num_seqs {self.scheduler.max_num_seqs}")
        request = Request(0.0, len(tokens), params.max_tokens)
        self.allocator.check_fits(request)
        return request

    def abort(self, request_id: int) -> None:
        """Give a request up, whether it runs or waits. Its slots are free at once.

        Raises:
            ValueError: no such request, or it is finished.
        """
        if request_id not in self.jobs:
            raise ValueError(f"request {request_id} is unknown or finished")
        for sequence in self.jobs.pop(request_id).sequences:
            if not sequence.finish_reason:
                self._end(sequence, "abort")

    def has_unfinished(self) -> bool:
        """Whether a step has something to do."""
        return bool(self.jobs)

    # -- one step ---------------------------------------------------------------------------------------------

    def step(self) -> list[RequestOutput]:
        """One forward pass over everything that runs now. Returns the requests that have made a token.

        Nothing is noted down before all is computed: a step that is interrupted can be done again.
        """
        step = self.scheduler.schedule()
        self._copies += step.copies
        for key in step.admitted:
            self._note_cached(key)
        num_new = {key: count for key, count in step.num_new.items() if count}
        self.num_batched_tokens = sum(num_new.values())
        if not num_new:
            return []
        running = self.scheduler.running
        runs = plan_runs(num_new, {key: running[key].num_computed for key in num_new})
        hidden = self._forward(runs)
        ends = {
            run.sequence: run.stop - 1 for run in runs if run.context_len == running[run.sequence].num_known
        }
        chosen = self._choose(hidden, ends)
        self.scheduler.complete(step)
        for key in num_new:
            self._remember(key)
        return self._take(chosen)

    def _forward(self, runs: list[Run]) -> torch.Tensor:
        device = self.model.device
        positions = self.store.begin_step(runs, self._copies)
        self._copies = []
        token_ids = torch.tensor(self.token_ids_of(runs), device=device)
        return self.model(token_ids, positions.to(device), self.store)

    def token_ids_of(self, runs: list[Run]) -> list[int]:
        """The flat batch: the newest tokens of each run's sequence, one after another."""
        return [
            token
            for run in runs
            for token in self.sequences[run.sequence].token_ids[
                run.context_len - run.num_new : run.context_len
            ]
        ]

    def _choose(self, hidden: torch.Tensor, ends: dict[int, int]) -> dict[int, list[int]]:
        """The next token of each sequence that has computed all it knows; n of them where a prompt becomes n outputs.

        Args:
            ends: key -> the last row of the sequence in `hidden`.
        """
        if not ends:
            return {}
        logits = self.model.logits(hidden[list(ends.values())])  # [sequences, vocab]
        rows, draws = [], []
        for row, key in enumerate(ends):
            sequence = self.sequences[key]
            job = self.jobs[sequence.request_id]
            first = len(sequence.token_ids) == sequence.prompt_len and sequence.index == 0
            for index in range(job.params.n) if first else (sequence.index,):
                rows.append(row)
                draws.append(Draw(job.params.temperature, job.seed, index, len(sequence.token_ids)))
        tokens = choose(logits[rows], draws)
        chosen: dict[int, list[int]] = {key: [] for key in ends}
        for row, token in zip(rows, tokens, strict=True):
            chosen[list(ends)[row]].append(token)
        return chosen

    def _take(self, chosen: dict[int, list[int]]) -> list[RequestOutput]:
        """Each sequence takes its token; a prompt that is complete becomes n sequences first."""
        progressed: dict[int, None] = {}
        for key, tokens in chosen.items():
            sequence = self.sequences[key]
            family = [sequence, *(self._fork(sequence, index) for index in range(1, len(tokens)))]
            for member, token in zip(family, tokens, strict=True):
                member.token_ids.append(token)
                self._end_if_done(member, token)
            progressed[sequence.request_id] = None
        outputs = [self._output(request_id) for request_id in progressed]
        for output in outputs:
            if output.finished:
                del self.jobs[output.request_id]
        return outputs

    def _fork(self, parent: _Sequence, index: int) -> _Sequence:
        child = _Sequence(
            next(self._keys), parent.request_id, index, list(parent.token_ids), parent.prompt_len
        )
        self.scheduler.fork(parent.key, child.key, child.token_ids)
        self.sequences[child.key] = child
        self.jobs[parent.request_id].sequences.append(child)
        return child

    def _end_if_done(self, sequence: _Sequence, token: int) -> None:
        params = self.jobs[sequence.request_id].params
        if token in self.model.config.eos_token_ids and not params.ignore_eos:
            self._end(sequence, "stop")
        elif len(sequence.token_ids) - sequence.prompt_len == params.max_tokens:
            self._end(sequence, "length")

    def _end(self, sequence: _Sequence, reason: str) -> None:
        sequence.finish_reason = reason
        del self.sequences[sequence.key]
        self.scheduler.abort(sequence.key)  # it may run or, after a fork that found no room, wait

    def _note_cached(self, key: int) -> None:
        num_cached, job = self.allocator.num_cached(key), self.jobs[self.sequences[key].request_id]
        self.num_cached_tokens += num_cached
        if job.num_cached is None:
            job.num_cached = num_cached

    def _remember(self, key: int) -> None:
        if isinstance(self.allocator, PagedAllocator) and self.allocator.pool.enable_prefix_caching:
            computed = self.scheduler.running[key].num_computed
            self.allocator.remember(key, self.sequences[key].token_ids[:computed])

    def _output(self, request_id: int) -> RequestOutput:
        job = self.jobs[request_id]
        outputs = [
            Completion(each.index, each.token_ids[each.prompt_len :], each.finish_reason, self.tokenizer)
            for each in job.sequences
        ]
        return RequestOutput(request_id, list(job.prompt), outputs, job.num_cached or 0, job.finished)

    # -- all at once ------------------------------------------------------------------------------------------

    def generate(
        self,
        prompts: Sequence[str | Sequence[int]],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[RequestOutput]:
        """Answer all prompts, and return the outputs in their order.

        Args:
            params: for all, or one for each.

        Raises:
            ValueError: what `add_request` refuses; nothing is added then. Other requests are still at work.
        """
        if self.has_unfinished():
            raise ValueError(f"{len(self.jobs)} requests are at work: finish them with step(), or abort them")
        each = (
            [params] * len(prompts) if params is None or isinstance(params, SamplingParams) else list(params)
        )
        if len(each) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts and {len(each)} params: give one, or one for each")
        tokens = [self.encode(prompt) for prompt in prompts]
        for prompt, one in zip(tokens, each, strict=True):
            self._check(prompt, one or SamplingParams())
        request_ids = [self.add_request(prompt, one) for prompt, one in zip(tokens, each, strict=True)]
        done: dict[int, RequestOutput] = {}
        while self.has_unfinished():
            done |= {output.request_id: output for output in self.step() if output.finished}
        return [done[request_id] for request_id in request_ids]

    @property
    def stats(self) -> EngineStats:
        """What runs, what waits, and what the slots of the KV cache are."""
        num_slots = self.allocator.num_slots
        computed = {key: progress.num_computed for key, progress in self.scheduler.running.items()}
        if isinstance(self.allocator, PagedAllocator):
            pool = self.allocator.pool
            used, held = (
                self.allocator.num_filled(computed),
                (pool.num_blocks - pool.num_free) * pool.block_size,
            )
        else:
            used, held = sum(computed.values()), sum(slab.asked for slab in self.allocator.slabs.values())
        return EngineStats(
            num_running=len(self.scheduler.running),
            num_waiting=len(self.scheduler.waiting),
            num_batched_tokens=self.num_batched_tokens,
            num_preemptions=self.scheduler.num_preemptions,
            num_cached_tokens=self.num_cached_tokens,
            slots_used=used,
            slots_reserved=held - used,
            slots_free=num_slots - held,
        )
