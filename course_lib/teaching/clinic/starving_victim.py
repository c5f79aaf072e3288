"""Whenever blocks run out, the request that holds most is thrown out: it is always the same one."""

import itertools

from course_lib.memory import OutOfBlocks, Scheduler
from course_lib.serving import LLMEngine
from course_lib.teaching.clinic.case import Case, Cause, Trial
from course_lib.teaching.clinic.hearing import misheard
from course_lib.teaching.clinic.ward import Patient, make_engine


def sick(scheduler):
    """No block is free: throw one of scheduler.running (in the order of arrival) out, to come back later."""
    victim = max(scheduler.running.values(), key=lambda request: request.num_held)
    scheduler.allocator.release(victim.key)
    del scheduler.running[victim.key]
    victim.num_computed = victim.num_held = 0  # all its tokens must be computed anew
    scheduler.waiting[victim.key] = victim
    scheduler.waiting.move_to_end(victim.key, last=False)  # in front of all others
    return victim


def solution(scheduler):
    """No block is free: throw a running request out, to come back later, and say which."""
    victim = list(scheduler.running.values())[-1]  # the last come
    scheduler.allocator.release(victim.key)
    del scheduler.running[victim.key]
    victim.num_computed = victim.num_held = 0  # all its tokens must be computed anew
    scheduler.waiting[victim.key] = victim
    scheduler.waiting.move_to_end(victim.key, last=False)  # in front of all others
    return victim


def make_patient(throw_out, num_blocks: int, tokens_a_step: int = 12) -> Patient:
    """An engine that makes room with the given function. Long prompts are computed in pieces."""

    class Planted(Scheduler):
        def _make_room(self, progress, step):
            pool = self.allocator.pool
            while progress.num_held < progress.num_known:
                try:
                    step.copies += self.allocator.grow(progress.key, progress.num_known - progress.num_held)
                    progress.num_held = progress.num_known
                except OutOfBlocks:
                    before = pool.num_free
                    victim = throw_out(self)
                    if pool.num_free == before:
                        raise RuntimeError(f"no block was free, and there are {before} now") from None
                    self.num_preemptions += 1
                    step.preempted.append(victim.key)
                    step.num_new.pop(victim.key, None)  # it may have had its turn in this step
                if progress.key not in self.running:
                    return False
            return True

    class Engine(LLMEngine):
        def __init__(self, model, tokenizer, **arguments):
            super().__init__(model, tokenizer, **arguments)
            limits = self.scheduler.max_num_seqs, self.scheduler.max_num_batched_tokens
            self.scheduler = Planted(self.allocator, max_num_seqs=limits[0], max_num_batched_tokens=limits[1])

    limits = dict(max_num_seqs=tokens_a_step, max_num_batched_tokens=tokens_a_step)
    return Patient(make_engine(kind=Engine, num_blocks=num_blocks, **limits))


LONG = "please copy the short page of the old book and answer in one sentence " * 3
PROMPTS = {
    "ann": "ann likes red tea and bob likes milk",
    "bob": "bob says the old house has a door",
    "cid": "cid sees the blue river in the garden",
    "dot": "dot keeps your letter in our black book",
    "eve": "eve asks for the small key of kim",
    "gus": LONG + "gus will copy one word for the letter",
}
NUM_WORDS = dict.fromkeys(PROMPTS, 16) | {"gus": 30}
DAY = 240  # steps


def day(throw_out) -> tuple[Patient, str | None]:
    """Five ask anew as soon as they are answered; gus asks once, for more. Also the first wrong answer."""
    patient, fault = make_patient(throw_out, num_blocks=20), None
    for step in range(DAY):
        busy = patient.ticks[-1].running + patient.ticks[-1].waiting if patient.ticks else ()
        for number, (name, prompt) in enumerate(PROMPTS.items()):
            again = step > 2 * number and name not in busy
            if again:
                fault = fault or misheard(patient, {name: prompt}, NUM_WORDS[name])
            if step == 2 * number or (again and name != "gus"):
                patient.ask(name, prompt, NUM_WORDS[name])
        patient.run(1)
    return patient, fault


def admit(throw_out) -> Patient:
    """A day."""
    return day(throw_out)[0]


def times_thrown_out(patient: Patient, name: str = "gus") -> int:
    """How often somebody was preempted."""
    return sum(name in tick.preempted for tick in patient.ticks)


# -- trials ---------------------------------------------------------------------------------------------------


def a_day(throw_out) -> str | None:
    patient, fault = day(throw_out)
    if patient.crash:
        return f"it crashes: {patient.crash}"
    if fault:
        return fault
    times, told = times_thrown_out(patient), len(patient.said("gus").split())
    if told < NUM_WORDS["gus"]:
        words = f"gus has {told} of {NUM_WORDS['gus']} words after {DAY} steps"
        return f"{words}, and was thrown out {times} times"
    return misheard(patient, {"gus": PROMPTS["gus"]}, NUM_WORDS["gus"])


SMALL = "today likes red tea and bob likes milk"
LARGE = "please copy the short page of the old book and answer in one sentence for red tea and bob likes milk"
CROWD = "bob cid dot eve hal ivy joe kim leo".split()


LOADS = {  # ann's prompt and words, those of all others
    "has a short prompt": (SMALL, 24, LARGE, 24),
    "has a long prompt": (LARGE, 24, SMALL, 24),
    "wants a long answer": (SMALL, 40, SMALL, 16),
    "wants a short answer": (SMALL, 20, SMALL, 36),
}


def crowd(throw_out, load: str) -> tuple[Patient, str | None]:
    """ann comes first, and in each step somebody more. Also what is wrong with an answer."""
    patient = make_patient(throw_out, num_blocks=16)
    hers, her_words, others, words = LOADS[load]
    patient.ask("ann", f"ann {hers}", her_words)
    for name in CROWD:
        patient.run(1)
        patient.ask(name, f"{name} {others}", words)
    patient.run()
    fault = misheard(patient, {"ann": patient.prompts["ann"]}, her_words)
    return patient, fault or misheard(patient, {name: patient.prompts[name] for name in CROWD}, words)


def first_come(throw_out) -> str | None:
    for load in LOADS:
        patient, fault = crowd(throw_out, load)
        if fault:
            return fault
        if times := times_thrown_out(patient, "ann"):
            often = "once" if times == 1 else f"{times} times"
            return f"ann came first, {load}, and was thrown out {often} for those who came later"
        for before, tick in itertools.pairwise(patient.ticks):
            last_come = before.running[len(before.running) - len(tick.preempted) :]
            for name in tick.preempted:
                if name not in last_come:
                    later = before.running[before.running.index(name) + 1 :]
                    return f"in step {tick.step} {name} was thrown out, who came before {', '.join(later)}"
    return None


def back_first(throw_out) -> str | None:
    patient, fault = crowd(throw_out, "wants a short answer")
    began, thrown_out = set(), set()
    for tick in patient.ticks:
        new, back = set(tick.running) - began, thrown_out & set(tick.waiting)
        if new and back:
            begins = f"{min(new)}, who had not begun, begins in step {tick.step}"
            return f"{min(back)} was thrown out and waits, and {begins}"
        began |= new
        thrown_out |= set(tick.preempted)
    return fault


def full_again(throw_out) -> str | None:
    patient = make_patient(throw_out, num_blocks=16, tokens_a_step=100)
    for number in range(2):  # four that do not fit together, then five that do
        for name in CROWD[: 4 + number]:
            patient.ask(name, f"{name} {SMALL}", 20 - 17 * number)
        patient.run()
        if not number:
            num_steps = len(patient.ticks)
    if patient.crash:
        return f"it crashes: {patient.crash}"
    most = max(len(tick.running) for tick in patient.ticks[num_steps:])
    return (
        None if most == 5 else f"five requests fit together, and {most} run at once after room was once short"
    )


def shows(patient: Patient) -> str:
    """How many answers each had by the evening."""
    lines = [f"answers in {DAY} steps"]
    for name in PROMPTS:
        state = (
            patient.finished.count(name) or f"0, {len(patient.said(name).split())} of {NUM_WORDS[name]} words"
        )
        lines.append(f"  {name}  {state}")
    return "\n".join(lines)


CASE = Case(
    name="starving_victim",
    title="The request that never ends",
    minutes=7,
    difficulty="medium",
    ticket="We promise: first come, first served. gus has asked once, for a long text; five others ask "
    "for short ones, and ask anew as soon as they are answered. They are all served. gus is not: by the "
    "evening he still waits for his last words. At night, when nobody else is there, he is done at once. "
    "He is told nothing wrong, and no error is in the log. The machine is busy all day, and yet answers "
    "only half as many as it did with the last release.",
    causes={
        "a": Cause(
            "Whenever room is short, the engine throws out the one who holds most, which is the same each "
            "time.",
            "Nearly all preemptions hit gus. Each time all his tokens are computed anew, several steps of "
            "work, and before he has made many words he is the largest again.",
        ),
        "b": Cause(
            "The queue is unfair: while he waits, those who came later overtake him.",
            "patient.log(): whenever he was thrown out he waits in front of all others, and nobody begins "
            "before he is back.",
        ),
        "c": Cause(
            "His request is too large for the pool, so it never fits beside others.",
            "It fits: he runs beside one, two or three others, and makes words; then he is out again. "
            "Alone, at night, he goes on from there, and is done.",
        ),
        "d": Cause(
            "Blocks leak, until there are too few for a long request.",
            "The column `lost` of patient.log() is 0 in every step, and at night all blocks are there for "
            "him.",
        ),
    },
    cause="a",
    asks="how often gus was thrown out during the day",
    evidence=times_thrown_out,
    where="the last column of patient.log(), or the triangles of plots.vitals(patient); "
    "patient.ticks[step].preempted has the names of one step",
    points=(
        "a rule that looks at size hits the same request each time, as it is the largest again when it is "
        "back;",
        "what is thrown out is computed anew: a victim that holds much is the dearest, though it frees most;",
        "some order must be kept by which one is safe: if the last come is thrown out, the first come "
        "always gets done, and after him the next.",
    ),
    sick=sick,
    solution=solution,
    admit=admit,
    shows=shows,
    trials=(
        Trial(
            "a day of many short requests and a long one",
            a_day,
            "whom does it hit when gus is back, and runs beside short ones? All must get all their words",
        ),
        Trial(
            "who came first is never thrown out for others",
            first_come,
            "first come, first served, also when room is short: whichever size she has, one must be safe, "
            "and the first come has waited longest. A rule by size, by chance or in turns has nobody who "
            "is safe",
        ),
        Trial(
            "who was thrown out goes on before others begin",
            back_first,
            "where in the queue does he wait? scheduler.waiting: the next to be admitted comes first",
        ),
        Trial(
            "room that is there is used",
            full_again,
            "to let in fewer requests makes shortage rare, and the machine idle: leave its limits as they "
            "are",
        ),
    ),
    hints=(
        "scheduler.running is in the order of arrival. Who must be safe, so that somebody always gets done?",
        "victim = the one who came last, whatever it holds; the rest of the function stays as it is",
        "    victim = list(scheduler.running.values())[-1]  # the last come",
    ),
    proves="who came first is served first, also when blocks run out; nobody starves, and no room is left "
    "empty.",
)
