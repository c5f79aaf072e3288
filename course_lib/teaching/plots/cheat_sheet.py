"""One A4 page for the night before. Its numbers are computed here, from the course's objects and the paper's figures.

make cheatsheet      # writes lessons/cheat_sheet.pdf and .png
"""

from course_lib.memory.allocators import WATERMARK
from course_lib.teaching import board_story, interview, paper, real_engines
from course_lib.teaching.plots.canvas import styled
from course_lib.teaching.plots.sheet import MARGIN, PAGE, WIDE, Column, Sheet
from course_lib.teaching.plots.sheet_pictures import table_and_blocks, waste_bars
from course_lib.teaching.presets import USABLE, Budget, load_presets

SIZE, CONTEXT = board_story.BLOCK_SIZE, 8192
MODELS = ("OPT-13B", "Llama-3.1-8B", "Llama-3.1-70B", "DeepSeek-V3")

KERNEL = """\
for pos in tiles(context_len):  # ok = pos < context_len
    slot = int64(load(table + pos//B, ok)) * B + pos%B
    k, v = load(K + slot, ok, 0), load(V + slot, ok, 0)
    s = where(ok, q @ k.T * scale, -inf)
    m, l, o = update(m, l, o, s, v)  # after all: o / l"""

# Each line is held against rows of real_engines.toml, see the tests. Of offload notebook 09's text speaks.
TODAY = {
    "Blocks": "one pool, blocks of 16 (CPU: 128), a table for each request and group of layers.",
    "Step": "no phases: prompts, in chunks, and decodes go in one batch.",
    "Preemption": "the last come is recomputed, no swap; offload tiers extend the prefix cache instead.",
    "Prefix caching": "on by default, SHA-256. No fork: n samples find each other's full blocks.",
    "Kernels": "FlashAttention, FlashInfer or Triton; all take a block table and many queries.",
    "Tensor parallel": "one scheduler; one block table for all ranks, heads are sharded.",
}


def _listed(block_ids: list[int]) -> str:
    """A table that is not broken across lines."""
    return f"{block_ids}".replace(" ", "\N{NO-BREAK SPACE}")


def _minute(column: Column) -> None:
    column.head("The answer in one minute")
    column.say(interview.load_answers().one_minute)
    column.say(
        "problem (with a number), motivation (why not another cure), mechanism (down to one token in one slot), real "
        "systems (who, the price, when not).",
        "Four moves:",
    )


def _bytes(column: Column) -> None:
    models, _ = load_presets()
    column.head("Bytes a token")
    column.formula(r"$2\ (K, V) \times layers \times KV\ heads \times head\_dim \times bytes\ each$")
    places = (0, 1.7, 2.28, 2.88, WIDE)
    column.row(places, ("fp16", "layers", "KV heads", "a token", f"{CONTEXT:,} tokens"), color="#555555")
    for model in (models[name] for name in MODELS):
        heads = "latent" if model.kv_lora_rank else f"{model.kv_heads}"
        one, many = (model.kv_bytes(number, bytes_per_number=2) for number in (1, CONTEXT))
        cells = f"{model.layers}", heads, f"{one / 2**10:.1f} KiB", f"{many / 2**30:.2f} GiB"
        column.row(places, (f"{model.name}, {model.attention}", *cells))
    mla, opt = models["DeepSeek-V3"], models["OPT-13B"]
    column.y += 0.03
    column.say(
        f"MLA keeps one vector of {mla.kv_lora_rank} + {mla.rope_head_dim} numbers a layer for all heads. "
        f"{opt.name} ends at {opt.max_context:,} tokens: the last column is to compare."
    )


def _waste(column: Column) -> None:
    opt = load_presets()[0]["OPT-13B"]
    column.head("Three wastes (the paper's Fig 2)")
    column.say("its request will use it later.", "Reserved:")
    column.say("its request ends before, and never uses it.", "Internal:")
    column.say("nobody has it, or it is rounding. The rest holds tokens:", "External:")
    waste_bars(column.picture(0.78))
    ours, slab = paper.FIG_13_SHAREGPT, opt.max_context * opt.kv_bytes(1, 2) / 2**30
    column.say(
        f"One slab of {opt.name}: {opt.max_context:,} slots, {slab:.2f} GiB. Requests at once (Fig 13): "
        f"{ours['reserve_max']:.0f} on slabs, {ours['reserve_exact']:.1f} with an oracle, {ours['paged']:.1f} paged."
    )


def _table(column: Column) -> None:
    board, opt = board_story.board(), load_presets()[0]["OPT-13B"]
    table, position = board.tables["A"], board_story.POSITION
    block, offset = divmod(position, SIZE)
    column.head("Block table and slot")
    table_and_blocks(column.picture(0.8), table)
    column.formula(r"$slot\,(p) = table\,[\,p\ //\ B\,] \times B + p\ \%\ B$")
    column.say(
        f"{_listed(table.block_ids)}, B = {SIZE}: token {position} is in entry {position} // {SIZE} = {block}, offset "
        f"{position} % {SIZE} = {offset}: slot {table.block_ids[block]} × {SIZE} + {offset} = {table.slot(position)}.",
        "Table",
    )
    new = table.num_tokens - 1
    column.say(f"where new tokens are written: {new} in slot {table.slot(new)}.", "Slot mapping:")
    column.say(
        f"all blocks but the last are full: at most B - 1 = {SIZE - 1} slots a sequence, for {opt.name} "
        f"{opt.kv_bytes(SIZE - 1, 2) / 2**20:.1f} MiB. Blocks have one size: no hole is too small.",
        "Waste:",
    )


def _analogy(column: Column) -> None:
    model = load_presets()[0]["Llama-3.1-8B"]
    entries = CONTEXT // SIZE
    column.head("Why blocks, and of which size")
    column.say("pages, a table each, on demand, shared until written.", "As in an OS:")
    column.say(
        "no page faults: a step reads every block, so a sequence is there whole or not at all; the kernel looks up in "
        "software; what was evicted can be computed again.",
        "Unlike:",
    )
    table, cache = 4 * entries / 2**10, model.kv_bytes(CONTEXT, 2) / 2**30
    column.say(
        f"smaller blocks waste less and share more; larger ones mean fewer look-ups. {SIZE} is usual. The table of "
        f"{CONTEXT:,} tokens has {entries} entries: {table:.0f} KiB beside {cache:.0f} GiB ({model.name}).",
        "Size:",
    )


def _schedule(column: Column) -> None:
    column.head("The scheduler, before each step")
    column.say("each new token gets a slot; a block, if the last is full.", "1 grow:")
    column.say(
        "no block is free: the last come gives up all of its blocks, waits in front, and is computed again later.",
        "2 preempt:",
    )
    column.say(
        f"in order of arrival, as long as blocks stay free above a watermark (here {WATERMARK:.0%}) and the step's "
        "budget of tokens lasts; long prompts come in chunks.",
        "3 admit:",
    )
    column.say(
        "one flat batch, prefill and decode together; who is done gives back its blocks, last first.",
        "4 run:",
    )


def _kernel(column: Column) -> None:
    groups = load_presets()[0]["Llama-3.1-8B"]
    numbers = SIZE * groups.kv_heads * groups.head_dim  # of a block, in one layer
    column.head("The kernel: one program a sequence and KV head")
    column.code(KERNEL)
    column.say("behind the end: table, keys, values (0 × NaN is NaN), scores.", "Masks:")
    column.say(
        f"{SIZE} slots × {groups.kv_heads} heads × {groups.head_dim}: block {2**31 // numbers:,} begins at 2³¹, so "
        "widen the block number before multiplying.",
        "int64:",
    )
    group = groups.query_heads // groups.kv_heads
    column.say(f"a group of {group} query heads ({groups.name}) shares each key read.", "GQA:")


def _softmax(column: Column) -> None:
    column.head("Online softmax, and the merge of two parts")
    column.formula(r"$m' = \max(m, \max s)$", r"$r = e^{\,m - m'}$")
    column.formula(r"$l' = l\,r + \sum e^{\,s - m'}$", r"$o' = o\,r + \sum e^{\,s - m'} v$")
    column.formula(
        r"$lse = m + \log l,\quad L = e^{\,lse}$", r"$out = (L_a\,out_a + L_b\,out_b)\ /\ (L_a + L_b)$"
    )
    column.say(
        "Exact, in any grouping: splits of one long context run on several processors. An empty part has lse = -∞."
    )


def _sharing(column: Column) -> None:
    board = board_story.board()
    (source, target), fork = board.copy, board.tables["C"].block_ids
    column.head("Sharing")
    column.say(
        "who writes into a block with a count above 1 copies it first. Only the last, partly filled block is ever "
        f"written: at most n - 1 copies for n samples. Fork of {_listed(board.tables['A'].block_ids)}: "
        f"copy {source} to {target}: {_listed(fork)}.",
        "Copy-on-write (paper):",
    )
    column.say(
        "hash(key of the block before, its tokens, adapter, image, salt). Full blocks only; one token at least is "
        "computed; a freed block keeps its contents until it is taken, least recently used and tails first.",
        "Prefix key:",
    )
    users, system, own = 100, 1024, 300
    alone, shared, tokens = board_story.system_prompt(users, system, own)
    model = load_presets()[0]["Llama-3.1-8B"]
    held, needed = (blocks * model.kv_bytes(SIZE, 2) / 2**30 for blocks in (shared, alone))
    column.say(
        f"{users} users, one system prompt of {system:,} tokens, {own} of their own, {model.name}: {shared:,} blocks "
        f"in place of {alone:,} ({held:.1f} GiB, not {needed:.1f}); {tokens:,} tokens computed in place of "
        f"{users * (system + own):,}.",
        "Example:",
    )


def _floor(column: Column) -> None:
    models, gpus = load_presets()
    model, gpu = models["Llama-3.1-8B"], gpus["NVIDIA H100 SXM 80GB"]
    column.head("What a decode step must read")
    column.formula(r"$seconds \geq (weights + contexts \times bytes\ a\ token)\ /\ bandwidth$")
    where = f"{gpu.name.removeprefix('NVIDIA ')} ({gpu.bandwidth_gb_s:,.0f} GB/s)"
    column.say(f"{model.name}, contexts of {CONTEXT:,}, {where}:")
    for batch in (1, 32):
        budget = Budget(model, gpu, CONTEXT, batch, bytes_per_number=2)
        weights, cache = budget.weight_bytes / 1e9, budget.kv_bytes / 1e9
        seconds = (weights + cache) / gpu.bandwidth_gb_s
        told = f"{weights:.1f} + {cache:.1f} GB: {1e3 * seconds:.1f} ms at least"
        column.say(f"{told}, {batch / seconds:,.0f} tokens/s at most.", f"batch {batch}:")
    column.say(
        f"{budget.requests_that_fit} such contexts fit beside the weights ({USABLE:.0%} of {gpu.memory_gb:g} GB)."
    )
    group, ridge = model.query_heads // model.kv_heads, 1e3 * gpu.fp16_tflops / gpu.bandwidth_gb_s
    column.say(f"decode: a few FLOP a byte (attention: {group}), H100: {ridge:.0f}.", "Ridge:")


def _today(column: Column) -> None:
    (low, high), (least, most) = paper.FIG_12["to reserve_max"], paper.FIG_12["to reserve_exact"]
    column.head(f"vLLM today (V1, {real_engines.load_table().version}), and the paper")
    for lead, told in TODAY.items():
        column.say(told, f"{lead}:")
    column.say(
        f"{low:g} to {high:g} times the rate of slabs at the same latency, {least:g} to {most:g} times an oracle's "
        "(Fig 12).",
        "Paper, 2023:",
    )
    near, far = paper.FIG_18A
    column.say(
        f"attention {100 * near:.0f} to {100 * far:.0f}% slower in 2023 (Fig 18a), preemptions, blocks that are "
        "not full.",
        "Price:",
    )


def _nothing(column: Column) -> None:
    column.head("When it gains nothing")
    column.say(
        "One stream. Requests that fill their slab. A batch that compute or latency bounds. No cache to keep: scoring, "
        "embedding, training."
    )


def _wrong(column: Column) -> None:
    column.head("Wrong, and often heard")
    for wrong in interview.load_answers().wrong:
        column.say(wrong.because, f"✗ {wrong.says}")


@styled
def cheat_sheet() -> Sheet:
    """The page: left what it is, right how it is computed and what is true today."""
    alt = "A page to print: the answer in a minute, formulas with numbers, the kernel, vLLM today, wrong statements."
    sheet = Sheet(alt, "PagedAttention on a page")
    where = MARGIN / PAGE[0], 1 - 0.52 / PAGE[1]
    sheet.text(*where, sheet.title, fontsize=15, weight="bold", va="baseline")
    told = "numbers: computed by the course, or the paper's"
    sheet.text(1 - where[0], where[1], told, fontsize=8, ha="right", va="baseline", color="#444444")
    left, right = Column(sheet, MARGIN), Column(sheet, PAGE[0] - MARGIN - WIDE)
    for draw in (_minute, _bytes, _waste, _table, _analogy, _schedule, _nothing):
        draw(left)
    for draw in (_kernel, _softmax, _sharing, _floor, _today, _wrong):
        draw(right)
    return sheet
