"""Every exercise: the solution passes, the stub is "not attempted", planted wrong answers get their own diagnosis."""

import math
import random
import re
import runpy
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import planted_02
import planted_03
import planted_04
import planted_05
import planted_06
import planted_07
import planted_08
import planted_09
import pytest
import torch

from course_lib.memory import (
    BlockPool,
    BlockTable,
    BuddyRegion,
    FitRegion,
    PagedAllocator,
    Request,
    ReservingAllocator,
)
from course_lib.serving import NoCache, greedy
from course_lib.serving.cost import kv_bytes_per_token
from course_lib.teaching import check, drill
from course_lib.teaching.check import judge
from course_lib.teaching.clinic import CASES
from course_lib.teaching.exercises import EXERCISES, your_cache
from course_lib.teaching.exercises.lesson_09 import batch_gain, roll_back, shard_cache

# -- other right answers: a check judges behaviour, so these pass ---------------------------------------------


def kv_bytes_in_another_order(layers, _, kv, d, b):
    numbers = 0
    for _layer in range(layers):
        numbers += kv * d + kv * d
    return np.int64(numbers * b)


def append_kv_with_a_loop(k, v, n, new_k, new_v):
    for key, value in zip(new_k, new_v, strict=True):
        k[n].copy_(key)
        v[n].copy_(value)
        n += 1
    return n


def decode_step_head_by_head(q, new_k, new_v, k, v, n):
    k[n] = new_k
    v[n] = new_v
    group, rows = len(q) // k.shape[1], []
    for head in range(len(q)):
        scores = k[: n + 1, head // group] @ q[head] / math.sqrt(q.shape[1])
        weights = (scores - scores.max()).exp()
        rows.append(weights @ v[: n + 1, head // group] / weights.sum())
    return torch.stack(rows)


def requests_that_fit_by_counting(gpu, weights, per_token, context):
    count = 0
    while weights + (count + 1) * per_token * context <= gpu:
        count += 1
    return count


def stub_of(name):
    """The kernel that a lesson gives to fill in."""
    for lesson in sorted((Path(__file__).parent.parent / "lessons").glob("0*.md")):
        found = re.search(
            rf"@triton.jit\ndef {name}\(.*?(?:\n\n\n|\n```)", lesson.read_text(encoding="utf-8"), re.DOTALL
        )
        if found:
            return found[0].removesuffix("```")
    raise LookupError(f"no lesson gives a kernel {name} to fill in")


def as_kernel(source):
    """A kernel from its text. Triton reads a kernel's source, so it must stand in a file."""
    folder = Path(tempfile.mkdtemp())
    (folder / "answer.py").write_text(f"import triton\nimport triton.language as tl\n\n\n{source}")
    scope = runpy.run_path(str(folder / "answer.py"))
    return scope[re.search(r"def (\w+)", source)[1]]


ALSO_RIGHT = {
    "kv_bytes": [kv_bytes_in_another_order],
    "append_kv": [append_kv_with_a_loop],
    "decode_step": [decode_step_head_by_head],
    "requests_that_fit": [requests_that_fit_by_counting],
    **planted_02.ALSO_RIGHT,
    **planted_03.ALSO_RIGHT,
    **planted_04.ALSO_RIGHT,
    **planted_05.ALSO_RIGHT,
    **planted_06.ALSO_RIGHT,
    **planted_07.ALSO_RIGHT,
    **planted_08.ALSO_RIGHT,
    **planted_09.ALSO_RIGHT,
}

# -- planted wrong answers, written as a learner would; each with a word of the diagnosis it must get ---------


def append_by_cat(keys, values, length, new_key, new_value):
    keys = torch.cat([keys[:length], new_key])
    values = torch.cat([values[:length], new_value])
    return len(keys)


def append_over_the_prompt(keys, values, length, new_key, new_value):
    for i in range(len(new_key)):
        keys[i], values[i] = new_key[i], new_value[i]
    return length + len(new_key)


def append_without_values(keys, values, length, new_key, new_value):
    keys[length : length + new_key.shape[0]].copy_(new_key)
    return length + new_key.shape[0]


def append_values_mixed_up(keys, values, length, new_key, new_value):
    keys[length : length + len(new_key)] = new_key
    values[length : length + len(new_key)] = new_key
    return length + len(new_key)


def append_length_of_slab(keys, values, length, new_key, new_value):
    keys[length : length + len(new_key)] = new_key
    values[length : length + len(new_key)] = new_value
    return len(keys)


def append_one_early(keys, values, length, new_key, new_value):
    for i, (key, value) in enumerate(zip(new_key, new_value, strict=True)):
        keys[max(0, length - 1) + i], values[max(0, length - 1) + i] = key, value
    return length + len(new_key)


def append_one_token(keys, values, length, new_key, new_value):
    keys[length].copy_(new_key[0])
    values[length].copy_(new_value[0])
    return length + 1


def append_forgets_to_count(keys, values, length, new_key, new_value):
    append_kv_with_a_loop(keys, values, length, new_key, new_value)
    return length


def decode(query, keys, values, upto, divisor, heads):
    scores = (query[:, None] * keys[:upto, heads].transpose(0, 1)).sum(-1) / divisor
    return (scores.softmax(-1)[..., None] * values[:upto, heads].transpose(0, 1)).sum(1)


def gqa(query, keys):
    return [head // (len(query) // keys.shape[1]) for head in range(len(query))]


def decode_stale_tail(query, new_key, new_value, keys, values, length):
    keys[length], values[length] = new_key, new_value
    return decode(query, keys, values, len(keys), math.sqrt(query.shape[1]), gqa(query, keys))


def decode_blind_to_itself(query, new_key, new_value, keys, values, length):
    keys[length], values[length] = new_key, new_value
    return decode(query, keys, values, length, math.sqrt(query.shape[1]), gqa(query, keys))


def decode_forgot_sqrt(query, new_key, new_value, keys, values, length):
    keys[length], values[length] = new_key, new_value
    return decode(query, keys, values, length + 1, query.shape[1], gqa(query, keys))


def decode_modulo_heads(query, new_key, new_value, keys, values, length):
    keys[length], values[length] = new_key, new_value
    heads = [head % keys.shape[1] for head in range(len(query))]
    return decode(query, keys, values, length + 1, math.sqrt(query.shape[1]), heads)


def decode_forgot_to_scale(query, new_key, new_value, keys, values, length):
    keys[length], values[length] = new_key, new_value
    return decode(query, keys, values, length + 1, 1, gqa(query, keys))


def decode_forgot_softmax(query, new_key, new_value, keys, values, length):
    keys[length], values[length] = new_key, new_value
    rows = []
    for head, group in enumerate(gqa(query, keys)):
        scores = keys[: length + 1, group] @ query[head] / math.sqrt(query.shape[1])
        rows.append(scores @ values[: length + 1, group])
    return torch.stack(rows)


def decode_softmax_over_heads(query, new_key, new_value, keys, values, length):
    keys[length], values[length] = new_key, new_value
    seen = keys[: length + 1, gqa(query, keys)], values[: length + 1, gqa(query, keys)]
    weights = ((query[None] * seen[0]).sum(-1) / math.sqrt(query.shape[1])).softmax(1)  # [S, Hq]: over Hq
    return (weights[..., None] * seen[1]).sum(0)


def decode_mixes_keys(query, new_key, new_value, keys, values, length):
    keys[length], values[length] = new_key, new_value
    return decode(query, keys, keys, length + 1, math.sqrt(query.shape[1]), gqa(query, keys))


def decode_overwrites(query, new_key, new_value, keys, values, length):
    keys[length - 1] = new_key
    values[length - 1] = new_value
    return decode(query, keys, values, length, math.sqrt(query.shape[1]), gqa(query, keys))


def decode_without_writing(query, new_key, new_value, keys, values, length):
    keys = torch.cat([keys[:length], new_key[None]])
    values = torch.cat([values[:length], new_value[None]])
    return decode(query, keys, values, length + 1, math.sqrt(query.shape[1]), gqa(query, keys))


def decode_extra_axis(query, new_key, new_value, keys, values, length):
    return decode_step_head_by_head(query, new_key, new_value, keys, values, length)[None]


def decode_in_double(query, new_key, new_value, keys, values, length):
    return decode_step_head_by_head(query, new_key, new_value, keys, values, length).double()


def decode_spoils_query(query, new_key, new_value, keys, values, length):
    out = decode_step_head_by_head(query, new_key, new_value, keys, values, length)
    query /= math.sqrt(query.shape[1])
    return out


WRONG = [
    ("kv_bytes", lambda L, Hq, Hkv, D, b: L * Hkv * D * b, "half of the right number"),
    ("kv_bytes", lambda L, Hq, Hkv, D, b: L * 2 * Hq * D * b, "too much for GQA"),
    ("kv_bytes", lambda L, Hq, Hkv, D, b: 2 * (Hkv * D) * b, "one layer's share"),
    ("kv_bytes", lambda L, Hq, Hkv, D, b: 2 * L * Hkv * D, "numbers, not bytes"),
    ("kv_bytes", lambda L, Hq, Hkv, D, b: 2 * D * L * b, "one head's share"),
    ("kv_bytes", lambda L, Hq, Hkv, D, b: 2.0 * L * Hkv * D * b, "an int is expected, not float"),
    ("kv_bytes", lambda L, Hq, Hkv, D, b: 2 * L * Hkv * D * b + 1, "the value differs"),
    ("kv_bytes", lambda L, Hq, Hkv, D, b: 2 * L * Hkv * D * b / 2**10, "in KiB"),
    (
        "append_kv",
        lambda k, v, n, nk, nv: append_kv_with_a_loop(k, v, n, nk, nv) - n,
        "how many tokens are new",
    ),
    ("append_kv", lambda *args: (append_kv_with_a_loop(*args), args[0]), "an int is expected, not tuple"),
    ("decode_step", decode_softmax_over_heads, "runs over the heads"),
    ("decode_step", decode_mixes_keys, "it mixes keys"),
    (
        "decode_step",
        lambda q, nk, nv, k, v, n: decode(q, k, v, n + 1, 4, gqa(q, k)),
        "never reaches the slab",
    ),
    ("decode_step", decode_overwrites, "overwrites the last token"),
    ("requests_that_fit", lambda gpu, w, kv, n: max(0, round((gpu - w) / kv / n)), "rounded to nearest"),
    ("requests_that_fit", lambda gpu, w, kv, n: int((gpu - w) / (kv * n)), "negative number"),
    ("requests_that_fit", lambda gpu, w, kv, n: max(0, int(0.9 * gpu) - w) // (kv * n), "held back"),
    ("append_kv", append_by_cat, "nothing was written"),
    ("append_kv", append_over_the_prompt, "at the start of the slab"),
    ("append_kv", append_without_values, "values were never written"),
    ("append_kv", append_values_mixed_up, "values hold the keys"),
    ("append_kv", append_one_early, "overwrites the last token"),
    ("append_kv", append_one_token, "only the first of the new tokens"),
    ("append_kv", append_forgets_to_count, "the length did not grow"),
    ("append_kv", append_length_of_slab, "the value differs"),
    ("decode_step", decode_stale_tail, "no token of this request has written"),
    ("decode_step", decode_blind_to_itself, "does not see itself"),
    ("decode_step", decode_forgot_to_scale, "not scaled"),
    ("decode_step", decode_forgot_softmax, "do not add up to 1"),
    ("decode_step", decode_forgot_sqrt, "scaled by 1 / D"),
    ("decode_step", decode_modulo_heads, "wrong with GQA"),
    ("decode_step", decode_without_writing, "not in the cache for the next step"),
    ("decode_step", decode_extra_axis, "shape should be [4, 16], not [1, 4, 16]"),
    ("decode_step", decode_in_double, "dtype should be torch.float32, not torch.float64"),
    ("decode_step", decode_spoils_query, "changed its argument query"),
    ("requests_that_fit", lambda gpu, w, kv, n: gpu // (kv * n), "weights are forgotten"),
    ("requests_that_fit", lambda gpu, w, kv, n: -(-max(0, gpu - w) // (kv * n)), "rounded up"),
    ("requests_that_fit", lambda gpu, w, kv, n: math.floor((gpu - w) / (kv * n)), "negative number"),
    ("requests_that_fit", lambda gpu, w, kv, n: max(0, (gpu - w) // kv), "tokens, not requests"),
    ("requests_that_fit", lambda gpu, w, kv, n: gpu // (w + kv * n), "once for each request"),
    ("requests_that_fit", lambda gpu, w, kv, n: max(0, gpu - w) / (kv * n), "an int is expected, not float"),
    *planted_02.WRONG,
    *planted_03.WRONG,
    *planted_04.WRONG,
    *planted_05.WRONG,
    *planted_06.WRONG,
    *planted_07.WRONG,
    *planted_08.WRONG,
    *planted_09.WRONG,
]


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=list(EXERCISES))
def test_the_solution_and_other_right_answers_pass(exercise):
    for answer in [exercise.solution, *ALSO_RIGHT[exercise.name]]:
        assert judge(exercise, answer) == "passed"


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=list(EXERCISES))
def test_the_stub_is_not_attempted(exercise):
    assert judge(exercise, ...) == "not attempted"
    stub = as_kernel(stub_of(exercise.name)) if exercise.launch else lambda *args: ...
    assert judge(exercise, stub) == "not attempted"


@pytest.mark.parametrize(("name", "wrong", "said"), WRONG, ids=[f"{n}: {said[:20]}" for n, _, said in WRONG])
def test_a_planted_wrong_answer_gets_its_own_diagnosis(name, wrong, said):
    verdict = judge(EXERCISES[name], wrong)
    assert said in verdict.headline
    assert verdict.expected != verdict.got
    assert verdict.look_at


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=list(EXERCISES))
def test_six_planted_wrong_answers_are_told_apart(exercise):
    headlines = {
        said: judge(exercise, wrong).headline for name, wrong, said in WRONG if name == exercise.name
    }
    assert len(set(headlines.values())) == len(headlines) >= 6
    assert len({mistake.headline for mistake in exercise.mistakes}) >= 5


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=list(EXERCISES))
def test_every_known_mistake_is_made_by_a_planted_answer(exercise):
    """Written apart from the mistakes, so that each is recognised by what it does."""
    made = {judge(exercise, wrong).headline for name, wrong, _ in WRONG if name == exercise.name}
    assert {mistake.headline for mistake in exercise.mistakes} <= made


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=list(EXERCISES))
def test_every_known_mistake_is_wrong_and_told_apart(exercise):
    for mistake in exercise.mistakes:
        verdict = check._verdict(exercise, mistake.wrong)  # a mistake in a kernel is told in Python
        assert verdict.headline == mistake.headline
        # a headline that names a block or a position speaks of the case that is shown below it
        named = re.findall(
            r"(?:position|(?<!logical )block|block_size) (\d+)|(\d+) (?:tokens|blocks needed)",
            mistake.headline,
        )
        assert {int(number) for pair in named for number in pair if number} <= set(numbers_in(verdict.case))


def numbers_in(case):
    return [int(number) for number in re.findall(r"\d+", repr(list(case.values())))]


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=list(EXERCISES))
def test_the_last_hint_is_a_solution(exercise):
    """The code of the third hint, put into the stub, passes. A kernel's hint gives the lines that have a gap."""
    if exercise.launch:
        hinted = {line.split(" = ")[0]: line for line in exercise.hints[2].splitlines()}
        stub = stub_of(exercise.name).splitlines()
        filled = [f"    {hinted[line.split(' = ')[0].strip()]}" if "..." in line else line for line in stub]
        assert judge(exercise, as_kernel("\n".join(filled))) == "passed"
        return
    names = list(exercise.cases()[0])
    body = "\n".join(f"    {line}" for line in exercise.hints[2].splitlines())
    from course_lib.attention import attention

    scope = {"attention": attention, "torch": torch}
    exec(f"def answer({', '.join(names)}):\n{body}", scope)
    assert judge(exercise, scope["answer"]) == "passed"


# -- the solutions do what the library does -------------------------------------------------------------------

SOLVED = {name: exercise.solution for name, exercise in EXERCISES.items()}


@pytest.mark.parametrize("plan", ["reserve_pow2", "reserve_exact"])
def test_slots_are_classified_and_used_as_an_allocator_counts_them(plan):
    make = random.Random(1)
    for _ in range(50):
        request = Request(0.0, make.randint(1, 90), make.randint(1, 90))
        asked = ReservingAllocator(plan, 256, max_len=256).asks_for(request)
        piece = BuddyRegion(256).rounded(asked)
        allocator = ReservingAllocator(plan, piece, max_len=256)
        allocator.admit(0, request, num_tokens=request.prompt_len)
        shares = []
        for num_generated in range(request.output_len):
            counts = allocator.counts()
            found = (counts.token_states, counts.reserved, counts.internal, counts.external)
            given = (request.prompt_len, num_generated, request.output_len, asked, piece)
            assert SOLVED["classify_slots"](*given) == found
            shares.append(counts.token_states / piece)
            allocator.grow(0)
        mean = SOLVED["slab_utilisation"](request.prompt_len, request.output_len, piece)
        assert mean == pytest.approx(sum(shares) / len(shares))


def test_the_paper_s_numbers_are_among_the_cases():
    """Fig 3 (two requests with a slab each), and seven slabs in the 15,728 slots of OPT-13B's machine."""
    for name, expected in [
        ("classify_slots", [(8, 2, 2038, 0), (4, 1, 507, 0)]),
        ("max_batch", [(7, 47)]),
        ("slab_utilisation", [329.5 / 2048]),
    ]:
        cases = EXERCISES[name].cases()[: len(expected)]
        assert [SOLVED[name](**case) for case in cases] == expected


def test_best_fit_chooses_the_hole_that_a_region_chooses():
    make = random.Random(2)
    for _ in range(300):
        region, size = FitRegion(60, best=True), make.randint(1, 9)
        cuts = sorted(make.sample(range(61), 10))
        region.holes = [(start, stop - start) for start, stop in zip(cuts[::2], cuts[1::2], strict=True)]
        assert SOLVED["best_fit"](list(region.holes), size) == region.allocate(size)


def test_as_many_slabs_fit_as_an_allocator_admits():
    for num_slots, max_len in [(15_728, 2048), (4096, 1024), (1023, 1024), (301, 43)]:
        allocator = ReservingAllocator("reserve_max", num_slots, max_len, FitRegion(num_slots, best=True))
        admitted = sum(allocator.admit(key, Request(0.0, 5, 3), 5) for key in range(num_slots // max_len + 2))
        assert SOLVED["max_batch"](num_slots * 7 + 6, 7, max_len, 5, 3) == (admitted, num_slots // 6)


def test_the_functions_on_lists_keep_step_with_pool_and_tables():
    make, size = random.Random(3), 3
    pool = BlockPool(num_blocks=11, block_size=size)
    tables, mine = [], []  # the library's sequences, and the learner's: [block_table, num_tokens]
    free_blocks, ref_counts = list(range(11)), [0] * 11
    refused = shared = 0
    for _ in range(3000):
        what = make.choice(["begin", "grow", "grow", "grow", "grow", "fork", "end"])
        at = make.randrange(len(tables)) if tables else None
        if what == "begin":
            length = make.randint(1, 10)
            taken = SOLVED["allocate"](free_blocks, -(-length // size))
            if taken is None:
                refused += 1
                assert -(-length // size) > pool.num_free
            else:
                tables.append(BlockTable(pool))
                tables[-1].append(length)
                mine.append([taken, length])
                for block_id in taken:
                    ref_counts[block_id] = 1
        elif what == "grow" and tables:
            block_table, num_tokens = mine[at]
            if num_tokens % size and ref_counts[block_table[-1]] > 1:
                continue  # copy-on-write is not the learner's business yet
            before = len(block_table)
            slot = SOLVED["append_token"](block_table, num_tokens, free_blocks, size)
            if slot is None:
                refused += 1
                assert pool.num_free == 0 and num_tokens % size == 0 and len(block_table) == before
            else:
                assert tables[at].append().slots == [slot]
                mine[at][1] += 1
                if len(block_table) > before:
                    ref_counts[block_table[-1]] = 1
        elif what == "fork" and tables and len(tables) < 6:
            shared += 1
            tables.append(tables[at].fork())
            mine.append([list(mine[at][0]), mine[at][1]])
            for block_id in mine[at][0]:
                ref_counts[block_id] += 1
        elif what == "end" and tables:
            tables.pop(at).free()
            assert SOLVED["release"](free_blocks, ref_counts, mine.pop(at)[0]) is True
        assert free_blocks == pool.free_blocks()
        assert ref_counts == [pool.ref_count(block_id) for block_id in range(11)]
        assert [table.block_ids for table in tables] == [block_table for block_table, _ in mine]
        for table, (block_table, num_tokens) in zip(tables, mine, strict=True):
            for position in range(num_tokens):
                assert SOLVED["slot_of"](block_table, position, size) == table.slot(position)
        wasted = sum(len(table.block_ids) * size - table.num_tokens for table in tables)
        found = SOLVED["paged_waste"]([table.num_tokens for table in tables], size)
        assert found == (wasted, 2 * len(tables)) and wasted <= found[1]
    assert refused > 50 and shared > 50


# -- answers that do not behave -------------------------------------------------------------------------------

EXERCISE = EXERCISES["kv_bytes"]


def raises(*args):
    return [][3]


def loops_for_ever(*args):
    while True:
        pass


def exits(*args):
    raise SystemExit


def recurses(*args):
    return recurses(*args)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (raises, "it raised IndexError"),
        (exits, "it raised SystemExit"),
        (recurses, "it raised RecursionError"),
        (lambda a, b: 1, "it raised TypeError"),
        (lambda *args: None, "it returned None"),
        (lambda *args: "819200", "an int is expected, not str"),
        (819_200, "int is no function"),
    ],
    ids=["raises", "exits", "recurses", "too few arguments", "returns None", "returns text", "no function"],
)
def test_a_misbehaving_answer_gets_a_diagnosis(answer, said):
    assert said in judge(EXERCISE, answer).headline


def test_the_line_that_raised_is_shown():
    assert "list index out of range, line" in judge(EXERCISE, raises).got
    assert "return [][3]" in judge(EXERCISE, raises).got


def test_an_endless_loop_is_stopped_and_its_thread_with_it():
    ticks = [0]

    def loops(*args):
        while True:
            ticks[0] += 1

    verdict = judge(EXERCISE, loops, seconds=0.3)
    assert (verdict.headline, verdict.got) == ("it did not finish", "still running after 0.3 s")
    time.sleep(0.2)
    stopped_at = ticks[0]
    time.sleep(0.2)
    assert ticks[0] == stopped_at, "the loop still runs in the background"


# -- what the learner sees --------------------------------------------------------------------------------------


def test_a_report_reads_as_designed(capsys):
    check.kv_bytes(lambda *args: ...)
    check.kv_bytes(lambda L, Hq, Hkv, D, b: L * Hkv * D * b)
    check.kv_bytes(EXERCISE.solution)
    assert capsys.readouterr().out.splitlines() == [
        "○ kv_bytes: not attempted yet   (3 min, easy)",
        "✗ kv_bytes: half of the right number",
        "  input     num_layers=40, num_query_heads=40, num_kv_heads=40, head_dim=128, bytes_per_number=2",
        "  expected  819,200",
        "  got       409,600",
        "  look at   a token leaves a key and a value",
        '  stuck?    check.hint("kv_bytes")',
        "✓ kv_bytes   MHA, GQA and MQA are one formula: only the number of KV heads differs.",
    ]


def test_progress_remembers_tries_hints_and_success(capsys):
    check.kv_bytes(raises)
    check.kv_bytes(EXERCISE.solution)
    check.hint("append_kv")
    check.reveal("decode_step")
    capsys.readouterr()
    check.progress()
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("01 ○ append_kv") and told[0].endswith("1 hint")
    assert told[1].startswith("   ○ decode_step") and told[1].endswith("solution seen")
    assert told[2].startswith("   ✓ kv_bytes") and told[2].endswith("2 tries")
    assert told[-1] == f"1 of {len(EXERCISES) + len(CASES)} solved"


def test_hints_climb_the_ladder_and_stay_at_the_top(capsys):
    for _ in range(4):
        check.hint("kv_bytes")
    heads = [line for line in capsys.readouterr().out.splitlines() if line.startswith("hint")]
    assert heads == ["hint 1 of 3", "hint 2 of 3", "hint 3 of 3", "hint 3 of 3"]


def test_reveal_shows_code(capsys):
    check.reveal("append_kv")
    assert "keys[length:end] = new_key" in capsys.readouterr().out


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=list(EXERCISES))
def test_what_reveal_prints_runs_as_it_stands(exercise, capsys):
    """Pasted into a notebook that imported torch, and nothing of ours."""
    check.reveal(exercise.name)
    printed = capsys.readouterr().out
    if exercise.launch:
        assert judge(exercise, as_kernel(printed)) == "passed"
        return
    scope = {"torch": torch}
    exec(printed, scope)
    assert judge(exercise, scope[exercise.name]) == "passed"


def test_a_check_without_an_answer_is_not_attempted(capsys):
    check.kv_bytes()
    assert "○ kv_bytes: not attempted yet" in capsys.readouterr().out


def test_your_cache_runs_in_the_model(tiny_model, capsys, monkeypatch):
    prompt = [5, 9, 2]
    expected = greedy(tiny_model, [prompt], NoCache(), 8)[0]
    append, decode_ = EXERCISES["append_kv"].solution, EXERCISES["decode_step"].solution
    your_cache.run(tiny_model, prompt, expected, append, decode_)
    your_cache.run(tiny_model, prompt, expected, append, lambda *args: ...)
    your_cache.run(tiny_model, prompt, expected, lambda *args: ..., lambda *args: ...)
    your_cache.run(tiny_model, prompt, expected, append, raises)
    your_cache.run(tiny_model, prompt, expected, append, lambda *args: decode_(*args)[None])
    your_cache.run(tiny_model, prompt, expected, append_over_the_prompt, decode_modulo_heads)
    monkeypatch.setattr(your_cache, "TIME_LIMIT_SECONDS", 0.3)
    your_cache.run(tiny_model, prompt, expected, append, loops_for_ever)
    your_cache.run(tiny_model, prompt, expected, append, exits)
    assert [
        line.split(":")[0][:1] for line in capsys.readouterr().out.splitlines() if line[0] in "✓○✗"
    ] == list("✓○○✗✗✗✗✗")


def test_unknown_names_are_answered_with_the_known_ones(capsys):
    check.hint("slot_off")
    assert "no exercise 'slot_off'; there are: append_kv" in capsys.readouterr().out
    with pytest.raises(AttributeError, match="no exercise 'slot_off'"):
        check.slot_off(1)
    assert "kv_bytes" in dir(check)


def test_progress_travels_as_one_line(capsys, tmp_path, monkeypatch):
    check.kv_bytes(EXERCISE.solution)
    check.note("leaking_blocks", diagnosed=True)
    often, once = (drill.Card(1, date(2026, 3, 2), times, 5) for times in (3, 1))
    drill.save_record({"why_k_and_v": often, "token_17": once})
    line = check.export_progress()
    assert "\n" not in line
    monkeypatch.setenv("COURSE_STATE_HOME", str(tmp_path / "another machine"))
    check.append_kv(EXERCISES["append_kv"].solution)
    check.leaking_blocks(CASES["leaking_blocks"].solution)
    drill.save_record({"why_k_and_v": once, "waste_bound": once})
    check.import_progress(line)
    check.import_progress(line[: len(line) // 2])
    told = capsys.readouterr().out
    assert "✓ 2 exercises and 2 questions taken over" in told and "✗ this is no line" in told
    check.progress()
    told = capsys.readouterr().out
    assert f"3 of {len(EXERCISES) + len(CASES)} solved" in told and "✓ leaking_blocks" in told
    assert "diagnosed" in told and "3 of 81 questions seen" in told
    assert drill.load_record() == {"why_k_and_v": often, "token_17": once, "waste_bound": once}


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", '{"kv_bytes": 3}', "null"])
def test_a_broken_progress_file_does_no_harm(content, capsys):
    check.state_dir().mkdir(parents=True)
    (check.state_dir() / "progress.json").write_text(content)
    check.kv_bytes(EXERCISE.solution)
    check.progress()
    out = capsys.readouterr().out
    assert out.startswith("✓ kv_bytes") and f"1 of {len(EXERCISES) + len(CASES)} solved" in out


def test_progress_that_cannot_be_written_is_said_and_nothing_raises(capsys, tmp_path, monkeypatch):
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("COURSE_STATE_HOME", str(tmp_path / "a file" / "below"))
    check.kv_bytes(EXERCISE.solution)
    out = capsys.readouterr().out
    assert "✓ kv_bytes" in out and "progress not kept" in out


def test_a_fault_of_the_check_is_not_blamed_on_the_learner(capsys, monkeypatch):
    monkeypatch.setattr(check, "judge", lambda *args: 1 / 0)
    check.kv_bytes(EXERCISE.solution)
    assert "the check itself failed (ZeroDivisionError" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("guess", "measured", "said"),
    [
        (..., 1100, "measured 1,100 tokens   (you made no guess"),
        (1000, 1100, "right"),
        (50, 1100, "too low by a factor of 22.0"),
        (4400, 1100, "too high by a factor of 4.0"),
        (0, 2.5, "measured 2.5 tokens, you said 0"),
    ],
)
def test_a_prediction_is_held_against_the_measurement(guess, measured, said, capsys):
    check.compare(guess, measured, "tokens")
    assert said in capsys.readouterr().out


# -- lesson 09: its solutions do what the library does ------------------------------------------------------------


def test_a_choice_is_never_told():
    for name, wrong, _ in planted_09.WRONG:
        if choices := EXERCISES[name].choices:
            verdict = judge(EXERCISES[name], wrong)
            assert not any(choice in verdict.expected for choice in choices), verdict


def test_rolling_back_leaves_what_never_drafting_would():
    """Drafted, then rolled back: table and free list are those of a text that was never longer, but for their order."""
    make = random.Random(9)
    for _ in range(300):
        size, kept, rejected = make.randint(1, 6), make.randint(1, 30), make.randint(0, 12)
        pool, twin = BlockPool(num_blocks=50, block_size=size), BlockPool(num_blocks=50, block_size=size)
        drafted, plain = BlockTable(pool), BlockTable(twin)
        drafted.append(kept + rejected)
        plain.append(kept)
        table, free = list(drafted.block_ids), pool.free_blocks()
        before = len(table)
        assert roll_back(table, free, kept + rejected, rejected, size) == kept
        assert table == plain.block_ids and sorted(free) == sorted(twin.free_blocks())
        given = before - len(table)
        assert free[len(free) - given :] == drafted.block_ids[len(table) :][::-1]


def test_the_shares_of_all_ranks_are_the_cache():
    for heads, ranks in [(8, 1), (8, 2), (8, 8), (3, 3), (12, 4)]:
        assert ranks * shard_cache(30, heads, 64, 2, ranks) == kv_bytes_per_token(30, heads, 64, 2)
    assert shard_cache(30, 3, 64, 2, 12) == kv_bytes_per_token(30, 1, 64, 2)


@pytest.mark.parametrize("case", EXERCISES["batch_gain"].cases())
def test_the_batch_gains_what_the_allocators_admit(case):
    slots, longest, each, size, limit = case.values()
    slabs = ReservingAllocator("reserve_max", slots, longest, FitRegion(slots, best=True))
    paged = PagedAllocator(slots, size, watermark=0.0)
    request = Request(0.0, each - 1, 1)
    fit = []
    for allocator in (slabs, paged):
        admitted = 0
        while admitted < limit and allocator.admit(admitted, request, each):
            admitted += 1
        fit.append(admitted)
    assert batch_gain(**case) == fit[1] / fit[0]


def test_what_is_to_choose_stands_in_the_notebook():
    lesson = (Path(__file__).parent.parent / "lessons" / "09_real_engines.md").read_text(encoding="utf-8")
    for name in ("theirs", "which_mechanism"):
        assert all(choice in lesson for choice in EXERCISES[name].choices), name
        assert all(
            f'"{value}": ...' in lesson for case in EXERCISES[name].cases() for value in case.values()
        ), name
