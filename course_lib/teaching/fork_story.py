"""One prompt, several outputs, told by real block tables: what the fork stepper of notebook 08 shows."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from course_lib.memory import BlockPool, BlockTable

NUM_BLOCKS, BLOCK_SIZE = 12, 4

PROMPT = "tell me a tale of a king who lost his".split()  # two full blocks, and one half full
OUTPUTS = {
    "A": "ring at sea".split(),
    "B": "way and met bears".split(),
    "C": "cat but not hope".split(),
    "D": "hat so he hid".split(),
}


@dataclass
class Scene:
    """The pool and the outputs after some moves."""

    num_outputs: int
    pool: BlockPool = field(default_factory=lambda: BlockPool(NUM_BLOCKS, BLOCK_SIZE))
    tables: dict[str, BlockTable] = field(default_factory=dict)
    words: dict[str, list[str]] = field(default_factory=dict)  # a word stands for a token
    ended: list[str] = field(default_factory=list)
    told: str = "Nothing has arrived: every block is free."
    copies: list[tuple[int, int]] = field(default_factory=list)  # (source, destination) of the last move
    num_copies: int = 0  # of all moves
    new_slots: list[int] = field(default_factory=list)  # written by the last move

    @property
    def names(self) -> list[str]:
        """The outputs, those that are not there yet and those that have ended among them."""
        return list(OUTPUTS)[: self.num_outputs]

    @property
    def blocks_in_use(self) -> int:
        """Blocks that one output uses at least."""
        return self.pool.num_blocks - self.pool.num_free

    @property
    def blocks_unshared(self) -> int:
        """Blocks that the same sequences would take if each had all of its blocks for itself."""
        return sum(-(-len(words) // self.pool.block_size) for words in self.words.values())

    def owners(self, block_id: int) -> list[str]:
        """The outputs that use a block."""
        return [name for name, table in self.tables.items() if block_id in table.block_ids]


def moves(num_outputs: int) -> list[tuple[str, str | None]]:
    """The story: (output, its next word), or (output, None) where it ends. The prompt and the fork come first.

    Raises:
        ValueError: fewer than two outputs, or more than there are words for.

    Example:
        >>> story = moves(2)
        >>> story[:4], story[-1]
        ([('prompt', None), ('fork', None), ('A', 'ring'), ('B', 'way')], ('B', None))
    """
    if not 2 <= num_outputs <= len(OUTPUTS):
        raise ValueError(f"num_outputs must be from 2 to {len(OUTPUTS)}, got {num_outputs!r}")
    names = list(OUTPUTS)[:num_outputs]
    first, *others = names
    story: list[tuple[str, str | None]] = [("prompt", None), ("fork", None)]
    for turn in range(len(OUTPUTS[first])):
        story += [(name, OUTPUTS[name][turn]) for name in names]
    story += [(first, None)]
    story += [(name, OUTPUTS[name][len(OUTPUTS[first])]) for name in others]
    return story + [(name, None) for name in others]


def replay(num_moves: int, num_outputs: int) -> Scene:
    """The scene after the first moves of the story.

    Example:
        >>> scene = replay(3, num_outputs=2)
        >>> scene.tables["A"].block_ids, scene.tables["B"].block_ids, scene.copies
        ([0, 1, 3], [0, 1, 2], [(2, 3)])
        >>> replay(4, num_outputs=2).told
        "B writes 'way'. Block 2 has room, and its count is 1: B has it alone, nothing is copied."
    """
    scene = Scene(num_outputs)
    for name, word in moves(num_outputs)[:num_moves]:
        scene.copies, scene.new_slots = [], []
        if name == "prompt":
            _arrive(scene)
        elif name == "fork":
            _fork(scene)
        elif word is None:
            _end(scene, name)
        else:
            _write(scene, name, word)
    return scene


def name_blocks(block_ids: Iterable[int]) -> str:
    """Blocks in words.

    Example:
        >>> name_blocks([3]), name_blocks([0, 1])
        ('block 3', 'blocks 0, 1')
    """
    names = [str(block_id) for block_id in block_ids]
    return f"{'block' if len(names) == 1 else 'blocks'} {', '.join(names)}"


def _arrive(scene: Scene) -> None:
    first, table = scene.names[0], BlockTable(scene.pool)
    scene.new_slots = table.append(len(PROMPT)).slots
    scene.tables[first], scene.words[first] = table, list(PROMPT)
    scene.told = (
        f"A prompt of {len(PROMPT)} tokens arrives and is computed once: {name_blocks(table.block_ids)} are taken, "
        f"and block {table.block_ids[-1]} has room for {-len(PROMPT) % scene.pool.block_size} more tokens."
    )


def _fork(scene: Scene) -> None:
    first, *others = scene.names
    for name in others:
        scene.tables[name], scene.words[name] = scene.tables[first].fork(), list(scene.words[first])
    count = scene.pool.ref_count(scene.tables[first].block_ids[0])
    scene.told = (
        f"The prompt forks into {scene.num_outputs} outputs. {', '.join(scene.names[:-1])} and {scene.names[-1]} "
        f"hold the same blocks: the count of each is {count}. Nothing is computed, nothing is copied."
    )


def _write(scene: Scene, name: str, word: str) -> None:
    table, pool = scene.tables[name], scene.pool
    last = table.block_ids[-1]
    full, count = table.num_tokens % pool.block_size == 0, pool.ref_count(last)
    appended = table.append()
    scene.words[name].append(word)
    scene.copies, scene.new_slots = appended.copies, appended.slots
    scene.num_copies += len(appended.copies)
    if appended.copies:
        why = (
            f"Block {last} has room, but its count is {count}: {name} copies it to block {table.block_ids[-1]} "
            f"and writes there. Block {last} is at {pool.ref_count(last)} now."
        )
    elif full:
        why = (
            f"Its block {last} is full, and full blocks are never written again: "
            f"{name} takes a fresh one, block {table.block_ids[-1]}. Nothing is copied."
        )
    else:
        why = f"Block {last} has room, and its count is 1: {name} has it alone, nothing is copied."
    scene.told = f"{name} writes '{word}'. {why}"


def _end(scene: Scene, name: str) -> None:
    pool, block_ids = scene.pool, list(scene.tables[name].block_ids)
    scene.tables.pop(name).free()
    del scene.words[name]
    scene.ended.append(name)
    kept = [block_id for block_id in block_ids if pool.ref_count(block_id)]
    gone = [block_id for block_id in block_ids if not pool.ref_count(block_id)]
    stay = ", ".join(f"{block_id} (now ×{pool.ref_count(block_id)})" for block_id in kept)
    scene.told = f"{name} ends, and the count of each of its blocks falls by 1. " + (
        f"Others still use blocks {stay}: they stay. " if kept else "Nobody else uses them. "
    )
    scene.told += f"{name_blocks(gone).capitalize()} reached 0 and {'are' if len(gone) > 1 else 'is'} free."
