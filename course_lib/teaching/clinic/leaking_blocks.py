"""Blocks that nobody gives back: a user hangs up, and what the request held stays taken."""

from course_lib.serving import LLMEngine
from course_lib.teaching.clinic.case import Case, Cause, Trial
from course_lib.teaching.clinic.ward import Patient, make_engine


def sick(engine, request_id):
    """A user has hung up: give the request up, whether it runs or waits.

    engine.allocator.release(key) gives back the blocks of one that has some; who waits has none.
    """
    job = engine.jobs.pop(request_id)
    for sequence in job.sequences:
        del engine.sequences[sequence.key]
        engine.scheduler.running.pop(sequence.key, None)
        engine.scheduler.waiting.pop(sequence.key, None)


def solution(engine, request_id):
    """A user has hung up: give the request up, whether it runs or waits."""
    job = engine.jobs.pop(request_id)
    for sequence in job.sequences:
        del engine.sequences[sequence.key]
        engine.scheduler.waiting.pop(sequence.key, None)
        if engine.scheduler.running.pop(sequence.key, None):
            engine.allocator.release(sequence.key)


def make_patient(abort, **settings) -> Patient:
    """An engine that gives requests up with the given function."""

    class Engine(LLMEngine):
        def abort(self, request_id):
            abort(self, request_id)

    return Patient(make_engine(kind=Engine, **settings))


PROMPTS = {
    "ann": "ann likes red tea and bob likes milk",
    "bob": "bob says the old house has a door",
    "cid": "cid sees the blue river in the garden",
    "dot": "dot keeps your letter in our black book",
}


def admit(abort) -> Patient:
    """Three days. On each, four ask, and three can run; bob hangs up while he runs, dot while she still waits."""
    patient = make_patient(abort, num_blocks=40, max_num_seqs=3)
    for _ in range(3):
        for name, prompt in PROMPTS.items():
            patient.ask(name, prompt, 14)
        patient.run(6)
        patient.hang_up("dot")
        patient.hang_up("bob")
        patient.run()
    return patient


def first_lost_block(patient: Patient) -> int:
    """The first block that counts as used and that no table names."""
    return next(tick.lost[0] for tick in patient.ticks if tick.lost)


# -- trials ---------------------------------------------------------------------------------------------------


def three_days(abort) -> str | None:
    patient = admit(abort)
    if patient.crash:
        return f"it crashes: {patient.crash}"
    if lost := patient.ticks[-1].lost:
        return f"{len(lost)} blocks count as used after the third day, and nobody has them: {lost}"
    return None


def at_once(abort) -> str | None:
    patient = make_patient(abort, num_blocks=40)
    for name, prompt in PROMPTS.items():
        patient.ask(name, prompt, 14)
    patient.run(6)
    held = len(patient.ticks[-1].tables["bob"])
    before = patient.ticks[-1].num_free
    patient.hang_up("bob")
    if patient.crash:
        return f"it crashes: {patient.crash}"
    given = patient.ticks[-1].num_free - before
    return None if given == held else f"bob held {held} blocks, and {given} are free when he has hung up"


def while_waiting(abort) -> str | None:
    patient = make_patient(abort, num_blocks=40, max_num_seqs=1)
    patient.ask("ann", PROMPTS["ann"], 14)
    patient.ask("bob", PROMPTS["bob"], 14)
    patient.run(3)
    patient.hang_up("bob")
    patient.run()
    return f"it crashes: {patient.crash}" if patient.crash else None


def with_samples(abort) -> str | None:
    patient = make_patient(abort, num_blocks=40)
    patient.ask("ann", PROMPTS["ann"], 14, n=3)
    patient.run(4)
    patient.hang_up("ann")
    if patient.crash:
        return f"it crashes: {patient.crash}"
    free = patient.ticks[-1].num_free
    return None if free == 40 else f"she had three samples, and {40 - free} of their blocks are not free"


def neighbours(abort) -> str | None:
    patient = make_patient(abort, num_blocks=40)
    for name, prompt in PROMPTS.items():
        patient.ask(name, prompt, 30)
    patient.run(6)
    patient.hang_up("bob")
    patient.ask("eve", PROMPTS["ann"], 30)
    patient.run()
    if fault := patient.trouble():
        return fault
    left = len(patient.engine.allocator.tables)
    return f"block tables that are left when nobody runs: {left}" if left else None


CASE = Case(
    name="leaking_blocks",
    title="The pool that shrinks",
    minutes=5,
    difficulty="easy",
    ticket="Each night, when nobody is there, fewer blocks are free than the night before. A restart mends "
    "it for some days. Traffic is as always: people ask, people read, some hang up before the answer is "
    "done. No error in the log.",
    causes={
        "a": Cause(
            "Fragmentation: the free blocks are there, but not next to each other.",
            "A sequence takes any block, wherever it lies. And it is the count of free blocks that falls.",
        ),
        "b": Cause(
            "The prefix cache keeps more and more blocks.",
            "A cached block that nobody uses counts as free. And patient.engine.allocator.pool says that "
            "none is cached.",
        ),
        "c": Cause(
            "A request that is given up while it runs keeps its blocks.",
            "Whenever bob hangs up, his blocks stay taken, and no table names them. dot, who held none yet, "
            "costs nothing.",
        ),
        "d": Cause(
            "Each request takes more blocks than its tokens need, and they add up.",
            "Those who are not given up return all they took: after their last step the free count is as "
            "before.",
        ),
    },
    cause="c",
    asks="the number of the first block that counts as used and that no table names",
    evidence=first_lost_block,
    where="patient.log() has a column `lost`: see in which step it leaves 0. patient.tables(step) before "
    "and after shows who held what, and patient.ticks[step].lost names the blocks",
    points=(
        "the two ways out of an engine: a request ends, or it is given up. Only the first gave blocks back;",
        "who waits has no blocks, so only those who hang up while they run leak;",
        "a count above 0 that no table explains is a leak: compare the two after every request, not once a "
        "week.",
    ),
    sick=sick,
    solution=solution,
    admit=admit,
    trials=(
        Trial(
            "three days of callers who hang up",
            three_days,
            "what finish() does besides taking a request off the list. Who waits holds nothing",
        ),
        Trial(
            "blocks are free at once",
            at_once,
            "who needs the blocks needs them now: give back at the hang-up, and all that bob held",
        ),
        Trial(
            "somebody hangs up who still waits",
            while_waiting,
            "who waits holds nothing: there is nothing to give back",
        ),
        Trial(
            "somebody with three samples hangs up", with_samples, "each sample has a block table of its own"
        ),
        Trial(
            "the others go on as if nothing had happened",
            neighbours,
            "allocator.release(key) for this key alone",
        ),
    ),
    hints=(
        "A request that runs has a block table. Who takes it out of `running` must give the table's blocks "
        "back.",
        "for each sequence: forget it; if it waits, take it off the queue; if it runs, take it off the list "
        "and let the allocator release its key",
        "        if engine.scheduler.running.pop(sequence.key, None):\n            "
        "engine.allocator.release(sequence.key)",
    ),
    proves="every way out of the engine gives the blocks back, at once, and only one's own.",
)
