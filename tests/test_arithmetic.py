"""The arithmetic of the drill: each answer a second time, from its text; the grader with anything at all."""

import functools
import math
import random
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib.teaching import arithmetic
from course_lib.teaching.arithmetic import EXACT, KINDS, UNITS, Problem, Slip, draw, grade, parse

IDS = [kind.id for kind in KINDS]
KIB, GB = 1024, 1e9


def numbers_in(text: str) -> list[float]:
    """Every number of a text, but not those in names such as Llama-3.1-8B, bf16 or KV8."""
    return [
        float(each.replace(",", "")) for each in re.findall(r"(?<![\w.-])\d[\d,]*(?:\.\d+)?(?![\w-])", text)
    ]


def number_size(text: str) -> int:
    return {"fp8": 1, "bf16": 2, "fp32": 4}[re.search(r"fp8|bf16|fp32", text)[0]]


# The same answers a second time: from the text alone, as somebody at a whiteboard has it.
def by_hand(problem: Problem) -> float:
    """The answer in base units, from the numbers in the question."""
    text = problem.ask
    n = numbers_in(text.split(": ", 1)[1] if re.match(r"[A-Z][\w.-]+: ", text) else text)
    ceil = lambda value, unit: -(-int(value) // int(unit))  # noqa: E731
    match problem.id:
        case "kv_per_token":
            layers, _, heads, dim = n
            return 2 * layers * heads * dim * number_size(text)
        case "mla_context":
            rank, rope, layers, tokens = n
            return (rank + rope) * layers * tokens * number_size(text)
        case "requests_that_fit":
            card, share, weights, token, tokens = n
            return (card * share / 100 - weights) * GB / (token * KIB * tokens)
        case "internal_waste":
            tokens, size = n
            return -tokens % size
        case "slabs_and_blocks":
            slots, tokens, slab, size, _ = n
            return slots // size // ceil(tokens, size) - slots // slab
        case "slot_of":
            size, *table, position = (int(each) for each in n)
            return table[position // size] * size + position % size
        case "blocks_for_prompts":
            *lengths, size = n
            return sum(ceil(tokens, size) for tokens in lengths)
        case "block_table_bytes":
            batch, tokens, size = n
            return batch * ceil(tokens, size) * 4
        case "slab_utilisation":
            slab, prompt, output = n
            return (prompt + output) / slab
        case "prefix_tokens" | "prefix_blocks":
            users, prompt, size = n
            full = prompt // size
            return (users - 1) * full * (size if problem.id == "prefix_tokens" else 1)
        case "fork_copies":
            prompt, size, samples = n
            return samples - 1 if prompt % size else 0
        case "int32_overflow":
            size, heads, dim = n
            return next(block for block in range(2**24) if block * size * heads * dim > 2**31 - 1)
        case "merge_of_two":
            sum_a, out_a, sum_b, out_b = n
            return (sum_a * out_a + sum_b * out_b) / (sum_a + sum_b)
        case "num_splits":
            batch, tokens, heads, processors, tile = n
            return min(2 * processors // (batch * heads), tokens // (4 * tile))
        case "step_time" | "decode_intensity":
            billions, token, batch, context, *rate = n
            read = 2 * billions * GB + batch * context * token * KIB
            return read / (rate[0] * GB) if rate else 2 * billions * GB * batch / read
        case "swap_or_recompute":
            tokens, token, link, prefill = n
            return min(tokens / prefill, 2 * tokens * token * KIB / (link * GB))
        case "tensor_parallel_kv":
            layers, heads, dim, gpus = n
            return 2 * layers * max(1, heads // gpus) * dim * 2
    raise AssertionError(f"{problem.id} has no second way to its answer: write one")


@pytest.mark.parametrize("kind", IDS)
def test_the_answer_follows_from_the_numbers_in_the_text(kind):
    for seed in range(60):
        problem = draw(random.Random(seed), kind)
        rounded = 0.03 if problem.tolerance == arithmetic.ESTIMATE else 0.001 if problem.tolerance else 0
        once_more = by_hand(problem)
        if problem.unit == "requests":
            once_more = math.floor(once_more + 0.02)
        assert abs(once_more - problem.answer) <= rounded * problem.answer + 1e-9, (
            problem.ask,
            problem.answer,
        )


@pytest.mark.parametrize("kind", IDS)
def test_the_numbers_are_fresh_and_the_working_ends_at_the_answer(kind):
    problems = [draw(random.Random(seed), kind) for seed in range(40)]
    assert len({problem.ask for problem in problems}) >= 6
    for problem in problems:
        digits = problem.shown.replace("slot ", "").replace("block ", "").split(" ")[0]
        assert digits in problem.working[-1], (problem.shown, problem.working)
        assert problem.ask.endswith("?") and problem.slips and problem.answer >= 0


def test_there_are_enough_kinds_on_every_level_and_each_says_what_it_is():
    assert len(set(IDS)) == len(IDS) >= 14
    assert {kind.level for kind in KINDS} == {"screen", "onsite", "expert"}
    assert all(kind.make.__doc__ and re.fullmatch(r"0\d|1[01]", kind.lesson) for kind in KINDS)


def test_a_level_or_a_kind_that_is_not_there_is_refused_with_what_is():
    assert {draw(random.Random(seed), level="expert").level for seed in range(20)} == {"expert"}
    with pytest.raises(ValueError, match="kind 'slots' .* there are: kv_per_token"):
        draw(random.Random(0), kind="slots")
    with pytest.raises(ValueError, match="level 'easy'"):
        draw(random.Random(0), level="easy")


# -- the grader ---------------------------------------------------------------------------------------------


def written(value: float, style: str) -> str:
    """A number as people type it."""
    if value and not 0.001 <= abs(value) < 1e15:
        return f"{value:.9e}"
    whole, _, part = f"{value:.9f}".rstrip("0").partition(".")
    grouped = {"comma": f"{int(whole):,}", "space": f"{int(whole):,}".replace(",", " ")}
    return grouped.get(style, whole) + (f".{part}" if part else "")


@given(st.sampled_from(IDS), st.integers(0, 10_000), st.data())
def test_the_answer_is_right_in_every_unit_that_fits_and_however_it_is_written(kind, seed, data):
    problem = draw(random.Random(seed), kind)
    wanted = UNITS[problem.unit.lower()][0] if problem.unit else None
    fitting = [name for name, (tells, _) in UNITS.items() if tells == wanted]
    unit = data.draw(st.sampled_from([*fitting, ""]))
    scale = UNITS[unit or problem.unit.lower()][1] if unit or problem.unit else 1.0
    before = data.draw(st.sampled_from(["", "≈ ", "about ", "= ", "~"]))
    between = data.draw(st.sampled_from(["", " "])) if unit else ""
    style = data.draw(st.sampled_from(["plain", "comma", "space"]))
    text = before + written(problem.answer / scale, style) + between + unit.upper() * (unit != "") + "  "
    graded = grade(problem, text)
    assert graded.right, (problem.ask, problem.answer, text, graded.message)
    assert graded.message.startswith("✓ right"), graded.message


@given(st.sampled_from(IDS), st.integers(0, 10_000), st.floats(-1, 1))
def test_rounding_is_accepted_up_to_the_tolerance_and_said(kind, seed, off):
    problem = draw(random.Random(seed), kind)
    text = repr(problem.answer * (1 + off)) + (" B" if problem.unit in ("KiB", "KB", "MB") else "")
    if problem.unit in ("%", "ms"):
        text = repr(problem.answer * (1 + off) * {"%": 100, "ms": 1000}[problem.unit])
    graded = grade(problem, text)
    if abs(off) < problem.tolerance * 0.99 or not problem.answer:
        assert graded.right
        if abs(abs(off) - 0.0005) > 1e-6:  # from there on it is told
            assert ("% off" in graded.message) == (abs(off) > 0.0005 and problem.answer > 0)
    elif abs(off) > problem.tolerance + 0.001:
        assert not graded.right, (problem.ask, problem.answer, text)


@pytest.mark.parametrize("kind", IDS)
def test_every_known_slip_gets_its_sentence(kind):
    seen = set()
    for seed in range(60):
        problem = draw(random.Random(seed), kind)
        unit = UNITS.get(problem.unit.lower(), ("", 1.0))[1]
        for slip in problem.slips:
            text = repr(slip.value / unit) + (f" {problem.unit}" if problem.unit == "%" else "")
            graded = grade(problem, text)
            assert not graded.right and graded.message == f"✗ {slip.says}", (problem.ask, text)
            seen.add(slip.says)
    assert len(seen) >= 2


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_no_slip_is_ever_taken_for_the_answer(kind):
    """Whatever is drawn: not those alone that the problem still names, but all that its kind knows."""
    unit, last = UNITS.get(kind.unit.lower(), ("", 1.0))[1], []

    @functools.wraps(kind.make)
    def make(rng: random.Random):
        last.append(kind.make(rng))
        return last[-1]

    spied = replace(kind, make=make)
    for seed in range(250):
        problem = spied.draw(random.Random(seed))
        for value, says in last[-1].slips:
            if math.isclose(value, problem.answer, rel_tol=1e-9):
                continue  # these numbers make it right
            behind = f" {kind.unit}" if kind.unit == "%" else ""
            for text in (repr(value / unit) + behind, arithmetic.shown(value, kind.unit)):
                assert not grade(problem, text).right, (problem.ask, text, says)


def test_of_requests_that_fit_one_more_or_less_is_the_most():
    larger = [draw(random.Random(seed), "requests_that_fit") for seed in range(200)]
    assert max(problem.answer for problem in larger) > 20
    for problem in larger:
        for off in (-2, 2):
            assert not grade(problem, str(problem.answer + off)).right, problem
        if problem.answer >= 10:
            assert (
                grade(problem, str(problem.answer + 1)).right
                and grade(problem, str(problem.answer - 1)).right
            )


def test_a_slot_is_never_the_position_nor_the_begin_of_a_block():
    for seed in range(500):
        problem = draw(random.Random(seed), "slot_of")
        size, *_, position = numbers_in(problem.ask)
        assert problem.answer != position and position % size
        assert {"that is the position: follow the table"} <= {slip.says for slip in problem.slips}


def test_the_splits_ask_one_thing_and_know_who_forgot_the_tiles():
    seen = 0
    for seed in range(100):
        problem = draw(random.Random(seed), "num_splits")
        assert "Each multiprocessor should get two programs (round down), and a split has" in problem.ask
        batch, tokens, heads, processors, tile = numbers_in(problem.ask)
        uncapped = 2 * processors // (batch * heads)
        if uncapped > tokens // (4 * tile):
            seen += 1
            assert grade(problem, str(int(uncapped))).message.startswith("✗ you forgot the tiles")
    assert seen > 20


def test_slabs_and_blocks_are_compared_without_a_watermark():
    assert "no watermark" in draw(random.Random(0), "slabs_and_blocks").ask


def test_a_kind_that_came_just_now_waits_unless_nothing_else_is_left():
    for level in (None, "screen", "onsite", "expert"):
        series = arithmetic.Series(random.Random(1), level)
        kinds = [series.next().id for _ in range(60)]
        assert all(len(set(kinds[n : n + 4])) == 4 for n in range(57)), kinds
    assert draw(random.Random(0), "slot_of", recent=["slot_of"]).id == "slot_of"


def made(answer: float, unit: str, tolerance: float, *slips: Slip) -> Problem:
    return Problem("made", "screen", "01", "How many?", answer, unit, ("so many",), slips, tolerance)


SIZE = made(800 * KIB, "KiB", 0.03, Slip(400 * KIB, "you counted K and forgot V"))


@pytest.mark.parametrize(
    ("problem", "text", "right", "message"),
    [
        (SIZE, "0.8 MB", True, "✓ near enough: it is 800 KiB, you are 2.3% off"),
        (SIZE, "819", True,
         "✓ near enough: it is 800 KiB, you are 2.4% off. That is the number in KB: say which you mean"),
        (SIZE, "819,200 B", True, "✓ right: 800 KiB"),
        (SIZE, "819 200 bytes per token", True, "✓ right: 800 KiB"),
        (SIZE, "8 x 10^2 KiB/token", True, "✓ right: 800 KiB"),
        (SIZE, "800 k", True, "✓ near enough: it is 800 KiB, you are 2.3% off"),
        (SIZE, "6,5536e6 bit", True, "✓ right: 800 KiB"),
        (SIZE, "400", False, "✗ you counted K and forgot V"),
        (SIZE, "6400", False, "✗ bits, not bytes: eight times too high"),
        (SIZE, "800 MiB", False, "✗ the digits are right and the unit is not: off by a power of a thousand"),
        (SIZE, "1600", False, "✗ too high by a factor of 2.0"),
        (SIZE, "-800", False, "✗ too low"),
        (SIZE, "800 ms", False, "✗ ms tells a time, and a size is asked: in KiB, for example"),
        (SIZE, "800 blocks", False, "✗ blocks tells a number of blocks, and a size is asked: in KiB, for example"),
        (SIZE, "800 parsecs", False, "✗ no unit 'parsecs' is known here, and a size is asked: in KiB, for example"),
        (SIZE, "two", False, "✗ no number can be read in 'two': write it like 12.5 GiB, 12,500 MB or 3e5"),
        (SIZE, "", False, "✗ no number can be read in '': write it like 12.5 GiB, 12,500 MB or 3e5"),
        (SIZE, "1.2.3", False, "✗ no number can be read in '1.2.3': write it like 12.5 GiB, 12,500 MB or 3e5"),
        (made(12.5e9, "GB", 0.03), "11.64", False, "✗ GB is not GiB: that is the number in GiB, and GB are asked"),
        (made(0.4, "%", 0.05), "40%", True, "✓ right: 40%"),
        (made(0.4, "%", 0.05), "0.4", True, "✓ right: 40%"),
        (made(0.4, "%", 0.05), "40", True, "✓ right: 40%"),
        (made(0.4, "%", 0.05), "0.4 %", False, "✗ too low by a factor of 100.0"),
        (made(1310720, "tokens", EXACT), "1 310 720", True, "✓ right: 1,310,720 tokens"),
        (made(300000, "tokens", EXACT), "3e5", True, "✓ right: 300,000 tokens"),
        (made(300000, "tokens", EXACT), "300k tokens", True, "✓ right: 300,000 tokens"),
        (made(300000, "tokens", EXACT), "0.3 million", True, "✓ right: 300,000 tokens"),
        (made(40, "blocks", EXACT), "≈ 40", True, "✓ right: 40 blocks"),
        (made(40, "blocks", EXACT), "41", False, "✗ too high"),
        (made(40, "blocks", EXACT), "40 slots", False,
         "✗ slots tells a number of slots, and a number of blocks is asked: in blocks, for example"),
        (made(65, "slot", EXACT), "slot 65", True, "✓ right: slot 65"),
        (made(2**20, "", EXACT), "2^20", True, "✓ right: 1,048,576"),
        (made(3.2, "", 0.01), "3,2", True, "✓ right: 3.2"),
        (made(3.2, "", 0.01), "3.2 GB", False, "✗ GB tells a size, and a plain number is asked: no unit"),
        (made(40.5, "FLOP/byte", 0.1), "40 flops/byte", True, "✓ near enough: it is 40.5 FLOP/byte, you are 1.2% off"),
        (made(0.0, "blocks", EXACT), "0", True, "✓ right: 0 blocks"),
        (made(0.0, "blocks", EXACT), "1", False, "✗ too high"),
    ],
)  # fmt: skip
def test_what_the_grader_says(problem, text, right, message):
    graded = grade(problem, text)
    assert (graded.right, graded.message) == (right, message)


@pytest.mark.parametrize(
    ("text", "readable"),
    [("", False), ("  ", False), ("two", False), ("800 parsecs", False), ("800 ms", False), ("800 blocks", False),
     ("400", True), ("800", True), ("-1", True), ("800 GiB", True), ("?", True), (" ? ", True)],
)  # fmt: skip
def test_what_cannot_be_read_is_told_from_what_is_wrong(text, readable):
    assert grade(SIZE, text).readable == readable


@pytest.mark.parametrize(
    ("text", "read"),
    [("262144 (2^18)", (262144.0, "")), ("262,144 tokens (256 Ki).", (262144.0, "tokens")),
     ("12.5 GiB(13.4 GB)", (12.5, "GiB")), ("12.5 (GiB)", (12.5, "GiB")), ("about 40 (roughly)", (40.0, "")),
     ("2^18 (that is 262144)", (262144.0, ""))],
)  # fmt: skip
def test_a_bracket_behind_the_number_is_a_remark(text, read):
    assert parse(text) == read


@pytest.mark.parametrize("text", ["(2^18)", "()", "(12", "two (2)"])
def test_a_bracket_is_no_number(text):
    with pytest.raises(ValueError, match="no number can be read"):
        parse(text)


@given(st.text(max_size=30))
def test_nothing_that_is_typed_breaks_it(text):
    graded = grade(SIZE, text)
    assert graded.message[:2] in ("✓ ", "✗ ")
    try:
        number, _ = parse(text)
        assert math.isfinite(number) or graded.message
    except ValueError as error:
        assert "no number can be read" in str(error)
