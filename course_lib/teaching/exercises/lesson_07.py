"""Exercises of 07_serving: admit, make room, cut a prompt into chunks, recompute or swap, find a bad schedule."""

from itertools import accumulate

from course_lib.serving.cost import recompute_or_swap
from course_lib.teaching.check import Exercise, Mistake

# -- admit ----------------------------------------------------------------------------------------------------


def admit(waiting, num_free, num_spare, num_running, max_num_seqs):
    """The names of those who are admitted in this step: in order, nobody overtakes."""
    admitted = []
    for name, needed in waiting:
        spare = num_spare if num_running else 0  # alone, a request may take all
        if num_running == max_num_seqs or needed + spare > num_free:
            break
        admitted.append(name)
        num_free -= needed
        num_running += 1
    return admitted


def _admit(
    *,
    on_refusal="break",
    spare=lambda num_spare, num_running: num_spare if num_running else 0,
    fits=lambda needed, spare, num_free: needed + spare <= num_free,
    cost=lambda needed, spare: needed,
    full=lambda num_running, admitted, limit: num_running + len(admitted) >= limit,
    order=lambda waiting: waiting,
    alone=lambda num_running, admitted: num_running + len(admitted),
):
    """`admit` with one of its rules changed."""

    def answer(waiting, num_free, num_spare, num_running, max_num_seqs):
        admitted = []
        for name, needed in order(waiting):
            if full(num_running, admitted, max_num_seqs):
                break
            kept = spare(num_spare, alone(num_running, admitted))
            if not fits(needed, kept, num_free):
                if on_refusal == "break":
                    break
                continue
            admitted.append(name)
            num_free -= cost(needed, kept)
        return admitted

    return answer


ADMIT = Exercise(
    name="admit",
    minutes=8,
    difficulty="medium",
    proves="who waits in front is served first, and those who run can still grow.",
    solution=admit,
    cases=lambda: [
        # one too large before a smaller one; the limit; nothing runs; all fit; nobody waits; the spare decides
        dict(
            waiting=[("cid", 4), ("ann", 9), ("bob", 1)],
            num_free=12,
            num_spare=2,
            num_running=5,
            max_num_seqs=8,
        ),
        dict(
            waiting=[("ann", 1), ("cid", 1), ("bob", 1), ("dan", 1)],
            num_free=20,
            num_spare=1,
            num_running=2,
            max_num_seqs=4,
        ),
        dict(waiting=[("ann", 10), ("bob", 1)], num_free=10, num_spare=3, num_running=0, max_num_seqs=4),
        dict(waiting=[("eve", 5), ("dan", 2)], num_free=9, num_spare=2, num_running=1, max_num_seqs=4),
        dict(waiting=[], num_free=9, num_spare=0, num_running=1, max_num_seqs=9),
        dict(waiting=[("fay", 3), ("gus", 3)], num_free=8, num_spare=3, num_running=1, max_num_seqs=5),
        dict(waiting=[("hal", 4), ("ida", 3)], num_free=9, num_spare=3, num_running=0, max_num_seqs=3),
        dict(waiting=[("jon", 2)], num_free=90, num_spare=0, num_running=3, max_num_seqs=3),
        # the first needs spare blocks; one alone needs more than there is
        dict(waiting=[("lee", 7), ("kim", 1)], num_free=9, num_spare=3, num_running=1, max_num_seqs=9),
        dict(waiting=[("ned", 12), ("mia", 1)], num_free=10, num_spare=2, num_running=0, max_num_seqs=9),
    ],
    mistakes=(
        Mistake(
            "somebody who fits overtakes one who does not",
            "the first who does not fit ends it: `break`, not `continue`. Else a large request waits for ever",
            _admit(on_refusal="continue"),
        ),
        Mistake(
            "the smallest are taken first",
            "the order is that of arrival: no sorting",
            _admit(order=lambda waiting: sorted(waiting, key=lambda one: one[1])),
        ),
        Mistake(
            "nothing is left for those who run",
            "after an admission num_spare blocks must still be free",
            _admit(spare=lambda num_spare, num_running: 0),
        ),
        Mistake(
            "a request that would run alone is refused for the spare blocks' sake",
            "if nothing runs, there is nobody to spare blocks for: it may take all",
            _admit(spare=lambda num_spare, num_running: num_spare),
        ),
        Mistake(
            "the second is admitted as if it ran alone",
            "once one is admitted, somebody runs: the spare blocks count again",
            _admit(alone=lambda num_running, admitted: num_running),
        ),
        Mistake(
            "the first is admitted as if nobody ran",
            "those who run already need the spare blocks, too: look at num_running",
            _admit(alone=lambda num_running, admitted: len(admitted)),
        ),
        Mistake(
            "a request that would run alone is admitted, whether it fits or not",
            "alone, it may take all that is free, not more",
            _admit(
                fits=lambda needed, spare, num_free: spare is None or needed + spare <= num_free,
                spare=lambda num_spare, num_running: num_spare if num_running else None,
            ),
        ),
        Mistake(
            "the spare blocks are looked at before the admission",
            "they must be free after it: needed + spare <= num_free",
            _admit(fits=lambda needed, spare, num_free: needed <= num_free and spare <= num_free),
        ),
        Mistake(
            "all of them see the same free blocks",
            "what one takes is gone for the next: num_free goes down",
            _admit(cost=lambda needed, spare: 0),
        ),
        Mistake(
            "the spare blocks are taken once for each",
            "they stay free: only what a request needs leaves num_free",
            _admit(cost=lambda needed, spare: needed + spare),
        ),
        Mistake(
            "the spare blocks are kept once for each who runs",
            "num_spare is for all of them together",
            _admit(spare=lambda num_spare, num_running: num_spare * num_running),
        ),
        Mistake(
            "it refuses where exactly enough are free",
            "exactly enough is enough: <=, not < (and nothing is spared where nobody runs)",
            _admit(fits=lambda needed, spare, num_free: needed + spare < num_free),
        ),
        Mistake(
            "more run than max_num_seqs",
            "count those who run and those whom you have admitted",
            _admit(full=lambda num_running, admitted, limit: False),
        ),
        Mistake(
            "more run than max_num_seqs",
            "those who run already count, too",
            _admit(full=lambda num_running, admitted, limit: len(admitted) >= limit),
        ),
        Mistake(
            "more run than max_num_seqs",
            "each admission makes one more who runs: compare anew for the next",
            _admit(full=lambda num_running, admitted, limit: num_running >= limit),
        ),
        Mistake(
            "those admitted are not counted among those who run",
            "each admission makes one more who runs: that counts for max_num_seqs and for the spare blocks",
            _admit(
                full=lambda num_running, admitted, limit: num_running >= limit,
                alone=lambda num_running, admitted: num_running,
            ),
        ),
        Mistake(
            "only one is admitted",
            "go on with the queue while blocks and places are left",
            lambda *arguments: admit(*arguments)[:1],
        ),
        Mistake(
            "one place stays empty",
            "max_num_seqs may run, not one fewer",
            _admit(full=lambda num_running, admitted, limit: num_running + len(admitted) >= limit - 1),
        ),
        Mistake(
            "one more than max_num_seqs runs",
            "stop when num_running has reached max_num_seqs",
            _admit(full=lambda num_running, admitted, limit: num_running + len(admitted) > limit),
        ),
        Mistake(
            "it returns the blocks, too",
            "the names alone",
            lambda waiting, *rest: [one for one in waiting if one[0] in admit(waiting, *rest)],
        ),
        Mistake(
            "it returns how many",
            "a list of names is asked for",
            lambda *arguments: len(admit(*arguments)),
        ),
    ),
    hints=(
        "Go through the queue from its front, and stop at the first who cannot run. What can stop you?",
        "for each that waits, in order:\n    how many blocks must stay free? (none, if nobody runs)\n"
        "    if no place is left, or its blocks and these are not free: stop\n"
        "    it runs: fewer blocks are free, one more runs",
        "admitted = []\nfor name, needed in waiting:\n    spare = num_spare if num_running else 0\n"
        "    if num_running == max_num_seqs or needed + spare > num_free:\n        break\n"
        "    admitted.append(name)\n    num_free -= needed\n    num_running += 1\nreturn admitted",
    ),
    look_at="where the queue is left, what each admission takes, and what must stay free",
)

# -- pick_victims ---------------------------------------------------------------------------------------------


def pick_victims(running, held, who, needed, num_free):
    """Who is preempted, in order, so that `who` gets the blocks it needs: the last come first."""
    victims = []
    for name in reversed(running):
        if num_free >= needed:
            break
        victims.append(name)
        num_free += held[name]
        if name == who:  # it was its own victim
            break
    return victims


def _pick(
    *,
    order=lambda running, held, who: running[::-1],
    enough=lambda num_free, needed: num_free >= needed,
    gain=lambda blocks: blocks,
    ends=lambda name, who: name == who,
):
    def answer(running, held, who, needed, num_free):
        victims = []
        for name in order(running, held, who):
            if enough(num_free, needed):
                break
            victims.append(name)
            num_free += gain(held[name])
            if ends(name, who):
                break
        return victims

    return answer


def _pick_last_counts(running, held, who, needed, num_free):
    victims = []
    for name in running[::-1]:
        if num_free >= needed:
            break
        victims.append(name)
        num_free = held[name]
        if name == who:
            break
    return victims


PICK_VICTIMS = Exercise(
    name="pick_victims",
    minutes=7,
    difficulty="medium",
    proves="the oldest always gets done: nobody who came later can take its blocks.",
    solution=pick_victims,
    cases=lambda: [
        # one is enough; two are needed; nobody is; the last come itself; itself after another; some are free already
        dict(
            running=["bob", "cid", "ann"],
            held={"ann": 5, "bob": 9, "cid": 3},
            who="bob",
            needed=1,
            num_free=0,
        ),
        dict(
            running=["dan", "bob", "cid", "ann"],
            held={"ann": 2, "bob": 8, "cid": 4, "dan": 7},
            who="dan",
            needed=6,
            num_free=0,
        ),
        dict(running=["ann", "bob"], held={"ann": 4, "bob": 5}, who="bob", needed=2, num_free=2),
        dict(
            running=["ann", "bob", "cid"],
            held={"ann": 9, "bob": 3, "cid": 5},
            who="cid",
            needed=1,
            num_free=0,
        ),
        dict(
            running=["eve", "fay", "gus", "hal"],
            held={"eve": 7, "fay": 5, "gus": 1, "hal": 2},
            who="gus",
            needed=5,
            num_free=1,
        ),
        dict(
            running=["bob", "ann", "dan", "cid"],
            held={"ann": 4, "bob": 2, "cid": 5, "dan": 9},
            who="ann",
            needed=6,
            num_free=2,
        ),
        # all of them are not enough, and it is the oldest that needs
        dict(running=["bob", "ann"], held={"ann": 3, "bob": 9}, who="bob", needed=20, num_free=2),
    ],
    mistakes=(
        Mistake(
            "the oldest is preempted first",
            "the last come gives way: what the oldest has computed is most, and it must get done some day",
            _pick(order=lambda running, held, who: running),
        ),
        Mistake(
            "the largest is preempted first",
            "order of arrival decides, not size: a long request would be thrown out again and again",
            _pick(order=lambda running, held, who: sorted(running, key=lambda name: -held[name])),
        ),
        Mistake(
            "the smallest is preempted first",
            "order of arrival decides, not size",
            _pick(order=lambda running, held, who: sorted(running, key=lambda name: held[name])),
        ),
        Mistake(
            "the needy itself is spared, and an older one pays",
            "the last come may be the one who needs: then it gives way itself, and no older one does",
            _pick(order=lambda running, held, who: [name for name in running[::-1] if name != who]),
        ),
        Mistake(
            "the needy itself never gives way",
            "if those who came later are not enough, it is its own victim, the last in the list",
            lambda running, held, who, needed, num_free: [
                name for name in pick_victims(running, held, who, needed, num_free) if name != who
            ],
        ),
        Mistake(
            "those who came later are spared because they are not enough",
            "go from the last come, one by one: whether it is enough shows only when it is the turn of `who`",
            lambda running, held, who, needed, num_free: (
                [who] if who in (found := pick_victims(running, held, who, needed, num_free)) else found
            ),
        ),
        Mistake(
            "nobody gives way, because it would not be enough",
            "who cannot get its blocks cannot run: it gives way itself, after those who came later",
            lambda running, held, who, needed, num_free: (
                found
                if num_free
                + sum(map(held.get, (found := pick_victims(running, held, who, needed, num_free))))
                >= needed
                else []
            ),
        ),
        Mistake(
            "it goes on after the needy has given way",
            "who has been preempted needs nothing any more: stop there",
            _pick(ends=lambda name, who: False),
        ),
        Mistake(
            "only one gives way, and too few blocks are free",
            "go on until num_free reaches needed",
            lambda running, held, who, needed, num_free: [] if num_free >= needed else [running[-1]],
        ),
        Mistake(
            "everybody who came later gives way",
            "stop as soon as enough are free",
            lambda running, held, who, needed, num_free: (
                [] if num_free >= needed else running[: running.index(who) : -1] or [who]
            ),
        ),
        Mistake(
            "one too many gives way",
            "num_free >= needed is enough",
            _pick(enough=lambda num_free, needed: num_free > needed),
        ),
        Mistake(
            "somebody gives way though enough blocks are free",
            "look at num_free first",
            lambda running, held, who, needed, num_free: _pick()(
                running, held, who, max(needed, num_free + 1), num_free
            ),
        ),
        Mistake(
            "a victim gives one block",
            "all blocks of a sequence are needed in every step: it gives up all it holds",
            _pick(gain=lambda blocks: 1),
        ),
        Mistake(
            "only the blocks of the last victim are counted",
            "what all of them give adds up: num_free += held[name]",
            _pick_last_counts,
        ),
        Mistake(
            "what a victim gives is not counted",
            "num_free grows by all the blocks that it held",
            _pick(gain=lambda blocks: 0),
        ),
        Mistake(
            "the free blocks are forgotten",
            "some may be free already: start from num_free",
            lambda running, held, who, needed, num_free: pick_victims(running, held, who, needed, 0),
        ),
        Mistake(
            "the free blocks are forgotten",
            "they count together with what the victims give: start from num_free",
            lambda running, held, who, needed, num_free: (
                [] if num_free >= needed else pick_victims(running, held, who, needed, 0)
            ),
        ),
        Mistake(
            "the right ones, in the order of arrival",
            "the last come first: that is the order in which they give way",
            lambda *arguments: pick_victims(*arguments)[::-1],
        ),
        Mistake(
            "the needy gives way at once",
            "those who came after it go first",
            lambda running, held, who, needed, num_free: [] if num_free >= needed else [who],
        ),
    ),
    hints=(
        "Walk through those who run, from the last come. When do you stop? There are two reasons.",
        "for each that runs, the last come first:\n    enough free? stop\n"
        "    it gives way, and all its blocks are free\n"
        "    was it the needy itself? stop",
        "victims = []\nfor name in reversed(running):\n    if num_free >= needed:\n        break\n"
        "    victims.append(name)\n    num_free += held[name]\n    if name == who:\n        break\nreturn victims",
    ),
    look_at="who came last, how many blocks are free after each, and the case that `who` is the last come",
)

# -- recompute_or_swap ----------------------------------------------------------------------------------------


def _swap(
    *,
    blocks=lambda tokens, size: -(-tokens // size),
    copy=lambda seconds, size, each, rate: seconds + size * each / rate,
    ways=2,
    recompute=lambda tokens, size, rate: tokens / rate,
):
    def answer(num_tokens, block_size, bytes_per_token, prefill_rate, link_rate, seconds_per_copy):
        one = copy(seconds_per_copy, block_size, bytes_per_token, link_rate)
        return recompute(num_tokens, block_size, prefill_rate), ways * blocks(num_tokens, block_size) * one

    return answer


RECOMPUTE_OR_SWAP = Exercise(
    name="recompute_or_swap",
    minutes=6,
    difficulty="easy",
    proves="small blocks make swapping slow, and recomputing does not know of blocks.",
    solution=recompute_or_swap,
    cases=lambda: [
        # the paper's model over PCIe 4.0; a last block that is almost empty; blocks so small that recomputing is
        # faster; a slow link
        dict(
            num_tokens=250,
            block_size=16,
            bytes_per_token=819_200,
            prefill_rate=4000.0,
            link_rate=32e9,
            seconds_per_copy=2e-5,
        ),
        dict(
            num_tokens=970,
            block_size=64,
            bytes_per_token=131_072,
            prefill_rate=8000.0,
            link_rate=16e9,
            seconds_per_copy=1e-5,
        ),
        dict(
            num_tokens=100,
            block_size=1,
            bytes_per_token=819_200,
            prefill_rate=4000.0,
            link_rate=32e9,
            seconds_per_copy=4e-4,
        ),
        dict(
            num_tokens=48,
            block_size=16,
            bytes_per_token=46_080,
            prefill_rate=500.0,
            link_rate=4e9,
            seconds_per_copy=0.0,
        ),
    ],
    mistakes=(
        Mistake("one way only", "out, and later in again: each block is copied twice", _swap(ways=1)),
        Mistake(
            "a part of the last block is copied",
            "blocks are copied whole: round their number up",
            _swap(blocks=lambda tokens, size: tokens / size),
        ),
        Mistake(
            "a part of the last block is copied",
            "blocks are copied whole: each copy has the bytes of block_size tokens",
            lambda n, size, each, prefill, link, seconds: (
                n / prefill,
                2 * (-(-n // size) * seconds + n * each / link),
            ),
        ),
        Mistake(
            "the last block is lost",
            "round the number of blocks up, not down",
            _swap(blocks=lambda tokens, size: tokens // size),
        ),
        Mistake(
            "the number of blocks is rounded to the nearest",
            "round it up: a block with one token is copied, too",
            _swap(blocks=lambda tokens, size: round(tokens / size)),
        ),
        Mistake(
            "one block too many, where the last is full",
            "round up: num_tokens // block_size + 1 does so only if something is left over",
            _swap(blocks=lambda tokens, size: tokens // size + 1),
        ),
        Mistake(
            "copies cost nothing to begin",
            "each copy takes seconds_per_copy besides its bytes: that is why small blocks are slow",
            _swap(copy=lambda seconds, size, each, rate: size * each / rate),
        ),
        Mistake(
            "the cost of beginning a copy is paid once in all",
            "every block is a copy of its own, since blocks lie anywhere",
            lambda n, size, each, prefill, link, seconds: (
                n / prefill,
                2 * (seconds + -(-n // size) * size * each / link),
            ),
        ),
        Mistake(
            "the cost of beginning a copy is paid once in all",
            "every block is a copy of its own, out and in, since blocks lie anywhere",
            lambda n, size, each, prefill, link, seconds: (
                n / prefill,
                seconds + 2 * -(-n // size) * size * each / link,
            ),
        ),
        Mistake(
            "the tokens' bytes are copied, as if there were no blocks",
            "the blocks are copied one by one, each of them whole, and each copy takes seconds_per_copy to begin",
            lambda n, size, each, prefill, link, seconds: (n / prefill, 2 * n * each / link),
        ),
        Mistake(
            "the tokens' bytes are copied, as if there were no blocks",
            "the blocks are copied one by one, each of them whole, and each copy takes seconds_per_copy to begin",
            lambda n, size, each, prefill, link, seconds: (n / prefill, 2 * (seconds + n * each / link)),
        ),
        Mistake(
            "the cost of beginning a copy is paid one way only",
            "a block is copied twice, and each copy has to begin",
            lambda n, size, each, prefill, link, seconds: (
                n / prefill,
                -(-n // size) * (seconds + 2 * size * each / link),
            ),
        ),
        Mistake(
            "the bytes go one way only",
            "out, and later in again: the bytes cross the link twice",
            lambda n, size, each, prefill, link, seconds: (
                n / prefill,
                -(-n // size) * (2 * seconds + size * each / link),
            ),
        ),
        Mistake(
            "a block is taken for one token",
            "a block has block_size tokens of bytes_per_token",
            _swap(copy=lambda seconds, size, each, rate: seconds + each / rate),
        ),
        Mistake(
            "every token is a copy of its own",
            "copies are whole blocks",
            _swap(
                blocks=lambda tokens, size: tokens,
                copy=lambda seconds, size, each, rate: seconds + each / rate,
            ),
        ),
        Mistake(
            "a block is copied for every token",
            "block_size tokens share a block: there are num_tokens / block_size of them, rounded up",
            _swap(blocks=lambda tokens, size: tokens),
        ),
        Mistake(
            "keys and values are counted twice",
            "bytes_per_token has both already",
            _swap(copy=lambda seconds, size, each, rate: seconds + 2 * size * each / rate),
        ),
        Mistake("keys and values are counted twice", "a block's copy has both already", _swap(ways=4)),
        Mistake(
            "recomputing takes whole blocks",
            "it computes the tokens that there are: num_tokens / prefill_rate",
            _swap(recompute=lambda tokens, size, rate: -(-tokens // size) * size / rate),
        ),
        Mistake(
            "tokens x rate is no time",
            "seconds = tokens / (tokens a second)",
            _swap(recompute=lambda tokens, size, rate: tokens * rate),
        ),
        Mistake(
            "rate / tokens is no time",
            "seconds = tokens / (tokens a second): the other way round",
            _swap(recompute=lambda tokens, size, rate: rate / tokens),
        ),
        Mistake(
            "bytes x rate is no time",
            "seconds = bytes / (bytes a second)",
            _swap(copy=lambda seconds, size, each, rate: seconds + size * each * rate),
        ),
        Mistake(
            "the two are the wrong way round",
            "first to recompute, then to swap",
            lambda *arguments: recompute_or_swap(*arguments)[::-1],
        ),
        Mistake(
            "it returns the smaller one",
            "both are asked for: (recompute, swap)",
            lambda *arguments: min(recompute_or_swap(*arguments)),
        ),
        Mistake(
            "it names the cheaper one",
            "the seconds of both are asked for: (recompute, swap)",
            lambda *arguments: (
                "swap" if recompute_or_swap(*arguments)[0] > recompute_or_swap(*arguments)[1] else "recompute"
            ),
        ),
    ),
    hints=(
        "Recomputing is one prefill of all tokens. Swapping copies every block out, and later in.",
        "recompute: tokens / prefill rate\nblocks: tokens / block_size, rounded up\n"
        "one copy: its fixed cost + its bytes / link rate\nswap: 2 x blocks x one copy",
        "num_blocks = -(-num_tokens // block_size)\n"
        "one_copy = seconds_per_copy + block_size * bytes_per_token / link_rate\n"
        "return num_tokens / prefill_rate, 2 * num_blocks * one_copy",
    ),
    look_at="how many blocks are copied, how often, and what one copy takes",
    tolerance=1e-8,  # the times are short
)

# -- chunks ---------------------------------------------------------------------------------------------------


def chunks(prompt_len, num_decoding, budget):
    """How many tokens of a prompt go in, step by step, beside those who decode."""
    found = []
    while prompt_len > 0:
        found.append(min(prompt_len, budget - num_decoding))
        prompt_len -= found[-1]
    return found


def _chunks_of(size, *, whole=False):
    def answer(prompt_len, num_decoding, budget):
        found, left = [], prompt_len
        while left > 0:
            found.append(size(budget, num_decoding) if whole else min(left, size(budget, num_decoding)))
            left -= found[-1]
        return found

    return answer


def _chunks_evenly(prompt_len, num_decoding, budget):
    count = -(-prompt_len // (budget - num_decoding))
    return [prompt_len // count + (number < prompt_len % count) for number in range(count)]


CHUNKS = Exercise(
    name="chunks",
    minutes=4,
    difficulty="easy",
    proves="a long prompt slows the others down by a bounded amount a step, and only for as long as it lasts.",
    solution=chunks,
    cases=lambda: [
        dict(prompt_len=100, num_decoding=8, budget=40),
        dict(prompt_len=20, num_decoding=3, budget=40),
        dict(prompt_len=64, num_decoding=0, budget=16),
        dict(prompt_len=5, num_decoding=15, budget=17),
    ],
    mistakes=(
        Mistake(
            "those who decode have no part of the budget",
            "each of them needs one token of it: budget - num_decoding is left",
            _chunks_of(lambda budget, decoding: budget),
        ),
        Mistake(
            "the last chunk is longer than what is left",
            "min(what is left, the room)",
            _chunks_of(lambda budget, decoding: budget - decoding, whole=True),
        ),
        Mistake(
            "the chunks are even",
            "each step takes as much as it may; the last takes the rest",
            _chunks_evenly,
        ),
        Mistake(
            "the rest comes first",
            "full chunks first, the rest last",
            lambda *arguments: chunks(*arguments)[::-1],
        ),
        Mistake(
            "the rest is lost",
            "what does not fill a chunk goes in, too",
            lambda prompt_len, num_decoding, budget: (
                [budget - num_decoding] * (prompt_len // (budget - num_decoding))
            ),
        ),
        Mistake(
            "the last chunk is lost",
            "go on while anything is left of the prompt, be it less than a chunk or just one",
            lambda *arguments: chunks(*arguments)[:-1],
        ),
        Mistake(
            "it returns the number of steps",
            "a list: how many tokens in each step",
            lambda *arguments: len(chunks(*arguments)),
        ),
        Mistake(
            "the prompt goes in at once",
            "no step may compute more than budget tokens in all",
            lambda prompt_len, num_decoding, budget: [prompt_len],
        ),
        Mistake(
            "each chunk is a token too long",
            "each of those who decode takes a token of the budget: budget - num_decoding is left",
            _chunks_of(lambda budget, decoding: budget - decoding + 1),
        ),
        Mistake(
            "each chunk is a token too short",
            "the chunk may fill the budget: budget - num_decoding is left, and the newcomer does not decode yet",
            _chunks_of(lambda budget, decoding: budget - decoding - 1),
        ),
        Mistake(
            "an empty chunk comes last",
            "where the chunks come out even, nothing is left over: the step before was the last",
            lambda prompt_len, num_decoding, budget: [
                *[budget - num_decoding] * (prompt_len // (budget - num_decoding)),
                prompt_len % (budget - num_decoding),
            ],
        ),
        Mistake(
            "those who decode have their part in the first step only",
            "they need a token in every step",
            lambda prompt_len, num_decoding, budget: (
                chunks(prompt_len, num_decoding, budget)[:1]
                + chunks(prompt_len - min(prompt_len, budget - num_decoding), 0, budget)
            ),
        ),
        Mistake(
            "the tokens of those who decode are counted, too",
            "the prompt's tokens are asked for, without num_decoding",
            lambda *arguments: [part + arguments[1] for part in chunks(*arguments)],
        ),
        Mistake(
            "it returns how much has gone in so far",
            "for each step, the tokens that go in at this step",
            lambda *arguments: list(accumulate(chunks(*arguments))),
        ),
        Mistake(
            "it returns how much is left after each step",
            "for each step, the tokens that go in at this step",
            lambda *arguments: [arguments[0] - gone for gone in accumulate(chunks(*arguments))],
        ),
    ),
    hints=(
        "What is left of the budget when each of those who decode has taken its one token?",
        "room = budget less one for each who decodes\n"
        "while something of the prompt is left: take the room, or what is left",
        "found = []\nwhile prompt_len > 0:\n    found.append(min(prompt_len, budget - num_decoding))\n"
        "    prompt_len -= found[-1]\nreturn found",
    ),
    look_at="what is left of the budget in each step, and the last chunk",
)

# -- audit ----------------------------------------------------------------------------------------------------


def audit(running, waiting, preempted, admitted):
    """The first rule that a step broke, or "ok"."""
    if preempted != running[::-1][: len(preempted)]:
        return "wrong victim"
    if preempted and admitted:
        return "thrashing"
    if admitted != waiting[: len(admitted)]:
        return "overtaking"
    return "ok"


def _audit(
    *,
    victims=lambda running, preempted: preempted == running[::-1][: len(preempted)],
    thrash=lambda preempted, admitted: bool(preempted and admitted),
    queue=lambda waiting, admitted: admitted == waiting[: len(admitted)],
):
    def answer(running, waiting, preempted, admitted):
        if not victims(running, preempted):
            return "wrong victim"
        if thrash(preempted, admitted):
            return "thrashing"
        return "ok" if queue(waiting, admitted) else "overtaking"

    return answer


AUDIT = Exercise(
    name="audit",
    minutes=7,
    difficulty="medium",
    proves="three short rules tell a fair schedule from one that starves somebody.",
    solution=audit,
    cases=lambda: [
        # names in no order, for time of arrival is what counts
        dict(running=["c", "a", "b"], waiting=["e", "d"], preempted=[], admitted=["e"]),
        dict(running=["c", "a", "b"], waiting=["e", "d"], preempted=["c"], admitted=[]),
        dict(running=["c", "a", "b"], waiting=["e", "d"], preempted=[], admitted=["d"]),
        dict(running=["c", "a", "b"], waiting=["e", "d"], preempted=["b"], admitted=["e"]),
        dict(running=["c", "a", "b"], waiting=["d"], preempted=["a", "b"], admitted=[]),
        dict(running=["c", "b", "a"], waiting=["d"], preempted=["a", "b"], admitted=[]),
        dict(running=[], waiting=["e", "d", "f"], preempted=[], admitted=["d", "e"]),
        dict(running=["a"], waiting=[], preempted=[], admitted=[]),
        dict(running=["a", "b"], waiting=["d", "e", "f"], preempted=[], admitted=["d", "f"]),
        dict(running=["c", "a", "b"], waiting=["e", "d"], preempted=["b"], admitted=["d"]),
        dict(running=["a", "b"], waiting=["e", "d"], preempted=["a"], admitted=["d"]),
        dict(running=["a", "b", "c", "d"], waiting=["e"], preempted=["d", "b"], admitted=[]),
        dict(running=["b", "c", "a"], waiting=["d"], preempted=["a"], admitted=["a"]),
        dict(running=["c", "a", "b"], waiting=["d"], preempted=["a"], admitted=[]),
        dict(running=["a", "c", "b", "d"], waiting=[], preempted=["c", "d"], admitted=[]),
        dict(running=["a"], waiting=["e", "d"], preempted=[], admitted=["e", "d"]),
        dict(running=[], waiting=["e", "d", "f"], preempted=[], admitted=["f", "d"]),
    ],
    mistakes=(
        Mistake(
            "the order in which victims give way is not looked at",
            "the last come goes first: preempted must be the end of running, backwards",
            _audit(
                victims=lambda running, preempted: (
                    set(preempted) == set(running[len(running) - len(preempted) :])
                )
            ),
        ),
        Mistake(
            "it asks that the victims stand in the order of arrival",
            "they give way one after the other, the last come first: backwards",
            _audit(victims=lambda running, preempted: preempted == running[len(running) - len(preempted) :]),
        ),
        Mistake(
            "a step that preempts nobody has a wrong victim",
            "running[-0:] is all of running: a slice from the end goes wrong where preempted is empty",
            _audit(victims=lambda running, preempted: preempted == running[-len(preempted) :][::-1]),
        ),
        Mistake(
            "a step that preempts nobody has a wrong victim",
            "running[-0:] is all of running; and victims stand backwards, the last come first",
            _audit(victims=lambda running, preempted: preempted == running[-len(preempted) :]),
        ),
        Mistake(
            "only the first victim is looked at",
            "the second must be the last but one, and so on",
            _audit(victims=lambda running, preempted: not preempted or preempted[0] == running[-1]),
        ),
        Mistake(
            "it is enough that the last come is among the victims",
            "the last come goes first, the last but one second: preempted is the end of running, backwards",
            _audit(victims=lambda running, preempted: not preempted or running[-1] in preempted),
        ),
        Mistake(
            "the oldest is taken for the right victim",
            "the last come is at the end of running",
            _audit(victims=lambda running, preempted: preempted == running[: len(preempted)]),
        ),
        Mistake(
            "a wrong victim is not noticed",
            "compare preempted with the end of running, backwards",
            _audit(victims=lambda running, preempted: True),
        ),
        Mistake(
            "a step that throws one out and lets one in passes",
            "preempted and admitted in one step is thrashing: what was thrown out made the room",
            _audit(thrash=lambda preempted, admitted: False),
        ),
        Mistake(
            "it is thrashing only if the same one is thrown out and let in",
            "anybody preempted and anybody admitted: the blocks of the one make the room for the other",
            _audit(thrash=lambda preempted, admitted: bool(set(preempted) & set(admitted))),
        ),
        Mistake(
            "every preemption is called thrashing",
            "thrashing is to preempt and to admit in the same step",
            _audit(thrash=lambda preempted, admitted: bool(preempted)),
        ),
        Mistake(
            "every step in which something happens is called thrashing",
            "thrashing is to preempt and to admit in the same step: `and`, not `or`",
            _audit(thrash=lambda preempted, admitted: bool(preempted or admitted)),
        ),
        Mistake(
            "overtaking is not noticed",
            "admitted must be the beginning of waiting",
            _audit(queue=lambda waiting, admitted: True),
        ),
        Mistake(
            "the order of those admitted is not looked at",
            "the first of the queue goes first: admitted must be the beginning of waiting, in its order",
            _audit(queue=lambda waiting, admitted: set(admitted) == set(waiting[: len(admitted)])),
        ),
        Mistake(
            "some of the queue are left out, and it passes",
            "no gaps: admitted must be the beginning of waiting",
            _audit(
                queue=lambda waiting, admitted: admitted == [name for name in waiting if name in admitted]
            ),
        ),
        Mistake(
            "only the first who is admitted is looked at",
            "the second of them must be the second of the queue",
            _audit(queue=lambda waiting, admitted: not admitted or admitted[0] == waiting[0]),
        ),
        Mistake(
            "a step that admits nobody is called overtaking",
            "to admit nobody breaks no rule: there may be no room",
            _audit(queue=lambda waiting, admitted: bool(admitted) and admitted == waiting[: len(admitted)]),
        ),
        Mistake(
            "a step that admits nobody is called overtaking",
            "nobody has overtaken where nobody is admitted, though somebody waits",
            _audit(
                queue=lambda waiting, admitted: (
                    admitted[:1] == waiting[:1] and admitted == waiting[: len(admitted)]
                )
            ),
        ),
        Mistake(
            "it is enough that the front of the queue is among the admitted",
            "the first goes first, the second second: admitted must be the beginning of waiting, in its order",
            _audit(queue=lambda waiting, admitted: not admitted or waiting[0] in admitted),
        ),
        Mistake(
            "a step that leaves somebody waiting is called overtaking",
            "it may admit as few as it likes, from the front",
            _audit(queue=lambda waiting, admitted: not admitted or admitted == waiting),
        ),
        Mistake(
            "overtaking is named before thrashing",
            "where several rules are broken, the first of the list is asked for",
            lambda running, waiting, preempted, admitted: (
                "overtaking"
                if admitted != waiting[: len(admitted)] and preempted == running[::-1][: len(preempted)]
                else audit(running, waiting, preempted, admitted)
            ),
        ),
        Mistake(
            "thrashing is named before a wrong victim",
            "where several rules are broken, the first of the list is asked for",
            lambda running, waiting, preempted, admitted: (
                "thrashing" if preempted and admitted else audit(running, waiting, preempted, admitted)
            ),
        ),
        Mistake(
            "overtaking is named first",
            "where several rules are broken, the first of the list is asked for",
            lambda running, waiting, preempted, admitted: (
                "overtaking"
                if admitted != waiting[: len(admitted)]
                else audit(running, waiting, preempted, admitted)
            ),
        ),
        Mistake(
            "it returns all the rules that are broken",
            'one string: the first that is true, or "ok"',
            lambda running, waiting, preempted, admitted: [
                rule
                for rule, broken in (
                    ("wrong victim", preempted != running[::-1][: len(preempted)]),
                    ("thrashing", preempted and admitted),
                    ("overtaking", admitted != waiting[: len(admitted)]),
                )
                if broken
            ],
        ),
    ),
    hints=(
        "What does each list look like in a good step? preempted is an end of running, admitted a beginning of "
        "waiting.",
        "preempted is not the end of running, backwards: wrong victim\n"
        "somebody preempted and somebody admitted: thrashing\n"
        "admitted is not the beginning of waiting: overtaking\nelse ok",
        'if preempted != running[::-1][: len(preempted)]:\n    return "wrong victim"\nif preempted and admitted:\n'
        '    return "thrashing"\nif admitted != waiting[: len(admitted)]:\n    return "overtaking"\nreturn "ok"',
    ),
    look_at="the three rules, in their order, and what an empty list means",
)

EXERCISES = [ADMIT, PICK_VICTIMS, RECOMPUTE_OR_SWAP, CHUNKS, AUDIT]  # as the notebook asks them
