"""Pictures of the bug clinic, by the numbers behind them."""

import pytest
from matplotlib.colors import to_rgba

from course_lib.teaching.clinic import CASES
from course_lib.teaching.clinic.ward import Patient, make_engine
from course_lib.teaching.plots import canvas, clinic


@pytest.fixture(scope="module")
def leaking():
    case = CASES["leaking_blocks"]
    return case.admit(case.sick)


@pytest.fixture(scope="module")
def crowded():
    """Three users, one of them with two samples, on a pool that is too small for all."""
    patient = Patient(make_engine(num_blocks=14))
    patient.ask("ann", "ann likes ? tea and bob likes milk", 20, n=2, temperature=1.0)
    patient.ask("bob", "bob says the old house has a door", 25)
    patient.ask("cid", "cid sees the blue river in the garden", 25)
    patient.run()
    assert patient.crash is None
    return patient


def heights(patch):
    """The steps of a stairs patch: (upper edge, lower edge) of each."""
    values, _, baseline = patch.get_data()
    return list(zip(values, baseline, strict=True))


def test_vitals_adds_up_to_the_pool(leaking):
    upper = clinic.vitals(leaking).axes[0]
    held, lost, free = (heights(patch) for patch in upper.patches[:3])
    for step, tick in enumerate(leaking.ticks):
        assert held[step] == (tick_held(tick), 0)
        assert lost[step] == (tick_held(tick) + len(tick.lost), tick_held(tick))
        assert free[step] == (40, tick_held(tick) + len(tick.lost))
    assert [patch.get_facecolor() for patch in upper.patches[1:2]] == [to_rgba(canvas.VERMILLION)]
    assert upper.patches[1].get_hatch()


def tick_held(tick):
    return sum(map(len, tick.tables.values()))


def test_vitals_says_what_was_lost(leaking):
    picture = clinic.vitals(leaking)
    assert "0 are held, 12 are lost, 28 are free; at most 12 were lost" in picture.alt
    assert "pool's own count" not in picture.alt  # used, as the pool counts, is held and lost
    assert len(picture.png()) < 60_000


def test_a_pool_that_counts_otherwise_is_told(leaking):
    ticks = [*leaking.ticks[:3], leaking.ticks[3].__class__(**vars(leaking.ticks[3]) | {"num_free": 5})]
    assert (
        "From step 3 the pool's own count"
        in clinic.vitals(Patient(leaking.engine, ticks, outputs=leaking.outputs)).alt
    )


@pytest.mark.parametrize("name", ["leaking", "crowded"])
def test_every_step_of_every_user_is_drawn_once(name, request):
    patient = request.getfixturevalue(name)
    for user in patient.outputs:
        runs, waits = (
            [step for first, count in boxes for step in range(first, first + count)]
            for boxes in clinic.spans(patient, user).values()
        )
        mine = lambda who: user in {each.split("/")[0] for each in who}  # noqa: B023, E731
        assert runs == [tick.step for tick in patient.ticks if mine(tick.running)]
        assert waits == [tick.step for tick in patient.ticks if mine(tick.waiting) and not mine(tick.running)]


def test_preemptions_are_marked(crowded):
    lower = clinic.vitals(crowded).axes[1]
    marked = {(x, y) for line in lower.lines for x, y in line.get_xydata() if line.get_marker() == "v"}
    rows = {name: row + 0.5 for row, name in enumerate(crowded.outputs)}
    told = {(tick.step, rows[who.split("/")[0]]) for tick in crowded.ticks for who in tick.preempted}
    assert marked == told and len(told) > 1
    times = sum(len(tick.preempted) for tick in crowded.ticks)
    assert f"Preemptions: {times}." in clinic.vitals(crowded).alt


def test_a_crash_is_told(crowded):
    patient = Patient(crowded.engine, crowded.ticks, crash="KeyError: 7", outputs=crowded.outputs)
    assert "crashed in the step after the last: KeyError: 7" in clinic.vitals(patient).alt


def test_a_user_keeps_a_colour_and_none_is_that_of_loss(crowded):
    looks = clinic.looks_of(crowded)
    assert [look["facecolor"] for look in looks.values()] == list(canvas.REQUEST_COLORS[:3])
    assert not any("hatch" in look for look in looks.values())
    assert canvas.VERMILLION not in clinic.USER_COLORS


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


def test_the_map_shows_lost_blocks_and_their_counts(leaking):
    step = next(tick.step for tick in leaking.ticks if tick.lost)
    lost = leaking.ticks[step].lost
    picture = clinic.pool_map(leaking, step)
    assert texts_of(picture.axes[0]).count("lost") == texts_of(picture.axes[0]).count("count 1") == len(lost)
    assert f"not the number of tables: {', '.join(map(str, lost))}." in picture.alt
    drawn = [patch.get_facecolor() for patch in picture.axes[0].patches]
    assert [block for block, color in enumerate(drawn) if color == to_rgba(canvas.VERMILLION)] == lost


def test_the_map_names_every_owner(crowded):
    step = next(tick.step for tick in crowded.ticks if "ann/1" in tick.tables)
    tables, axes = crowded.ticks[step].tables, clinic.pool_map(crowded, step).axes[0]
    shared = set(tables["ann"]) & set(tables["ann/1"])
    assert shared and texts_of(axes).count("a a1") == len(shared)
    assert texts_of(axes).count("b") == len(tables["bob"])
    assert sum(patch.get_hatch() == "//" for patch in axes.patches) == len(shared)
    assert not any(text.startswith("count") for text in texts_of(axes))


def test_a_block_of_two_users_has_both_colours(leaking):
    tick = leaking.ticks[0]
    both = tick.__class__(**vars(tick) | {"tables": {"ann": [0], "bob": [0, 1]}})
    picture = clinic.pool_map(Patient(leaking.engine, [both], outputs=leaking.outputs), 0)
    cells = [patch.get_facecolor() for patch in picture.axes[0].patches[:3]]
    assert cells == [to_rgba(color) for color in (canvas.SKY, canvas.ORANGE, canvas.ORANGE)]
    assert "In more than one table: 0. " in picture.alt and "a b" in texts_of(picture.axes[0])
    assert "count 1" in texts_of(picture.axes[0])  # its count is 1, and two tables name it


@pytest.mark.parametrize(
    ("owners", "label"),
    [(["ann"], "a"), (["ann", "ann/1"], "a a1"), (["ann", "bob"], "a b"), (list("abcd"), "4 tables")],
)
def test_labels(owners, label):
    assert clinic.label_of(owners) == label


def test_when_colours_come_again_a_hatch_tells_two_users_apart():
    patient = Patient(make_engine(num_blocks=64))
    for name in "ann bob cid dot eve fay gus hal".split():
        patient.ask(name, f"{name} likes red tea and bob likes milk", 4)
    patient.run()
    looks = [tuple(sorted(look.items())) for look in clinic.looks_of(patient).values()]
    assert len(set(looks)) == len(looks) == 8
