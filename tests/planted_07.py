"""Answers to the exercises of notebook 07, as learners write them: other right ones, and wrong ones.

A wrong answer stands with a word of the diagnosis it must get.
"""

import itertools
import math
from collections import deque

import numpy as np

# -- admit ----------------------------------------------------------------------------------------------------


def admit_by_queue(waiting, free, spare, running, limit):
    queue, names = deque(waiting), []
    while queue and running + len(names) < limit:
        name, needed = queue.popleft()
        left = free - needed
        if left < 0 or (left < spare and running + len(names) > 0):
            return names
        free = left
        names.append(name)
    return names


def admit_by_recursion(waiting, free, spare, running, limit):
    if not waiting or running >= limit:
        return []
    (name, needed), *others = waiting
    if free - needed < (0 if running == 0 else spare):
        return []
    return [name, *admit_by_recursion(others, free - needed, spare, running + 1, limit)]


def admit_by_sums(waiting, free, spare, running, limit):
    """Sums up what the first, the first two, ... need, and keeps those that fit."""
    held = itertools.accumulate(needed for _, needed in waiting)
    keeps = [0 if running + place == 0 else spare for place in range(len(waiting))]
    fits = [total <= free - keep for total, keep in zip(held, keeps, strict=True)]
    number = len(list(itertools.takewhile(bool, fits[: max(0, limit - running)])))
    return [name for name, _ in waiting[:number]]


def admit_overtakes(waiting, free, spare, running, limit):
    out = []
    for name, needed in waiting:
        if running < limit and needed + (spare if running > 0 else 0) <= free:
            out.append(name)
            free -= needed
            running += 1
    return out


def admit_smallest(waiting, free, spare, running, limit):
    return admit_by_queue(sorted(waiting, key=lambda pair: pair[1]), free, spare, running, limit)


def admit_by_name(waiting, free, spare, running, limit):
    return admit_by_recursion(sorted(waiting), free, spare, running, limit)


def admit_no_spare(waiting, free, spare, running, limit):
    out = []
    for name, needed in waiting:
        if needed > free or running >= limit:
            break
        free, running = free - needed, running + 1
        out += [name]
    return out


def admit_always_spare(waiting, free, spare, running, limit):
    out = []
    for name, needed in waiting:
        if running == limit or free - needed < spare:
            break
        free, running = free - needed, running + 1
        out += [name]
    return out


def admit_spare_set_once(waiting, free, spare, running, limit):
    """Asks once, before the loop, whether anybody runs."""
    if running == 0:
        spare = 0
    out = []
    for name, needed in waiting:
        if running == limit or free - needed < spare:
            break
        free, running = free - needed, running + 1
        out += [name]
    return out


def admit_running_not_counted(waiting, free, spare, running, limit):
    """Forgets to count up those who run, so that the second is alone, too."""
    names = []
    while len(names) < len(waiting) and running + len(names) < limit:
        name, needed = waiting[len(names)]
        if needed > free - (spare if running else 0):
            break
        free -= needed
        names.append(name)
    return names


def admit_first_is_free(waiting, free, spare, running, limit):
    names = []
    for name, needed in waiting:
        watermark = spare if names else 0
        if free - needed < watermark or running + len(names) >= limit:
            break
        names.append(name)
        free -= needed
    return names


def admit_alone_unseen(waiting, free, spare, running, limit):
    out = []
    for name, needed in waiting:
        if running >= limit:
            break
        if running > 0 and needed + spare > free:
            break
        out.append(name)
        free -= needed
        running += 1
    return out


def admit_spare_before(waiting, free, spare, running, limit):
    """Looks whether the spare blocks are free before it takes anything."""
    out = []
    for name, needed in waiting:
        if running >= limit or needed > free:
            break
        if running and free < spare:
            break
        out.append(name)
        free -= needed
        running += 1
    return out


def admit_same_blocks(waiting, free, spare, running, limit):
    out = []
    for name, needed in waiting:
        if running == limit or needed + (spare if running else 0) > free:
            break
        out.append(name)
        running += 1
    return out


def admit_spare_taken(waiting, free, spare, running, limit):
    out = []
    for name, needed in waiting:
        asks = needed + spare if running else needed
        if running == limit or asks > free:
            break
        out.append(name)
        free -= asks
        running += 1
    return out


def admit_spare_for_each(waiting, free, spare, running, limit):
    out = []
    for name, needed in waiting:
        if running == limit or free - needed < running * spare:
            break
        out.append(name)
        free -= needed
        running += 1
    return out


def admit_strict(waiting, free, spare, running, limit):
    out = []
    for name, needed in waiting:
        if running >= limit or free - needed <= (spare if running else 0):
            break
        out.append(name)
        free -= needed
        running += 1
    return out


def admit_without_limit(waiting, free, spare, running, limit):
    return admit_by_queue(waiting, free, spare, running, math.inf)


def admit_limit_of_new(waiting, free, spare, running, limit):
    return [
        name
        for number, name in enumerate(admit_without_limit(waiting, free, spare, running, limit))
        if number < limit
    ]


def admit_limit_once(waiting, free, spare, running, limit):
    if running >= limit:
        return []
    return admit_without_limit(waiting, free, spare, running, limit)


def admit_running_stays(waiting, free, spare, running, limit):
    out = []
    for name, needed in waiting:
        if running == limit or needed + (spare if running else 0) > free:
            break
        out.append(name)
        free -= needed
    return out


def admit_next(waiting, free, spare, running, limit):
    """Only looks at who is in front."""
    if waiting and running < limit and waiting[0][1] <= free - (spare if running else 0):
        return [waiting[0][0]]
    return []


def admit_limit_one_fewer(waiting, free, spare, running, limit):
    out = []
    for name, needed in waiting:
        if running + 1 >= limit or needed + (spare if running else 0) > free:
            break
        out.append(name)
        free -= needed
        running += 1
    return out


def admit_limit_one_more(waiting, free, spare, running, limit):
    out = []
    for name, needed in waiting:
        if running > limit or needed + (spare if running else 0) > free:
            break
        out.append(name)
        free -= needed
        running += 1
    return out


def admit_pairs(waiting, free, spare, running, limit):
    out = []
    for one in waiting:
        if running == limit or one[1] > free - (spare if running else 0):
            break
        out.append(one)
        free -= one[1]
        running += 1
    return out


def admit_count(waiting, free, spare, running, limit):
    count = 0
    for _, needed in waiting:
        if running + count == limit or needed > free - (spare if running + count else 0):
            break
        free -= needed
        count += 1
    return count


def admit_pops(waiting, free, spare, running, limit):
    out = []
    while waiting and running < limit:
        needed = waiting[0][1]
        if needed + (spare if running else 0) > free:
            break
        out.append(waiting.pop(0)[0])
        free -= needed
        running += 1
    return out


def admit_all_or_nobody(waiting, free, spare, running, limit):
    total = sum(needed for _, needed in waiting)
    if total + spare <= free and running + len(waiting) <= limit:
        return [name for name, _ in waiting]
    return []


def admit_no_return(waiting, free, spare, running, limit):
    """Gives up where a return is due."""
    out = []
    for name, needed in waiting:
        if running == limit or needed + (spare if running else 0) > free:
            return
        out.append(name)
        free -= needed
        running += 1
    return out


# -- pick_victims ---------------------------------------------------------------------------------------------


def pick_by_pop(running, held, who, needed, free):
    stack, out = running[:], []
    while free < needed and who not in out:
        out.append(stack.pop())
        free += held[out[-1]]
    return out


def pick_by_index(running, held, who, needed, free):
    last = running.index(who)
    for start in range(len(running), last - 1, -1):
        if free + sum(held[name] for name in running[start:]) >= needed:
            return running[start:][::-1]
    return running[last:][::-1]


def pick_by_recursion(running, held, who, needed, free):
    if free >= needed:
        return []
    *older, last = running
    if last == who:
        return [who]
    return [last, *pick_by_recursion(older, held, who, needed, free + held[last])]


def pick_oldest(running, held, who, needed, free):
    out = []
    for name in running:
        if free >= needed:
            break
        out.append(name)
        free += held[name]
        if name == who:
            break
    return out


def pick_largest(running, held, who, needed, free):
    left, out = list(running), []
    while free < needed:
        largest = max(left, key=held.get)
        left.remove(largest)
        out.append(largest)
        free += held[largest]
        if largest == who:
            break
    return out


def pick_smallest(running, held, who, needed, free):
    left, out = list(running), []
    while free < needed:
        smallest = min(left, key=lambda name: held[name])
        left.remove(smallest)
        out.append(smallest)
        free += held[smallest]
        if smallest == who:
            return out
    return out


def pick_by_name(running, held, who, needed, free):
    return pick_by_pop(sorted(running), held, who, needed, free)


def pick_others(running, held, who, needed, free):
    out = []
    for name in running[::-1]:
        if name == who:
            continue
        if free >= needed:
            break
        out.append(name)
        free += held[name]
    return out


def pick_on_and_on(running, held, who, needed, free):
    out, at = [], len(running) - 1
    while free < needed and at >= 0:
        out.append(running[at])
        free += held[running[at]]
        at -= 1
    return out


def pick_stops_before_who(running, held, who, needed, free):
    out = []
    for name in running[::-1]:
        if free >= needed or name == who:
            break
        out.append(name)
        free += held[name]
    return out


def pick_only_later(running, held, who, needed, free):
    later = running[running.index(who) + 1 :]
    out = []
    while later and free < needed:
        out.append(later.pop())
        free += held[out[-1]]
    return out


def pick_nobody_in_vain(running, held, who, needed, free):
    """Spares those who came later, where all of them together are not enough."""
    later = running[running.index(who) + 1 :]
    if free + sum(held[name] for name in later) < needed:
        return [who]
    out = []
    while free < needed:
        out.append(later.pop())
        free += held[out[-1]]
    return out


def pick_only_if_enough(running, held, who, needed, free):
    out = []
    for name in running[: running.index(who) - 1 if who != running[0] else None : -1]:
        if free >= needed:
            return out
        out.append(name)
        free += held[name]
    return out if free >= needed else []


def pick_last_counts(running, held, who, needed, free):
    out, place = [], len(running) - 1
    while free < needed:
        out.append(running[place])
        free = held[running[place]]
        if running[place] == who:
            break
        place -= 1
    return out


def pick_one(running, held, who, needed, free):
    if free < needed:
        return [running[-1]]
    return []


def pick_all_later(running, held, who, needed, free):
    if needed <= free:
        return []
    later = running[running.index(who) + 1 :]
    return later[::-1] if later else [who]


def pick_more_than_enough(running, held, who, needed, free):
    out = []
    for name in reversed(running):
        if free > needed:
            break
        out.append(name)
        free += held[name]
        if name == who:
            break
    return out


def pick_first_then_look(running, held, who, needed, free):
    out = []
    for name in reversed(running):
        out.append(name)
        free += held[name]
        if free >= needed or name == who:
            break
    return out


def pick_one_block_each(running, held, who, needed, free):
    out = []
    for name in reversed(running):
        if free + len(out) >= needed:
            break
        out.append(name)
        if name == who:
            break
    return out


def pick_from_zero(running, held, who, needed, free):
    out, freed = [], 0
    for name in reversed(running):
        if freed >= needed:
            break
        out.append(name)
        freed += held[name]
        if name == who:
            break
    return out


def pick_from_zero_if_short(running, held, who, needed, free):
    return [] if free >= needed else pick_from_zero(running, held, who, needed, free)


def pick_never_counts(running, held, who, needed, free):
    """Does not add up what the victims give."""
    out = []
    for name in reversed(running):
        if free >= needed:
            break
        out.append(name)
        if name == who:
            break
    return out


def pick_in_front(running, held, who, needed, free):
    out = []
    for name in reversed(running):
        if free >= needed:
            break
        out.insert(0, name)
        free += held[name]
        if name == who:
            break
    return out


def pick_who(running, held, who, needed, free):
    if free >= needed:
        return []
    return [who]


def pick_pops(running, held, who, needed, free):
    out = []
    while free < needed:
        out.append(running.pop())
        free += held[out[-1]]
        if out[-1] == who:
            break
    return out


def pick_set(running, held, who, needed, free):
    return set(pick_by_pop(running, held, who, needed, free))


def pick_numbers(running, held, who, needed, free):
    for number in range(len(running) + 1):
        if free + sum(held[name] for name in running[len(running) - number :]) >= needed:
            return number


def pick_none(running, held, who, needed, free):
    if free >= needed:
        return None
    return pick_by_pop(running, held, who, needed, free)


# -- recompute_or_swap ----------------------------------------------------------------------------------------


def swap_by_ceil(n, size, per_token, prefill, link, begin):
    blocks = math.ceil(n / size)
    seconds = 2 * blocks * begin + 2 * blocks * size * per_token / link
    return n * (1 / prefill), seconds


def swap_by_counting(n, size, per_token, prefill, link, begin):
    swap = 0.0
    for _direction in ("out", "in"):
        for _first in range(0, n, size):
            swap += begin
            swap += size * per_token / link
    return n / prefill, swap


def swap_by_numpy(n, size, per_token, prefill, link, begin):
    copies = np.full(2 * ((n + size - 1) // size), begin + per_token * size / link)
    return n / prefill, copies.sum()


def swap_one_way(n, size, per_token, prefill, link, begin):
    return n / prefill, math.ceil(n / size) * (begin + size * per_token / link)


def swap_part_of_a_block(n, size, per_token, prefill, link, begin):
    return n / prefill, 2 * (n / size) * (begin + size * per_token / link)


def swap_tokens_bytes(n, size, per_token, prefill, link, begin):
    """As many copies as blocks, but only the bytes of the tokens that there are."""
    return n / prefill, 2 * (math.ceil(n / size) * begin + n * per_token / link)


def swap_floor(n, size, per_token, prefill, link, begin):
    blocks = n // size
    return n / prefill, blocks * (begin + size * per_token / link) * 2


def swap_round(n, size, per_token, prefill, link, begin):
    blocks = round(n / size)
    return n / prefill, blocks * (begin + size * per_token / link) * 2


def swap_one_more(n, size, per_token, prefill, link, begin):
    blocks = n // size + 1
    return n / prefill, blocks * (begin + size * per_token / link) * 2


def swap_bytes_only(n, size, per_token, prefill, link, begin):
    return n / prefill, 2 * math.ceil(n / size) * size * per_token / link


def swap_no_blocks(n, size, per_token, prefill, link, begin):
    num_bytes = n * per_token
    return n / prefill, num_bytes / link + num_bytes / link


def swap_in_one_go(n, size, per_token, prefill, link, begin):
    out_again = begin + n * per_token / link
    return n / prefill, 2 * out_again


def swap_begins_once(n, size, per_token, prefill, link, begin):
    num_bytes = -(-n // size) * size * per_token
    return n / prefill, begin + 2 * num_bytes / link


def swap_begins_twice(n, size, per_token, prefill, link, begin):
    one_way = begin + -(-n // size) * size * per_token / link
    return n / prefill, one_way + one_way


def swap_begins_one_way(n, size, per_token, prefill, link, begin):
    blocks = -(-n // size)
    return n / prefill, blocks * begin + 2 * blocks * size * per_token / link


def swap_bytes_one_way(n, size, per_token, prefill, link, begin):
    blocks = -(-n // size)
    return n / prefill, 2 * blocks * begin + blocks * size * per_token / link


def swap_block_is_token(n, size, per_token, prefill, link, begin):
    return n / prefill, 2 * math.ceil(n / size) * (begin + per_token / link)


def swap_token_by_token(n, size, per_token, prefill, link, begin):
    return n / prefill, sum(begin + per_token / link for _ in range(2 * n))


def swap_token_times_block(n, size, per_token, prefill, link, begin):
    """A whole block for every token."""
    return n / prefill, 2 * n * (begin + size * per_token / link)


def swap_recomputes_blocks(n, size, per_token, prefill, link, begin):
    blocks = math.ceil(n / size)
    return blocks * size / prefill, 2 * blocks * (begin + size * per_token / link)


def swap_times_rate(n, size, per_token, prefill, link, begin):
    return n * prefill, 2 * math.ceil(n / size) * (begin + size * per_token / link)


def swap_rate_by_tokens(n, size, per_token, prefill, link, begin):
    return prefill / n, 2 * math.ceil(n / size) * (begin + size * per_token / link)


def swap_times_link(n, size, per_token, prefill, link, begin):
    return n / prefill, 2 * math.ceil(n / size) * (begin + size * per_token * link)


def swap_other_way_round(n, size, per_token, prefill, link, begin):
    recompute = n / prefill
    swap = 2 * math.ceil(n / size) * (begin + size * per_token / link)
    return swap, recompute


def swap_smaller(n, size, per_token, prefill, link, begin):
    recompute = n / prefill
    swap = 2 * math.ceil(n / size) * (begin + size * per_token / link)
    return recompute if recompute < swap else swap


def swap_cheaper(n, size, per_token, prefill, link, begin):
    recompute = n / prefill
    swap = 2 * math.ceil(n / size) * (begin + size * per_token / link)
    return "recompute" if recompute < swap else "swap"


def swap_keys_and_values(n, size, per_token, prefill, link, begin):
    return n / prefill, 2 * math.ceil(n / size) * (begin + 2 * size * per_token / link)


def swap_four_copies(n, size, per_token, prefill, link, begin):
    """Copies K out, V out, K in, V in."""
    return n / prefill, 4 * math.ceil(n / size) * (begin + size * per_token / link)


def swap_seconds_of_swap(n, size, per_token, prefill, link, begin):
    return 2 * math.ceil(n / size) * (begin + size * per_token / link)


def swap_list(*args):
    return list(swap_by_ceil(*args))


def swap_whole_seconds(n, size, per_token, prefill, link, begin):
    return n // prefill, 2 * math.ceil(n / size) * (begin + size * per_token // link)


# -- chunks ---------------------------------------------------------------------------------------------------


def chunks_by_divmod(n, decoding, budget):
    full, rest = divmod(n, budget - decoding)
    return [budget - decoding] * full + ([rest] if rest else [])


def chunks_by_range(n, decoding, budget):
    room = budget - decoding
    return [min(room, n - start) for start in range(0, n, room)]


def chunks_token_by_token(n, decoding, budget):
    """Lays the tokens into steps one by one."""
    steps = []
    for _ in range(n):
        if not steps or steps[-1] + decoding == budget:
            steps.append(0)
        steps[-1] += 1
    return steps


def chunks_by_recursion(n, decoding, budget):
    room = budget - decoding
    return [n] if n <= room else [room, *chunks_by_recursion(n - room, decoding, budget)]


def chunks_whole_budget(n, decoding, budget):
    return [min(budget, n - start) for start in range(0, n, budget)]


def chunks_last_full(n, decoding, budget):
    return [budget - decoding] * math.ceil(n / (budget - decoding))


def chunks_even(n, decoding, budget):
    steps = math.ceil(n / (budget - decoding))
    return [len(part) for part in np.array_split(np.arange(n), steps)]


def chunks_rest_first(n, decoding, budget):
    full, rest = divmod(n, budget - decoding)
    return ([rest] if rest else []) + [budget - decoding] * full


def chunks_rest_lost(n, decoding, budget):
    out = []
    while n >= budget - decoding:
        out.append(budget - decoding)
        n -= budget - decoding
    return out


def chunks_last_lost(n, decoding, budget):
    out = []
    while n > budget - decoding:
        out.append(budget - decoding)
        n -= budget - decoding
    return out


def chunks_zero_at_the_end(n, decoding, budget):
    full, rest = divmod(n, budget - decoding)
    return [budget - decoding] * full + [rest]


def chunks_how_many(n, decoding, budget):
    return -(-n // (budget - decoding))


def chunks_at_once(n, decoding, budget):
    return [n]


def chunks_one_too_long(n, decoding, budget):
    room = budget - (decoding - 1)
    return [min(room, n - start) for start in range(0, n, room)]


def chunks_one_too_short(n, decoding, budget):
    """Counts the newcomer among those who decode."""
    room = budget - (decoding + 1)
    return [min(room, n - start) for start in range(0, n, room)]


def chunks_whole_steps(n, decoding, budget):
    """What each step computes in all."""
    out = []
    while n:
        part = min(n, budget - decoding)
        out.append(part + decoding)
        n -= part
    return out


def chunks_so_far(n, decoding, budget):
    room, done, out = budget - decoding, 0, []
    while done < n:
        done = min(n, done + room)
        out.append(done)
    return out


def chunks_left(n, decoding, budget):
    out = []
    while n > 0:
        n = max(0, n - (budget - decoding))
        out.append(n)
    return out


def chunks_first_step_only(n, decoding, budget):
    out = [min(n, budget - decoding)]
    while sum(out) < n:
        out.append(min(n - sum(out), budget))
    return out


def chunks_tuple(n, decoding, budget):
    return tuple(chunks_by_range(n, decoding, budget))


def chunks_ranges(n, decoding, budget):
    return [range(n)[start : start + budget - decoding] for start in range(0, n, budget - decoding)]


def chunks_float(n, decoding, budget):
    room = budget - decoding
    return [room / 1] * (n // room) + [n % room / 1] * (n % room > 0)


# -- audit ----------------------------------------------------------------------------------------------------


def audit_by_zip(running, waiting, preempted, admitted):
    for victim, last in zip(preempted, reversed(running), strict=False):
        if victim != last:
            return "wrong victim"
    if len(preempted) > 0 and len(admitted) > 0:
        return "thrashing"
    for one, first in zip(admitted, waiting, strict=False):
        if one != first:
            return "overtaking"
    return "ok"


def audit_by_popping(running, waiting, preempted, admitted):
    """Does again what the server did, on copies."""
    runs, queue = list(running), deque(waiting)
    if any(name != runs.pop() for name in preempted):
        return "wrong victim"
    if preempted and admitted:
        return "thrashing"
    return "overtaking" if any(name != queue.popleft() for name in admitted) else "ok"


def audit_by_table(running, waiting, preempted, admitted):
    stayed = running[: len(running) - len(preempted)]
    broken = {
        "wrong victim": stayed + preempted[::-1] != running,
        "thrashing": bool(preempted) and bool(admitted),
        "overtaking": admitted + waiting[len(admitted) :] != waiting,
        "ok": True,
    }
    return next(name for name, true in broken.items() if true)


def rules(victims_wrong, thrashing, overtaking):
    if victims_wrong:
        return "wrong victim"
    elif thrashing:
        return "thrashing"
    elif overtaking:
        return "overtaking"
    return "ok"


def in_vain(preempted, admitted):
    return preempted != [] and admitted != []


def overtakes(waiting, admitted):
    return any(one != first for one, first in zip(admitted, waiting, strict=False))


def bad_victims(running, preempted):
    return any(victim != running[-1 - place] for place, victim in enumerate(preempted))


def audit_victims_unordered(running, waiting, preempted, admitted):
    last = running[len(running) - len(preempted) :]
    wrong = sorted(last) != sorted(preempted)
    return rules(wrong, in_vain(preempted, admitted), overtakes(waiting, admitted))


def audit_victims_forwards(running, waiting, preempted, admitted):
    wrong = preempted != [] and running[-len(preempted) :] != preempted
    return rules(wrong, in_vain(preempted, admitted), overtakes(waiting, admitted))


def audit_minus_zero(running, waiting, preempted, admitted):
    wrong = preempted != running[-len(preempted) :][::-1]
    return rules(wrong, in_vain(preempted, admitted), overtakes(waiting, admitted))


def audit_minus_zero_forwards(running, waiting, preempted, admitted):
    return rules(
        preempted != running[-len(preempted) :], in_vain(preempted, admitted), overtakes(waiting, admitted)
    )


def audit_first_victim(running, waiting, preempted, admitted):
    wrong = preempted != [] and preempted[0] != running[-1]
    return rules(wrong, in_vain(preempted, admitted), overtakes(waiting, admitted))


def audit_last_among_victims(running, waiting, preempted, admitted):
    wrong = len(preempted) > 0 and running[-1] not in preempted
    return rules(wrong, in_vain(preempted, admitted), overtakes(waiting, admitted))


def audit_oldest(running, waiting, preempted, admitted):
    wrong = any(old != victim for old, victim in zip(running, preempted, strict=False))
    return rules(wrong, in_vain(preempted, admitted), overtakes(waiting, admitted))


def audit_strangers(running, waiting, preempted, admitted):
    wrong = any(victim not in running for victim in preempted)
    return rules(wrong, in_vain(preempted, admitted), overtakes(waiting, admitted))


def audit_no_thrashing(running, waiting, preempted, admitted):
    return rules(bad_victims(running, preempted), False, overtakes(waiting, admitted))


def audit_thrashing_same(running, waiting, preempted, admitted):
    thrashing = any(name in preempted for name in admitted)
    return rules(bad_victims(running, preempted), thrashing, overtakes(waiting, admitted))


def audit_thrashing_or(running, waiting, preempted, admitted):
    thrashing = len(preempted) + len(admitted) > 0
    return rules(bad_victims(running, preempted), thrashing, overtakes(waiting, admitted))


def audit_thrashing_always(running, waiting, preempted, admitted):
    return rules(bad_victims(running, preempted), len(preempted) > 0, overtakes(waiting, admitted))


def audit_no_overtaking(running, waiting, preempted, admitted):
    if bad_victims(running, preempted):
        return "wrong victim"
    return "thrashing" if in_vain(preempted, admitted) else "ok"


def audit_queue_unordered(running, waiting, preempted, admitted):
    front = waiting[: len(admitted)]
    overtaking = any(name not in front for name in admitted)
    return rules(bad_victims(running, preempted), in_vain(preempted, admitted), overtaking)


def audit_queue_in_order(running, waiting, preempted, admitted):
    """The admitted stand in the queue's order, with gaps or without."""
    places = [waiting.index(name) for name in admitted if name in waiting]
    overtaking = places != sorted(places)
    return rules(bad_victims(running, preempted), in_vain(preempted, admitted), overtaking)


def audit_queue_first(running, waiting, preempted, admitted):
    overtaking = admitted and waiting and admitted[0] != waiting[0]
    return rules(bad_victims(running, preempted), in_vain(preempted, admitted), overtaking)


def audit_first_in_queue_among_admitted(running, waiting, preempted, admitted):
    overtaking = admitted != [] and waiting[0] not in admitted
    return rules(bad_victims(running, preempted), in_vain(preempted, admitted), overtaking)


def audit_nobody_admitted(running, waiting, preempted, admitted):
    overtaking = admitted == [] or overtakes(waiting, admitted)
    return rules(bad_victims(running, preempted), in_vain(preempted, admitted), overtaking)


def audit_front_missing(running, waiting, preempted, admitted):
    """The front of the queue was not admitted, so it was overtaken, even by nobody."""
    overtaking = admitted[:1] != waiting[:1] or overtakes(waiting, admitted)
    return rules(bad_victims(running, preempted), in_vain(preempted, admitted), overtaking)


def audit_whole_queue(running, waiting, preempted, admitted):
    overtaking = admitted != [] and admitted != waiting
    return rules(bad_victims(running, preempted), in_vain(preempted, admitted), overtaking)


def audit_overtaking_second(running, waiting, preempted, admitted):
    if bad_victims(running, preempted):
        return "wrong victim"
    if overtakes(waiting, admitted):
        return "overtaking"
    return "thrashing" if in_vain(preempted, admitted) else "ok"


def audit_backwards(running, waiting, preempted, admitted):
    if overtakes(waiting, admitted):
        return "overtaking"
    if in_vain(preempted, admitted):
        return "thrashing"
    return "wrong victim" if bad_victims(running, preempted) else "ok"


def audit_thrashing_first(running, waiting, preempted, admitted):
    if in_vain(preempted, admitted):
        return "thrashing"
    if overtakes(waiting, admitted):
        return "overtaking"
    return "wrong victim" if bad_victims(running, preempted) else "ok"


def audit_last_broken(running, waiting, preempted, admitted):
    """Sets the answer anew for each rule, so that the last one wins."""
    answer = "ok"
    if bad_victims(running, preempted):
        answer = "wrong victim"
    if in_vain(preempted, admitted):
        answer = "thrashing"
    if overtakes(waiting, admitted):
        answer = "overtaking"
    return answer


def audit_pops(running, waiting, preempted, admitted):
    for victim in preempted:
        if running.pop() != victim:
            return "wrong victim"
    return rules(False, in_vain(preempted, admitted), overtakes(waiting, admitted))


def audit_pops_queue(running, waiting, preempted, admitted):
    if bad_victims(running, preempted):
        return "wrong victim"
    return rules(False, in_vain(preempted, admitted), any(one != waiting.pop(0) for one in admitted))


def audit_first_of_nothing(running, waiting, preempted, admitted):
    return rules(preempted[0] != running[-1], in_vain(preempted, admitted), overtakes(waiting, admitted))


def audit_true(running, waiting, preempted, admitted):
    answer = rules(
        bad_victims(running, preempted), in_vain(preempted, admitted), overtakes(waiting, admitted)
    )
    return answer == "ok"


def audit_list(running, waiting, preempted, admitted):
    found = []
    if bad_victims(running, preempted):
        found.append("wrong victim")
    if in_vain(preempted, admitted):
        found.append("thrashing")
    if overtakes(waiting, admitted):
        found.append("overtaking")
    return found


def audit_silent(running, waiting, preempted, admitted):
    if bad_victims(running, preempted):
        return "wrong victim"
    if in_vain(preempted, admitted):
        return "thrashing"
    if overtakes(waiting, admitted):
        return "overtaking"


ALSO_RIGHT = {
    "admit": [admit_by_queue, admit_by_recursion, admit_by_sums],
    "pick_victims": [pick_by_pop, pick_by_index, pick_by_recursion],
    "recompute_or_swap": [swap_by_ceil, swap_by_counting, swap_by_numpy],
    "chunks": [chunks_by_divmod, chunks_by_range, chunks_token_by_token, chunks_by_recursion],
    "audit": [audit_by_zip, audit_by_popping, audit_by_table],
}

WRONG = [
    ("admit", admit_overtakes, "somebody who fits overtakes"),
    ("admit", admit_smallest, "the smallest are taken first"),
    ("admit", admit_by_name, "the length should be 1, not 2"),
    ("admit", admit_no_spare, "nothing is left for those who run"),
    ("admit", admit_always_spare, "refused for the spare blocks' sake"),
    ("admit", admit_spare_set_once, "the second is admitted as if it ran alone"),
    ("admit", admit_running_not_counted, "the second is admitted as if it ran alone"),
    ("admit", admit_first_is_free, "the first is admitted as if nobody ran"),
    ("admit", admit_alone_unseen, "whether it fits or not"),
    ("admit", admit_spare_before, "looked at before the admission"),
    ("admit", admit_same_blocks, "the same free blocks"),
    ("admit", admit_spare_taken, "taken once for each"),
    ("admit", admit_spare_for_each, "kept once for each who runs"),
    ("admit", admit_strict, "where exactly enough are free"),
    ("admit", admit_without_limit, "more run than max_num_seqs"),
    ("admit", admit_limit_of_new, "more run than max_num_seqs"),
    ("admit", admit_limit_once, "more run than max_num_seqs"),
    ("admit", admit_running_stays, "not counted among those who run"),
    ("admit", admit_next, "only one is admitted"),
    ("admit", admit_limit_one_fewer, "one place stays empty"),
    ("admit", admit_limit_one_more, "one more than max_num_seqs runs"),
    ("admit", admit_pairs, "it returns the blocks, too"),
    ("admit", admit_count, "it returns how many"),
    ("admit", admit_pops, "it changed its argument waiting"),
    ("admit", admit_all_or_nobody, "the length should be 1, not 0"),
    ("admit", admit_no_return, "it returned None"),
    ("pick_victims", pick_oldest, "the oldest is preempted first"),
    ("pick_victims", pick_largest, "the largest is preempted first"),
    ("pick_victims", pick_smallest, "the smallest is preempted first"),
    ("pick_victims", pick_by_name, "the value differs"),
    ("pick_victims", pick_others, "an older one pays"),
    ("pick_victims", pick_on_and_on, "goes on after the needy has given way"),
    ("pick_victims", pick_stops_before_who, "the needy itself never gives way"),
    ("pick_victims", pick_only_later, "the needy itself never gives way"),
    ("pick_victims", pick_nobody_in_vain, "spared because they are not enough"),
    ("pick_victims", pick_only_if_enough, "because it would not be enough"),
    ("pick_victims", pick_last_counts, "only the blocks of the last victim are counted"),
    ("pick_victims", pick_one, "only one gives way"),
    ("pick_victims", pick_all_later, "everybody who came later gives way"),
    ("pick_victims", pick_more_than_enough, "one too many gives way"),
    ("pick_victims", pick_first_then_look, "though enough blocks are free"),
    ("pick_victims", pick_one_block_each, "a victim gives one block"),
    ("pick_victims", pick_from_zero, "the free blocks are forgotten"),
    ("pick_victims", pick_from_zero_if_short, "the free blocks are forgotten"),
    ("pick_victims", pick_never_counts, "what a victim gives is not counted"),
    ("pick_victims", pick_in_front, "in the order of arrival"),
    ("pick_victims", pick_who, "the needy gives way at once"),
    ("pick_victims", pick_pops, "it changed its argument running"),
    ("pick_victims", pick_set, "a list is expected, not set"),
    ("pick_victims", pick_numbers, "a list is expected, not int"),
    ("pick_victims", pick_none, "it returned None"),
    ("recompute_or_swap", swap_one_way, "one way only"),
    ("recompute_or_swap", swap_part_of_a_block, "a part of the last block"),
    ("recompute_or_swap", swap_tokens_bytes, "a part of the last block"),
    ("recompute_or_swap", swap_floor, "the last block is lost"),
    ("recompute_or_swap", swap_round, "rounded to the nearest"),
    ("recompute_or_swap", swap_one_more, "one block too many"),
    ("recompute_or_swap", swap_bytes_only, "copies cost nothing to begin"),
    ("recompute_or_swap", swap_no_blocks, "as if there were no blocks"),
    ("recompute_or_swap", swap_in_one_go, "as if there were no blocks"),
    ("recompute_or_swap", swap_begins_once, "paid once in all"),
    ("recompute_or_swap", swap_begins_twice, "paid once in all"),
    ("recompute_or_swap", swap_begins_one_way, "beginning a copy is paid one way only"),
    ("recompute_or_swap", swap_bytes_one_way, "the bytes go one way only"),
    ("recompute_or_swap", swap_block_is_token, "a block is taken for one token"),
    ("recompute_or_swap", swap_token_by_token, "every token is a copy of its own"),
    ("recompute_or_swap", swap_token_times_block, "a block is copied for every token"),
    ("recompute_or_swap", swap_keys_and_values, "keys and values are counted twice"),
    ("recompute_or_swap", swap_recomputes_blocks, "recomputing takes whole blocks"),
    ("recompute_or_swap", swap_times_rate, "tokens x rate is no time"),
    ("recompute_or_swap", swap_rate_by_tokens, "rate / tokens is no time"),
    ("recompute_or_swap", swap_times_link, "bytes x rate is no time"),
    ("recompute_or_swap", swap_other_way_round, "the wrong way round"),
    ("recompute_or_swap", swap_smaller, "it returns the smaller one"),
    ("recompute_or_swap", swap_cheaper, "it names the cheaper one"),
    ("recompute_or_swap", swap_four_copies, "keys and values are counted twice"),
    ("recompute_or_swap", swap_seconds_of_swap, "a tuple is expected, not float"),
    ("recompute_or_swap", swap_list, "a tuple is expected, not list"),
    ("recompute_or_swap", swap_whole_seconds, "the value differs"),
    ("chunks", chunks_whole_budget, "no part of the budget"),
    ("chunks", chunks_last_full, "longer than what is left"),
    ("chunks", chunks_even, "the chunks are even"),
    ("chunks", chunks_rest_first, "the rest comes first"),
    ("chunks", chunks_rest_lost, "the rest is lost"),
    ("chunks", chunks_last_lost, "the last chunk is lost"),
    ("chunks", chunks_zero_at_the_end, "an empty chunk comes last"),
    ("chunks", chunks_how_many, "the number of steps"),
    ("chunks", chunks_at_once, "the prompt goes in at once"),
    ("chunks", chunks_one_too_long, "a token too long"),
    ("chunks", chunks_one_too_short, "a token too short"),
    ("chunks", chunks_whole_steps, "the tokens of those who decode are counted"),
    ("chunks", chunks_so_far, "how much has gone in so far"),
    ("chunks", chunks_left, "how much is left after each step"),
    ("chunks", chunks_first_step_only, "in the first step only"),
    ("chunks", chunks_tuple, "a list is expected, not tuple"),
    ("chunks", chunks_ranges, "an int is expected, not range"),
    ("chunks", chunks_float, "an int is expected, not float"),
    ("audit", audit_victims_unordered, "the order in which victims give way is not looked at"),
    ("audit", audit_victims_forwards, "the victims stand in the order of arrival"),
    ("audit", audit_minus_zero, "a step that preempts nobody has a wrong victim"),
    ("audit", audit_minus_zero_forwards, "a step that preempts nobody has a wrong victim"),
    ("audit", audit_first_victim, "only the first victim is looked at"),
    ("audit", audit_last_among_victims, "the last come is among the victims"),
    ("audit", audit_oldest, "the oldest is taken for the right victim"),
    ("audit", audit_strangers, "a wrong victim is not noticed"),
    ("audit", audit_no_thrashing, "throws one out and lets one in passes"),
    ("audit", audit_thrashing_same, "only if the same one is thrown out and let in"),
    ("audit", audit_thrashing_or, "in which something happens"),
    ("audit", audit_thrashing_always, "every preemption is called thrashing"),
    ("audit", audit_no_overtaking, "overtaking is not noticed"),
    ("audit", audit_queue_unordered, "the order of those admitted is not looked at"),
    ("audit", audit_queue_in_order, "some of the queue are left out"),
    ("audit", audit_queue_first, "only the first who is admitted is looked at"),
    ("audit", audit_first_in_queue_among_admitted, "the front of the queue is among the admitted"),
    ("audit", audit_nobody_admitted, "a step that admits nobody"),
    ("audit", audit_front_missing, "a step that admits nobody"),
    ("audit", audit_whole_queue, "leaves somebody waiting"),
    ("audit", audit_overtaking_second, "overtaking is named before thrashing"),
    ("audit", audit_thrashing_first, "thrashing is named before a wrong victim"),
    ("audit", audit_backwards, "overtaking is named first"),
    ("audit", audit_last_broken, "overtaking is named first"),
    ("audit", audit_list, "it returns all the rules that are broken"),
    ("audit", audit_pops, "it changed its argument running"),
    ("audit", audit_pops_queue, "it changed its argument waiting"),
    ("audit", audit_first_of_nothing, "it raised IndexError"),
    ("audit", audit_true, "the value differs"),
    ("audit", audit_silent, "it returned None"),
]
