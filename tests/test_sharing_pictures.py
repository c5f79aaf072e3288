"""Pictures and explorers of notebook 08, by the numbers behind them."""

import itertools

import pytest
from matplotlib.colors import to_rgba

from course_lib.teaching import fork_story, prefix_story
from course_lib.teaching.explorers import sharing as explorers
from course_lib.teaching.plots import canvas, sharing

OUTPUTS = (2, 3, 4)
FORKS = [(number, move) for number in OUTPUTS for move in range(len(fork_story.moves(number)) + 1)]
PREFIXES = range(len(prefix_story.STORY) + 1)
SIZE = 4


def texts_of(picture):
    return [text.get_text() for text in picture.axes[0].texts]


def check_nothing_overlaps(picture):
    """No text touches another, or leaves the picture."""
    renderer = picture.canvas.get_renderer()
    written = [text for text in [*picture.texts, *picture.axes[0].texts] if text.get_text()]
    boxes = [text.get_window_extent(renderer) for text in written]
    for text, box in zip(written, boxes, strict=True):
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= picture.bbox.x1 and box.y1 <= picture.bbox.y1
        assert inside, f"{text.get_text()!r} is cut off"
    for (one, box), (other, second) in itertools.combinations(zip(written, boxes, strict=True), 2):
        wide = min(box.x1, second.x1) - max(box.x0, second.x0)
        tall = min(box.y1, second.y1) - max(box.y0, second.y0)
        touching = wide > 0.5 and tall > 0.5
        assert not touching, f"{one.get_text()!r} lies on {other.get_text()!r}"


# -- fork: the story ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_outputs", "num_moves"), FORKS)
def test_the_fork_story_is_told_by_a_sound_pool(num_outputs, num_moves):
    scene = fork_story.replay(num_moves, num_outputs)
    scene.pool.check(table.block_ids for table in scene.tables.values())
    held = {block for table in scene.tables.values() for block in table.block_ids}
    assert scene.blocks_in_use == len(held)
    assert scene.blocks_unshared == sum(-(-len(words) // SIZE) for words in scene.words.values())
    for name, words in scene.words.items():
        assert scene.tables[name].num_tokens == len(words) == 10 + len(words[10:])
        assert words[:10] == fork_story.PROMPT and words[10:] == fork_story.OUTPUTS[name][: len(words) - 10]


@pytest.mark.parametrize("num_outputs", OUTPUTS)
def test_every_output_reads_its_own_words_after_every_move(num_outputs):
    """A memory of slots that knows only what it is told to copy and to write: one copy too few, and someone reads
    another's word."""
    memory, before = {}, 0
    for num_moves in range(len(fork_story.moves(num_outputs)) + 1):
        scene = fork_story.replay(num_moves, num_outputs)
        for source, target in scene.copies:
            for offset in range(SIZE):
                memory[target * SIZE + offset] = memory.get(source * SIZE + offset)
        if scene.new_slots:
            writer = fork_story.moves(num_outputs)[num_moves - 1][0]
            words = scene.words["A" if writer == "prompt" else writer]
            memory.update(zip(scene.new_slots, words[-len(scene.new_slots) :], strict=True))
        for name, table in scene.tables.items():
            assert [memory[table.slot(at)] for at in range(table.num_tokens)] == scene.words[name]
        assert scene.num_copies == before + len(scene.copies)
        before = scene.num_copies


@pytest.mark.parametrize("num_outputs", OUTPUTS)
def test_all_but_the_last_copy_and_each_once(num_outputs):
    """By hand: the prompt's half-full block is 2, free blocks follow in order, and the last finds it its own."""
    story = [
        fork_story.replay(number, num_outputs) for number in range(len(fork_story.moves(num_outputs)) + 1)
    ]
    copies = {number: scene.copies for number, scene in enumerate(story) if scene.copies}
    assert copies == {3 + n: [(2, 3 + n)] for n in range(num_outputs - 1)}
    for n in range(num_outputs - 1):
        left = num_outputs - n
        assert (
            f"its count is {left}: " in story[3 + n].told
            and f"Block 2 is at {left - 1} now" in story[3 + n].told
        )
        assert story[3 + n].pool.ref_count(2) == left - 1
    last = story[2 + num_outputs]
    assert "its count is 1" in last.told and "nothing is copied" in last.told
    assert last.new_slots == [2 * SIZE + 2]


@pytest.mark.parametrize(("num_outputs", "num_moves"), FORKS)
def test_no_output_writes_where_another_reads(num_outputs, num_moves):
    scene = fork_story.replay(num_moves, num_outputs)
    for slot in scene.new_slots:
        assert len(scene.owners(slot // SIZE)) == scene.pool.ref_count(slot // SIZE) == 1


def test_the_numbers_of_four_outputs_by_hand():
    def numbers(num_moves):
        scene = fork_story.replay(num_moves, 4)
        return scene.blocks_in_use, scene.blocks_unshared, scene.num_copies

    assert numbers(0) == (0, 0, 0)
    assert numbers(1) == (3, 3, 0)
    assert numbers(2) == (3, 12, 0)  # forked: four times three blocks, in three
    assert numbers(6) == (6, 12, 3)  # each has written one word: two shared blocks, and one each
    assert numbers(10) == (6, 12, 3)  # a second word fills them
    assert numbers(14) == (10, 16, 3)  # a third takes a fresh one each
    assert numbers(15) == (8, 12, 3)  # A has ended: only what was its own is free
    assert numbers(18) == (8, 12, 3) and numbers(21) == (0, 0, 3)


@pytest.mark.parametrize("num_outputs", OUTPUTS)
def test_an_end_frees_only_what_nobody_else_uses(num_outputs):
    for number, (_, word) in enumerate(fork_story.moves(num_outputs)):
        if word is None and number > 1:
            before, after = (fork_story.replay(moves, num_outputs) for moves in (number, number + 1))
            (name,) = set(before.tables) - set(after.tables)
            others = {block for other in after.tables for block in before.tables[other].block_ids}
            freed = set(after.pool.free_blocks()) - set(before.pool.free_blocks())
            assert freed == set(before.tables[name].block_ids) - others
            assert all(after.pool.ref_count(block) == before.pool.ref_count(block) - 1
                       for block in before.tables[name].block_ids)  # fmt: skip
            assert after.told.startswith(f"{name} ends")
            assert ("they stay" in after.told) == bool(others)
    assert not after.tables and after.pool.num_free == 12


def test_the_story_needs_words_for_each_output():
    for number in (1, 5):
        with pytest.raises(ValueError, match=f"from 2 to 4, got {number}"):
            fork_story.replay(0, number)


# -- fork: the picture ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_outputs", "num_moves"), FORKS)
def test_the_fork_picture_tells_and_shows_the_scenes_numbers(num_outputs, num_moves):
    scene = fork_story.replay(num_moves, num_outputs)
    picture = sharing.fork_step(scene)
    texts = texts_of(picture)
    check_nothing_overlaps(picture)
    tally = (
        f"Blocks in use: {scene.blocks_in_use}, without sharing: {scene.blocks_unshared}; "
        f"copies so far: {scene.num_copies}"
    )
    assert tally in texts and picture.alt.startswith(scene.told) and f"{tally}." in picture.alt
    counts = [scene.pool.ref_count(block) for block in range(12)]
    for block, count in enumerate(counts):
        assert f"block {block}  {f'×{count}' if count else 'free'}" in texts
        assert (f" {block} ×{count}" in picture.alt) == (count > 0)
    for table in scene.tables.values():
        assert f"{table.block_ids}" in texts
    assert texts.count("copy") == len(scene.copies)
    stars = [line for line in picture.axes[0].lines if line.get_marker() == "*"]
    assert sum(len(line.get_xdata()) for line in stars) == len(scene.new_slots)
    assert texts.count("tale") == len(scene.tables) + (
        1 if scene.tables else 0
    )  # once in the pool, whoever shares it


def test_a_shared_slot_has_a_band_of_each_owner():
    scene = fork_story.replay(4, 3)  # A and B have copied: C alone is left in block 2
    axes = sharing.fork_step(scene).axes[0]
    (bands,) = [collection for collection in axes.collections if collection.get_linewidth()[0] == 0]
    heights = {name: [] for name in "ABC"}
    for path, color in zip(bands.get_paths(), bands.get_facecolor(), strict=True):
        (name,) = [name for n, name in enumerate("ABC") if to_rgba(canvas.request_color(n)) == tuple(color)]
        heights[name].append(round(path.vertices[:, 1].max() - path.vertices[:, 1].min(), 4))
    for name, found in heights.items():
        own = 2 if name == "C" else 3  # slots of the last block: the prompt's two, and the new word
        assert found == [sharing.BAND] * 8 + [sharing.TALL] * own


@pytest.mark.parametrize(("num_moves", "source", "target"), [(3, 2, 3), (4, 2, 4), (5, 2, 5)])
def test_the_arrow_of_a_copy_leads_from_block_to_block(num_moves, source, target):
    axes = sharing.fork_step(fork_story.replay(num_moves, 4)).axes[0]
    (arrow,) = [line for line in axes.lines if line.get_linestyle() == "-"]
    framed = [c.get_paths()[0].vertices for c in axes.collections if c.get_linewidth()[0] > 2]
    ends = [(arrow.get_xdata()[at], arrow.get_ydata()[at]) for at in (0, -1)]
    size = SIZE * sharing.CELL
    for corners, (x, y), block in zip(framed, ends, (source, target), strict=True):
        left, top = corners.min(axis=0)
        assert left < x < left + size and top - 0.1 < y < top + sharing.TALL + 0.1
        assert round((left - sharing.LEFT) / (size + sharing.GAP), 3) == block % 4


# -- prefixes: the story --------------------------------------------------------------------------------------


def test_hits_and_evictions_are_what_whole_texts_say():
    """No hashes: a list of which text ends in which block, and the rule that one token at least is computed."""
    known = {}  # block -> all words up to its end
    for num_moves in PREFIXES[1:]:
        scene = prefix_story.replay(num_moves)
        before = prefix_story.replay(num_moves - 1)
        scene.pool.check(table.block_ids for table in scene.tables.values())
        name, prompt = prefix_story.STORY[num_moves - 1]
        if prompt is None:
            assert scene.newcomer is None and not (scene.hits or scene.computed or scene.evicted)
        else:
            words, hits = prompt.split(), []
            for end in range(SIZE, len(words), SIZE):
                block = next((block for block, text in known.items() if text == words[:end]), None)
                if block is None:
                    break
                hits.append(block)
            taken = [block for block in before.pool.free_blocks() if block not in hits]
            computed = taken[: -(-len(words) // SIZE) - len(hits)]
            assert (scene.newcomer, scene.hits, scene.computed) == (name, hits, computed)
            assert scene.tables[name].block_ids == hits + computed
            assert list(scene.evicted) == [block for block in computed if block in known]
            for block in scene.evicted:
                assert list(scene.evicted[block]) == known.pop(block)[-SIZE:]
            for number, block in enumerate(computed, start=len(hits)):
                text = words[: (number + 1) * SIZE]
                if len(text) == (number + 1) * SIZE and text not in known.values():
                    known[block] = text
        assert {block: list(record.token_ids) for block, record in scene.cached().items()} == {
            block: text[-SIZE:] for block, text in known.items()
        }
        assert scene.pool.num_cached == len(known), "a block is cached that no text leads to"


def test_the_prefix_story_has_what_the_notebook_points_at():
    def came(num_moves):
        scene = prefix_story.replay(num_moves)
        return scene.newcomer, scene.hits, scene.computed, list(scene.evicted)

    assert came(1) == ("A", [], [0, 1, 2], [])
    assert came(2) == ("B", [0, 1], [3], [])  # the same system prompt
    assert came(4) == ("C", [0], [4], [])  # the first block only
    assert came(5) == ("D", [], [5, 6, 7], [])  # the words of block 1 after others: no hit
    assert came(9) == ("E", [0, 1], [8], [])  # the very prompt of A: one token must be computed
    assert came(10) == ("F", [], [2, 3, 4, 7], [2, 4, 7])  # tails go, heads stay
    assert came(12) == ("G", [5, 6], [8], [])  # D's head was still there
    assert prefix_story.replay(5).tree()[-2].words == prefix_story.replay(5).tree()[1].words
    assert "'guide to the zoo', too, but after other words" in prefix_story.replay(5).told
    assert "one token at least must go through the model" in prefix_story.replay(9).told
    assert "not cached" in prefix_story.replay(2).told
    assert "what blocks 2, 4, 7 held is forgotten" in prefix_story.replay(10).told
    others = {number: prefix_story.replay(number).told for number in PREFIXES}
    assert [n for n, told in others.items() if "but after other words" in told] == [5]
    assert [n for n, told in others.items() if "must go through the model" in told] == [9]
    assert [n for n, told in others.items() if "forgotten" in told] == [10]


def test_blocks_are_freed_last_first():
    assert prefix_story.replay(8).pool.free_blocks() == [8, 2, 3, 1, 4, 0, 7, 6, 5]
    assert "Others still use blocks 1 (now ×1), 0 (now ×1)" in prefix_story.replay(3).told


# -- prefixes: the picture ------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_moves", PREFIXES)
def test_the_tree_has_each_block_once_beside_its_parent(num_moves):
    scene = prefix_story.replay(num_moves)
    nodes = scene.tree()
    used = {block for table in scene.tables.values() for block in table.block_ids}
    assert sorted(node.block_id for node in nodes) == sorted(used | set(scene.cached()))
    assert {node.block_id for node in nodes if node.cached} == set(scene.cached())
    places = sharing._places(nodes)
    assert len(set(places.values())) == len(nodes)
    for node in nodes:
        level, row = places[node.block_id]
        assert row < sharing.NUM_ROWS and level < 4
        if node.parent is None:
            assert level == 0
        else:
            assert level == places[node.parent][0] + 1 and row >= places[node.parent][1]
    for table in scene.tables.values():  # each table is a path from the left
        assert [places[block][0] for block in table.block_ids] == list(range(len(table.block_ids)))


@pytest.mark.parametrize("num_moves", PREFIXES)
def test_the_prefix_picture_tells_and_shows_the_scenes_numbers(num_moves):
    scene = prefix_story.replay(num_moves)
    picture = sharing.prefix_tree(scene)
    check_nothing_overlaps(picture)
    texts, axes = texts_of(picture), picture.axes[0]
    assert picture.alt.startswith(scene.told)
    free = ", ".join(map(str, scene.pool.free_blocks())) or "none"
    assert picture.alt.endswith(f"Free list: {free}.")
    for node in scene.tree():
        assert f"block {node.block_id}  ×{scene.pool.ref_count(node.block_id)}" in texts
    assert texts.count("not cached") == len(set(scene.pool.free_blocks()) - set(scene.cached()))
    struck = [line for line in axes.lines if line.get_color() == canvas.VERMILLION]
    assert len(struck) == len(scene.evicted) + 1  # and in the legend
    thick = [c for c in axes.collections if c.get_linewidth()[0] == 2.2]
    hatched = [c for c in thick if c.get_hatch()]
    assert (len(hatched), len(thick)) == (len(scene.computed), len(scene.computed) + len(scene.hits))
    if scene.newcomer:
        listed = [", ".join(map(str, ids)) or "none" for ids in (scene.hits, scene.computed, scene.evicted)]
        assert "Hits: {}; computed: {}; evicted: {}.".format(*listed) in picture.alt
        color = to_rgba(canvas.request_color("ABCDEFG".index(scene.newcomer)))
        assert all(tuple(c.get_facecolor()[0]) == color for c in thick if not c.get_hatch())


# -- explorers ------------------------------------------------------------------------------------------------


def test_the_fork_stepper_answers_to_both_sliders():
    explorer = explorers.fork_stepper()
    view = explorer.widget.children[-1]
    step, outputs = explorer.controls
    assert (step.value, step.max, outputs.value) == (2, 16, 3)
    seen = {view.value}
    for control, value in [(step, 12), (outputs, 4), (step, 21), (outputs, 2)]:
        control.value = value
        assert view.value not in seen, control.description
        seen.add(view.value)
    assert (step.value, step.max) == (11, 11), "two outputs make a shorter story"
    assert explorer.alt == sharing.fork_step(fork_story.replay(2, 3)).alt
    assert {"image/png", "text/plain"} <= set(explorer.cold)


def test_the_prefix_tree_answers_to_its_slider():
    explorer = explorers.prefix_tree()
    view = explorer.widget.children[-1]
    (step,) = explorer.controls
    seen = {view.value}
    for value in range(step.max, -1, -1):
        step.value = value
        if value != 2:
            assert view.value not in seen, value
        seen.add(view.value)
    assert step.max == 12 and explorer.alt == sharing.prefix_tree(prefix_story.replay(2)).alt


@pytest.mark.parametrize("num_outputs", OUTPUTS)
def test_the_pictures_keep_their_size_while_you_step(num_outputs):
    moves = range(len(fork_story.moves(num_outputs)) + 1)
    forks = {tuple(sharing.fork_step(fork_story.replay(n, num_outputs)).get_size_inches()) for n in moves}
    trees = {tuple(sharing.prefix_tree(prefix_story.replay(n)).get_size_inches()) for n in PREFIXES}
    assert len(forks) == len(trees) == 1
