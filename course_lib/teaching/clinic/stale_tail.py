"""A last block is read to its end, whatever lies behind the last token: the mask is forgotten."""

import torch

from course_lib.attention.dense import attend_one, attention
from course_lib.serving import LLMEngine
from course_lib.serving.stores import BlockStore
from course_lib.teaching.clinic.case import Case, Cause, Trial
from course_lib.teaching.clinic.hearing import first_wrong_word, misheard, transcript
from course_lib.teaching.clinic.ward import Patient, make_engine


def sick(query, key_cache, value_cache, block_table, context_len):
    """One sequence's newest token looks at its whole context: [Hq, D] -> [Hq, D]."""
    block_size, num_kv_heads = key_cache.shape[1:3]
    used = block_table[: -(-context_len // block_size)]  # the table may be longer than the context
    keys = key_cache[used].flatten(0, 1)  # [S, Hkv, D]
    values = value_cache[used].flatten(0, 1)
    grouped = query.unflatten(0, (num_kv_heads, -1))  # [Hkv, Hq / Hkv, D]
    scores = torch.einsum("hgd,shd->hgs", grouped, keys) / query.shape[-1] ** 0.5
    weights = scores.softmax(dim=-1)
    return torch.einsum("hgs,shd->hgd", weights, values).flatten(0, 1)


def solution(query, key_cache, value_cache, block_table, context_len):
    """One sequence's newest token looks at its whole context: [Hq, D] -> [Hq, D]."""
    block_size, num_kv_heads = key_cache.shape[1:3]
    used = block_table[: -(-context_len // block_size)]  # the table may be longer than the context
    keys = key_cache[used].flatten(0, 1)[:context_len]  # [S, Hkv, D]
    values = value_cache[used].flatten(0, 1)[:context_len]
    grouped = query.unflatten(0, (num_kv_heads, -1))  # [Hkv, Hq / Hkv, D]
    scores = torch.einsum("hgd,shd->hgs", grouped, keys) / query.shape[-1] ** 0.5
    weights = scores.softmax(dim=-1)
    return torch.einsum("hgs,shd->hgd", weights, values).flatten(0, 1)


def make_patient(attend_newest, **settings) -> Patient:
    """An engine in which a single new token attends with the given function. Prompts are in good hands."""

    class Store(BlockStore):
        def begin_step(self, runs, copies=(), tables=None):
            self.runs = [(run, torch.tensor(self.allocator.tables[run.sequence].block_ids)) for run in runs]
            return super().begin_step(runs, copies, tables)

        def attend(self, layer, query, key, value):
            keys, values = self.keys[layer], self.values[layer]  # [N, P, Hkv, D]
            keys.flatten(0, 1).index_copy_(0, self.slot_mapping, key)
            values.flatten(0, 1).index_copy_(0, self.slot_mapping, value)
            out = torch.empty_like(query)
            for run, table in self.runs:
                rows = slice(run.start, run.stop)
                if run.num_new == 1:
                    out[run.start] = attend_newest(query[run.start], keys, values, table, run.context_len)
                else:
                    context = [each[table].flatten(0, 1)[: run.context_len] for each in (keys, values)]
                    out[rows] = attend_one(query[rows], *context)
            return out

    class Engine(LLMEngine):
        def __init__(self, model, tokenizer, **arguments):
            super().__init__(model, tokenizer, **arguments)
            self.store = Store(model.config, self.allocator, "torch", dtype=model.dtype, device=model.device)

    return Patient(make_engine(kind=Engine, block_size=8, **settings))


MORNING = {
    "ann": "ann likes red tea and bob likes milk",
    "bob": "bob says the old house has a door",
}
AFTERNOON = {
    "cid": "cid sees the blue river in the garden",
    "dot": "please read page two and answer dot keeps your letter in our black book",
    "eve": "eve asks for the small key to table nine",
    "fay": "fay wants warm bread and cold water always",
    "hal": "copy one sentence from the book hal never has cake with green tea today",
}
NUM_WORDS = 18


def spoil(patient: Patient, name: str) -> None:
    """All keys and values of one who runs turn to NaN, as with a broken adapter or an overflow in fp16."""
    table = torch.tensor(patient.ticks[-1].tables[name])
    store = patient.engine.store
    store.keys[:, table] = store.values[:, table] = torch.nan


def admit(attend_newest, spoiled: bool = True) -> Patient:
    """A morning in a fresh pool; at noon gus, whose numbers are NaN, hangs up; an afternoon in used blocks."""
    patient = make_patient(attend_newest, num_blocks=16)
    for name, prompt in MORNING.items():
        patient.ask(name, prompt, NUM_WORDS)
    patient.run()
    patient.ask("gus", "gus sees " + "always " * 40, 20)
    patient.run(3)
    if spoiled:
        spoil(patient, "gus")
    patient.hang_up("gus")
    for name, prompt in AFTERNOON.items():
        patient.ask(name, prompt, NUM_WORDS)
        patient.run(4)
    patient.run()
    return patient


def block_of_first_nonsense(patient: Patient) -> int:
    """The block of eve's newest token when she was told her first wrong word."""
    number = first_wrong_word(patient, "eve", AFTERNOON["eve"], NUM_WORDS)
    first_word = next(tick.step for tick in patient.ticks if "eve" in tick.tables)
    return patient.ticks[first_word + number].tables["eve"][-1]


# -- trials ---------------------------------------------------------------------------------------------------


def afternoon(attend_newest) -> str | None:
    return misheard(admit(attend_newest), MORNING | AFTERNOON, NUM_WORDS)


def difference(attend_newest, context_len: int, tail: float, spare: int = 0) -> str | None:
    """What sets one call apart from dense attention in fp64. Blocks have 4 slots."""
    dice = torch.Generator().manual_seed(context_len)
    query = torch.randn(6, 8, generator=dice)  # [Hq, D]
    caches = torch.full((2, 12, 4, 2, 8), tail)  # [keys and values, N, P, Hkv, D]
    table = torch.tensor([7, 2, 9, 0, 5])[: -(-context_len // 4) + spare]
    context = torch.randn(2, context_len, 2, 8, generator=dice)
    position = torch.arange(context_len)
    caches[:, table[position // 4], position % 4] = context
    before = caches.clone()
    got = attend_newest(query, *caches, table, context_len)
    right = attention(query[None].double(), *context.double())[0]
    if not torch.equal(before.nan_to_num(99.0), caches.nan_to_num(99.0)):
        return "it has written into the cache, which it should only read"
    if not isinstance(got, torch.Tensor) or got.numel() != right.numel():
        return f"it returns {getattr(got, 'shape', got)}, where {list(right.shape)} is expected"
    gap = (got.double().reshape(right.shape) - right).abs().nan_to_num(torch.inf).max().item()
    off = f"off by {gap:.2g}" if gap < torch.inf else "the result is NaN or infinite"
    return f"context_len {context_len}, blocks of 4, {tail:g} behind the end: {off}" if gap > 1e-4 else None


def unsure(attend_newest) -> str | None:
    lengths = range(1, 18)
    return next((why for n in lengths if (why := difference(attend_newest, n, tail=0.0))), None)


def poisoned(attend_newest) -> str | None:
    tails = [(n, tail) for tail in (torch.nan, torch.inf, 1e4) for n in range(1, 10)]
    return next((why for n, tail in tails if (why := difference(attend_newest, n, tail))), None)


def long_table(attend_newest) -> str | None:
    why = next((why for n in (2, 4, 7) if (why := difference(attend_newest, n, torch.nan, spare=2))), None)
    return why and f"the table has room for 8 tokens more. {why}"


def own_fault(attend_newest) -> str | None:
    caches = torch.ones(2, 3, 4, 2, 8)
    caches[1, 1, 2] = torch.nan  # the values of its own third token
    got = attend_newest(torch.ones(6, 8), *caches, torch.tensor([1, 2]), 6)
    if not got.isnan().any():
        return f"the values of its own third token are NaN, and the result is {got.flatten()[0].item():.2g}"
    return None


CASE = Case(
    name="stale_tail",
    title="Well in the morning, nonsense in the afternoon",
    minutes=8,
    difficulty="medium",
    ticket="After a restart all is well for some hours. Around noon gus tried a new adapter; his numbers "
    "turned to NaN, and he hung up. Since then one user after another is told question marks, or words "
    "that were never in the prompt, some of which others had used. It starts in the middle of an answer. "
    "A restart helps, until the next afternoon. The same prompts sent to a fresh engine are answered well.",
    causes={
        "a": Cause(
            "gus' blocks were handed out while he still wrote into them.",
            "patient.block(n) of any block that he had: its count fell to 0 when he hung up, steps before "
            "its next owner came, and he made no step after that.",
        ),
        "b": Cause(
            "His NaN have got into the weights of the model: whoever asks now gets some.",
            "cid asks after gus and is told 17 right words. Weights are the same for all, and in every step.",
        ),
        "c": Cause(
            "Attention reads slots that hold none of the request's tokens, with what the last owner of "
            "the block left.",
            "eve goes wrong in the very step in which she gets a block that gus had, and her own tokens "
            "fill it slot by slot. In a fresh pool such slots hold zeros, which a query that is sure of "
            "its key passes over.",
        ),
        "d": Cause(
            "A block table has a wrong entry: two users write into one block.",
            "In no step is a block in two tables: patient.tables(step) shows it, and no count is above 1.",
        ),
    },
    cause="c",
    asks="the number of the block in which eve's newest token lay when she was told her first wrong word",
    evidence=block_of_first_nonsense,
    where="count in patient.said('eve') which word is the first wrong one. She makes a word a step: "
    "patient.log() shows her first step, patient.tables(step) her blocks; patient.block(number) tells "
    "whose the last of them had been",
    points=(
        "a block is handed out as its last owner left it: only the slots below the context's length are "
        "one's own;",
        "zeros behind the end are no cure: softmax gives weight to a score of 0 as well;",
        "a weight of 0 is no cure for NaN: 0 x NaN is NaN, so stale values must not be multiplied at all.",
    ),
    sick=sick,
    solution=solution,
    admit=admit,
    shows=lambda patient: transcript(patient, MORNING | AFTERNOON, NUM_WORDS),
    trials=(
        Trial(
            "an afternoon in blocks that had other owners",
            afternoon,
            "which rows of keys and values are the request's own? NaN in one that is not: what does 0 x "
            "NaN give?",
        ),
        Trial(
            "a model that is less sure of its keys than the parrot",
            unsure,
            "all tokens of the context, the newest too, and no slot more. exp(0) is 1: a key of zeros "
            "still gets weight",
        ),
        Trial(
            "NaN, infinity and large numbers behind the end",
            poisoned,
            "leave these slots out before anything is multiplied by them",
        ),
        Trial(
            "a table with room for tokens to come",
            long_table,
            "context_len says where the context ends, not the end of the table",
        ),
        Trial(
            "NaN of its own is not hidden",
            own_fault,
            "what is the request's own must come out as it is: a wrong number that looks right is worse "
            "than NaN",
        ),
    ),
    hints=(
        "The last block is rarely full. What do the slots behind the newest token hold?",
        "keys and values = all slots of the blocks in use, one after another; of these, only the first "
        "context_len",
        "    keys = key_cache[used].flatten(0, 1)[:context_len]  # [S, Hkv, D]\n"
        "    values = value_cache[used].flatten(0, 1)[:context_len]",
    ),
    proves="only a request's own tokens are attended to, whatever lies behind them.",
)
