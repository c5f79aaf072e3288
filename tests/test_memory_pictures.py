"""Pictures and explorers of notebooks 02 and 03, by the numbers behind them."""

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from PIL import Image

from course_lib.memory import (
    ALLOCATORS,
    FitRegion,
    Request,
    ReservingAllocator,
    make_allocator,
    sharegpt_like,
    simulate,
)
from course_lib.teaching import explorers, paper, plots
from course_lib.teaching.block_story import STORY, replay
from course_lib.teaching.explorers import memory as memory_explorers
from course_lib.teaching.film import film, frame
from course_lib.teaching.plots import canvas
from lessons import animation

CHATS = sharegpt_like(120, 2.0, seed=1)


def areas(axes):
    """Slots drawn in each look: hatch (None: plain) and colour, over all collections of a map."""
    found = {}
    for collection in axes.collections:
        assert isinstance(collection, PolyCollection)
        colors = collection.get_facecolor()
        for number, path in enumerate(collection.get_paths()):
            (left, _), (right, _) = path.vertices[0], path.vertices[1]
            key = collection.get_hatch(), tuple(colors[min(number, len(colors) - 1)])
            found[key] = found.get(key, 0) + right - left
    return found


def look(kind):
    return canvas.KINDS[kind].get("hatch"), to_rgba(canvas.KINDS[kind]["facecolor"])


@pytest.fixture(params=ALLOCATORS)
def busy(request):
    allocator = make_allocator(request.param, 700, max_len=300, block_size=16)
    for key, (prompt, output) in enumerate([(20, 30), (100, 60), (7, 90)]):
        if allocator.admit(key, Request(0.0, prompt, output), prompt):
            allocator.grow(key, 5)
    return allocator


def test_the_memory_map_draws_every_slot_once_as_what_it_is(busy):
    counts, drawn = busy.counts(), areas(plots.memory_map(frame(busy)).axes[0])
    assert sum(drawn.values()) == 700
    assert drawn.get(look("reserved"), 0) == counts.reserved
    assert drawn.get(look("internal"), 0) == counts.internal
    for key in range(3):
        tokens = sum(e.stop - e.start for e in busy.extents() if (e.owner, e.kind) == (key, "token_states"))
        assert drawn.get((None, to_rgba(plots.request_color(key))), 0) == tokens


def test_the_memory_map_frames_the_request_that_is_followed(busy):
    axes = plots.memory_map(frame(busy), follow=0).axes[0]
    framed = [c for c in axes.collections if c.get_linewidth()[0] > 2]
    boxes = [path.vertices for collection in framed for path in collection.get_paths()]
    owned = sum(extent.stop - extent.start for extent in busy.extents() if extent.owner == 0)
    assert sum(box[1][0] - box[0][0] for box in boxes) == owned > 0


def test_holes_of_a_small_region_are_labelled_with_their_size():
    region = ReservingAllocator("reserve_exact", 64, 64, FitRegion(64, best=True))
    for key, total in enumerate([12, 10, 20]):
        region.admit(key, Request(0.0, total - 2, 2), total - 2)
    region.release(1)
    texts = [text.get_text() for text in plots.memory_map(frame(region), per_row=64).axes[0].texts]
    assert sorted(texts) == sorted(["r0", "hole of 10", "r2", "hole of 22"])


def test_a_name_tag_never_covers_all_of_the_tokens_that_it_names():
    """Half a panel wide, a tag takes about a fifteenth of a row: shorter runs of tokens go without."""
    region = ReservingAllocator("reserve_exact", 64, 64, FitRegion(64, best=True))
    for key, tokens in enumerate([4, 10]):
        region.admit(key, Request(0.0, tokens, 6), tokens)
    texts = [text.get_text() for text in plots.memory_map(frame(region), per_row=64).axes[0].texts]
    assert "r1" in texts and "r0" not in texts


def test_the_memory_map_breaks_an_extent_at_the_end_of_a_row():
    slab = ReservingAllocator("reserve_exact", 64, 64, FitRegion(64, best=False))
    slab.admit(0, Request(0.0, 20, 5), 20)
    axes = plots.memory_map(frame(slab)).axes[0]
    boxes = [
        [tuple(corner) for corner in path.vertices[:2]] for c in axes.collections for path in c.get_paths()
    ]
    assert [(0.0, 0.0), (16.0, 0.0)] in boxes and [(0.0, 1.0), (4.0, 1.0)] in boxes
    assert "31% of the slots hold a token, 8% are reserved" in plots.memory_map(frame(slab)).alt


def test_maps_side_by_side_tell_who_runs_and_who_waits():
    reels = {name: film(CHATS, name, num_slots=15_728, seconds=40, every=4) for name in ALLOCATORS}
    picture = plots.memory_map({name: reels[name][-1] for name in ("reserve_max", "paged")})
    last = reels["reserve_max"][-1]
    assert [axes.get_title() for axes in picture.axes] == [
        f"reserve the maximum: 7 run, {last.num_waiting} wait",
        f"paged: {reels['paged'][-1].num_running} run",
    ]


@pytest.mark.parametrize("name", ALLOCATORS)
def test_a_film_shows_the_simulator_at_even_times(name):
    reel = film(CHATS, name, num_slots=15_728, seconds=30, every=1.5)
    first = CHATS[0].arrival_time
    assert len(reel) == 20 and reel[0].time == first
    for number, shot in enumerate(reel[1:], start=1):
        assert 0 <= shot.time - 1.5 * number < 0.05 + first
        assert sum(vars(shot.counts).values()) == 15_728 == shot.extents[-1].stop
        owners = {extent.owner for extent in shot.extents} - {None}
        assert len(owners) == shot.num_running


def test_the_film_under_the_slider_shows_its_moment_and_all_shares():
    reel = film(CHATS, "reserve_pow2", num_slots=15_728, seconds=30, every=1.5)
    picture = plots.memory_film(reel, 7, "reserve_pow2")
    shot = reel[7]
    assert picture.alt.startswith(
        f"Reserve a power of two, {shot.time:.0f} s: {shot.num_running} requests run"
    )
    lower = picture.axes[1]
    assert list(lower.lines[0].get_xdata()) == [shot.time, shot.time]
    tokens = lower.collections[0].get_paths()[0].vertices
    assert tokens[:, 1].max() == pytest.approx(max(s.counts.token_states for s in reel) / 15_728)


def test_shares_over_time_stack_up_to_one():
    run = simulate(CHATS, "paged", num_slots=4000, max_len=4000)
    axes = plots.shares_over_time({"paged": run.timeline}).axes[0]
    assert axes.collections[-1].get_paths()[0].vertices[:, 1].max() == pytest.approx(1.0)
    assert len(axes.collections) == 4


def test_bars_stand_beside_the_papers():
    ours = {
        name: {"token_states": 0.25, "reserved": 0.25, "internal": 0.5, "external": 0.0}
        for name in ALLOCATORS
    }
    axes = plots.shares_bars(paper.FIG_2, ours).axes[0]
    heights = [round(bar.get_height(), 3) for bar in axes.patches]
    assert heights[:8] == [0.204, 0.133, 0.573, 0.089, 0.25, 0.25, 0.5, 0.0]
    bars = plots.batch_bars(paper.FIG_13_ALPACA, {"reserve_max": 6.0, "paged": 99.0}, "a title").axes[0]
    assert [bar.get_width() for bar in bars.patches] == [7.0, 6.0, 132.44, 99.0]


def test_block_sizes_are_drawn_as_shares_of_the_best():
    picture = plots.block_sizes({"chats": {1: 40.0, 16: 38.0, 256: 10.0}})
    assert list(picture.axes[0].lines[0].get_ydata()) == [1.0, 0.95, 0.25]
    assert "chats falls to 25% at 256" in picture.alt


def test_the_papers_numbers_are_whole():
    for shares in paper.FIG_2.values():
        assert sum(shares.values()) == pytest.approx(1.0, abs=0.002)  # the paper rounds to 0.1%
    assert paper.NUM_SLOTS == 15_728


# -- the stepper ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block_size", [1, 2, 4, 8])
def test_the_story_is_told_by_a_sound_pool(block_size):
    for num_moves in range(len(STORY) + 1):
        scene = replay(num_moves, block_size)
        scene.pool.check(table.block_ids for table in scene.tables.values())
        held = [block for table in scene.tables.values() for block in table.block_ids]
        assert len(held) == len(set(held)) == scene.pool.num_blocks - scene.pool.num_free
        assert {name: len(words) for name, words in scene.words.items()} == {
            name: table.num_tokens for name, table in scene.tables.items()
        }
        assert len(scene.tables) <= 3, "the picture has room for three"
        assert all(table.num_tokens <= plots.memory.CELLS for table in scene.tables.values())


def test_the_story_has_what_the_notebook_points_at():
    """Notebook 03: steps 5 and 9 interleave, step 11 takes what was given back, step 17 waits."""
    assert "A gets the token 'it': block 4 is taken" in replay(5, 4).told
    assert "B gets the token 'who': block 5 is taken" in replay(9, 4).told
    assert replay(11, 4).tables["C"].block_ids == [6, 7, 4]
    assert "it needs 3, 2 free of 8. It waits, nothing changed" in replay(17, 4).told
    assert "D" not in replay(17, 4).tables and "D" in replay(len(STORY), 4).tables


def test_the_stepper_frames_the_token_in_text_and_pool():
    picture = plots.block_tables(replay(13, 4), "C", 9)
    framed = [patch for patch in picture.axes[0].patches if patch.get_lw() > 3]
    assert [round(patch.get_x()) for patch in framed] == [9, 17 % plots.memory.CELLS]
    assert (
        "9 // 4 = block 2 of the text, 9 % 4 = offset 1; block_table[2] = 4, slot 4 × 4 + 1 = 17."
        in picture.alt
    )
    assert not [p for p in plots.block_tables(replay(13, 4), "A", 9).axes[0].patches if p.get_lw() > 3]


def test_the_stepper_writes_words_where_they_lie():
    scene = replay(13, 4)
    texts = [text.get_text() for text in plots.block_tables(scene, "C", 9).axes[0].texts]
    assert texts.count("big") == 2 and "[6, 7, 4]" in texts and "logical 2 → physical 4" in texts
    assert "block 0: free" in texts and "block 4: used" in texts


# -- explorers ------------------------------------------------------------------------------------------------


def test_the_memory_map_explorer_answers_to_every_control():
    explorer = explorers.memory_map()
    view = explorer.widget.children[-1]
    allocator, workload, load, moment = explorer.controls
    seen = {view.value}
    for control, value in [
        (moment, 3),
        (allocator, "paged"),
        (load, 2),
        (workload, "Alpaca-like"),
    ]:
        control.value = value
        assert view.value not in seen, control.description
        seen.add(view.value)


@pytest.mark.parametrize("workload", memory_explorers.WORKLOADS)
@pytest.mark.parametrize("load", [0, 1, 2])
@pytest.mark.parametrize("allocator", ALLOCATORS)
def test_every_film_of_the_explorer_lasts(workload, load, allocator):
    assert len(memory_explorers.make_film(workload, load, allocator)) == memory_explorers.NUM_FRAMES


def test_the_block_table_explorer_answers_to_every_control():
    explorer = explorers.block_tables()
    view = explorer.widget.children[-1]
    step, block_size, sequence, position = explorer.controls
    seen = {view.value}
    for control, value in [(step, 8), (block_size, 2), (sequence, "B"), (position, 1)]:
        control.value = value
        assert view.value not in seen, control.description
        seen.add(view.value)


def test_the_animation_in_the_readme_is_what_the_code_draws():
    stored = Image.open(animation.TARGET)
    fresh = list(animation.frames(only={0, 25, 39}))
    assert stored.n_frames == 40
    for number, picture in zip((0, 25, 39), fresh, strict=True):
        stored.seek(number)
        old, new = (np.asarray(image.resize((90, 49)), int) for image in (stored.convert("RGB"), picture))
        differing = (abs(old - new).max(axis=2) > 40).mean()
        assert differing < 0.01, f"frame {number} differs: make animation"
