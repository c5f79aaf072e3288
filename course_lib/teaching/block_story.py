"""A short story of sequences on a small pool, told by real block tables: what the stepper of notebook 03 shows."""

from dataclasses import dataclass, field

from course_lib.memory import BlockPool, BlockTable, OutOfBlocks

NUM_SLOTS = 32

# (sequence, words): its prompt when it is new, one more word when it is not, its end when there are none.
STORY = (
    ("A", "the cat sat on the mat and"),
    ("B", "once upon a time there"),
    ("A", "then"),
    ("B", "was"),
    ("A", "it"),
    ("B", "a"),
    ("A", "slept"),
    ("B", "king"),
    ("B", "who"),
    ("A", ""),
    ("C", "to be or not to be that is the"),
    ("B", "ruled"),
    ("C", "big"),
    ("B", "a"),
    ("C", "question"),
    ("C", "here"),
    ("D", "all the world is a stage and all the men"),
    ("C", ""),
    ("D", "all the world is a stage and all the men"),
)


@dataclass
class Scene:
    """The pool and its sequences after some moves."""

    pool: BlockPool
    tables: dict[str, BlockTable] = field(default_factory=dict)
    words: dict[str, list[str]] = field(default_factory=dict)  # a word stands for a token
    told: str = "Nothing has arrived: every block is free."
    new_slots: list[int] = field(default_factory=list)  # written by the last move


def replay(num_moves: int, block_size: int) -> Scene:
    """The scene after the first moves of the story.

    Example:
        >>> scene = replay(2, block_size=4)
        >>> scene.tables["B"].block_ids, scene.told
        ([2, 3], 'B arrives with 5 tokens: blocks 2, 3 are taken.')
    """
    scene = Scene(BlockPool(NUM_SLOTS // block_size, block_size))
    for name, text in STORY[:num_moves]:
        _move(scene, name, text.split())
    return scene


def _move(scene: Scene, name: str, words: list[str]) -> None:
    scene.new_slots = []
    if not words:
        _end(scene, name)
        return
    arrives = name not in scene.tables
    table = scene.tables.get(name) or BlockTable(scene.pool)
    num_blocks = len(table.block_ids)
    what = f"{name} arrives with {len(words)} tokens" if arrives else f"{name} gets the token '{words[0]}'"
    try:
        scene.new_slots = table.append(len(words)).slots
    except OutOfBlocks as error:
        scene.told = (
            f"{what}: it needs {error.needed}, {error.free} free of {error.total}. It waits, nothing changed."
        )
        return
    scene.tables[name] = table
    scene.words[name] = [*scene.words.get(name, []), *words]
    taken = table.block_ids[num_blocks:]
    room = (
        f"{'blocks' if len(taken) > 1 else 'block'} {', '.join(map(str, taken))} "
        f"{'are' if len(taken) > 1 else 'is'} taken."
        if taken
        else f"there is room in block {table.block_ids[-1]}."
    )
    scene.told = f"{what}: {room}"


def _end(scene: Scene, name: str) -> None:
    if name not in scene.tables:
        scene.told = f"{name} never ran: there is nothing to give back."
        return
    given_back = list(reversed(scene.tables[name].block_ids))
    scene.tables.pop(name).free()
    del scene.words[name]
    scene.told = f"{name} is done: blocks {', '.join(map(str, given_back))} go to the end of the free list."
