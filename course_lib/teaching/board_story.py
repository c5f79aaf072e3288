"""What stands on the whiteboard of notebook 11: pool, block tables, counts and a scheduler, all of them real."""

from dataclasses import dataclass, field
from functools import cache

from course_lib.memory import BlockPool, BlockTable, PagedAllocator, Request, ReservingAllocator, Scheduler
from course_lib.teaching import online_story, paper
from course_lib.teaching.presets import ModelPreset, load_presets

SLAB, BLOCK_SIZE = 2048, 16
POSITION = 17  # the token of A that is followed to its slot
FREED = (7, 3, 5, 1, 10, 0)  # blocks that have been free for longest, in this order
SMALL_POOL = 6  # blocks of another scheduler, that runs out of them
MODEL = "Llama-3.1-8B"  # whose bytes a token are worked out
WALKED = "SmolLM2-135M"  # whose query the kernel walks with

_models = cache(lambda: load_presets()[0])


@dataclass
class Board:
    """Sequences A and B, and C, a fork of A that has written a token of its own."""

    slabs: ReservingAllocator = field(
        default_factory=lambda: ReservingAllocator("reserve_max", num_slots=2 * SLAB, max_len=SLAB)
    )
    pool: BlockPool = field(
        default_factory=lambda: BlockPool(2 * SLAB // BLOCK_SIZE, BLOCK_SIZE, enable_prefix_caching=True)
    )
    tables: dict[str, BlockTable] = field(default_factory=dict)
    free_before: list[int] = field(default_factory=list)  # the free list before anybody came
    forked: dict[int, int] = field(default_factory=dict)  # block of A -> its count, right after the fork
    copy: tuple[int, int] = (0, 0)  # what C's first token copies: from, to
    chain: list[int] = field(default_factory=list)  # blocks of B that are found by their hash
    states: list[online_story.State] = field(default_factory=list)  # after each block of A
    waiting: list[str] = field(default_factory=list)  # once a request has been preempted
    running: list[str] = field(default_factory=list)
    victim: str = ""
    preempted_in: int = 0  # step, from 1

    @property
    def model(self) -> ModelPreset:
        return _models()[MODEL]

    @property
    def head_dim(self) -> int:
        """Numbers of the mixture that is walked for, of which notebook 06 has recorded the first."""
        return _models()[WALKED].head_dim

    @property
    def share(self) -> float:
        """Of the two slabs' slots, those that hold a token."""
        return self.slabs.counts().token_states / self.slabs.num_slots


def board() -> Board:
    """Everything that is drawn. A holds the 24 tokens whose scores notebook 06 has recorded, B two blocks and a bit.

    Example:
        >>> found = board()
        >>> found.tables["A"].block_ids, found.tables["A"].slot(POSITION), found.tables["C"].block_ids
        ([7, 3], 49, [7, 0])
    """
    found, query = Board(), online_story.load()["scores that rise"]
    lengths = {"A": len(query.scores), "B": 2 * BLOCK_SIZE + 5}
    found.states = online_story.states(query.scores, query.values, BLOCK_SIZE)[1:]
    _reserve(found, lengths)
    _used_before(found.pool)
    found.free_before = found.pool.free_blocks()
    for name, num_tokens in lengths.items():
        found.tables[name] = BlockTable(found.pool)
        found.tables[name].append(num_tokens)
    _share(found)
    _run_out(found, lengths)
    return found


def _reserve(found: Board, lengths: dict[str, int]) -> None:
    """A slab each; what will come are the paper's mean answers, of a chat and of an instruction."""
    for key, workload in enumerate(paper.FIG_11_MEANS):
        held, output_len = list(lengths.values())[key], round(paper.FIG_11_MEANS[workload][1])
        found.slabs.admit(key, Request(0.0, held, output_len), num_tokens=held)


def _used_before(pool: BlockPool) -> None:
    """Earlier requests have taken all blocks, and given them back in some order."""
    taken = [pool.allocate() for _ in range(pool.num_blocks)]
    for block_id in (*FREED, *(block_id for block_id in taken if block_id not in FREED)):
        pool.free(block_id)


def _share(found: Board) -> None:
    a, b = found.tables["A"], found.tables["B"]
    text = range(b.num_tokens)  # any tokens do
    b.remember(text)
    found.chain = [record.block_id for record in b.find_prefix(text)]
    c = found.tables["C"] = a.fork()
    found.forked = {block_id: found.pool.ref_count(block_id) for block_id in a.block_ids}
    (found.copy,) = c.append().copies


def _run_out(found: Board, lengths: dict[str, int]) -> None:
    """A scheduler with few blocks, until somebody is preempted. D comes when there is no room for it."""
    names = [*lengths, "D"]
    scheduler = Scheduler(PagedAllocator(SMALL_POOL * BLOCK_SIZE, BLOCK_SIZE))
    for key, prompt_len in enumerate((*lengths.values(), 2 * BLOCK_SIZE)):
        scheduler.add(key, Request(0.0, prompt_len, output_len=2 * BLOCK_SIZE))
    number, step = 1, scheduler.schedule()
    while not step.preempted:
        scheduler.complete(step)
        number, step = number + 1, scheduler.schedule()
    found.waiting, found.running = (
        [names[key] for key in who] for who in (scheduler.waiting, scheduler.running)
    )
    found.victim, found.preempted_in = names[step.preempted[0]], number


def told(found: Board) -> list[tuple[str, str, str]]:
    """For each step of the board: the minute of a five-minute answer, what one says, and what is drawn.

    Example:
        >>> told(board())[3][1]
        'Token 17: entry 1 of the table, offset 1 in the block; that is slot 49.'
    """
    block, offset = divmod(POSITION, BLOCK_SIZE)
    a, b, slot = found.tables["A"], found.tables["B"], found.tables["A"].slot(POSITION)
    new, (source, target), model = a.num_tokens - 1, found.copy, found.model
    return [
        (
            "0:00",
            "Nobody knows how long an answer gets, so each request reserves for the longest.",
            f"two slabs, {found.share:.1%} full. {model.name}: 2 × {model.layers} layers × {model.kv_heads} KV heads × "
            f"{model.head_dim} × 2 bytes a token.",
        ),
        (
            "0:50",
            "Cut the same memory into small blocks, and hand one out when it is needed.",
            f"the same memory as {found.pool.num_blocks} blocks of {BLOCK_SIZE}, and the free list beside it.",
        ),
        (
            "1:20",
            "Each sequence has a table that says where its blocks are: anywhere will do.",
            f"block tables A {a.block_ids} and B {b.block_ids}, with an arrow from each entry to its block.",
        ),
        (
            "1:50",
            f"Token {POSITION}: entry {block} of the table, offset {offset} in the block; that is slot {slot}.",
            f"token {POSITION} of A, worked out to slot {slot}, and marked; the slot of token {new}, which is new.",
        ),
        (
            "2:20",
            "The kernel walks the table once. It keeps a maximum, a sum and a mixture.",
            "the maximum m, the sum l and one number of the mixture o, after each block of A.",
        ),
        (
            "3:10",
            "Before each step, room for those who run; if there is none, the last come yields.",
            f"the scheduler's loop, with a smaller pool. {found.victim} was preempted, "
            f"{', '.join(found.running)} runs, {' and '.join(found.waiting)} wait.",
        ),
        (
            "3:50",
            "Two tables may name one block. It has a count, and who writes copies it first.",
            f"C, a fork of A, copies block {source} to {target}; a chain of hashes finds B's full blocks.",
        ),
        (
            "4:30",
            "vLLM keeps the idea. More requests run at once; no single one runs faster.",
            "vLLM today, what ranks share, what paging costs, and where it gains nothing.",
        ),
    ]


def system_prompt(num_users: int, num_shared: int, num_own: int) -> tuple[int, int, int]:
    """Users with one beginning, each with tokens of their own: (blocks if nothing is shared, blocks with prefix
    caching, tokens computed with it), counted on a pool.

    Example:
        >>> system_prompt(num_users=2, num_shared=32, num_own=16)
        (6, 4, 64)
    """
    alone = num_users * -(-(num_shared + num_own) // BLOCK_SIZE)
    pool, computed = BlockPool(alone, BLOCK_SIZE, enable_prefix_caching=True), 0
    for user in range(num_users):
        tokens = [*range(num_shared), *range((user + 1) * 10**6, (user + 1) * 10**6 + num_own)]
        table = BlockTable(pool)
        missing = len(tokens) - table.adopt_prefix(tokens)
        table.append(missing)
        table.remember(tokens)
        computed += missing
    return alone, pool.num_blocks - pool.num_free, computed
