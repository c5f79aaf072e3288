"""The pictures and explorers of notebooks 05 and 06, by the numbers behind them."""

import math
import re

import pytest
import torch
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from course_lib.attention.launch import choose_num_splits
from course_lib.teaching import explorers, kernel_lab, kernel_story, online_story, plots, split_rules
from course_lib.teaching.exercises.lesson_06 import choose_splits
from course_lib.teaching.kernel_story import BLOCK_SIZE, CONTEXTS, GROUP, HEAD_DIM, KV_HEADS, TILE
from course_lib.teaching.online_story import states

VERMILLION = to_rgba("#D55E00")

# -- kernel one, step by step -----------------------------------------------------------------------------------


@pytest.mark.skipif(not kernel_lab.HERE, reason="no Triton here")
def test_the_stored_steps_are_those_of_the_kernel():
    assert kernel_story.record() == kernel_story.story(), "run python -m course_lib.teaching.kernel_story"


def test_each_program_walks_its_sequence_twice_and_reads_every_slot_once_a_walk():
    tables = kernel_story.make_tables()
    for sequence, length in enumerate(CONTEXTS):
        for kv_head in range(KV_HEADS):
            own = [s for s in kernel_story.story() if (s.sequence, s.kv_head) == (sequence, kv_head)]
            tiles = math.ceil(length / TILE)
            phases = ["query", *["keys"] * tiles, "softmax", *["values"] * tiles, "out"]
            assert [step.phase for step in own] == phases
            for phase in ("keys", "values"):
                read = [slot for step in own if step.phase == phase for slot in step.slots if slot >= 0]
                assert read == [tables[sequence].slot(position) for position in range(length)]
            assert own[-1].num_scores == length


def test_the_bytes_of_a_step_are_those_of_its_tile():
    for step in kernel_story.story():
        tokens = sum(slot >= 0 for slot in step.slots)
        entries = len({entry for entry in step.entries if entry >= 0})
        if step.phase in ("keys", "values"):  # rows of the cache, entries of the table, scores
            assert step.bytes == 4 * (tokens * HEAD_DIM + entries + tokens * GROUP)
        if step.phase == "softmax":
            assert step.bytes == 2 * 4 * GROUP * CONTEXTS[step.sequence]


def framed(axes):
    return [patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_lw() == 2.4]


def test_a_step_frames_what_it_reads():
    picture = plots.kernel_step(kernel_story.story(), 0, 1, 3)
    step = [s for s in kernel_story.story() if (s.sequence, s.kv_head) == (0, 1)][3]
    pool = [patch for patch in framed(picture.axes[0]) if patch.get_height() == 2.1]
    found = set()
    for patch in pool:
        row, column = round((patch.get_y() - 9.4) / 3.6), int((patch.get_x() + 0.01) // 4.72)
        found.add(BLOCK_SIZE * (7 * row + column) + round((patch.get_x() - 4.72 * column) / 1.1))
    assert found == {slot for slot in step.slots if slot >= 0}
    entries = [patch for patch in framed(picture.axes[0]) if patch.get_width() == 1.25]
    assert len(entries) == len({entry for entry in step.entries if entry >= 0})
    assert "positions 16 to 23, 5 are tokens and 3 masked" in picture.alt
    assert f"{step.bytes} bytes are moved" in picture.alt


def test_the_last_step_stands_for_all_behind_it():
    steps = kernel_story.story()
    assert plots.kernel_step(steps, 1, 0, 6).alt == plots.kernel_step(steps, 1, 0, 99).alt


# -- online softmax -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tile", [1, 4, 7, 24])
def test_states_are_sums_over_what_was_seen(tile):
    for query in online_story.load().values():
        scores, values = query.scores.double(), query.values.double()
        for number, state in enumerate(states(scores, values, tile)[1:], start=1):
            seen, rows = scores[: number * tile], values[: number * tile]
            weights = torch.exp(seen - seen.max())
            assert state.largest == seen.max().item()
            assert state.total == pytest.approx(weights.sum().item(), rel=1e-12)
            torch.testing.assert_close(state.mixed, weights @ rows, rtol=1e-12, atol=1e-12)
        last = states(scores, values, tile)[-1]
        torch.testing.assert_close(
            last.mixed / last.total, scores.softmax(0) @ values, rtol=1e-12, atol=1e-12
        )


def test_without_rescaling_the_result_is_wrong_only_where_the_maximum_grows():
    found = {}
    for name, query in online_story.load().items():
        state = states(query.scores, query.values, 4, rescale=False)[-1]
        truth = query.scores.softmax(0) @ query.values
        found[name] = (state.mixed / state.total - truth).abs().max().item()
    assert found["the first token rules"] < 1e-5 and found["scores that rise"] > 0.05


def test_the_recorded_queries_are_the_models(real):
    stored, recorded = online_story.load(), online_story.record()
    for name, query in stored.items():
        assert recorded["tokens"] == query.tokens
        row = recorded["queries"][name]
        torch.testing.assert_close(torch.tensor(row["scores"]), query.scores, rtol=0, atol=2e-3)
        torch.testing.assert_close(torch.tensor(row["values"]), query.values, rtol=0, atol=2e-3)


def test_bars_are_scores_weights_and_the_output_so_far():
    query = online_story.load()["scores that rise"]
    picture = plots.online_step(query, 4, 3, True)
    scores, weights, output = picture.axes
    state = states(query.scores, query.values, 4)[3]
    seen = [p for p in scores.patches if p.get_facecolor() in (to_rgba("#56B4E9"), to_rgba("#0072B2"))]
    assert [p.get_y() + p.get_height() for p in seen] == pytest.approx(query.scores[:12].tolist(), abs=1e-5)
    assert sum(p.get_facecolor() == to_rgba("#0072B2") for p in seen) == 4, "the newest tile is dark"
    drawn = [p.get_height() for p in weights.patches]
    assert drawn == pytest.approx(torch.exp(query.scores[:12] - state.largest).tolist(), rel=1e-4)
    assert sum(drawn) == pytest.approx(state.total, rel=1e-4)
    assert [bar.get_height() for bar in output.patches] == pytest.approx((state.mixed / state.total).tolist())
    assert (
        f"m = {state.largest:.2f}, l = {state.total:.3f}" in picture.alt
        and "12 of 24 scores seen" in picture.alt
    )


def test_at_the_end_the_output_is_the_truth():
    query = online_story.load()["mixed"]
    assert "off by up to 0.000" in plots.online_step(query, 8, 99, True).alt
    assert "off by up to 0.000" not in plots.online_step(query, 8, 99, False).alt
    assert "m is -inf" in plots.online_step(query, 8, 0, True).alt


# -- splits -------------------------------------------------------------------------------------------------------


def test_rules_are_what_they_say():
    shape = dict(num_kv_heads=8, context=32_768, tile=64, multiprocessors=132)
    found = split_rules.table([1, 16, 17, 64], **shape)
    assert found["this course"] == [
        choose_num_splits(8 * batch, 32_768, 64, 132) for batch in (1, 16, 17, 64)
    ]
    assert found["vLLM's Triton kernel"] == [16, 16, 1, 1]
    assert found["FlashAttention-3"] == [choose_splits(8 * batch, 512, 132) for batch in (1, 16, 17, 64)]
    assert split_rules.flash_attention_3(1, 8, 256, 64, 132) == 1, "four tiles are not cut"


@pytest.mark.parametrize("batch", [1, 3, 8, 33, 40])
@pytest.mark.parametrize("context", [100, 1000, 32_768])
def test_flash_infers_pieces_are_the_smallest_that_run_at_once(batch, context):
    """By brute force: pieces of 128 tokens at least, at most two programs for each processor."""
    tiles = math.ceil(context / 64)
    fits = [n for n in range(1, tiles + 1) if batch * 8 * math.ceil(tiles / n) <= 264 and n >= min(tiles, 2)]
    wanted = math.ceil(tiles / min(fits)) if fits else 1
    assert split_rules.flash_infer(batch, 8, context, 64, 132) == wanted


def test_the_longest_walk_by_hand():
    """24 programs on 10 processors are three waves; 100 tiles in 3 splits are 34 each."""
    assert split_rules.longest_walk(2, 4, 6400, 64, 3, 10) == 3 * 34
    assert split_rules.longest_walk(1, 8, 32_768, 64, 1, 132) == 512


def test_split_rules_are_drawn_as_they_are():
    batches = [1, 8, 64]
    shape = dict(num_kv_heads=8, context=32_768, tile=64, multiprocessors=132)
    splits = split_rules.table(batches, **shape)
    walks = split_rules.walks(splits, batches, **shape)
    picture = plots.split_rules(splits, batches, walks, "here")
    left, right = picture.axes
    assert {line.get_label(): list(line.get_ydata()) for line in left.lines} == splits
    assert {line.get_label(): list(line.get_ydata()) for line in right.lines} == walks
    assert f"walks {walks['no split'][0]} tiles without splits" in picture.alt


# -- explorers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [explorers.kernel_stepper, explorers.softmax_stepper])
def test_explorers_answer_to_every_control(make):
    explorer = make()
    view = explorer.widget.children[-1]
    seen = {view.value}
    for control in reversed(explorer.controls):
        if hasattr(control, "options"):
            control.index = (control.index + 1) % len(control.options)
        else:
            control.value += 1 if control.value == control.min else -1
        assert view.value not in seen, control.description
        seen.add(view.value)


def test_the_kernel_steppers_last_step_is_within_reach():
    explorer = explorers.kernel_stepper()
    sequence, kv_head, step = explorer.controls
    step.value = step.max
    told = re.search(r'alt="([^"]*)"', explorer.widget.children[-1].value)[1]
    assert "It stores its result" in told and (sequence.value, kv_head.value) == (0, 1)


def test_vllms_and_flash_attentions_rules_at_their_edges():
    assert [split_rules.vllm_triton(batch, 8, 32_768, 64, 132) for batch in (15, 16, 17)] == [16, 16, 1]
    assert split_rules.flash_attention_3(8, 1, 32_768, 64, 10) == 1, "0.8 of the processors are enough"
    assert split_rules.flash_attention_3(7, 1, 32_768, 64, 10) > 1
    assert split_rules.flash_attention_3(1, 1, 32_768, 64, 132) == 109, "85% of the 128 that are tried"
    assert split_rules.flash_attention_3(1, 1, 320, 64, 132) == 5, "five tiles are cut, to the last"


def test_a_piece_of_flash_infer_may_be_a_single_large_tile():
    assert split_rules.flash_infer(1, 1, 32_768, 256, 132) == 128
    assert split_rules.flash_infer(1, 1, 32_768, 48, 132) == math.ceil(683 / 3), (
        "128 tokens are three tiles of 48"
    )


def texts_at(axes, left, top, right, bottom):
    """What is written in a part of the picture, row by row."""
    found = [(text.get_position(), text.get_text()) for text in axes.texts]
    found = [(y, x, text) for (x, y), text in found if left <= x <= right and top <= y <= bottom]
    return [text for y, x, text in sorted(found)]


def test_a_tile_names_positions_slots_and_heads():
    steps = kernel_story.story()
    step = [s for s in steps if (s.sequence, s.kv_head) == (0, 1)][3]
    axes = plots.kernel_step(steps, 0, 1, 3).axes[0]
    live = [str(slot) for slot in step.slots if slot >= 0]
    assert texts_at(axes, 6.4, 5.0, 23.5, 5.95) == ["16", "17", "18", "19", "20"]
    assert texts_at(axes, 6.4, 6.1, 23.5, 7.0) == live
    assert texts_at(axes, 6.4, 5.96, 23.5, 6.09) == ["masked"] * 3
    assert texts_at(axes, 11.2, 1.0, 11.2, 4.5) == ["head 3", "head 4", "head 5", "padding"]


@pytest.mark.parametrize(("number", "word"), [(1, "scores"), (4, "weights"), (5, "weights"), (8, "weights")])
def test_scores_become_weights_in_the_softmax(number, word):
    steps = kernel_story.story()
    own = [s for s in steps if (s.sequence, s.kv_head) == (0, 1)]
    axes = plots.kernel_step(steps, 0, 1, number).axes[0]
    assert any(text.get_text().startswith(f"{word} kept") for text in axes.texts)
    color = to_rgba("#0072B2" if word == "scores" else "#CC79A7", 0.6)
    bars = [
        p for p in axes.patches if p.get_height() == 0.68 and p.get_facecolor() == color and p.get_width()
    ]
    assert len(bars) == GROUP, "nothing is kept for the padded head"
    assert {p.get_width() for p in bars} == {0.59 * own[number].num_scores}


@pytest.mark.parametrize(
    ("number", "first", "count"), [(1, 0, 8), (3, 16, 5), (4, 0, 32), (5, 0, 8), (7, 16, 5)]
)
def test_the_scores_of_a_step_are_framed(number, first, count):
    axes = plots.kernel_step(kernel_story.story(), 0, 1, number).axes[0]
    (frame,) = [patch for patch in framed(axes) if patch.get_y() == 0.9 and patch.get_x() > 14]
    assert (frame.get_x() - 14.2) / 0.59 == pytest.approx(
        first
    ) and frame.get_width() / 0.59 == pytest.approx(count)


def test_slots_that_were_read_stand_out_in_the_pool():
    """Of sequence 0 the first two tiles, of three."""
    axes = plots.kernel_step(kernel_story.story(), 0, 1, 2).axes[0]
    own = [s for s in kernel_story.story() if (s.sequence, s.kv_head) == (0, 1)]
    read = {slot for step in own[1:3] for slot in step.slots if slot >= 0}
    slots = [patch for patch in axes.patches if patch.get_height() == 2.1 and patch.get_width() == 1.08]
    slots = [patch for patch in slots if patch.get_lw() < 2]
    full = {number for number, patch in enumerate(slots) if patch.get_alpha() == 1.0}
    assert len(slots) == BLOCK_SIZE * kernel_story.NUM_BLOCKS and full == read


def test_the_maximum_and_the_truth_are_lines():
    query = online_story.load()["scores that rise"]
    scores, _, output = plots.online_step(query, 4, 3, True).axes
    assert set(scores.lines[0].get_ydata()) == {states(query.scores, query.values, 4)[3].largest}
    truth = query.scores.softmax(0) @ query.values
    drawn = torch.tensor(output.collections[0].get_offsets()[:, 1])
    torch.testing.assert_close(drawn.float(), truth, rtol=1e-5, atol=1e-6)


def test_the_caption_of_the_split_rules_is_of_the_first_batch():
    batches, shape = [1, 64], dict(num_kv_heads=8, context=32_768, tile=64, multiprocessors=132)
    splits = split_rules.table(batches, **shape)
    walks = split_rules.walks(splits, batches, **shape)
    told = plots.split_rules(splits, batches, walks, "here").alt
    cut = [walks[name][0] for name in splits]
    assert f"and {min(cut)} to {max(cut)} with them" in told
    assert all(f"{found[0]} ({name})" in told for name, found in splits.items())


def test_the_softmax_stepper_reaches_the_last_tile_of_one():
    _, tile, seen, _ = explorers.softmax_stepper().controls
    assert seen.max == len(online_story.load()["mixed"].scores) and tile.options[0] == 1
