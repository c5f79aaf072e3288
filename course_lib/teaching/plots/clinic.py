"""Pictures of a patient of the bug clinic: what its pool and its users did step by step, and who has which block."""

from matplotlib.patches import Patch, Rectangle

from course_lib.teaching.clinic.ward import Patient, Tick
from course_lib.teaching.plots.canvas import FREE, GREY, REQUEST_COLORS, RESERVED, VERMILLION, Picture, styled

USER_COLORS = REQUEST_COLORS[:-1]  # the last, VERMILLION, is for what is lost
LOST = dict(facecolor=VERMILLION, hatch="xxx")
TWICE = dict(facecolor="#F4CDB8", hatch="\\\\\\")  # somebody holds it, and the pool calls it free
COLUMNS = 10  # blocks in a row of the map
NAMED = 3  # owners of one block that have a letter; of more, the number is told


def user_of(sequence: str) -> str:
    """ann, for ann and for ann/1, her second sample."""
    return sequence.split("/")[0]


def looks_of(patient: Patient) -> dict[str, dict]:
    """A colour for each user, in the order in which they first asked; dots as well, once the colours come again."""
    again = len(USER_COLORS)
    return {
        name: dict(facecolor=USER_COLORS[n % again]) | (dict(hatch="..") if n >= again else {})
        for n, name in enumerate(patient.outputs)
    }


def block_counts(tick: Tick) -> dict[str, int]:
    """Blocks that a table names, that are lost, and the rest."""
    held = len({block for blocks in tick.tables.values() for block in blocks})
    return dict(held=held, lost=len(tick.lost), free=len(tick.ref_counts) - held - len(tick.lost))


def spans(patient: Patient, name: str) -> dict[str, list[tuple[int, int]]]:
    """The steps in which a user runs or waits, as (first, number of steps)."""
    found = {"runs": [], "waits": []}
    for tick in patient.ticks:
        users = {"runs": map(user_of, tick.running), "waits": map(user_of, tick.waiting)}
        state = next((state for state, who in users.items() if name in who), None)
        if state is None:
            continue
        first, count = found[state][-1] if found[state] else (0, 0)
        if count and first + count == tick.step:
            found[state][-1] = first, count + 1
        else:
            found[state].append((tick.step, 1))
    return found


def preempted_at(patient: Patient, name: str) -> list[int]:
    """The steps in which a user was preempted."""
    return [tick.step for tick in patient.ticks if name in map(user_of, tick.preempted)]


def with_legend(picture: Picture, handles: list) -> Picture:
    """The picture, with a legend above it."""
    place = dict(loc="outside upper center", ncols=9, frameon=False, columnspacing=1.2)
    picture.legend(handles=handles, fontsize=11, **place)
    return picture


@styled
def vitals(patient: Patient) -> Picture:
    """Blocks over the steps, and below when each user runs, waits and is preempted.

    The line is what the pool itself counts as used. In a healthy engine it follows the upper edge of what is held.
    """
    ticks, users = patient.ticks, looks_of(patient)
    counts, num_blocks = [block_counts(tick) for tick in ticks], len(ticks[0].ref_counts)
    used = [num_blocks - tick.num_free for tick in ticks]
    strange = [tick.step for tick, each in zip(ticks, counts, strict=True) if tick.num_free != each["free"]]
    times = sum(len(tick.preempted) for tick in ticks)
    alt = f"{len(ticks)} steps of {len(users)} users on {num_blocks} blocks. At the end "
    alt += ", ".join(f"{count} are {state}" for state, count in counts[-1].items())
    alt += f"; at most {max(each['lost'] for each in counts)} were lost. Preemptions: {times}."
    if strange:
        alt += f" From step {strange[0]} the pool's own count is not what the tables name."
    if patient.crash:
        alt += f" It crashed in the step after the last: {patient.crash}."
    rows = 0.36 * len(users)
    picture = Picture(3.1 + rows, alt)
    upper, lower = picture.subplots(2, 1, sharex=True, height_ratios=(2.0, rows + 0.4))
    edges, base = [step - 0.5 for step in range(len(ticks) + 1)], [0] * len(ticks)
    looks = dict(held=dict(facecolor=GREY), lost=LOST, free=FREE)
    for state, look in looks.items():
        top = [below + each[state] for below, each in zip(base, counts, strict=True)]
        upper.stairs(top, edges, baseline=base, fill=True, edgecolor="#555555", lw=0.4, **look)
        base = top
    held = [each["held"] + each["lost"] for each in counts]
    if strange:
        less = [min(pair) for pair in zip(used, held, strict=True)]
        upper.stairs(held, edges, baseline=less, fill=True, edgecolor=VERMILLION, lw=0.4, **TWICE)
    upper.stairs(used, edges, baseline=None, color="black", lw=1.8, ls="--")
    upper.set(ylabel="blocks", ylim=(0, num_blocks))
    for row, (name, own) in enumerate(users.items()):
        found = spans(patient, name)
        for state, look in (("runs", own), ("waits", RESERVED)):
            boxes = [(first - 0.5, count) for first, count in found[state]]
            lower.broken_barh(boxes, (row + 0.1, 0.8), edgecolor="#555555", lw=0.6, **look)
        steps = preempted_at(patient, name)
        lower.plot(steps, [row + 0.5] * len(steps), "v", color="black", mec="white", ms=9)
    lower.set(xlabel="step", xlim=(edges[0], edges[-1]), ylim=(len(users), 0))
    lower.set_yticks([row + 0.5 for row in range(len(users))], list(users))
    looks |= {"held, and free": TWICE} if strange else {}
    handles = [Patch(edgecolor="#555555", label=state, **look) for state, look in looks.items()]
    handles += upper.plot([], [], "k--", lw=1.8, label="used, says the pool")
    handles.append(Patch(edgecolor="#555555", label="waits", **RESERVED))
    handles += lower.plot([], [], "v", color="black", ms=9, ls="", label="preempted")
    return with_legend(picture, handles)


def label_of(owners: list[str]) -> str:
    """The initials of a block's owners, with the number of the sample: a, a1, b."""
    if len(owners) > NAMED:
        return f"{len(owners)} tables"
    return " ".join(owner[0] + owner[len(user_of(owner)) + 1 :] for owner in owners)


@styled
def pool_map(patient: Patient, step: int) -> Picture:
    """Every block of the pool after a step: its number, its owners, and its count where that is not their number."""
    tick, owns = patient.ticks[step], looks_of(patient)
    owners = {
        block: [name for name, blocks in tick.tables.items() for each in blocks if each == block]
        for block in range(len(tick.ref_counts))
    }
    counts = block_counts(tick)
    shared = [block for block, who in owners.items() if len(who) > 1]
    wrong = [block for block, who in owners.items() if tick.ref_counts[block] != len(who)]
    alt = f"The pool after step {tick.step}: "
    alt += ", ".join(f"{count} blocks {state}" for state, count in counts.items())
    alt += f". In more than one table: {', '.join(map(str, shared)) or 'none'}."
    alt += f" Whose count is not the number of tables: {', '.join(map(str, wrong)) or 'none'}."
    num_rows = -(-len(owners) // COLUMNS)
    picture = Picture(0.5 + 0.68 * num_rows, alt)
    axes = picture.subplots()
    for block, who in owners.items():
        y, x = divmod(block, COLUMNS)
        users = list(dict.fromkeys(map(user_of, who)))
        shared = dict(hatch="//") if len(who) > 1 else {}
        looks = [owns[user] | shared for user in users]
        looks = looks or [LOST if block in tick.lost else FREE]
        for number, look in enumerate(looks):
            width = 0.92 / len(looks)
            corner = x + number * width, y
            axes.add_patch(Rectangle(corner, width, 0.9, edgecolor="#555555", lw=0.6, **look))
        plain = dict(facecolor="white", edgecolor="none", boxstyle="round,pad=0.12", alpha=0.85)
        axes.text(x + 0.05, y + 0.05, str(block), va="top", fontsize=10, bbox=plain)
        text = label_of(who) if who else "lost" * (block in tick.lost)
        axes.text(x + 0.46, y + 0.48, text, ha="center", va="center", fontsize=12, weight="bold", bbox=plain)
        if block in wrong:
            text = f"count {tick.ref_counts[block]}"
            axes.text(x + 0.46, y + 0.88, text, ha="center", va="bottom", fontsize=10, bbox=plain)
    axes.set(xlim=(-0.02, COLUMNS), ylim=(num_rows, -0.02))
    axes.axis("off")
    handles = [Patch(edgecolor="#555555", label=name, **look) for name, look in owns.items()]
    in_several = dict(facecolor="white", hatch="//")
    for label, look in (("in several tables", in_several), ("lost", LOST), ("free", FREE)):
        handles.append(Patch(edgecolor="#555555", label=label, **look))
    return with_legend(picture, handles)
