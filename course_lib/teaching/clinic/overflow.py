"""Where a block begins is counted in 32 bits: in a large cache the count wraps."""

import math

import torch

from course_lib.attention.dense import attend_one
from course_lib.serving import LLMEngine
from course_lib.serving.kv_cache import positions_of
from course_lib.teaching.clinic.case import Case, Cause, Trial
from course_lib.teaching.clinic.hearing import first_wrong_word, misheard, transcript
from course_lib.teaching.clinic.ward import Patient, make_engine


def sick(block_ids, block_size, num_kv_heads, head_dim):
    """Where each block begins in the cache, counted in numbers (not bytes): [M] int32 -> [M]."""
    slot = num_kv_heads * head_dim  # numbers in one slot
    return block_ids * (block_size * slot)


def solution(block_ids, block_size, num_kv_heads, head_dim):
    """Where each block begins in the cache, counted in numbers (not bytes): [M] int32 -> [M]."""
    slot = num_kv_heads * head_dim  # numbers in one slot
    return block_ids.long() * (block_size * slot)


class Memory:
    """A cache of any size, of which only the blocks that were ever written are kept.

    It is read at any place, as memory is: what lies there may be parts of two blocks, or nothing.
    """

    def __init__(self, block_size: int, num_kv_heads: int, head_dim: int):
        self.shape = block_size, num_kv_heads, head_dim
        self.blocks: dict[int, torch.Tensor] = {}
        self.nothing = torch.zeros(self.shape)

    def write(self, block: int, offset: int, token: torch.Tensor) -> None:
        """A token's keys or values, [Hkv, D], into a slot of a block."""
        self.blocks.setdefault(block, torch.zeros(self.shape))[offset] = token

    def read(self, begin: int) -> torch.Tensor:
        """As many numbers as a block has, from a place on: [P, Hkv, D]."""
        block, rest = divmod(begin, self.nothing.numel())
        two = torch.cat([self.blocks.get(block + n, self.nothing) for n in (0, 1)]).flatten()
        return two[rest : rest + self.nothing.numel()].view(self.shape)


def make_patient(block_offsets, first_block: int, **settings) -> Patient:
    """An engine whose block 0 is block `first_block` of the machine's cache. Those before are another's.

    Tokens are written with Python's whole numbers, and read where the given function says.
    """

    class Store:
        def __init__(self, config, allocator):
            self.config, self.allocator = config, allocator
            shape = allocator.pool.block_size, config.num_kv_heads, config.head_dim
            self.keys, self.values = Memory(*shape), Memory(*shape)

        def begin_step(self, runs, copies=()):
            self.runs = runs
            return positions_of(runs)

        def attend(self, layer, query, key, value):
            out, (size, *heads) = torch.empty_like(query), self.keys.shape
            for run in self.runs:
                rows, length = slice(run.start, run.stop), run.context_len
                table = [first_block + block for block in self.allocator.tables[run.sequence].block_ids]
                for row, position in enumerate(range(length - run.num_new, length), start=run.start):
                    block, offset = table[position // size], position % size
                    self.keys.write(block, offset, key[row])
                    self.values.write(block, offset, value[row])
                block_ids = torch.tensor(table, dtype=torch.int32)
                begins = [int(begin) for begin in block_offsets(block_ids, size, *heads)]
                keys, values = (
                    torch.cat([memory.read(begin) for begin in begins])[:length]
                    for memory in (self.keys, self.values)
                )
                out[rows] = attend_one(query[rows], keys, values)
            return out

    class Engine(LLMEngine):
        def __init__(self, model, tokenizer, **arguments):
            super().__init__(model, tokenizer, **arguments)
            self.store = Store(model.config, self.allocator)

    return Patient(make_engine(kind=Engine, block_size=16, **settings))


FIRST_BLOCK = 699_039  # of 16 x 4 x 48 numbers: 2**31 numbers end in block 699,050
LATE_BLOCK = 1_398_100  # 2**32 numbers end in the next
PROMPTS = {
    "hal": "hal never has cake with green tea today",
    "ann": "please copy the short page of the old book " * 3 + "ann likes red tea and bob likes milk",
    "bob": "cid has a warm and green garden here " * 4 + "bob says the old house has a door",
    "cid": "read and answer with one word or two from your book : " * 3 + "cid sees the blue river",
    "dot": "dot never keeps a short secret from me " * 2 + "and keeps your letter in our black book",
    "eve": "eve asks for the small key to table nine and wants tea",
    "fay": "today fay wants warm bread and cold water always",
    "gus": "please read page two and answer in one sentence only : gus sees the big river from our garden",
}
NUM_WORDS = 4


def admit(block_offsets) -> Patient:
    """Eight users on the big machine."""
    patient = make_patient(block_offsets, FIRST_BLOCK, num_blocks=24)
    for name, prompt in PROMPTS.items():
        patient.ask(name, prompt, NUM_WORDS)
    patient.run()
    return patient


def first_block_read_wrongly(patient: Patient) -> int:
    """The first block of those who were told something wrong, that nobody has who was told what is right."""
    wrong, right = set(), set()
    for tick in patient.ticks:
        for name, blocks in tick.tables.items():
            slip = first_wrong_word(patient, name, PROMPTS[name], NUM_WORDS)
            (right if slip is None else wrong).update(blocks)
    return min(wrong - right)


# -- trials ---------------------------------------------------------------------------------------------------


def big_machine(block_offsets) -> str | None:
    return misheard(admit(block_offsets), PROMPTS, NUM_WORDS)


def other_machines(block_offsets) -> str | None:
    for first_block in (0, LATE_BLOCK):
        patient = make_patient(block_offsets, first_block, num_blocks=24)
        for name, prompt in PROMPTS.items():
            patient.ask(name, prompt, NUM_WORDS)
        patient.run()
        if fault := misheard(patient, PROMPTS, NUM_WORDS):
            return f"our blocks begin at {first_block:,} of the machine's: {fault}"
    return None


SHAPES = [(16, 8, 128), (1, 5, 80), (5, 3, 80), (32, 2, 64)]  # of a block: slots, KV heads, head_dim


def other_models(block_offsets) -> str | None:
    block_ids = [0, 1, 7, 5001, 131_071, 131_072, 2_147_483, 2_147_483_647]
    for shape in SHAPES:
        found = block_offsets(torch.tensor(block_ids, dtype=torch.int32), *shape)
        if len(found) != len(block_ids):
            return f"{len(block_ids)} blocks, and {len(found)} places"
        for block, begin in zip(block_ids, found, strict=True):
            if begin != block * math.prod(shape):
                right = f"{block * math.prod(shape):,}"
                which = f"block {block:,} of {' x '.join(map(str, shape))}"
                return f"{which} begins at {right}, not {int(begin):,}"
    return None


CASE = Case(
    name="overflow",
    title="Only on the big machine",
    minutes=6,
    difficulty="medium",
    ticket="The same build, the same prompts: on the small machine all is well. On the big one some are "
    "told nonsense from the first word on, each time they ask; others are well. Its cache has 800,000 "
    "blocks of 16 tokens, 4 KV heads and 48 numbers a head. Our engine has 24 of them: our block 0 is "
    f"block {FIRST_BLOCK:,} of the machine. Those before it belong to the nightly batch, which was stopped "
    "for this test. No error in the log, and the memory test finds nothing.",
    causes={
        "a": Cause(
            "A block is in two tables: users write over each other.",
            "patient.tables(step) shows every block in one table, and patient.block(number) a count of 1 "
            "at most.",
        ),
        "b": Cause(
            "The place of a block in the cache is a number too large for its type, from a certain block on.",
            "All blocks below one number are read well, all from there on are not, and this block is the "
            "first that begins beyond 2,147,483,647, the largest number of 32 bits: 2**31 / (16 x 4 x 48) "
            "= 699,050.67.",
        ),
        "c": Cause(
            "Short prompts, of a single block, are read wrongly.",
            "hal's prompt has a single block, and he is answered well. gus' has two, and he is not.",
        ),
        "d": Cause(
            "The batch engine has left its numbers in our blocks.",
            "Whatever lies in a block when it is handed out, prompts are written over it before anything "
            "is read. And leftovers would not respect a border: here the blocks below one number are all "
            "well.",
        ),
    },
    cause="b",
    asks="the lowest number of a block that nobody has who is answered well, and somebody who is not",
    evidence=first_block_read_wrongly,
    where="patient.tables(0): which blocks have those who are answered well, and which those who are not? "
    "Between the two is a border. Count the numbers that lie before it in the machine's cache",
    points=(
        "the number of a block fits into 32 bits with ease, the number of its first element does not: "
        "131,072 blocks of 16 x 8 x 128 are 2**31;",
        "int32 times a Python number stays int32, and wraps without a word: cast before you multiply;",
        "no test on a small machine can find it: the test needs large block numbers, not a large memory.",
    ),
    sick=sick,
    solution=solution,
    admit=admit,
    shows=lambda patient: transcript(patient, PROMPTS, NUM_WORDS),
    trials=(
        Trial(
            "the big machine",
            big_machine,
            "print the result for blocks 699,050 and 699,051, with its dtype. In which type is the "
            "product computed?",
        ),
        Trial(
            "the small machine, and a larger one",
            other_machines,
            "32 bits without a sign end at 4,294,967,295, and a correction for one wrap is wrong after "
            "the next",
        ),
        Trial(
            "blocks of other models",
            other_models,
            "every number must be exact: float32 has 24 bits for it, int64 has 63",
        ),
    ),
    hints=(
        "How large may a number of 32 bits be, and how many numbers lie before block 699,051?",
        "make the block numbers int64 first, then multiply",
        "    return block_ids.long() * (block_size * slot)",
    ),
    proves="blocks are found wherever they lie, in a cache of any size.",
)
