"""Copy-on-write forgotten: two samples of one prompt write into the block that they share."""

from course_lib.memory import PagedAllocator
from course_lib.memory.allocators import check_end
from course_lib.serving import LLMEngine
from course_lib.teaching.clinic.case import Case, Cause, Trial
from course_lib.teaching.clinic.ward import Patient, make_engine


def sick(table, num_tokens):
    """Make room for more tokens at the end of a text. Returns the blocks to copy first, as (source, destination).

    Of table.pool: allocate(), ref_count(block_id), free(block_id).
    """
    grown, copies = table.num_tokens + num_tokens, []
    while len(table.block_ids) * table.pool.block_size < grown:
        table.block_ids.append(table.pool.allocate())
    table.num_tokens = grown
    return copies


def solution(table, num_tokens):
    """Make room for more tokens at the end of a text. Returns the blocks to copy first, as (source, destination)."""
    grown, copies = table.num_tokens + num_tokens, []
    if table.must_copy():  # the last block is partly filled, and another sequence uses it, too
        shared, own = table.block_ids[-1], table.pool.allocate()
        table.pool.free(shared)
        table.block_ids[-1] = own
        copies.append((shared, own))
    while len(table.block_ids) * table.pool.block_size < grown:
        table.block_ids.append(table.pool.allocate())
    table.num_tokens = grown
    return copies


def make_patient(extend, **settings) -> Patient:
    """An engine whose tables grow with the given function; `engine.num_copies` counts the blocks that it copies."""

    class Paging(PagedAllocator):
        num_copies = 0

        def grow(self, key, num_tokens=1):
            table = self.tables[key]
            check_end(key, self.requests[key], table.num_tokens, num_tokens)
            copies = extend(table, num_tokens)
            self.num_copies += len(copies)
            return copies

    class Engine(LLMEngine):
        @property
        def num_copies(self):
            return self.allocator.num_copies

    return Patient(make_engine(kind=Engine, paging=Paging, **settings))


NUM_BLOCKS, BLOCK_SIZE, NUM_WORDS = 60, 4, 16
# Two samples of each. The first word of an answer is a dish: eight words before it stands the `?`.
ORDERS = {
    "ann": "ann asks for ? and water and a table for two",
    "bob": "tonight bob asks for ? and tea at a table for one",
    "cid": "cid wants ? with milk and the small red table",
    "dot": "dot asks for a warm ? and wine for the old house today",
}
ALONE = "eve keeps the key of the garden door"  # one sample, and nothing to draw


def admit(extend) -> Patient:
    """An evening: four have two answers to choose from, eve has one."""
    patient = make_patient(extend, num_blocks=NUM_BLOCKS, block_size=BLOCK_SIZE)
    for name, order in ORDERS.items():
        patient.ask(name, order, NUM_WORDS, n=2, temperature=1.0)
    patient.ask("eve", ALONE, NUM_WORDS)
    patient.run()
    return patient


def torn_blocks(patient: Patient) -> list[int]:
    """The partly filled blocks that two samples still share when both have written their first word."""
    tables, found = patient.ticks[1].tables, set()
    for name in ORDERS:
        last, filled = divmod(len(patient.prompts[name].split()), BLOCK_SIZE)
        if filled:
            found |= {tables[name][last]} & {tables[f"{name}/1"][last]}
    return sorted(found)


def shows(patient: Patient) -> str:
    """Who asked what, and what each sample said."""
    lines = []
    for name, order in patient.prompts.items():
        lines.append(f"{name:<4} asks       {order}")
        lines += [f"     sample {n}   {patient.said(name, n)}" for n in range(len(patient.outputs[name]))]
    return "\n".join(lines)


# -- trials ---------------------------------------------------------------------------------------------------


def one_dish(extend) -> str | None:
    patient = admit(extend)
    if patient.crash:
        return patient.trouble()
    for name in ORDERS:
        for sample in range(2):
            dish, *others = patient.said(name, sample).split()[::8]  # a parrot begins anew every eight words
            if others and others[0] != dish:
                return f"sample {sample} of {name} orders {dish}, and eight words later speaks of {others[0]}"
    return None


def memory(extend) -> str | None:
    """Full blocks of the prompt once, and for each sample what comes behind them."""
    for name, order in ORDERS.items():
        patient = make_patient(extend, num_blocks=NUM_BLOCKS, block_size=BLOCK_SIZE)
        patient.ask(name, order, 6, n=3, temperature=1.0)
        patient.run()
        length = len(order.split())
        shared = length // BLOCK_SIZE
        for tick in patient.ticks[1:-1]:
            held = NUM_BLOCKS - tick.num_free
            needed = shared + 3 * (-(-(length + tick.step) // BLOCK_SIZE) - shared)
            if held > needed:
                return f"three samples of {name}, {length} words and {tick.step}: {held} blocks, and {needed} would do"
    return None


def number_of_copies(extend) -> str | None:
    for name, order, samples, needed in (
        ("eve", ALONE + " here", 1, 0), ("bob", ORDERS["bob"], 3, 0), ("ann", ORDERS["ann"], 3, 2),
    ):  # fmt: skip
        patient = make_patient(extend, num_blocks=NUM_BLOCKS, block_size=BLOCK_SIZE)
        patient.ask(name, order, 6, n=samples, temperature=1.0)
        patient.run()
        if patient.engine.num_copies != needed:
            who = f"{name}, {len(order.split())} words, samples: {samples}"
            return f"{who}: {patient.engine.num_copies} blocks are copied, {needed} would do"
    return None


def wrong_count(patient: Patient) -> str | None:
    """A block whose count is not the number of tables that name it, in words, or None."""
    for tick in patient.ticks:
        for block, count in enumerate(tick.ref_counts):
            named = sum(block in blocks for blocks in tick.tables.values())
            if count != named:
                return f"after step {tick.step} block {block} has count {count}, and {named} tables name it"
    return None


def pool_runs_out(extend) -> str | None:
    """No block is free when one must be copied; in the second pool eve is done a step later, and some are."""
    for num_blocks, samples, eve in ((5, 4, ""), (7, 2, "please be kind with me today : " + ALONE)):
        patient = make_patient(extend, num_blocks=num_blocks, block_size=BLOCK_SIZE)
        if eve:
            patient.ask("eve", eve, 2)
        patient.ask("ann", ORDERS["ann"], 9, n=samples, temperature=1.0)
        patient.run()
        if fault := patient.trouble() or wrong_count(patient):
            return f"samples: {samples}, blocks: {num_blocks}: {fault}"
    return None


CASE = Case(
    name="forgotten_copy",
    title="She ordered rice",
    minutes=8,
    difficulty="medium",
    ticket="Who asks for two answers to choose from may get a strange one: it orders one dish, and eight "
    "words later speaks of another. It is always the dish of the other sample. Not everybody: bob's two "
    "answers are right every time, and who asks for one answer is never hit. Sampling has been looked at: "
    "the first words are drawn as they should be.",
    causes={
        "a": Cause(
            "The dice: both samples draw with the same seed, and get in each other's way.",
            "Each sample has its own first dish, and keeps it for seven words. Only what is read back is "
            "wrong.",
        ),
        "b": Cause(
            "The two samples share no blocks but should, and the second is computed from an empty cache.",
            "patient.tables(1) shows shared blocks at the beginning of both tables, and the prompt is "
            "repeated without a fault.",
        ),
        "c": Cause(
            "A block is given back too early and goes to the other sample.",
            "No count is lower than the number of tables that name the block, and bob, who has two samples "
            "too, is never hit.",
        ),
        "d": Cause(
            "Both samples write into the partly filled block that they share.",
            "ann, cid and dot have prompts that end inside a block. bob's ends with a full one, behind "
            "which each takes its own.",
        ),
    },
    cause="d",
    asks="the blocks that two samples of one user both write into, as a list, smallest first",
    evidence=torn_blocks,
    where=f"patient.tables(1), when the first words are written: with {BLOCK_SIZE} slots a block, word p of "
    "a text lies in entry p // 4. In whose tables is the block of the first new word the same?",
    points=(
        "a full block is never written again, so sharing it is safe; a partly filled one is written by "
        "whoever goes on;",
        "a count above 1 is the sign: copy the block, write into the copy, and count one fewer for the old "
        "one;",
        "of n samples n - 1 copy; the last finds itself alone, and keeps the block.",
    ),
    sick=sick,
    solution=solution,
    admit=admit,
    trials=(
        Trial(
            "every sample keeps its dish",
            one_dish,
            "who else has the block that the next word is written into?",
        ),
        Trial(
            "every word, those of the prompt too",
            lambda extend: admit(extend).trouble(),
            "a new block is empty: who copies what the old one held, and who tells them?",
        ),
        Trial(
            "every count is the number of tables",
            lambda extend: wrong_count(admit(extend)),
            "the old block has one user fewer: pool.free(old). The new one has its count from "
            "pool.allocate()",
        ),
        Trial(
            "no more blocks than are needed",
            memory,
            "only a block that is written is copied: full ones stay shared, and the next word takes a new "
            "block anyway",
        ),
        Trial(
            "no more copies than are needed",
            number_of_copies,
            "a copy is needed if another table names the block, too",
        ),
        Trial(
            "no block is free for the copy",
            pool_runs_out,
            "pool.allocate() may raise OutOfBlocks, and the call is made again later: change nothing before "
            "it",
        ),
    ),
    hints=(
        "A shared block may be read by all. Before the first write it must be one's own.",
        "if the table must copy: take a block; one user fewer for the old one; the new one takes its place "
        "in the table; note (old, new) among the copies",
        "    if table.must_copy():\n        shared, own = table.block_ids[-1], "
        "table.pool.allocate()\n        table.pool.free(shared)\n        table.block_ids[-1] = own\n        "
        "copies.append((shared, own))",
    ),
    proves="samples share what nobody writes, and each has its own copy of what it writes, once.",
    shows=shows,
)
