"""An engine under observation: what it says, and what its pool looks like after every step."""

import sysconfig
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from course_lib.memory import PagedAllocator
from course_lib.serving import LLMEngine, SamplingParams
from course_lib.serving.cost import kv_bytes_per_token
from course_lib.teaching.clinic.parrot import PERIOD, VOCABULARY, first_slip, parrot

OURS = (
    str(Path(__file__).parents[2]),
    *sysconfig.get_paths().values(),
)  # all code that the learner did not write


@dataclass(frozen=True)
class Tick:
    """The engine after one step."""

    step: int
    running: tuple[str, ...]  # who, in the order of arrival
    waiting: tuple[str, ...]
    preempted: tuple[str, ...]  # in this step
    num_free: int  # blocks
    tables: dict[str, list[int]]  # whose block table names which blocks
    ref_counts: list[int]  # of every block

    @property
    def num_held(self) -> int:
        """Blocks that tables name."""
        return len({block_id for blocks in self.tables.values() for block_id in blocks})

    @property
    def lost(self) -> list[int]:
        """Blocks that count as used, and that no table names."""
        named = {block_id for blocks in self.tables.values() for block_id in blocks}
        return [block for block, count in enumerate(self.ref_counts) if count and block not in named]


def make_engine(
    *,
    num_blocks: int,
    block_size: int = 4,
    kind: type[LLMEngine] = LLMEngine,
    paging: type[PagedAllocator] | None = None,
    **settings,
) -> LLMEngine:
    """The course's engine with the parrot in it, on so many blocks.

    Args:
        kind: LLMEngine, or a subclass with something planted in it.
        paging: a subclass of PagedAllocator with something planted in it; the engine's own by default.
        settings: as for LLMEngine.

    Example:
        >>> make_engine(num_blocks=8).allocator.pool
        BlockPool(8 blocks of 4: 8 free, 0 cached)
    """
    model, tokenizer = parrot()
    shape = model.config
    slot = kv_bytes_per_token(shape.num_layers, shape.num_kv_heads, shape.head_dim, 4)
    settings = dict(max_model_len=512, max_num_seqs=32, max_num_batched_tokens=512) | settings
    engine = kind(
        model, tokenizer, kv_cache_bytes=num_blocks * block_size * slot, block_size=block_size, **settings
    )
    if paging:
        planted = paging(num_blocks * block_size, block_size)
        engine.allocator = engine.scheduler.allocator = engine.store.allocator = planted
    return engine


def _place(error: Exception) -> str:
    """The learner's own line in which it was raised, if it was."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(OURS)
    ]
    return f", line {frames[-1].lineno}: {frames[-1].line}" if frames and frames[-1].line else ""


@dataclass(repr=False)
class Patient:
    """An engine, what was asked of it, and a record of every step. A crash is written down, and raised no further.

    Example:
        >>> patient = Patient(make_engine(num_blocks=16))
        >>> patient.ask("ann", "ann likes red tea and bob likes milk", 6)
        >>> patient.run()
        >>> patient.said("ann")
        'ann likes red tea and bob'
        >>> patient.ticks[0].tables
        {'ann': [0, 1]}
    """

    engine: LLMEngine
    ticks: list[Tick] = field(default_factory=list)
    crash: str | None = None
    names: dict[int, str] = field(default_factory=dict)  # request_id -> who
    prompts: dict[str, str] = field(default_factory=dict)  # who -> the last prompt
    outputs: dict[str, list[list[int]]] = field(default_factory=dict)  # who -> token ids of each sample
    finished: list[str] = field(default_factory=list)  # in the order of their last step
    gone: list[str] = field(default_factory=list)  # who has hung up

    def ask(self, name: str, prompt: str, max_tokens: int, **params) -> None:
        """A user sends a prompt.

        Raises:
            ValueError: a word that the parrot does not have, or what the engine refuses.
        """
        if strange := [word for word in prompt.split() if word not in VOCABULARY]:
            raise ValueError(f"the parrot does not know {strange[0]!r}: see VOCABULARY")
        request = SamplingParams(max_tokens=max_tokens, ignore_eos=True, **({"seed": 0} | params))
        self.names[self.engine.add_request(prompt, request)] = name
        self.prompts[name], self.outputs[name] = prompt, []

    def hang_up(self, name: str) -> None:
        """A user closes the connection: the last request is aborted, whether it runs or waits."""
        request_id = max(key for key, who in self.names.items() if who == name)
        self.gone.append(name)
        self._guarded(self.engine.abort, request_id)
        if self.crash is None:
            self._note(())

    def run(self, num_steps: int = 500) -> None:
        """So many steps, or until nobody is left, or until it crashes."""
        for _ in range(num_steps):
            if self.crash or not self.engine.has_unfinished():
                return
            before = list(self.engine.scheduler.running)
            outputs = self._guarded(self.engine.step)
            for output in outputs or ():
                name = self.names[output.request_id]
                self.outputs[name] = [completion.token_ids for completion in output.outputs]
                if output.finished:
                    self.finished.append(name)
            if self.crash is None:
                self._note(before)

    def said(self, name: str, sample: int = 0) -> str:
        """What a user has been told so far."""
        told = self.outputs[name]
        return self.engine.tokenizer.decode(told[sample]) if sample < len(told) else ""

    def trouble(self) -> str | None:
        """What is wrong with those who asked, in a sentence: a crash, no answer, a wrong word; None if all is well."""
        if self.crash:
            return f"it crashes: {self.crash}"
        if missing := [name for name in self.prompts if name not in self.finished and name not in self.gone]:
            pool = self.engine.allocator.pool
            free = f"{pool.num_free} of {pool.num_blocks} blocks are free"
            return f"{missing[0]} has no answer after {len(self.ticks)} steps; {free}"
        return self.wrong_words()

    def wrong_words(self) -> str | None:
        """The first who was told what a healthy engine would not have said, in a sentence; None if nobody was."""
        for name, prompt in self.prompts.items():
            for sample in range(len(self.outputs[name])):
                told = self.said(name, sample)
                slip = first_slip(prompt, told)
                if slip is not None:
                    words = prompt.split() + told.split()
                    place = len(prompt.split()) + slip
                    said, right = words[place], words[place - PERIOD]
                    right = "a dish" if right == "?" else right
                    heard = " ".join(words[len(prompt.split()) : place + 1])
                    return f"{name} hears {said!r} as word {slip + 1}, where {right!r} is right: {heard} ..."
        return None

    def _guarded(self, act, *arguments):
        try:
            return act(*arguments)
        except Exception as error:  # a sick engine may raise anything
            self.crash = f"{type(error).__name__}: {error}{_place(error)}"
            return None

    def _who(self, key: int) -> str:
        """Name of a sequence: ann, or ann/1 for her second sample."""
        sequence = self.engine.sequences[key]
        name = self.names[sequence.request_id]
        return name if sequence.index == 0 else f"{name}/{sequence.index}"

    def _note(self, ran_before: Sequence[int]) -> None:
        scheduler, allocator = self.engine.scheduler, self.engine.allocator
        known = self.engine.sequences
        tables = {
            self._who(key): list(table.block_ids)
            for key, table in allocator.tables.items()
            if key in known  # a table that outlives its request is nobody's
        }
        preempted = [key for key in ran_before if key in scheduler.waiting]
        self.ticks.append(
            Tick(
                step=len(self.ticks),
                running=tuple(self._who(key) for key in scheduler.running if key in known),
                waiting=tuple(self._who(key) for key in scheduler.waiting if key in known),
                preempted=tuple(self._who(key) for key in preempted),
                num_free=allocator.pool.num_free,
                tables=tables,
                ref_counts=[allocator.pool.ref_count(block) for block in range(allocator.pool.num_blocks)],
            )
        )

    def __repr__(self) -> str:
        return f"Patient({len(self.ticks)} steps of {', '.join(self.prompts)}{': it crashed' * bool(self.crash)})"

    # -- tools to look with -----------------------------------------------------------------------------------

    def log(self, first: int = 0, last: int | None = None) -> None:
        """Print the steps first to last: who runs, who waits, free blocks, blocks that no table names."""
        rows = [("running", "waiting", "preempted")]
        shown = self.ticks[first : None if last is None else last + 1]
        rows += [
            tuple(", ".join(who) or "-" for who in (tick.running, tick.waiting, tick.preempted))
            for tick in shown
        ]
        wide = [max(len(row[column]) for row in rows) for column in range(3)]
        heads = ["step  held  lost  free"] + [
            f"{tick.step:4}{tick.num_held:6}{len(tick.lost):6}{tick.num_free:6}" for tick in shown
        ]
        for head, row in zip(heads, rows, strict=True):
            print(head, *(f"{who:<{width}}" for who, width in zip(row, wide, strict=True)), sep="  ")
        if self.crash:
            print(f"crashed in the step after that: {self.crash}")

    def block(self, block_id: int) -> None:
        """Print the life of one block: whenever its count or its owners change."""
        before = None
        for tick in self.ticks:
            owners = [name for name, blocks in tick.tables.items() if block_id in blocks]
            now = tick.ref_counts[block_id], owners
            if now != before:
                print(
                    f"step {tick.step:3}  block {block_id}: count {now[0]}, named by "
                    f"{', '.join(owners) or 'nobody'}"
                )
            before = now

    def tables(self, step: int) -> None:
        """Print every block table as it was after a step.

        Raises:
            ValueError: there was no such step.
        """
        if not 0 <= step < len(self.ticks):
            raise ValueError(f"there is no step {step}: they go from 0 to {len(self.ticks) - 1}")
        for name, blocks in self.ticks[step].tables.items():
            print(f"{name:<7}{blocks}")
