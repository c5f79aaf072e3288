"""Fixes for the cases of the bug clinic, as learners write them: wrong ones, and right ones in other words.

A wrong one has a short label; what it must be told stands in test_clinic_a.py.
"""

from course_lib.memory import OutOfBlocks

# -- leaking_blocks -------------------------------------------------------------------------------------------


def leave(engine, request_id):
    """What all fixes have in common: nobody knows the request any more. Yields each sequence's key, and if it ran."""
    for sequence in engine.jobs.pop(request_id).sequences:
        engine.sequences.pop(sequence.key, None)
        ran = engine.scheduler.running.pop(sequence.key, None) is not None
        engine.scheduler.waiting.pop(sequence.key, None)
        yield sequence.key, ran


def abort_releases_all(engine, request_id):
    for key, _ in leave(engine, request_id):
        engine.allocator.release(key)


def abort_gives_back_the_blocks_only(engine, request_id):
    for key, ran in leave(engine, request_id):
        if ran:
            engine.allocator.tables[key].free()


def abort_frees_the_last_block(engine, request_id):
    for key, ran in leave(engine, request_id):
        if ran:
            table = engine.allocator.tables.pop(key)
            engine.allocator.pool.free(table.block_ids[-1])


def abort_the_first_sequence(engine, request_id):
    for number, (key, ran) in enumerate(leave(engine, request_id)):
        if ran and number == 0:
            engine.allocator.release(key)


def abort_sweeps_when_nobody_runs(engine, request_id):
    """Clean up later: whatever is left over when the engine is empty."""
    list(leave(engine, request_id))
    original = engine.step

    def step():
        outputs = original()
        if not engine.jobs:
            for key in list(engine.allocator.tables):
                engine.allocator.release(key)
        return outputs

    engine.step = step


def abort_lets_it_run_to_its_end(engine, request_id):
    """Never give up a request: its blocks then come back by themselves."""


def abort_empties_the_pool(engine, request_id):
    for _ in leave(engine, request_id):
        for key in list(engine.allocator.tables):
            engine.allocator.release(key)
    for key, progress in list(engine.scheduler.running.items()):
        progress.num_computed = progress.num_held = 0
        engine.scheduler.waiting[key] = engine.scheduler.running.pop(key)


def abort_by_the_wrong_number(engine, request_id):
    for _, ran in leave(engine, request_id):
        if ran:
            engine.allocator.release(request_id + 1000)


def abort_by_the_scheduler(engine, request_id):
    for sequence in engine.jobs.pop(request_id).sequences:
        if engine.sequences.pop(sequence.key, None):
            engine.scheduler.abort(sequence.key)


def abort_by_the_tables(engine, request_id):
    for key, _ in leave(engine, request_id):
        if key in engine.allocator.tables:
            engine.allocator.release(key)


def abort_by_finish(engine, request_id):
    job = engine.jobs.pop(request_id)
    for key in [sequence.key for sequence in job.sequences]:
        del engine.sequences[key]
        if key in engine.scheduler.running:
            engine.scheduler.finish(key)
        else:
            del engine.scheduler.waiting[key]


# -- late_block -----------------------------------------------------------------------------------------------


def take_a_block_early(table, num_tokens):
    while len(table.block_ids) * table.pool.block_size <= num_tokens:
        table.block_ids.append(table.pool.allocate())


def take_one_in_reserve(table, num_tokens):
    size = table.pool.block_size
    while (len(table.block_ids) - 1) * size < num_tokens - 1:
        table.block_ids.append(table.pool.allocate())


def take_at_the_boundary_only(table, num_tokens):
    if (num_tokens - 1) % table.pool.block_size == 0:
        table.block_ids.append(table.pool.allocate())


def take_the_last_block_again(table, num_tokens):
    """Clamp: where a block is missing, the last one has to do."""
    size = table.pool.block_size
    while len(table.block_ids) * size < num_tokens - 1:
        table.block_ids.append(table.pool.allocate())
    if len(table.block_ids) * size < num_tokens:
        table.block_ids.append(table.block_ids[-1])


def take_without_an_error(table, num_tokens):
    """Right, until the pool is empty."""
    while len(table.block_ids) * table.pool.block_size < num_tokens:
        try:
            table.block_ids.append(table.pool.allocate())
        except OutOfBlocks:
            return


def take_or_clamp(table, num_tokens):
    """Right, until the pool is empty: then the last block is named twice."""
    while len(table.block_ids) * table.pool.block_size < num_tokens:
        table.block_ids.append(table.pool.allocate() if table.pool.num_free else table.block_ids[-1])


def take_one_for_each_token(table, num_tokens):
    while len(table.block_ids) < num_tokens:
        table.block_ids.append(table.pool.allocate())


def take_for_a_fixed_size(table, num_tokens):
    while len(table.block_ids) * 8 < num_tokens:
        table.block_ids.append(table.pool.allocate())


def take_with_a_slip(table, num_tokens):
    while len(table.block_ids) * block_size < num_tokens:  # noqa: F821
        table.block_ids.append(table.pool.allocate())


def take_by_division(table, num_tokens):
    needed = -(-num_tokens // table.pool.block_size)
    for _ in range(needed - len(table.block_ids)):
        table.block_ids.append(table.pool.allocate())


def take_by_the_position(table, num_tokens):
    last_block = (num_tokens - 1) // table.pool.block_size
    while last_block >= len(table.block_ids):
        table.block_ids += [table.pool.allocate()]


# -- forgotten_copy -------------------------------------------------------------------------------------------


def add_blocks(table, num_tokens):
    """What all fixes have in common: room for the new tokens."""
    grown = table.num_tokens + num_tokens
    while len(table.block_ids) * table.pool.block_size < grown:
        table.block_ids.append(table.pool.allocate())
    table.num_tokens = grown


def replace(table, index):
    """A block of one's own for a shared one."""
    shared, own = table.block_ids[index], table.pool.allocate()
    table.pool.free(shared)
    table.block_ids[index] = own
    return shared, own


def copy_all_shared(table, num_tokens):
    pool, copies = table.pool, []
    for index, block_id in enumerate(table.block_ids):
        if pool.ref_count(block_id) > 1:
            copies.append(replace(table, index))
    add_blocks(table, num_tokens)
    return copies


def copy_even_alone(table, num_tokens):
    copies = [replace(table, -1)] if table.num_tokens % table.pool.block_size else []
    add_blocks(table, num_tokens)
    return copies


def copy_full_blocks_too(table, num_tokens):
    shared = table.block_ids and table.pool.ref_count(table.block_ids[-1]) > 1
    copies = [replace(table, -1)] if shared else []
    add_blocks(table, num_tokens)
    return copies


def copy_and_tell_nobody(table, num_tokens):
    if table.must_copy():
        replace(table, -1)
    add_blocks(table, num_tokens)
    return []


def copy_backwards(table, num_tokens):
    copies = [replace(table, -1)[::-1]] if table.must_copy() else []
    add_blocks(table, num_tokens)
    return copies


def copy_and_free_the_new(table, num_tokens):
    copies = []
    if table.must_copy():
        shared, own = table.block_ids[-1], table.pool.allocate()
        table.pool.free(own)
        table.block_ids[-1] = own
        copies.append((shared, own))
    add_blocks(table, num_tokens)
    return copies


def copy_and_keep_the_count(table, num_tokens):
    copies = []
    if table.must_copy():
        shared, own = table.block_ids[-1], table.pool.allocate()
        table.block_ids[-1] = own
        copies.append((shared, own))
    add_blocks(table, num_tokens)
    return copies


def free_before_there_is_another(table, num_tokens):
    copies = []
    if table.must_copy():
        shared = table.block_ids[-1]
        table.pool.free(shared)
        table.block_ids[-1] = table.pool.allocate()
        copies.append((shared, table.block_ids[-1]))
    add_blocks(table, num_tokens)
    return copies


def copy_if_there_is_room(table, num_tokens):
    copies = [replace(table, -1)] if table.must_copy() and table.pool.num_free else []
    add_blocks(table, num_tokens)
    return copies


def extend_of_the_course(table, num_tokens):
    return table.extend(num_tokens)


def copy_by_the_offset(table, num_tokens):
    pool, copies = table.pool, []
    index, offset = divmod(table.num_tokens, pool.block_size)
    if offset and pool.ref_count(table.block_ids[index]) >= 2:
        copies = [replace(table, index)]
    add_blocks(table, num_tokens)
    return copies


# -- double_free ----------------------------------------------------------------------------------------------


def free_if_not_in_the_list(table):
    for block_id in table.block_ids:
        if block_id not in table.pool.free_blocks():
            table.pool.free(block_id)


def free_if_counted(table):
    for block_id in table.block_ids:
        if table.pool.ref_count(block_id) > 0:
            table.pool.free(block_id)


def never_free(table):
    pass


def free_the_second_time(table):
    """Wait until the user has hung up: then nobody can come again."""
    if getattr(table, "done", False):
        for block_id in table.block_ids:
            table.pool.free(block_id)
    table.done = True


def free_while_removing(table):
    for block_id in table.block_ids:
        table.pool.free(block_id)
        table.block_ids.remove(block_id)


def forget_first(table):
    table.block_ids, table.num_tokens = [], 0
    for block_id in table.block_ids:
        table.pool.free(block_id)


def forget_a_name_of_ones_own(table):
    block_ids = table.block_ids
    for block_id in block_ids:
        table.pool.free(block_id)
    block_ids = []


def free_the_set(table):
    for block_id in set(table.block_ids):
        table.pool.free(block_id)


def free_and_delete(table):
    for block_id in table.block_ids:
        table.pool.free(block_id)
    del table.block_ids


def free_by_the_table(table):
    table.free()


def free_and_pop(table):
    while table.block_ids:
        table.pool.free(table.block_ids.pop())


def free_once_by_a_flag(table):
    if not getattr(table, "done", False):
        for block_id in table.block_ids:
            table.pool.free(block_id)
    table.done = True


WRONG = {
    "leaking_blocks": [
        ("releases who waits, too", abort_releases_all),
        ("frees, and keeps the table", abort_gives_back_the_blocks_only),
        ("frees the last block", abort_frees_the_last_block),
        ("the first sample only", abort_the_first_sequence),
        ("cleans up later", abort_sweeps_when_nobody_runs),
        ("lets it run", abort_lets_it_run_to_its_end),
        ("restarts everybody", abort_empties_the_pool),
        ("a wrong key", abort_by_the_wrong_number),
    ],
    "late_block": [
        ("a block early", take_a_block_early),
        ("one in reserve", take_one_in_reserve),
        ("at the boundary only", take_at_the_boundary_only),
        ("clamps", take_the_last_block_again),
        ("swallows OutOfBlocks", take_without_an_error),
        ("clamps when empty", take_or_clamp),
        ("a block a token", take_one_for_each_token),
        ("a fixed size", take_for_a_fixed_size),
        ("a slip of the pen", take_with_a_slip),
    ],
    "forgotten_copy": [
        ("copies all shared blocks", copy_all_shared),
        ("copies even alone", copy_even_alone),
        ("copies full blocks", copy_full_blocks_too),
        ("tells nobody", copy_and_tell_nobody),
        ("copies backwards", copy_backwards),
        ("frees the new one", copy_and_free_the_new),
        ("keeps the count", copy_and_keep_the_count),
        ("frees too early", free_before_there_is_another),
        ("copies if there is room", copy_if_there_is_room),
    ],
    "double_free": [
        ("if not in the free list", free_if_not_in_the_list),
        ("if its count is above 0", free_if_counted),
        ("never", never_free),
        ("the second time", free_the_second_time),
        ("removes while it walks", free_while_removing),
        ("forgets first", forget_first),
        ("a name of its own", forget_a_name_of_ones_own),
        ("a set", free_the_set),
        ("deletes the list", free_and_delete),
    ],
}

ALSO_RIGHT = {
    "leaking_blocks": [abort_by_the_scheduler, abort_by_the_tables, abort_by_finish],
    "late_block": [take_by_division, take_by_the_position],
    "forgotten_copy": [extend_of_the_course, copy_by_the_offset],
    "double_free": [free_by_the_table, free_and_pop, free_once_by_a_flag],
}
