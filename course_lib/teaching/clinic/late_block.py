"""A block is taken a step late: at some lengths of a text its newest token has no slot."""

from course_lib.memory import PagedAllocator
from course_lib.memory.allocators import check_end
from course_lib.serving import LLMEngine
from course_lib.teaching.clinic.case import Case, Cause, Trial
from course_lib.teaching.clinic.ward import Patient, make_engine


def sick(table, num_tokens):
    """A text grows to so many tokens: take the blocks that it needs, and has not yet."""
    size = table.pool.block_size
    last = num_tokens - 1  # the position of the newest token
    while len(table.block_ids) * size < last:
        table.block_ids.append(table.pool.allocate())


def solution(table, num_tokens):
    """A text grows to so many tokens: take the blocks that it needs, and has not yet."""
    size = table.pool.block_size
    last = num_tokens - 1  # the position of the newest token
    while len(table.block_ids) * size <= last:
        table.block_ids.append(table.pool.allocate())


def make_patient(take_blocks, **settings) -> Patient:
    """An engine whose tables take their blocks with the given function. Who runs when a step fails is given up."""

    class Paging(PagedAllocator):
        def grow(self, key, num_tokens=1):
            table = self.tables[key]
            check_end(key, self.requests[key], table.num_tokens, num_tokens)
            grown = table.num_tokens + num_tokens
            take_blocks(table, grown)
            table.num_tokens = grown
            return []

    class Engine(LLMEngine):
        died: dict[int, str]  # request_id -> the error

        def step(self):
            try:
                return super().step()
            except IndexError as error:
                for request_id in list(self.jobs):
                    self.died[request_id] = f"{type(error).__name__}: {error}"
                    self.abort(request_id)
                return []

    engine = make_engine(kind=Engine, paging=Paging, **settings)
    engine.died = {}
    return Patient(engine)


BLOCK_SIZE = 8
LONG = (
    "tonight bob wants soup and red tea for two and ann asks for a short page from the old book of dot "
    "in the garden by the river"
)
WORDS = {
    "ann": 10,
    "bob": 15,
    "cid": 20,
    "dot": 17,
    "eve": 12,
    "fay": 9,
    "gus": 11,
    "hal": 24,
    "ivy": 13,
    "joe": 26,
}
NUM_WORDS = 3  # that everybody asks for


def admit(take_blocks) -> Patient:
    """An hour in which people ask one after another, for three words each."""
    patient = make_patient(take_blocks, num_blocks=24, block_size=BLOCK_SIZE)
    for name, count in WORDS.items():
        patient.ask(name, " ".join(LONG.split()[:count]), NUM_WORDS)
        patient.run()
    return patient


def died(patient: Patient) -> dict[str, str]:
    """Who was given up, with the error."""
    return {patient.names[request_id]: error for request_id, error in patient.engine.died.items()}


def lengths_at_death(patient: Patient) -> list[int]:
    """Words of each text that died: of its prompt, and those that had been said."""
    return [len(f"{patient.prompts[name]} {patient.said(name)}".split()) for name in died(patient)]


def shows(patient: Patient) -> str:
    """Who asked what, and what they were told."""
    lines = ["who   prompt     was told"]
    for name, prompt in patient.prompts.items():
        told = f"{patient.said(name)} {died(patient).get(name, '')}".strip()
        lines.append(f"{name:<6}{len(prompt.split()):2} words   {told}")
    return "\n".join(lines)


# -- trials ---------------------------------------------------------------------------------------------------


def trouble(patient: Patient) -> str | None:
    """A death, or what else may be wrong with those who asked."""
    for name, error in died(patient).items():
        length = len(f"{patient.prompts[name]} {patient.said(name)}".split())
        return (
            f"{len(died(patient))} of {len(patient.prompts)} die; {name} at a text of {length} words: {error}"
        )
    return patient.trouble()


def an_hour(take_blocks) -> str | None:
    patient = admit(take_blocks)
    return trouble(patient) if patient.crash or died(patient) else None


def every_length(take_blocks) -> str | None:
    """Long answers, one word at a time, over many boundaries; two sizes of blocks."""
    for size in (BLOCK_SIZE, 3):
        patient = make_patient(take_blocks, num_blocks=160, block_size=size)
        for name, count in WORDS.items():
            patient.ask(name, " ".join(LONG.split()[:count]), 18)
        patient.run()
        if fault := trouble(patient):
            return f"blocks of {size}: {fault}"
    return None


def no_more_than_needed(take_blocks) -> str | None:
    for size in (BLOCK_SIZE, 3):
        patient = make_patient(take_blocks, num_blocks=40, block_size=size)
        patient.ask("ann", LONG, 2 * BLOCK_SIZE)
        patient.run()
        length = len(LONG.split())
        for tick in patient.ticks:
            held, needed = len(tick.tables.get("ann", [])), -(-(length + tick.step) // size)
            if held > needed:
                return (
                    f"a text of {length + tick.step} tokens holds {held} blocks of {size} slots, and needs "
                    f"{needed}: {held * size - length - tick.step} slots are empty"
                )
    return None


def pool_runs_out(take_blocks) -> str | None:
    patient = make_patient(take_blocks, num_blocks=8, block_size=4)
    for name in ("ann", "bob", "cid"):
        patient.ask(name, " ".join(LONG.split()[: WORDS["fay"]]), 20)
    patient.run()
    if fault := trouble(patient):
        return fault
    if not any(tick.preempted for tick in patient.ticks):
        return "three texts need 21 blocks, there are 8, and nobody is preempted"
    return None


CASE = Case(
    name="late_block",
    title="Some lengths are deadly",
    minutes=6,
    difficulty="easy",
    ticket="Some requests die with `IndexError: list index out of range`, raised where the engine looks up "
    "the slots of the new tokens. The same prompt dies each time it is sent. Shorter and longer ones are "
    f"answered. Blocks have {BLOCK_SIZE} slots, everybody asks for {NUM_WORDS} words, and only one request "
    "runs at a time. Whoever runs when the error comes is given up, and the next is served.",
    causes={
        "a": Cause(
            "The pool is too small: no block is free when one is needed.",
            "Most blocks are free in every step, as patient.log() shows. And an empty pool says OutOfBlocks.",
        ),
        "b": Cause(
            "The prompt is too long: the block table has room for so many blocks, and no more.",
            "joe has the longest prompt, and is answered. fay has the shortest, and dies.",
        ),
        "c": Cause(
            "A block is taken one token too late, so that the first token of a new block has no slot.",
            "All who died had a text one token longer than full blocks hold: its newest token had no slot.",
        ),
        "d": Cause(
            "Some word has a number beyond the model's vocabulary.",
            "All prompts begin with the same words, and joe's has all words of those who died: he is "
            "answered.",
        ),
    },
    cause="c",
    asks="how many words the text of each had that died, in the order in which they died, as a list: the "
    "prompt, and what had been said",
    evidence=lengths_at_death,
    where="the lines below the ticket: patient.prompts[who] and patient.said(who), for each who has an error",
    points=(
        f"position p lies in block p // {BLOCK_SIZE} of the table, so position {BLOCK_SIZE} needs two "
        f"blocks, and 0 to {BLOCK_SIZE - 1} need one;",
        f"one length in {BLOCK_SIZE} is deadly, and each answer passes through as many lengths as it has "
        "words;",
        "number of tokens, position of the last, number of blocks: each is one apart from the next, so test "
        "at the edges.",
    ),
    sick=sick,
    solution=solution,
    admit=admit,
    trials=(
        Trial(
            "an hour of requests",
            an_hour,
            "write down how many blocks 7, 8, 9 and 10 tokens need, and how many your function takes, each "
            "once",
        ),
        Trial(
            "every length, and every word right",
            every_length,
            "each logical block has a physical block of its own, and every position a slot: block p // "
            "block_size",
        ),
        Trial(
            "never a block more than the tokens need",
            no_more_than_needed,
            "a sequence wastes less than one block: take a block when a token needs it, not a step earlier",
        ),
        Trial(
            "more requests than the pool holds",
            pool_runs_out,
            "pool.allocate() raises OutOfBlocks, and the scheduler answers it by preempting: let it through",
        ),
    ),
    hints=(
        "Positions count from 0. With 8 slots the last position that has one is 7.",
        "while the slots of the table do not reach beyond the last position: take a block",
        "    while len(table.block_ids) * size <= last:\n        "
        "table.block_ids.append(table.pool.allocate())",
    ),
    proves="at every length each token has a slot, and never is a block taken before its first token comes.",
    shows=shows,
)
