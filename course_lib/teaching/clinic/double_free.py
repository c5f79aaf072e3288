"""The same block belongs to two requests: it was given back twice, and the pool did not ask."""

from course_lib.memory import BlockPool, OutOfBlocks, PagedAllocator
from course_lib.serving import LLMEngine
from course_lib.teaching.clinic.case import Case, Cause, Trial
from course_lib.teaching.clinic.ward import Patient, make_engine


def sick(table):
    """A request is done, preempted, or its user has hung up: its blocks go back to the pool."""
    for block_id in table.block_ids:
        table.pool.free(block_id)


def solution(table):
    """A request is done, preempted, or its user has hung up: its blocks go back to the pool."""
    for block_id in table.block_ids:
        table.pool.free(block_id)
    table.block_ids, table.num_tokens = [], 0  # what was given back is no longer named


class PlainPool(BlockPool):
    """As in many first versions: a list of free blocks, the last freed is taken first, and nobody asks."""

    def __init__(self, num_blocks: int, block_size: int):
        super().__init__(num_blocks, block_size)
        self._free = list(range(num_blocks))[::-1]

    def allocate(self) -> int:
        if not self._free:
            raise OutOfBlocks(needed=1, free=0, total=self.num_blocks)
        block_id = self._free.pop()
        self._ref_counts[block_id] = 1
        return block_id

    def free(self, block_id: int) -> None:
        self._ref_counts[block_id] = 0
        self._free.append(block_id)


def make_patient(give_back, **settings) -> Patient:
    """An engine that gives back with the given function: at the end, at a preemption, and when a user hangs up. Until
    then it keeps the request's table."""

    class Paging(PagedAllocator):
        def __init__(self, num_slots, block_size):
            super().__init__(num_slots, block_size)
            self.pool = PlainPool(self.pool.num_blocks, block_size)

        def admit(self, key, request, num_tokens, token_ids=None):
            old = self.tables.pop(key, None)  # who was preempted gets a new table
            admitted = super().admit(key, request, num_tokens, token_ids)
            if old and not admitted:
                self.tables[key] = old
            return admitted

        def release(self, key):
            give_back(self.tables[key])

    class Engine(LLMEngine):
        def abort(self, request_id):
            key = request_id  # with one sample for each request, sequences have the same numbers
            for known in (self.jobs, self.sequences, self.scheduler.running, self.scheduler.waiting):
                known.pop(key, None)
            if key in self.allocator.tables:
                self.allocator.release(key)
                del self.allocator.tables[key]

    return Patient(make_engine(kind=Engine, paging=Paging, **settings))


NUM_BLOCKS = 32
PROMPTS = {
    "ann": "ann likes red tea and bob likes milk",
    "bob": "bob says the old house has a door",
    "cid": "cid sees the blue river in the garden",
    "dot": "dot keeps your letter in our black book",
    "eve": "eve knows the secret name of my song",
    "fay": "fay has a new key for our table",
}


def admit(give_back) -> Patient:
    """ann and bob get their answers; ann closes her window at once, bob leaves his open. Then four more ask."""
    patient = make_patient(give_back, num_blocks=NUM_BLOCKS)
    patient.ask("ann", PROMPTS["ann"], 16)
    patient.ask("bob", PROMPTS["bob"], 24)
    patient.run(16)
    patient.hang_up("ann")
    for name in ("cid", "dot", "eve", "fay"):
        patient.ask(name, PROMPTS[name], 16)
        patient.run(2)
    patient.run()
    return patient


def first_shared(patient: Patient) -> tuple[int, int] | None:
    """(step, block): the first that two who run both have."""
    for tick in patient.ticks:
        named = [block for name in tick.running for block in tick.tables.get(name, [])]
        if twice := sorted(block for block in set(named) if named.count(block) > 1):
            return tick.step, twice[0]
    return None


def shows(patient: Patient) -> str:
    """Who asked what, and what they were told."""
    return "\n".join(
        f"{who} asks  {asked}\n    told  {patient.said(who)}" for who, asked in patient.prompts.items()
    )


# -- trials ---------------------------------------------------------------------------------------------------


def account(patient: Patient) -> str | None:
    """Each block is free once, or in one table of somebody who runs."""
    if fault := patient.trouble():
        return fault
    total = patient.engine.allocator.pool.num_blocks
    for tick in patient.ticks:
        held = sum(len(tick.tables[name]) for name in tick.running)
        if tick.num_free + held != total:
            return f"after step {tick.step}: {tick.num_free} blocks free, {held} held by who runs, {total} in the pool"
    return None


def own_words(give_back) -> str | None:
    patient = admit(give_back)
    return patient.trouble() if patient.crash else patient.wrong_words()


def late_goodbye(give_back) -> str | None:
    """ann closes her window when cid already has the blocks that were hers."""
    patient = make_patient(give_back, num_blocks=NUM_BLOCKS)
    patient.ask("ann", PROMPTS["ann"], 8)
    patient.run()
    patient.ask("cid", PROMPTS["cid"], 30)
    patient.run(3)
    patient.hang_up("ann")
    patient.ask("dot", PROMPTS["dot"], 30)
    patient.run()
    return account(patient)


def preempted(give_back) -> str | None:
    """cid is preempted, and hangs up two steps later, when ann has grown into blocks that were his."""
    patient = make_patient(give_back, num_blocks=9)
    for name in ("ann", "bob", "cid"):
        patient.ask(name, PROMPTS[name], 20)
    for _ in range(20):
        if not patient.engine.scheduler.num_preemptions:
            patient.run(1)
    patient.run(2)
    patient.hang_up("cid")
    patient.ask("dot", PROMPTS["dot"], 14)
    patient.run()
    for name in ("ann", "bob", "dot"):
        patient.hang_up(name)
    return account(patient)


def at_once(give_back) -> str | None:
    """Who has read the answer and leaves the window open holds nothing."""
    patient = make_patient(give_back, num_blocks=NUM_BLOCKS)
    patient.ask("ann", PROMPTS["ann"], 16)
    patient.run()
    return account(patient)


CASE = Case(
    name="double_free",
    title="Crossed lines",
    minutes=8,
    difficulty="medium",
    ticket="Users hear what others say. It began a moment after ann had read her answer to the end and "
    "closed the window: cid heard words of dot, and both stammered. bob, who was served all the while, "
    "heard nothing strange. The log of requests is right: each prompt came from whom it should. Nobody asks "
    "for several samples, prefix caching is off.",
    causes={
        "a": Cause(
            "Copy-on-write is missing: sequences that share a block write into it.",
            "Nothing is forked here, so nothing may be shared: the count of a block that two tables name is "
            "1.",
        ),
        "b": Cause(
            "The rows of the batch are mixed up: one user gets the token that was chosen for another.",
            "bob runs in the same batches and hears his own words. Only those are mixed up whose tables "
            "name the same block.",
        ),
        "c": Cause(
            "The pool is empty, and who needs a block takes one from somebody who runs.",
            "More than half of the pool is free in every step, and nobody is preempted.",
        ),
        "d": Cause(
            "ann's blocks were given back twice, so that they are twice among the free ones, and go to two "
            "users.",
            "At the end of her answer once, when she closed the window again: the pool then has more free "
            "blocks than before.",
        ),
    },
    cause="d",
    asks="(step, block): the first step after which two who run have the same block, and the lowest such "
    "block",
    evidence=first_shared,
    where="plots.vitals(patient): from which step is the pool's count not what the tables name? "
    "plots.pool_map(patient, step) or patient.tables(step) a little later: which block is in two tables?",
    points=(
        "whoever gives back must forget: after that the table names nothing, and giving back again does "
        "nothing;",
        "three ways lead out (done, preempted, hung up), and two of them can meet in one request;",
        "a free list does not know who owns what; a count of users does, and refuses the second time. This "
        "course's pool raises an error.",
    ),
    sick=sick,
    solution=solution,
    admit=admit,
    trials=(
        Trial(
            "everybody hears only their own words",
            own_words,
            "what does the table still name when it is called again?",
        ),
        Trial(
            "an answer is done",
            at_once,
            "who waits for blocks needs them now, and all of them, not when the window is closed",
        ),
        Trial(
            "ann closes the window when another has her blocks",
            late_goodbye,
            "a block may be in use, and not by this table: whether it is free says nothing about whose it is",
        ),
        Trial(
            "cid is preempted, and hangs up while he waits",
            preempted,
            "a preemption gives back, too, and others take the blocks; the table must not name them any more",
        ),
    ),
    hints=(
        "The function may be called twice for one table. What should the second call find?",
        "give every block back, then let the table be empty",
        "    for block_id in table.block_ids:\n        table.pool.free(block_id)\n    table.block_ids, "
        "table.num_tokens = [], 0",
    ),
    proves="what was given back is forgotten: a second time does nothing, and no block has two owners.",
    shows=shows,
)
