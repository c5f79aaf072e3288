"""Requests that begin alike on a pool that caches prefixes: what the prefix tree of notebook 08 shows."""

from dataclasses import dataclass, field

from course_lib.memory import BlockPool, BlockTable
from course_lib.memory.block_pool import CachedBlock
from course_lib.teaching.fork_story import name_blocks

NUM_BLOCKS, BLOCK_SIZE = 9, 4

SYSTEM = "you are a kind guide to the zoo"  # two blocks that several requests begin with

# (request, its prompt); None where it ends.
STORY = (
    ("A", f"{SYSTEM} when do owls nap"),
    ("B", f"{SYSTEM} where is lunch"),
    ("A", None),
    ("C", "you are a kind king of the sea"),
    ("D", "act as a rude guide to the zoo why is it wet"),
    ("B", None),
    ("C", None),
    ("D", None),
    ("E", f"{SYSTEM} when do owls nap"),
    ("F", "once upon a time there was a fox who ran so fast from a big dog"),
    ("E", None),
    ("G", "act as a rude guide to the zoo sell me a map"),
)


@dataclass(frozen=True)
class Node:
    """A block that can be found by its words, or that somebody uses, and the block before it in the text."""

    block_id: int
    words: tuple[str, ...]
    parent: int | None
    cached: bool  # whether it can be found


@dataclass
class Scene:
    """The pool and the requests after some moves."""

    pool: BlockPool = field(
        default_factory=lambda: BlockPool(NUM_BLOCKS, BLOCK_SIZE, enable_prefix_caching=True)
    )
    tables: dict[str, BlockTable] = field(default_factory=dict)
    prompts: dict[str, list[str]] = field(
        default_factory=dict
    )  # of all that ever came; a word stands for a token
    told: str = "Nothing has arrived: every block is free, and nothing is cached."
    newcomer: str | None = None  # who came with the last move
    hits: list[int] = field(default_factory=list)  # blocks that it took over
    computed: list[int] = field(default_factory=list)  # blocks that it had to compute
    evicted: dict[int, tuple[str, ...]] = field(
        default_factory=dict
    )  # block -> what it held until the last move

    def chain(self, words: list[str]) -> list[CachedBlock]:
        """The cached blocks that a text begins with, the last one of a text that ends with it among them."""
        chain, size = list[CachedBlock](), self.pool.block_size
        for start in range(0, len(words) - size + 1, size):
            record = self.pool.lookup(chain[-1] if chain else None, tuple(words[start : start + size]))
            if record is None:
                break
            chain.append(record)
        return chain

    def cached(self) -> dict[int, CachedBlock]:
        """Every block that can be found, by its number: each prompt that ever came is looked up."""
        return {record.block_id: record for words in self.prompts.values() for record in self.chain(words)}

    def tree(self) -> list[Node]:
        """Every block that is cached or in use, each after its parent."""
        nodes, size = dict[int, Node](), self.pool.block_size
        for name, words in self.prompts.items():
            cached = [record.block_id for record in self.chain(words)]
            used = self.tables[name].block_ids if name in self.tables else []
            for path in (cached, used):
                for index, block_id in enumerate(path):
                    part = tuple(words[index * size : (index + 1) * size])
                    parent = path[index - 1] if index else None
                    nodes.setdefault(block_id, Node(block_id, part, parent, path is cached))
        return list(nodes.values())

    def owners(self, block_id: int) -> list[str]:
        """The requests that use a block."""
        return [name for name, table in self.tables.items() if block_id in table.block_ids]


def replay(num_moves: int) -> Scene:
    """The scene after the first moves of the story.

    Example:
        >>> scene = replay(2)
        >>> scene.hits, scene.computed
        ([0, 1], [3])
        >>> replay(1).told
        'A comes with 12 tokens. No cached block holds its beginning: all are computed, in blocks 0, 1, 2.'
    """
    scene = Scene()
    for name, prompt in STORY[:num_moves]:
        scene.newcomer, scene.hits, scene.computed, scene.evicted = None, [], [], {}
        if prompt is None:
            _end(scene, name)
        else:
            _arrive(scene, name, prompt.split())
    return scene


def _arrive(scene: Scene, name: str, words: list[str]) -> None:
    table, before = BlockTable(scene.pool), scene.cached()
    known = table.find_prefix(words)
    why_no_more = _why_no_more(scene, words, known)
    table.adopt(known)
    num_known = table.num_tokens
    table.append(len(words) - num_known)
    table.remember(words)  # as soon as their keys and values are written
    scene.tables[name], scene.prompts[name], scene.newcomer = table, words, name
    scene.hits, scene.computed = table.block_ids[: len(known)], table.block_ids[len(known) :]
    scene.evicted = {block: before[block].token_ids for block in scene.computed if block in before}
    hits = (
        f"{name_blocks(scene.hits).capitalize()} {'hold' if len(known) > 1 else 'holds'} its first {num_known}: "
        f"{'hits' if len(known) > 1 else 'a hit'}. The other {len(words) - num_known} are computed,"
        if known
        else "No cached block holds its beginning: all are computed,"
    )
    scene.told = f"{name} comes with {len(words)} tokens. {hits} in {name_blocks(scene.computed)}."
    if why_no_more:
        scene.told += f" {why_no_more}"
    if len(words) % scene.pool.block_size:
        scene.told += f" Block {scene.computed[-1]} is not full, so it is not cached."
    if scene.evicted:
        scene.told += (
            " The blocks that were freed first are handed out first: "
            f"what {name_blocks(scene.evicted)} held is forgotten."
        )


def _why_no_more(scene: Scene, words: list[str], known: list[CachedBlock]) -> str:
    """Why a block that holds the same words is not taken over, if there is one."""
    size, chain = scene.pool.block_size, scene.chain(words)
    if len(chain) > len(known):
        return (
            f"Block {chain[-1].block_id} holds its last {size}, too, but one token at least must go through the "
            "model to give the next one, and only whole blocks are taken over. "
            f"Block {chain[-1].block_id} stays the one that is found."
        )
    for index in range(len(known), len(words) // size):
        part = tuple(words[index * size : (index + 1) * size])
        for block_id, record in scene.cached().items():
            if record.token_ids == part:
                return (
                    f"Block {block_id} holds the words '{' '.join(part)}', too, but after other words. Keys and values "
                    "depend on all words before, so the parent is part of the hash: no hit."
                )
    return ""


def _end(scene: Scene, name: str) -> None:
    pool, block_ids = scene.pool, list(reversed(scene.tables[name].block_ids))
    scene.tables.pop(name).free()
    gone = [block_id for block_id in block_ids if not pool.ref_count(block_id)]
    kept = [
        f"{block_id} (now ×{pool.ref_count(block_id)})" for block_id in block_ids if pool.ref_count(block_id)
    ]
    cached = [block_id for block_id in gone if block_id in scene.cached()]
    scene.told = f"{name} ends. {name_blocks(gone).capitalize()} {'go' if len(gone) > 1 else 'goes'} to the end of the "
    scene.told += "free list, last first. " if len(gone) > 1 else "free list. "
    if kept:
        scene.told += f"Others still use {name_blocks(kept)}. "
    scene.told += (
        f"What {name_blocks(cached)} {'hold' if len(cached) > 1 else 'holds'} can be found until it is handed out."
        if cached
        else "Nothing of it is cached."
    )
