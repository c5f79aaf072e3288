"""The arithmetic of an interview: questions with fresh numbers, and a grader that names the slip.

A kind of question is a function of a `random.Random`. What it asks for is computed by the course's own
objects (a BlockTable, a preset, the cost model): the answer is what the engine does, and no second formula.

    problem = draw(random.Random(7))       its text, its answer, the working, the slips that people make
    grade(problem, "12.5 GiB")             right or not, and in a line why
"""

import math
import random
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import torch

from course_lib.attention import merge_states
from course_lib.attention.launch import choose_num_splits
from course_lib.memory import BlockPool, BlockTable, Request, make_allocator
from course_lib.serving.cost import kv_bytes_per_token, recompute_or_swap
from course_lib.serving.tensor_parallel import split
from course_lib.teaching.presets import USABLE, Budget, ModelPreset, load_presets

EXACT, ROUNDED, PERCENT, ESTIMATE = 0.0, 0.03, 0.05, 0.10  # how far off an answer may be, as a share of it
SLIP_ROUNDED = 0.03  # a slip is known by its value, which may be rounded, too
TRIES = 200  # draws, until no slip is as good as the answer
APART = 3  # draws between two of one kind
NO_IDEA = "?"  # typed by somebody who gives up


@dataclass(frozen=True)
class Slip:
    """A wrong answer that people give, and what they did."""

    value: float
    says: str


@dataclass(frozen=True)
class Problem:
    """A question with its numbers. `answer` and slips are in bytes, seconds, shares of 1, or counted."""

    id: str  # its kind
    level: str
    lesson: str
    ask: str
    answer: float
    unit: str  # in which it is asked; "" for a plain number, "slot" for the number of a slot
    working: tuple[str, ...]  # the lines on the whiteboard
    slips: tuple[Slip, ...]
    tolerance: float

    @property
    def minutes(self) -> int:
        """How long one may think."""
        return 1 if self.level == "screen" else 2

    @property
    def shown(self) -> str:
        """The answer with its unit."""
        return shown(self.answer, self.unit)


@dataclass(frozen=True)
class Grade:
    """What came of an answer."""

    right: bool
    message: str
    readable: bool = True  # False: nothing was answered yet, ask again


@dataclass(frozen=True)
class Drawn:
    """What a kind of question draws."""

    ask: str
    answer: float
    working: list[str]
    slips: list[tuple[float, str]]


@dataclass(frozen=True)
class Kind:
    """A kind of question: how hard, where it is learned, its unit, how exact, and what draws its numbers."""

    level: str
    lesson: str
    unit: str
    tolerance: float
    make: Callable[[random.Random], Drawn]

    @property
    def id(self) -> str:
        """Its name."""
        return self.make.__name__

    def draw(self, rng: random.Random) -> Problem:
        """One problem. A slip that these numbers make right, or the same as another, is left out.

        A slip that is near enough to pass for the answer would be praised: then other numbers are drawn.
        """
        for _ in range(TRIES):
            drawn = self.make(rng)
            tolerance = self._allowed(drawn.answer)
            wrong = [Slip(*each) for each in drawn.slips if not _near(each[0], drawn.answer, EXACT)]
            if not any(_near(slip.value, drawn.answer, 1.1 * tolerance) for slip in wrong):
                break  # a tenth more, since a slip may be rounded, too
        slips = list[Slip]()
        for each in wrong:
            if not any(_near(each.value, other.value, tolerance and 0.01) for other in slips):
                slips.append(each)
        told = drawn.ask, drawn.answer, self.unit, tuple(drawn.working), tuple(slips)
        return Problem(self.id, self.level, self.lesson, *told, tolerance)

    def _allowed(self, answer: float) -> float:
        """How far off an answer may be, as a share of it. Of what is counted, one at most."""
        counted = UNITS.get(self.unit, ("",))[0].startswith("a number")
        return min(self.tolerance, 1 / answer) if counted and answer else self.tolerance


def draw(
    rng: random.Random, kind: str | None = None, level: str | None = None, recent: Collection[str] = ()
) -> Problem:
    """A problem with fresh numbers: of one kind, of one level, or of any.

    Args:
        recent: kinds that were asked just now. They wait, unless nothing else is left.

    Raises:
        ValueError: there is no such kind, or none of that level.

    Example:
        >>> problem = draw(random.Random(1), kind="slot_of")
        >>> problem.ask
        'Blocks of 16 slots, block table [2, 4, 1, 7, 12]. In which slot is the token at position 31?'
        >>> grade(problem, "79").message, grade(problem, "31").message
        ('✓ right: slot 79', '✗ that is the position: follow the table')
    """
    fitting = [each for each in KINDS if kind in (None, each.id) and level in (None, each.level)]
    if not fitting:
        known = ", ".join(f"{each.id} ({each.level})" for each in KINDS)
        raise ValueError(f"no arithmetic of kind {kind!r} and level {level!r}; there are: {known}")
    return rng.choice([each for each in fitting if each.id not in recent] or fitting).draw(rng)


@dataclass
class Series:
    """Problems, one after another, of a level or of any. A kind that came just now waits for a few draws."""

    rng: random.Random
    level: str | None = None
    recent: list[str] = field(default_factory=list)

    def next(self) -> Problem:
        """The next problem."""
        problem = draw(self.rng, level=self.level, recent=self.recent)
        self.recent = [*self.recent, problem.id][-APART:]
        return problem


# -- grading ------------------------------------------------------------------------------------------------

_PREFIXES = list(enumerate(("k", "m", "g", "t"), start=1))
UNITS: dict[str, tuple[str, float]] = {  # in lower case -> (what it tells, how many of the base unit)
    **dict.fromkeys(("b", "byte", "bytes"), ("a size", 1.0)),
    **{f"{prefix}b": ("a size", 1000.0**power) for power, prefix in _PREFIXES},
    **{f"{prefix}ib": ("a size", 1024.0**power) for power, prefix in _PREFIXES},
    **{f"{prefix}bit": ("a size", 1000.0**power / 8) for power, prefix in [(0, ""), *_PREFIXES]},
    **dict.fromkeys(("s", "sec", "second", "seconds"), ("a time", 1.0)),
    **{"ms": ("a time", 1e-3), "us": ("a time", 1e-6), "µs": ("a time", 1e-6), "μs": ("a time", 1e-6)},
    **dict.fromkeys(("%", "percent"), ("a share", 0.01)),
    **dict.fromkeys(("flop/byte", "flops/byte", "flop per byte", "flops per byte"), ("an intensity", 1.0)),
    **{
        f"{noun}{plural}": (f"a number of {noun}s", 1.0)
        for noun in ("token", "slot", "block", "request", "split")
        for plural in ("", "s")
    },
}
MANY = {"k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6}  # before what is counted: 310k tokens


def parse(text: str) -> tuple[float, str]:
    """A number and the unit behind it, "" if there is none.

    Raises:
        ValueError: no number.

    Example:
        >>> parse("≈ 12,500 MB"), parse("1 310 720"), parse("3 x 10^5 tokens"), parse("262144 (2^18)")
        ((12500.0, 'MB'), (1310720.0, ''), (300000.0, 'tokens'), (262144.0, ''))
    """
    plain = re.sub(r"(?<=\S)\s*\(([^()]*)\)[\s.]*$", _bracket, text.strip())
    plain = re.sub(r"\s*[x×*·]\s*10\s*(\^|\*\*)\s*", "e", plain, flags=re.IGNORECASE)
    plain = re.sub(
        r"\b(\d{1,2})\s*(?:\^|\*\*)\s*(\d{1,2})\b", lambda found: str(int(found[1]) ** int(found[2])), plain
    )
    before, number = (
        r"(?:[\s≈~=]|about|around|roughly|slot|block)*",
        r"-?\.?\d(?:[\d.,\s_']*\d)?(?:e[+-]?\d{1,2})?",
    )
    if found := re.fullmatch(rf"{before}({number})\s*(.*?)[\s.]*", plain, flags=re.IGNORECASE):
        digits = re.sub(r"[\s_']", "", found[1])
        thousands = re.fullmatch(r"-?[1-9]\d{0,2}(,\d{3})+(\.\d+)?", digits)
        try:
            return float(digits.replace(",", "" if thousands else ".")), found[2]
        except ValueError:
            pass
    raise ValueError(f"no number can be read in {text.strip()!r}: write it like 12.5 GiB, 12,500 MB or 3e5")


def _bracket(found: re.Match) -> str:
    """What stands in a bracket behind a number: its unit, or a remark that does not count."""
    return f" {found[1]}" if found[1].strip().lower() in UNITS else ""


def grade(problem: Problem, text: str) -> Grade:
    """Judge an answer as it was typed. Without a unit the asked one is meant; "?" is no answer, and wrong.

    Example:
        >>> problem = draw(random.Random(1), kind="kv_per_token")
        >>> print(problem.ask)
        Qwen3-32B: 64 layers, 64 query heads, 8 KV heads, head_dim 128, fp8.
        How many KiB of KV cache does a token take?
        >>> for text in ("131,072 bytes", "131", "64", "3 ms"):
        ...     print(grade(problem, text).message)
        ✓ right: 128 KiB
        ✓ near enough: it is 128 KiB, you are 2.3% off. That is the number in KB: say which you mean
        ✗ you counted K and forgot V
        ✗ ms tells a time, and a size is asked: in KiB, for example
    """
    if text.strip() == NO_IDEA:
        return Grade(False, "✗ no answer: see the working")
    try:
        number, unit = parse(text)
        is_share = problem.unit == "%" and not unit and abs(number) <= 1
        value = number if is_share else number * _scale(unit, problem.unit)
    except ValueError as error:
        return Grade(False, f"✗ {error}", readable=False)
    if _near(value, problem.answer, problem.tolerance):
        return Grade(True, f"✓ {_praise(value, problem)}")
    return Grade(False, f"✗ {_diagnosis(value, problem)}")


def shown(value: float, unit: str) -> str:
    """A number of base units, in a unit and with as many digits as one would say.

    Example:
        >>> shown(819_200, "KiB"), shown(0.01534, "ms"), shown(0.319, "%"), shown(65, "slot"), shown(3.2, "")
        ('800 KiB', '15.34 ms', '31.9%', 'slot 65', '3.2')
    """
    number = value / UNITS.get(unit.lower(), ("", 1.0))[1]
    digits = f"{number:,.{0 if abs(number) >= 1000 else 1 if abs(number) >= 100 else 2}f}"
    digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
    if unit in ("slot", "block"):
        return f"{unit} {digits}"
    return digits + ("" if unit in ("", "%") else " ") + unit


def _scale(unit: str, asked: str) -> float:
    """How many base units one of the unit is; ValueError if it tells another thing than what is asked."""
    wanted, scale = UNITS.get(asked.lower(), ("a plain number", 1.0))
    name = unit.lower()
    if "flop" not in name:  # KiB per token, GB/GPU
        name = re.sub(r"\s*(/|\bper\b|\beach\b).*$", "", name)
    if not name:
        return scale
    many, _, noun = name.partition(" ")
    if wanted == "a size" and name in ("k", "m", "g"):
        name += "b"
    elif many in MANY and wanted.startswith(("a number", "a plain")):
        return MANY[many] * _scale(noun, asked)
    such = f"in {asked}, for example" if asked else "no unit"
    if name not in UNITS:
        raise ValueError(f"no unit {unit!r} is known here, and {wanted} is asked: {such}")
    if UNITS[name][0] != wanted:
        raise ValueError(f"{unit} tells {UNITS[name][0]}, and {wanted} is asked: {such}")
    return UNITS[name][1]


def _near(value: float, target: float, tolerance: float) -> bool:
    return abs(value - target) <= (tolerance + 1e-9) * abs(target)


def _praise(value: float, problem: Problem) -> str:
    off = abs(value / problem.answer - 1) if problem.answer else 0.0
    if off < 0.0005:
        return f"right: {problem.shown}"
    told = f"near enough: it is {problem.shown}, you are {100 * off:.1f}% off"
    twin = _twin(value, problem)
    return f"{told}. That is the number in {twin}: say which you mean" if twin else told


def _diagnosis(value: float, problem: Problem) -> str:
    """What is wrong: a slip of this kind, a usual one, or how far off."""
    closest = min(problem.slips, key=lambda slip: abs(value - slip.value), default=None)
    if closest and _near(value, closest.value, min(problem.tolerance, SLIP_ROUNDED)):
        return closest.says
    if twin := _twin(value, problem):
        return f"GB is not GiB: that is the number in {twin}, and {problem.unit} are asked"
    if value <= 0 or problem.answer <= 0 or problem.tolerance == EXACT:
        return f"too {'high' if value > problem.answer else 'low'}"
    ratio = value / problem.answer
    if _near(ratio, 8, SLIP_ROUNDED) and UNITS.get(problem.unit.lower(), ("",))[0] == "a size":
        return "bits, not bytes: eight times too high"
    powers = math.log10(ratio) / 3
    if round(powers) and abs(powers - round(powers)) < 0.02:
        return "the digits are right and the unit is not: off by a power of a thousand"
    return f"too {'high' if ratio > 1 else 'low'} by a factor of {max(ratio, 1 / ratio):.1f}"


def _twin(value: float, problem: Problem) -> str:
    """GiB if GB were asked and this is the number in GiB; and the other way round."""
    unit = problem.unit
    twin = unit.replace("iB", "B") if "iB" in unit else unit.replace("B", "iB")
    if twin == unit or twin.lower() not in UNITS:
        return ""
    meant = value * UNITS[twin.lower()][1] / UNITS[unit.lower()][1]
    return twin if _near(meant, problem.answer, 0.003) else ""


# -- what a token takes -------------------------------------------------------------------------------------

FORMATS = {1: "fp8", 2: "bf16", 4: "fp32"}


def _model(rng: random.Random, *names: str) -> ModelPreset:
    return load_presets()[0][rng.choice(names)]


def _token(model: ModelPreset, size: int = 2) -> str:
    return shown(model.kv_bytes(1, size), "KiB")


def kv_per_token(rng: random.Random) -> Drawn:
    """A real model, often with fewer KV heads than query heads."""
    names = "OPT-13B", "Llama-2-7B", "SmolLM2-135M", "Llama-3.1-8B", "Qwen3-32B", "Llama-3.1-70B"
    model, size = _model(rng, *names), rng.choice((1, 2, 4))
    layers, heads, dim, answer = model.layers, model.kv_heads, model.head_dim, model.kv_bytes(1, size)
    return Drawn(
        f"{model.name}: {layers} layers, {model.query_heads} query heads, {heads} KV heads, head_dim {dim}, "
        f"{FORMATS[size]}. How many KiB of KV cache does a token take?",
        answer,
        [f"K and V of the {heads} KV heads in every layer: 2 x {layers} x {heads} x {dim} numbers",
         f"x {size} bytes = {answer:,} bytes = {_token(model, size)}"],
        [(answer * model.query_heads / heads, "all query heads instead of the KV heads"),
         (answer / 2, "you counted K and forgot V"), (answer / layers, "that is one layer"),
         (8 * answer, "bits, not bytes"), (answer / size, f"so many numbers, and each takes {size} bytes")],
    )  # fmt: skip


def mla_context(rng: random.Random) -> Drawn:
    """One compressed vector for each token and layer."""
    model, size, tokens = _model(rng, "DeepSeek-V3"), rng.choice((1, 2)), 1000 * rng.randint(2, 64)
    rank, rope, answer = model.kv_lora_rank, model.rope_head_dim, model.kv_bytes(tokens, size)
    every_head = tokens * kv_bytes_per_token(model.layers, model.query_heads, model.head_dim, size)
    return Drawn(
        f"{model.name} (MLA) caches one vector of {rank} + {rope} numbers for each token and layer; it has "
        f"{model.layers} layers. How many MB does a context of {tokens:,} tokens take in {FORMATS[size]}?",
        answer,
        ["one vector serves as K and V, and all heads share it",
         f"{tokens:,} x {model.layers} x ({rank} + {rope}) x {size} bytes = {shown(answer, 'MB')}"],
        [(2 * answer, "no factor of two: the one vector is K and V at once"),
         (answer * rank / (rank + rope), f"the {rope} numbers that carry the position are missing"),
         (every_head, "that is without MLA: K and V for every head"),
         (answer / model.layers, "that is one layer")],
    )  # fmt: skip


def requests_that_fit(rng: random.Random) -> Drawn:
    """How many long requests fit beside the weights."""
    gpu = load_presets()[1][rng.choice(("NVIDIA A100 80GB SXM", "NVIDIA L40S", "NVIDIA H200 SXM 141GB"))]
    model = _model(rng, "Llama-2-7B", "Mistral-7B-v0.3", "Llama-3.1-8B")
    budget = Budget(model, gpu, context_len=1024 * rng.choice((4, 8, 16, 32)), batch=1, bytes_per_number=2)
    usable, weights, each = budget.usable_bytes, budget.weight_bytes, budget.bytes_per_request
    answer, room = budget.requests_that_fit, shown(usable - weights, "GB")
    return Drawn(
        f"A GPU of {gpu.memory_gb:g} GB, {USABLE:.0%} of it usable; {shown(weights, 'GB')} of weights; "
        f"a token takes {_token(model)} of KV cache. How many requests of {budget.context_len:,} tokens fit?",
        answer,
        [f"room: {shown(usable, 'GB')} - {shown(weights, 'GB')} = {room}",
         f"each: {budget.context_len:,} x {_token(model)} = {shown(each, 'GB')}",
         f"{room} / {shown(each, 'GB')}, whole requests: {answer}"],
        [(usable // each, "you forgot the weights"),
         ((usable - weights) // (each / 2), "you counted K and forgot V"),
         ((gpu.memory_gb * 1e9 - weights) // each, f"only {USABLE:.0%} of the memory is usable"),
         (answer * budget.context_len, "that is how many tokens fit")],
    )  # fmt: skip


# -- blocks and slots ---------------------------------------------------------------------------------------


def _table(num_tokens: int, block_size: int) -> BlockTable:
    table = BlockTable(BlockPool(-(-num_tokens // block_size), block_size))
    table.extend(num_tokens)
    return table


def internal_waste(rng: random.Random) -> Drawn:
    """Empty slots behind the last token."""
    size, tokens = rng.choice((8, 16, 32)), rng.randint(20, 900)
    blocks = len(_table(tokens, size).block_ids)
    held = blocks * size
    return Drawn(
        f"A sequence has {tokens} tokens in blocks of {size}. How many slots does it hold and not use?",
        held - tokens,
        [f"ceil({tokens} / {size}) = {blocks} blocks = {held} slots", f"{held} - {tokens} = {held - tokens}"],
        [(tokens % size, "that is how many tokens the last block holds"), (held, "that is how many it holds"),
         (size, "a last block that is full wastes nothing"), (blocks, "that is how many blocks it holds")],
    )  # fmt: skip


def slabs_and_blocks(rng: random.Random) -> Drawn:
    """What paging wins in the same memory."""
    size, slab, tokens = 16, 2048, rng.randint(100, 900)
    num_slots = slab * rng.randint(3, 12)

    def running(name: str) -> int:
        allocator = make_allocator(name, num_slots, max_len=slab, block_size=size, watermark=0.0)
        request = Request(arrival_time=0.0, prompt_len=tokens, output_len=1)
        return sum(allocator.admit(key, request, tokens) for key in range(num_slots // tokens + 1))

    slabs, paged, each = running("reserve_max"), running("paged"), -(-tokens // size)
    return Drawn(
        f"{num_slots:,} slots of KV cache; every request has {tokens} tokens and may grow to {slab:,}. "
        f"How many more requests fit now in blocks of {size}, with no watermark, than in slabs of {slab:,}?",
        paged - slabs,
        [f"slabs: {num_slots:,} / {slab:,} = {slabs}", f"a request: ceil({tokens} / {size}) = {each} blocks",
         f"{num_slots:,} / {size} = {num_slots // size:,} blocks, / {each} = {paged}: {paged - slabs} more"],
        [(paged, "that is how many fit in blocks: how many more?"), (slabs, "that is how many fit in slabs"),
         (num_slots // tokens - slabs, "a request holds whole blocks: round up")],
    )  # fmt: skip


def slot_of(rng: random.Random) -> Drawn:
    """From a position to a slot."""
    size = rng.choice((4, 8, 16))
    pool = BlockPool(num_blocks=16, block_size=size)
    for block in rng.sample([pool.allocate() for _ in range(16)], 16):
        pool.free(block)  # in another order, so that the next table is scattered
    table = BlockTable(pool)
    table.extend(rng.randint(3 * size, 5 * size))
    scattered = [each for each in range(size, table.num_tokens) if each % size and table.slot(each) != each]
    if not scattered:  # the blocks lie in order, after all
        return slot_of(rng)
    position = rng.choice(scattered)
    (index, offset), answer = divmod(position, size), table.slot(position)
    block = table.block_ids[index]
    return Drawn(
        f"Blocks of {size} slots, block table {table.block_ids}. "
        f"In which slot is the token at position {position}?",
        answer,
        [f"{position} // {size} = {index}: block {block}; {position} % {size} = {offset}: its offset",
         f"{block} x {size} + {offset} = {answer}"],
        [(position, "that is the position: follow the table"), (block, "that is its block"),
         (block * size, "there its block begins: add the offset"),
         (block + offset, f"a block is {size} slots: block x {size}, then the offset"),
         (answer + 1, "positions and slots begin at 0"), (answer - 1, "positions and slots begin at 0")],
    )  # fmt: skip


def blocks_for_prompts(rng: random.Random) -> Drawn:
    """Blocks that a few prompts take."""
    size, lengths = rng.choice((8, 16, 32)), [rng.randint(5, 300) for _ in range(3)]
    each = [len(_table(tokens, size).block_ids) for tokens in lengths]
    parts = [f"ceil({tokens} / {size}) = {blocks}" for tokens, blocks in zip(lengths, each, strict=True)]
    return Drawn(
        f"Three prompts that share nothing, of {lengths[0]}, {lengths[1]} and {lengths[2]} tokens. "
        f"How many blocks of {size} do they take?",
        sum(each),
        [", ".join(parts), f"{' + '.join(map(str, each))} = {sum(each)}"],
        [(-(-sum(lengths) // size), "no block holds tokens of two requests: round up for each"),
         (sum(tokens // size for tokens in lengths), "a block that is partly filled is taken: round up"),
         (sum(each) * size, "that is how many slots")],
    )  # fmt: skip


def block_table_bytes(rng: random.Random) -> Drawn:
    """The block tables of a batch."""
    size, batch, tokens = rng.choice((16, 32)), rng.choice((32, 64, 128, 256)), 1000 * rng.randint(4, 40)
    entries = len(_table(tokens, size).block_ids)
    answer = 4 * batch * entries
    return Drawn(
        f"{batch} sequences of {tokens:,} tokens, blocks of {size}, block ids in int32. "
        "How many KB do the block tables take?",
        answer,
        [f"ceil({tokens:,} / {size}) = {entries:,} entries for each",
         f"{batch} x {entries:,} x 4 bytes = {answer:,} bytes = {shown(answer, 'KB')}"],
        [(2 * answer, "8 bytes are an int64: an int32 takes 4"), (answer / batch, "that is one sequence"),
         (answer / 4, "so many entries, and each takes 4 bytes"),
         (size * answer, "an entry for each block, not for each token")],
    )  # fmt: skip


def slab_utilisation(rng: random.Random) -> Drawn:
    """How much of a slab is ever used."""
    slab, prompt, output = 1024 * rng.choice((2, 4, 8)), rng.randint(50, 900), rng.randint(50, 900)
    answer = (prompt + output) / slab
    return Drawn(
        f"A slab of {slab:,} slots, a prompt of {prompt} tokens, and the answer ends after {output}. "
        "What share of the slab holds tokens then, in percent?",
        answer,
        [f"({prompt} + {output}) / {slab:,} = {shown(answer, '%')}"],
        [(1 - answer, "that is the waste"), (prompt / slab, "the answer's tokens are in the slab, too"),
         (output / slab, "the prompt is in the slab, too")],
    )  # fmt: skip


# -- sharing ------------------------------------------------------------------------------------------------


def _shared_prompt(rng: random.Random) -> tuple[int, int, int, int, str]:
    """Users on a pool that caches prefixes: block size, users, prompt, tokens found in all, the text."""
    size, users, prompt = rng.choice((16, 32)), rng.randint(5, 60), rng.randint(100, 900)
    pool, found = BlockPool((users + 1) * (prompt // size + 2), size, enable_prefix_caching=True), 0
    for user in range(users):
        token_ids, table = [*range(prompt), -1 - user], BlockTable(pool)
        found += table.adopt_prefix(token_ids)
        table.extend(len(token_ids) - table.num_tokens)
        table.remember(token_ids)
    told = f"{users} users at once share a system prompt of {prompt} tokens, and each adds a question. "
    told += f"Blocks of {size}, prefix caching; the first one's prefill is done. "
    return size, users, prompt, found, told


def prefix_tokens(rng: random.Random) -> Drawn:
    """Tokens of a shared prompt that need no computing."""
    size, users, prompt, found, told = _shared_prompt(rng)
    full = prompt // size * size
    return Drawn(
        told + "How many tokens of prompt are not computed?",
        found,
        [f"full blocks: {prompt} // {size} = {prompt // size}, so {full} tokens",
         f"all users but the first: {users - 1} x {full} = {found:,}"],
        [(users * full, "the first user computes them"), ((users - 1) * prompt, "only full blocks are found"),
         (users * prompt, "the first user computes them, and only full blocks are found"),
         (full, "that is one user")],
    )  # fmt: skip


def prefix_blocks(rng: random.Random) -> Drawn:
    """Blocks that sharing saves."""
    size, users, prompt, found, told = _shared_prompt(rng)
    full, answer = prompt // size, found // size
    return Drawn(
        told + "How many blocks fewer than without sharing do they hold?",
        answer,
        [f"{prompt} // {size} = {full} full blocks, which exist once", f"{users - 1} x {full} = {answer:,}"],
        [(users * full, "once they must exist"), (full, "that is one user"),
         (found, "that is how many tokens"),
         ((users - 1) * -(-prompt // size), "a block that is partly filled is not found")],
    )  # fmt: skip


def fork_copies(rng: random.Random) -> Drawn:
    """Blocks that are copied when samples part."""
    size, samples = 16, rng.randint(2, 8)
    prompt = rng.choice((rng.randint(20, 300), rng.randint(20, 300), size * rng.randint(2, 18)))
    first = BlockTable(BlockPool(prompt // size + 2 + samples, size))
    first.extend(prompt)
    blocks, tables = len(first.block_ids), [first, *(first.fork() for _ in range(samples - 1))]
    answer = sum(len(table.append().copies) for table in tables)
    reason = "all but the last writer copy it" if answer else "a full block is never written again"
    return Drawn(
        f"A prompt of {prompt} tokens in blocks of {size} is forked into {samples} samples; nobody else "
        "holds it. Each writes its first token. How many blocks are copied?",
        answer,
        [f"{prompt} % {size} = {prompt % size}: the last block is {'partly filled' if answer else 'full'}",
         f"{reason}: {answer}"],
        [(samples, "the last one is alone with the block, and writes in place"),
         (samples - 1, "the last block is full: nobody writes into it"),
         (samples * blocks, "only a block that is written is copied, and not the prompt"),
         ((samples - 1) * blocks, "only a block that is written is copied, and not the prompt")],
    )  # fmt: skip


# -- the kernel ---------------------------------------------------------------------------------------------


def int32_overflow(rng: random.Random) -> Drawn:
    """The first block whose offset does not fit."""
    size, heads, dim = rng.choice((16, 32)), rng.choice((1, 4, 8, 16)), rng.choice((64, 80, 96, 128))
    each = size * heads * dim
    answer = -(-(2**31) // each)
    return Drawn(
        f"A kernel computes block id x elements of a block in int32. The K of one layer: blocks of {size} "
        f"slots, {heads} KV head{'s' * (heads > 1)} of {dim}. Which is the first block that overflows?",
        answer,
        [f"elements of a block: {size} x {heads} x {dim} = {each:,}", f"ceil(2^31 / {each:,}) = {answer:,}"],
        [(-(-(2**32) // each), "int32 has a sign: 2^31, not 2^32"),
         (answer - 1, "that is the last one that fits"),
         (-(-(2**30) // each), "an offset counts elements here, not bytes"),
         (-(-(2**31) // (heads * dim)), "that is the slot: a block has several")],
    )  # fmt: skip


def merge_of_two(rng: random.Random) -> Drawn:
    """Two partial states of a softmax become one."""
    sum_a, sum_b = rng.choice(((1, 3), (3, 1), (1, 4), (4, 1), (2, 3), (3, 2), (1, 9), (2, 8)))
    (out_a, out_b), total = rng.sample(range(1, 21), 2), sum_a + sum_b
    merged, _ = merge_states(
        *(torch.tensor([[float(out_a)]]), torch.tensor([math.log(sum_a)])),
        *(torch.tensor([[float(out_b)]]), torch.tensor([math.log(sum_b)])),
    )
    answer = round(merged.item(), 4)
    return Drawn(
        f"Two splits of one context, with the same maximum. A: its exponentials add up to {sum_a}, its "
        f"output is {out_a}. B: they add up to {sum_b}, its output is {out_b}. What is the merged output?",
        answer,
        [f"an output weighs as much as its sum: {sum_a} and {sum_b} of {total}",
         f"({sum_a} x {out_a} + {sum_b} x {out_b}) / {total} = {answer:g}"],
        [((out_a + out_b) / 2, "not the plain mean: an output weighs as much as its sum"),
         ((sum_b * out_a + sum_a * out_b) / total, "the weights are the other way round"),
         (out_a + out_b, "outputs are normalised: they do not add up"),
         (answer * total, f"divide by {total}, the sum of both")],
    )  # fmt: skip


def num_splits(rng: random.Random) -> Drawn:
    """Splits that fill the multiprocessors."""
    batch, heads, processors = rng.choice((1, 2, 3, 4)), rng.choice((2, 4, 8)), rng.choice((108, 132))
    context, tile, programs = 1024 * rng.choice((2, 4, 16, 32)), 64, batch * heads
    answer = choose_num_splits(programs, context, tile, processors)
    wanted, most = 2 * processors // programs, context // (4 * tile)
    return Drawn(
        f"Decode of {batch} sequence{'s' * (batch > 1)} of {context:,} tokens, {heads} KV heads, on "
        f"{processors} multiprocessors. Each multiprocessor should get two programs (round down), and a split "
        f"has at least four tiles of {tile} tokens. Into how many splits is each sequence cut?",
        answer,
        [f"programs without splits: {batch} x {heads} = {programs}",
         f"2 x {processors} // {programs} = {wanted}; at most {context:,} / (4 x {tile}) = {most}: {answer}"],
        [(wanted, "you forgot the tiles: the context is too short for so many, at four tiles a split"),
         (most, "so many the tiles allow, and fewer fill the GPU"),
         (2 * processors // batch, "each KV head is a program of its own"),
         (processors // programs, "each multiprocessor should get two programs")],
    )  # fmt: skip


# -- serving ------------------------------------------------------------------------------------------------


def _decode(rng: random.Random) -> tuple[int, int, int, list[str], str]:
    """A decode step: its batch, the bytes of weights and of cache, how one gets them, the text."""
    model, batch = _model(rng, "Llama-3.1-8B", "Mistral-7B-v0.3"), rng.choice((8, 16, 32, 64))
    context, billions = 1000 * rng.randint(1, 4), f"{model.parameters / 1e9:.1f}"
    weights, cache = 2 * model.parameters, batch * model.kv_bytes(context, 2)
    working = [f"weights: 2 bytes x {billions} billion = {shown(weights, 'GB')}, once for the whole batch",
               f"cache: {batch} x {context:,} x {_token(model)} = {shown(cache, 'GB')}"]  # fmt: skip
    told = (
        f"{model.name} in bf16 has {billions} billion parameters and {_token(model)} of KV cache a token. It "
    )
    told += f"decodes a batch of {batch} at a context of {context:,}. "
    return batch, weights, cache, working, told


def step_time(rng: random.Random) -> Drawn:
    """The least time of a decode step: what it reads, over the bandwidth."""
    batch, weights, cache, working, told = _decode(rng)
    gpu = load_presets()[1][
        rng.choice(("NVIDIA A100 80GB SXM", "NVIDIA H100 SXM 80GB", "NVIDIA H200 SXM 141GB"))
    ]
    rate, read = gpu.bandwidth_gb_s * 1e9, weights + cache
    return Drawn(
        told + f"The GPU reads {gpu.bandwidth_gb_s:,.0f} GB/s. How many ms does a step take at least?",
        read / rate,
        [*working, f"{shown(read, 'GB')} / {gpu.bandwidth_gb_s:,.0f} GB/s = {shown(read / rate, 'ms')}"],
        [((batch * weights + cache) / rate, "the weights are read once for the whole batch"),
         (weights / rate, "the cache is read, too"), (cache / rate, "the weights are read, too"),
         ((weights + cache / batch) / rate, "that is the cache of one sequence: each reads its own")],
    )  # fmt: skip


def decode_intensity(rng: random.Random) -> Drawn:
    """Operations for each byte that is read."""
    batch, weights, cache, working, told = _decode(rng)
    flops, read = weights * batch, weights + cache  # two operations for each parameter, which takes two bytes
    return Drawn(
        told + "Count a multiply and an add for each parameter and sequence. How many FLOP for a byte read?",
        flops / read,
        [*working, f"2 FLOP x parameters x {batch} = {flops / 1e9:,.0f}e9 FLOP",
         f"{flops / 1e9:,.0f} / {read / 1e9:.1f} = {shown(flops / read, 'FLOP/byte')}"],
        [(batch, "the cache is read, too"), (flops / read / 2, "a multiply and an add are two operations"),
         (flops / read / batch, "a weight that is read serves the whole batch")],
    )  # fmt: skip


def swap_or_recompute(rng: random.Random) -> Drawn:
    """What a preempted sequence costs, the cheaper way."""
    model, size = _model(rng, "OPT-13B", "Llama-3.1-8B", "Llama-2-7B"), 16
    tokens, prefill, link = (
        size * rng.randint(40, 250),
        1000 * rng.choice((5, 10, 20, 40)),
        rng.choice((16, 25, 50)),
    )
    times = recompute_or_swap(tokens, size, model.kv_bytes(1, 2), prefill, link * 1e9, seconds_per_copy=0.0)
    recompute, swap = times
    return Drawn(
        f"A sequence of {tokens:,} tokens is preempted; a token takes {_token(model)}. The link to the host "
        f"carries {link} GB/s, prefill makes {prefill:,} tokens/s. How many ms does the cheaper of swap and "
        "recompute take?",
        min(times),
        [f"recompute: {tokens:,} / {prefill:,} = {shown(recompute, 'ms')}",
         f"swap, out and in: 2 x {tokens:,} x {_token(model)} / {link} GB/s = {shown(swap, 'ms')}",
         f"the cheaper: {shown(min(times), 'ms')}"],
        [(max(times), "that is the dearer one"), (swap / 2, "what is swapped out must come back in: twice")],
    )  # fmt: skip


def tensor_parallel_kv(rng: random.Random) -> Drawn:
    """A token's bytes on each of several GPUs."""
    model, gpus = _model(rng, "Llama-3.1-70B", "Llama-3.1-405B", "Qwen3-32B"), rng.choice((2, 4, 8, 16))
    heads = len(split(model.kv_heads, min(gpus, model.kv_heads))[0])
    answer, whole = kv_bytes_per_token(model.layers, heads, model.head_dim, 2), model.kv_bytes(1, 2)
    reason = "no KV head is cut: several GPUs hold the same" if gpus > model.kv_heads else "heads are divided"
    return Drawn(
        f"{model.name}: {model.layers} layers, {model.kv_heads} KV heads of {model.head_dim}, bf16, tensor "
        f"parallel over {gpus} GPUs. How many KiB of KV cache does a token take on each?",
        answer,
        [f"{reason}, layers are not: {heads} KV head{'s' * (heads > 1)} on each GPU",
         f"2 x {model.layers} x {heads} x {model.head_dim} x 2 bytes = {shown(answer, 'KiB')}"],
        [(whole / gpus, "no KV head is cut: with more GPUs than KV heads, several hold the same"),
         (whole, "that is all GPUs together"), (answer / 2, "you counted K and forgot V")],
    )  # fmt: skip


KINDS = (
    Kind("screen", "01", "KiB", ROUNDED, kv_per_token),
    Kind("expert", "01", "MB", ROUNDED, mla_context),
    Kind("onsite", "01", "requests", ESTIMATE, requests_that_fit),
    Kind("screen", "03", "slots", EXACT, internal_waste),
    Kind("onsite", "02", "requests", EXACT, slabs_and_blocks),
    Kind("screen", "03", "slot", EXACT, slot_of),
    Kind("screen", "03", "blocks", EXACT, blocks_for_prompts),
    Kind("onsite", "04", "KB", ROUNDED, block_table_bytes),
    Kind("screen", "02", "%", PERCENT, slab_utilisation),
    Kind("onsite", "08", "tokens", EXACT, prefix_tokens),
    Kind("onsite", "08", "blocks", EXACT, prefix_blocks),
    Kind("onsite", "08", "blocks", EXACT, fork_copies),
    Kind("expert", "05", "block", EXACT, int32_overflow),
    Kind("expert", "06", "", 0.01, merge_of_two),
    Kind("expert", "06", "splits", EXACT, num_splits),
    Kind("onsite", "07", "ms", ESTIMATE, step_time),
    Kind("onsite", "07", "FLOP/byte", ESTIMATE, decode_intensity),
    Kind("expert", "07", "ms", ESTIMATE, swap_or_recompute),
    Kind("onsite", "09", "KiB", ROUNDED, tensor_parallel_kv),
)
