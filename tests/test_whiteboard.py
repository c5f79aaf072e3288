"""The whiteboard and the cheat sheet of notebook 11, by the numbers behind them."""

import io
import itertools
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
import torch
from nbval_hook import reasons_not_to_compare
from PIL import Image

from course_lib.teaching import board_story, interview, online_story, paper, real_engines
from course_lib.teaching.explorers.whiteboard import whiteboard as explorer
from course_lib.teaching.plots import sheet as layout
from course_lib.teaching.plots.cheat_sheet import TODAY, cheat_sheet
from course_lib.teaching.plots.whiteboard import BLOCK, LEFT, NUM_STEPS, SHOWN, whiteboard

STEPS = range(1, NUM_STEPS + 1)
SIZE = 16


def all_texts(figure):
    return [
        text for text in [*figure.texts, *(t for axes in figure.axes for t in axes.texts)] if text.get_text()
    ]


def check_texts_stand_free(figure, margin=0.0):
    """No text touches another, or comes nearer than `margin` pixels to the edge."""
    renderer = figure.canvas.get_renderer()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in all_texts(figure)]
    for told, box in boxes:
        assert box.x0 >= margin and box.y0 >= margin, f"{told!r} is cut off"
        assert box.x1 <= figure.bbox.x1 - margin and box.y1 <= figure.bbox.y1 - margin, f"{told!r} is cut off"
    for (told, box), (other, second) in itertools.combinations(boxes, 2):
        wide = min(box.x1, second.x1) - max(box.x0, second.x0)
        tall = min(box.y1, second.y1) - max(box.y0, second.y0)
        assert not (wide > 0.5 and tall > 1.5), f"{told!r} lies on {other!r}"


def on_board(step):
    """What stands on the board: not the lines above it, nor the caption."""
    return [text.get_text() for text in whiteboard(step).axes[0].texts if text.get_text()][3:]


@pytest.fixture(scope="module")
def board():
    return board_story.board()


@pytest.fixture(scope="module")
def page():
    return cheat_sheet()


@pytest.fixture(scope="module")
def said(page):
    """All that the page says, in the order in which it was written."""
    return " ".join(text.get_text() for text in all_texts(page)).replace("\N{NO-BREAK SPACE}", " ")


# -- what stands on the board ---------------------------------------------------------------------------------


def test_the_boards_objects_are_sound(board):
    board.pool.check(table.block_ids for table in board.tables.values())
    assert [board.tables[name].block_ids for name in "ABC"] == [[7, 3], [5, 1, 10], [7, 0]]
    assert [board.tables[name].num_tokens for name in "ABC"] == [24, 37, 25]
    assert board.free_before[:6] == [7, 3, 5, 1, 10, 0] and sorted(board.free_before) == list(range(256))
    assert board.pool.free_blocks() == board.free_before[6:]
    assert board.forked == {7: 2, 3: 2} and board.copy == (3, 0)
    assert [board.pool.ref_count(block) for block in (7, 3, 0)] == [2, 1, 1]
    assert board.chain == [5, 1], "two blocks of B are full, and the third is not"


def test_who_is_preempted_by_hand(board):
    """Six blocks: A with 24 tokens has two, B with 37 three. A takes the sixth with its 33rd token, and B wants one
    with its 49th, in step 49 - 36. B came last. D's two blocks were never free."""
    assert (board.victim, board.preempted_in) == ("B", 49 - 36)
    assert (board.running, board.waiting) == (["A"], ["B", "D"])


def test_the_slabs_of_the_board_by_hand():
    texts = on_board(1)
    assert f"61 of 4,096 slots hold a token: {61 / 4096:.1%}" in texts
    assert 2 * 32 * 8 * 128 * 2 == 128 * 2**10 and 2048 * 128 / 2**10 == 256
    assert "8B: 128 KiB a token, 256 MiB a slab" in texts
    assert "Llama-3.1-8B: 2 × 32 layers × 8 KV heads × 128 × 2 bytes a token." in whiteboard(1).alt
    assert f"A: 24 tokens, 338 reserved, {2048 - 24 - 338:,} internal" in texts
    assert f"B: 37 tokens, 58 reserved, {2048 - 37 - 58:,} internal" in texts


def test_the_slot_shown_is_the_tables(board):
    slot = board.tables["A"].slot(17)
    assert slot == 3 * 16 + 1
    assert f"slot 3 × 16 + 1 = {slot}" in on_board(4) and "17 // 16 = 1: table[1] = 3" in on_board(4)
    assert whiteboard(4).axes[0].texts[1].get_text().endswith(f"that is slot {slot}.”")
    assert f"slot mapping: new token 23 → {3 * 16 + 23 % 16}" in on_board(4), "A has 24 tokens"
    assert "int64(block) × stride: can pass 2³¹" in on_board(4)


def test_the_walk_is_attention_over_the_tokens_of_its_blocks(board):
    query = online_story.load()["scores that rise"]
    scores, values, texts = query.scores.double(), query.values.double(), on_board(5)
    assert "o (one of 64)" in texts
    number, first = board.states[-1].mixed.abs().argmax(), texts.index("7: 16")
    for row, seen in enumerate((16, 24)):
        weights = torch.exp(scores[:seen] - scores[:seen].max())
        exact = scores[:seen].max(), weights.sum(), weights @ values[:seen, number]
        assert texts[first + 5 * row + 1 : first + 5 * row + 4] == [f"{part:.2f}" for part in exact]
    assert texts[first + 5] == "3: 8"
    assert texts[first + 9] == f"× {torch.exp(scores[:16].max() - scores.max()):.2f}"
    assert texts[first + 10].endswith(f" = {scores.softmax(0) @ values[:, number]:.2f}")


def test_sharing_and_the_scheduler_show_the_objects(board):
    texts = on_board(7)
    assert {"C is a fork of A: 7 ×2, 3 ×2", "C writes: copy 3 to 0", "then 7 ×2, 3 ×1, 0 ×1"} <= set(texts)
    assert {"finds B's 5", "finds B's 1", "B, D", "A grows"} <= set(texts)
    pool = texts.index("another pool, of 6 blocks:")
    assert texts[pool + 1] == f"in step {board.preempted_in} none is free, B gives up all"
    assert {"admit", "watermark"} <= set(texts)


def test_the_last_step_names_the_price_and_the_limits():
    texts = on_board(8)
    assert "costs: kernel 20-26% slower (2023), preemptions" in texts and paper.FIG_18A == [0.20, 0.26]
    assert "no gain: one stream, full slabs, compute-bound" in texts


def test_arrows_lead_from_the_table_to_its_blocks(board):
    arrows = [text for text in whiteboard(3).axes[0].texts if hasattr(text, "arrow_patch")]
    tips = [int((arrow.xy[0] - LEFT) // BLOCK) for arrow in arrows]
    assert tips == board.tables["A"].block_ids + board.tables["B"].block_ids and max(tips) < SHOWN


@pytest.mark.parametrize("step", STEPS)
def test_blocks_that_are_taken_are_struck_from_the_free_list(step, board):
    struck = len(whiteboard(step).axes[0].lines)
    assert struck == (0 if step < 3 else 5 if step < 7 else 6)
    assert 256 - len(board.free_before[struck:]) == struck


# -- the pictures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS[:-1])
def test_each_step_leaves_what_is_there(step):
    now, then = on_board(step), on_board(step + 1)
    assert then[: len(now)] == now and len(then) > len(now)


@pytest.mark.parametrize("step", STEPS)
def test_no_text_is_cut_off_or_small(step):
    picture = whiteboard(step)
    check_texts_stand_free(picture)
    assert min(text.get_fontsize() for text in all_texts(picture)) >= 11
    with matplotlib.rc_context({"text.hinting": "none"}):  # as under the slider
        check_texts_stand_free(picture)


@pytest.mark.parametrize("step", STEPS)
def test_only_what_is_new_is_strong(step):
    strong = {text.get_text() for text in whiteboard(step).axes[0].texts if text.get_color() == "#0072B2"} - {
        ""
    }
    before = on_board(step - 1) if step > 1 else []
    assert strong == set(on_board(step)[len(before) :])


def test_the_sentences_are_those_of_five_minutes(board):
    told = board_story.told(board)
    minutes = [60 * int(minute[0]) + int(minute[2:]) for minute, _, _ in told]
    assert minutes == sorted(set(minutes)) and minutes[0] == 0 and minutes[-1] < 300
    for step, (minute, spoken, drawn) in enumerate(told, start=1):
        picture = whiteboard(step)
        above = [text.get_text() for text in picture.axes[0].texts[:3]]
        assert above == [minute, f"“{spoken}”", "five-minute clock"]
        assert picture.alt == f"{minute}, say: {spoken} On the board: {drawn}"
        following = minutes[step] if step < NUM_STEPS else 300
        assert (
            len(spoken.split()) / interview.load_answers().words_a_minute * 60 < following - minutes[step - 1]
        )
    assert {leg.board for leg in interview.load_answers().twenty_minutes} <= {0, *STEPS}


def test_the_same_board_twice():
    assert whiteboard(8).png(small=False) == whiteboard(8).png(small=False)
    assert len({tuple(whiteboard(step).get_size_inches()) for step in STEPS}) == 1


def test_there_is_no_other_step():
    for step in (0, 9):
        with pytest.raises(ValueError, match=f"from 1 to 8, got {step}"):
            whiteboard(step)


def test_the_explorer_answers_to_its_slider():
    shown = explorer()
    (step,) = shown.controls
    view, seen = shown.widget.children[-1], set()
    for value in reversed(STEPS):
        step.value = value
        assert view.value not in seen, value
        seen.add(view.value)
    before = view.value
    for value in (2, 1):  # what was drawn is kept
        step.value = value
    assert view.value == before
    assert shown.alt == whiteboard(8).alt and {"image/png", "text/plain"} <= set(shown.cold)


# -- the cheat sheet ------------------------------------------------------------------------------------------


def test_the_page_fits_and_nothing_overlaps(page):
    with matplotlib.rc_context(layout.UNHINTED):
        check_texts_stand_free(page, margin=0.3 * layout.PNG_DPI)
        renderer, middle = page.canvas.get_renderer(), page.bbox.width / 2
        for text in all_texts(page)[2:]:
            box = text.get_window_extent(renderer)
            assert not box.x0 < middle < box.x1, f"{text.get_text()!r} leaves its column"
    assert min(text.get_fontsize() for text in all_texts(page)) >= 7.5


def test_bytes_a_token_by_hand(said):
    rows = {"OPT-13B, MHA": 2 * 40 * 40 * 128 * 2, "Llama-3.1-8B, GQA": 2 * 32 * 8 * 128 * 2}
    rows |= {"Llama-3.1-70B, GQA": 2 * 80 * 8 * 128 * 2, "DeepSeek-V3, MLA": 61 * (512 + 64) * 2}
    for name, one in rows.items():
        row = said[said.index(name) :].split(" GiB")[0]
        assert row.endswith(f" {one / 2**10:.1f} KiB {8192 * one / 2**30:.2f}"), row


def test_the_wastes_are_the_papers(page, said):
    bars = [text.get_text() for text in page.axes[0].texts]
    shares = [share for plan in paper.FIG_2.values() for share in plan.values() if share > 0.08]
    assert [text for text in bars if text.endswith("%")] == [f"{share:.1%}" for share in shares]
    widths = [patch.get_width() for patch in page.axes[0].patches]
    whole = [sum(widths[first : first + 4]) for first in range(0, 16, 4)]
    assert whole == pytest.approx([layout.WIDE - 0.96] * 4, rel=0.002)
    assert widths[0] / whole[0] == pytest.approx(0.204, rel=0.002)
    renderer, patches = page.canvas.get_renderer(), page.axes[0].patches
    with matplotlib.rc_context(layout.UNHINTED):
        for text in page.axes[0].texts:
            box = text.get_window_extent(renderer)
            for patch in patches:  # a number lies in its share, or beside the bar
                bar = patch.get_window_extent(renderer)
                if bar.y0 < (box.y0 + box.y1) / 2 < bar.y1 and bar.width > 0:
                    assert (bar.x0 < box.x0 and box.x1 < bar.x1) or box.x0 > bar.x1 or box.x1 < bar.x0, text
    assert (
        "7 on slabs, 13.6 with an oracle, 30.4 paged" in said and f"{2048 * 819_200 / 2**30:.2f} GiB" in said
    )


def test_slot_bound_and_cast_by_hand(said):
    slot = [7, 3][17 // 16] * 16 + 17 % 16
    assert "Table [7, 3], B = 16: token 17 is in entry 17 // 16 = 1, offset 17 % 16 = 1: " in said
    assert f": slot 3 × 16 + 1 = {slot}." in said and slot == board_story.board().tables["A"].slot(17)
    assert f"Slot mapping: where new tokens are written: 23 in slot {3 * 16 + 23 % 16}." in said
    assert f"at most B - 1 = 15 slots a sequence, for OPT-13B {15 * 819_200 / 2**20:.1f} MiB" in said
    assert 131_072 * SIZE * 8 * 128 == 2**31 and "block 131,072 begins at 2³¹" in said
    assert f"{8192 // SIZE} entries: {8192 // SIZE * 4 // 1024} KiB beside 1 GiB" in said


def test_the_floor_of_a_decode_step_by_hand(said):
    weights, cache, rate = 2 * 8_030_261_248, 8192 * 131_072, 3350e9
    for batch in (1, 32):
        seconds = (weights + batch * cache) / rate
        told = f"{weights / 1e9:.1f} + {batch * cache / 1e9:.1f} GB: {1000 * seconds:.1f} ms at least"
        assert f"batch {batch}: {told}, {batch / seconds:,.0f} tokens/s at most." in said
    fit = int((0.9 * 80e9 - weights) // cache)
    assert f"{fit} such contexts fit beside the weights (90% of 80 GB)." in said


def test_the_ridge_and_the_price_by_hand(said):
    heads, kv_heads = (
        32,
        8,
    )  # a token: q · k and weight · v for each query head, K and V in fp16 for each KV head
    intensity = heads * 128 * 2 * 2 / (kv_heads * 128 * 2 * 2)
    assert f"a few FLOP a byte (attention: {intensity:.0f}), H100: {989e12 / 3350e9:.0f}." in said
    assert (
        "Price: attention 20 to 26% slower in 2023 (Fig 18a), preemptions, blocks that are not full." in said
    )


@pytest.mark.parametrize(
    ("lead", "point", "words"),
    [
        ("Blocks", "a block", ("16", "128", "CPU")),
        ("Blocks", "block table", ("request and group of layers",)),
        ("Blocks", "layers of several kinds", ("one pool",)),
        ("Step", "one step", ("no phases", "prompts", "in chunks", "decodes")),
        ("Preemption", "out of blocks", ("the last come", "recomputed", "no swap")),
        ("Prefix caching", "prefix caching", ("on by default", "SHA-256")),
        ("Prefix caching", "n samples", ("find each other's full blocks",)),
        ("Kernels", "kernel", ("FlashAttention", "FlashInfer", "Triton", "a block table", "queries")),
        ("Tensor parallel", "several GPUs", ("one block table for all ranks", "heads are sharded")),
    ],
)
def test_vllm_today_is_what_the_table_of_three_worlds_says(lead, point, words, said):
    (row,) = (each for each in real_engines.load_table().points if each.name == point)
    table = f"{row.paper} {row.vllm}" if row.vllm.startswith("The same;") else row.vllm
    assert f"{lead}: " in said
    for word in words:
        assert word.lower() in TODAY[lead].lower(), f"the page does not say {word!r}"
        assert word.lower() in table.lower(), f"real_engines.toml does not say {word!r}"


def test_the_shared_system_prompt_by_hand(said):
    blocks, alone = 1024 // SIZE + 100 * -(-300 // SIZE), 100 * -(-1324 // SIZE)
    assert board_story.system_prompt(100, 1024, 300) == (alone, blocks, 1024 + 100 * 300)
    held, needed = (number * SIZE * 131_072 / 2**30 for number in (blocks, alone))
    assert f"{blocks:,} blocks in place of {alone:,} ({held:.1f} GiB, not {needed:.1f})" in said
    assert f"{1024 + 100 * 300:,} tokens computed in place of {100 * 1324:,}." in said


def test_the_numbers_of_the_minute_hold(said):
    """They are written in answers.toml, and repeated on the page."""
    minute = interview.load_answers().one_minute
    tokens = {name: plan["token_states"] for name, plan in paper.FIG_2.items()}
    assert minute.split()[0] in said and "128 KiB for an 8B model" in minute
    assert f"{100 * tokens['reserve_max']:.0f}% of that memory held tokens" in minute
    assert f"{100 * tokens['reserve_exact']:.0f}% even if an oracle told the lengths" in minute
    assert "20 to 26% slower" in minute and paper.FIG_18A == [0.20, 0.26]
    assert f"{100 * tokens['paged']:.0f}% of the memory holds tokens" in minute
    for wrong in interview.load_answers().wrong:
        assert f"✗ {wrong.says}" in said and wrong.because in said


def test_the_pdf_is_the_same_bytes_each_time(page):
    code = "import sys; from course_lib.teaching.plots import cheat_sheet; sys.stdout.buffer.write(cheat_sheet().pdf())"
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    ran = subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True)
    pdf = page.pdf()
    assert ran.stdout == pdf and b"CreationDate" not in pdf and pdf.count(b"/Type /Page ") == 1
    assert b"/MediaBox [ 0 0 595.44 841.68 ]" in pdf  # A4


def test_the_page_that_is_committed_is_the_page(page):
    lessons = Path(__file__).parent.parent / "lessons"
    drawn = {"pdf": page.pdf(), "png": page.png()}
    for kind, data in drawn.items():
        file = lessons / f"cheat_sheet.{kind}"
        if not reasons_not_to_compare(
            lessons.parent / "requirements.lock"
        ):  # elsewhere fonts and versions differ
            assert file.read_bytes() == data, f"{file.name} is old: `make cheatsheet` draws it anew"
        else:
            assert file.stat().st_size > 50_000


def test_the_pictures_of_the_page_are_small(page):
    data, facts = page._repr_mimebundle_()
    for picture, dpi, limit in ((page.png(), 150, 230_000), (data["image/png"], 110, 150_000)):
        with Image.open(io.BytesIO(picture)) as pixels:
            assert pixels.size == (int(8.27 * dpi), int(11.69 * dpi))
        assert len(picture) < limit
    assert facts["image/png"]["alt"] == page.alt
