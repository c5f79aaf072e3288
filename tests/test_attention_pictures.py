"""The block reader of notebook 04, by the numbers behind it."""

import pytest
import torch
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from course_lib.attention import attention
from course_lib.serving import greedy
from course_lib.teaching import explorers, measure, plots
from course_lib.teaching.recorder import Recorder

TEXTS = {0: list("abcdefghi"), 1: list("stuv")}


@pytest.fixture
def cache(tiny_model):
    cache = Recorder(tiny_model.config, num_blocks=8, block_size=4)
    greedy(tiny_model, [[5, 9, 2, 30, 7, 1], [11]], cache, 4)
    return cache


def test_weights_are_those_that_attention_used(cache, tiny_model):
    """Weighted values, head by head, are the dense attention of the recorded query."""
    for sequence, position in [(0, 8), (0, 3), (1, 0)]:
        table, layer = cache.tables[sequence], 1
        slots = [table.slot(p) for p in range(position + 1)]
        keys, values = (store[layer].flatten(0, 1)[slots] for store in (cache.keys, cache.values))
        query = cache.queries[layer, sequence][position]
        dense = attention(query[None], keys, values)[0]
        for head in range(6):
            weights = cache.weights(layer, head, sequence, position)
            assert weights.sum().item() == pytest.approx(1.0)
            torch.testing.assert_close(weights @ values[:, head // 3], dense[head], rtol=1e-4, atol=1e-5)


def framed(axes):
    return [p for p in axes.patches if isinstance(p, Rectangle) and p.get_lw() == 1.8]


def test_the_slots_that_are_read_are_framed_and_their_bars_are_the_weights(cache):
    weights = torch.tensor([0.1, 0.5, 0.2, 0.1, 0.05, 0.05])
    picture = plots.block_reads(cache, TEXTS, 0, weights, "Layer 1, head 2")
    axes, table = picture.axes[0], cache.tables[0]
    slots = sorted(table.slot(p) for p in range(6))
    assert sorted(round(p.get_x()) + 16 * round(p.get_y() / 1.06) for p in framed(axes)) == slots
    bars = [p.get_height() for p in axes.patches if p.get_facecolor() == to_rgba("#D55E00")]
    assert sorted(bars) == pytest.approx(sorted((0.52 * weights / 0.5).tolist()))
    blocks = ", ".join(map(str, table.block_ids[:2]))
    assert f"reads 6 slots of blocks {blocks}, in this order" in picture.alt
    assert f"Most weight, 50%, is on token 1, 'b', in slot {table.slot(1)}." in picture.alt


def test_blocks_carry_their_logical_number_only_if_they_are_read(cache):
    texts = [t.get_text() for t in plots.block_reads(cache, TEXTS, 1, torch.ones(2) / 2, "x").axes[0].texts]
    mine, other = cache.tables[1].block_ids[0], cache.tables[0].block_ids[0]
    assert f"block {mine} (logical 0)" in texts and f"block {other}" in texts


def test_the_block_reader_answers_to_every_control(real):
    explorer = explorers.block_reader(*real, ["The capital of France is", "Two plus"], 12)
    view, seen = explorer.widget.children[-1], set()
    seen.add(view.value)
    for control in explorer.controls:
        if hasattr(control, "options"):
            control.index = 1
        else:
            control.value += 1
        assert view.value not in seen, control.description
        seen.add(view.value)


def test_step_times_are_drawn_as_they_are():
    picture = plots.step_times(
        {"1 x 256": {"slabs": 20.0, "blocks": 25.0}, "8 x 64": {"slabs": 60.0, "blocks": 66.0}}
    )
    assert sorted(bar.get_height() for bar in picture.axes[0].patches) == [20.0, 25.0, 60.0, 66.0]
    assert "1 x 256: slabs 20 ms, blocks 25 ms" in picture.alt


def test_slabs_and_blocks_are_both_timed(tiny_model):
    times = measure.slabs_and_blocks(tiny_model, batch=2, context=10, repeats=2)
    assert list(times) == ["slabs", "blocks"] and all(value > 0 for value in times.values())
