"""What computes the numerals of the drill's questions on serving, sharing, real systems and debugging."""

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

import course_lib
from course_lib.memory import BlockPool, BlockTable, PagedAllocator, Simulation, sharegpt_like, simulate
from course_lib.memory.allocators import WATERMARK
from course_lib.serving import cost
from course_lib.teaching import paper, presets, serving_runs, timeline

RESULTS = Path(course_lib.__file__).resolve().parents[1] / "benchmarks" / "results"
MODELS, GPUS = presets.load_presets()
LLAMA_8B, LLAMA_70B, LLAMA_405B = (MODELS[f"Llama-3.1-{size}"] for size in ("8B", "70B", "405B"))
DEEPSEEK, GPT_OSS, OPT = MODELS["DeepSeek-V3"], MODELS["gpt-oss-120b"], MODELS["OPT-13B"]
H100, A100, L4 = (GPUS[f"NVIDIA {name}"] for name in ("H100 SXM 80GB", "A100 40GB", "L4"))
FP16, FP8 = 2, 1  # bytes a number
KIB, MIB, GIB = 2**10, 2**20, 2**30
BLOCK = PagedAllocator(64).pool.block_size  # the default
NUM_BLOCKS = PagedAllocator(paper.NUM_SLOTS).pool.num_blocks
ABSTRACT = (2, 4)  # Kwon et al. 2023, abstract: times the throughput at the same latency
VLLM_SHARE = 0.92  # of a card's memory: vLLM 0.32, config/cache.py
HALF = 0.5  # of a GPU's peak in prefill: the course's assumption in notebook 07


# -- blocks, counts, hits -------------------------------------------------------------------------------------


def forked(prompt_len: int, block_size: int, num_children: int) -> tuple[BlockTable, list[BlockTable]]:
    prompt = BlockTable(BlockPool(64, block_size))
    prompt.append(prompt_len)
    return prompt, [prompt.fork() for _ in range(num_children)]


def count_while_the_prompt_lives(gone: bool = False) -> int:
    prompt, children = forked(10, 4, 4)
    pool, counts = prompt.pool, set()
    if gone:
        prompt.free()
    counts = {pool.ref_count(block_id) for block_id in children[0].block_ids}
    return counts.pop() if len(counts) == 1 else -1


def copies_of(num_children: int, prompt_len: int = 10) -> int:
    prompt, children = forked(prompt_len, BLOCK, num_children)
    prompt.free()
    return sum(len(child.append(1).copies) for child in children)


def filled_blocks(num_tokens: int) -> int:
    return len(forked(num_tokens, BLOCK, 0)[0].block_ids)


def again(num_tokens: int, block_size: int = BLOCK) -> tuple[int, int]:
    """A prompt that comes a second time: (tokens from the cache, tokens to compute)."""
    pool, tokens = BlockPool(num_tokens, block_size, enable_prefix_caching=True), list(range(num_tokens))
    first = BlockTable(pool)
    first.append(num_tokens)
    first.remember(tokens)
    first.free()
    cached = BlockTable(pool).adopt_prefix(tokens)
    return cached, num_tokens - cached


def computed_again_on_average() -> float:
    lengths = range(2 * BLOCK + 1, 3 * BLOCK + 1)
    return sum(again(length)[1] for length in lengths) / len(lengths)


def num_keys(num_tokens: int) -> int:
    """Cached blocks of a text of so many tokens."""
    pool = BlockPool(num_tokens // BLOCK + 1, BLOCK, enable_prefix_caching=True)
    table = BlockTable(pool)
    table.append(num_tokens)
    table.remember(list(range(num_tokens)))
    return pool.num_cached


def found_after_an_eviction() -> int:
    """Four blocks of 4: a text of 12 tokens ends, another takes two blocks. What does the first text find again?"""
    pool, tokens = BlockPool(4, 4, enable_prefix_caching=True), list(range(12))
    first, other = BlockTable(pool), BlockTable(pool)
    first.append(12)
    first.remember(tokens)
    first.free()
    other.append(8)
    return sum(len(record.token_ids) for record in BlockTable(pool).find_prefix([*tokens, 99]))


def lost_tokens(block_size: int = BLOCK) -> list[int]:
    """Of shared beginnings of all lengths in a block: tokens that whole blocks leave out."""
    return [length % block_size for length in range(block_size)]


def longest_never_found(block_size: int) -> int:
    """The longest shared beginning that no block holds."""
    return max(length for length in range(2 * block_size) if length // block_size == 0)


def share_of_steps_that_take_a_block(num_tokens: int) -> float:
    """Of steps in which a sequence gets so many slots: the share that needs a new block."""
    taken = 0
    for length in range(BLOCK, 2 * BLOCK):
        table = BlockTable(BlockPool(8, BLOCK))
        table.append(length)
        taken += table.blocks_needed(num_tokens)
    return taken / BLOCK


# -- servers --------------------------------------------------------------------------------------------------


@cache
def engine_cpu() -> dict:
    return json.loads((RESULTS / "engine_cpu.json").read_text(encoding="utf-8"))


def chats_on(slabs: int) -> dict:
    rows = engine_cpu()["payoff"]
    return next(row for row in rows if (row["workload"], row["slabs"]) == ("chats", slabs))


def tokens_per_second(batch: int) -> float:
    return next(row["tokens_per_s"] for row in engine_cpu()["curve"] if row["batch"] == batch)


def vllm_version() -> float:
    """0.32, of the vLLM that was measured, and whose source was read."""
    return float(engine_cpu()["decode_measured"]["vllm"].rpartition(".")[0])


@cache
def chats_of_notebook_07() -> tuple[list, int]:
    chats = serving_runs.chats(24)
    return chats, sum(max(chat.output_len for chat in chats[first : first + 4]) for first in range(0, 24, 4))


@cache
def steps_of(allocator: str) -> int:
    chats, _ = chats_of_notebook_07()
    return timeline.timeline(chats, allocator, num_slots=4 * 256, max_len=256).num_steps


NUM_CHATS = 2000


@cache
def crowd(watermark: float) -> Simulation:
    chats = sharegpt_like(n=NUM_CHATS, rate=paper.SHAREGPT_RATE, seed=1)
    return simulate(chats, "paged", num_slots=paper.NUM_SLOTS, watermark=watermark)


def preemptions_per_100(watermark: float) -> float:
    return 100 * crowd(watermark).num_preemptions / NUM_CHATS


def running_at_once() -> int:
    return round(crowd(WATERMARK).mean_running)


def milliseconds(block_size: int) -> tuple[float, float]:
    """Recompute and swap of 256 tokens of OPT-13B, as notebook 07 prices them."""
    rate = HALF * A100.fp16_tflops * 1e12 / (2 * 13e9)
    both = cost.recompute_or_swap(256, block_size, OPT.kv_bytes(1, FP16), rate, 32e9, 2 * OPT.layers * 5e-6)
    return tuple(1000 * seconds for seconds in both)


def paper_says(text: str) -> int:
    return int(re.search(r"\d+", text)[0])


def chunk_lengths() -> list[int]:
    """A prompt of 400 tokens beside eight who decode, 64 tokens a step."""
    room = 64 - 8
    return [min(room, 400 - done) for done in range(0, 400, room)]


def reads_of_its_own_cache(prompt_len: int, chunk: int) -> float:
    return sum(range(chunk, prompt_len + 1, chunk)) / prompt_len


# -- models and GPUs ------------------------------------------------------------------------------------------


def kib(model: presets.ModelPreset, size: int = FP16) -> float:
    """KiB of cache a token."""
    return model.kv_bytes(1, size) / KIB


def prefill_rate(model: presets.ModelPreset, gpu: presets.GpuPreset = H100, num_gpus: int = 1) -> float:
    """Tokens a second, at half of the peak and two operations a parameter."""
    return num_gpus * HALF * gpu.fp16_tflops * 1e12 / (2 * model.parameters)


SYSTEM_PROMPT, USERS_A_MINUTE, SECONDS_EACH, TENANTS = 4096, 1000, 10, 50


def prompt_tokens_per_second() -> float:
    return SYSTEM_PROMPT * USERS_A_MINUTE / 60


def at_once() -> float:
    return USERS_A_MINUTE / 60 * SECONDS_EACH


def kv_room(size: int) -> float:
    """Tokens of Llama-3.1-8B beside its fp16 weights on an H100."""
    budget = presets.Budget(LLAMA_8B, H100, 1, 1, FP16)
    return (budget.usable_bytes - budget.weight_bytes) / LLAMA_8B.kv_bytes(1, size)


def on_h100s(num_gpus: int) -> presets.Budget:
    return presets.Budget(LLAMA_405B, H100, 1, 1, FP16, num_gpus)


def rank_kib(num_ranks: int) -> float:
    """KiB a token of Llama-3.1-70B on one rank; with more ranks than KV heads each head stands on several."""
    heads = max(1, LLAMA_70B.kv_heads // num_ranks)
    return cost.kv_bytes_per_token(LLAMA_70B.layers, heads, LLAMA_70B.head_dim, FP16) / KIB


def all_heads_bytes() -> int:
    """A token of DeepSeek-V3, if K and V of all heads were kept."""
    return cost.kv_bytes_per_token(DEEPSEEK.layers, DEEPSEEK.kv_heads, DEEPSEEK.head_dim, FP16)


def elements_of_a_block() -> int:
    """Numbers of K in a block of 16 tokens, 8 KV heads, head_dim 128."""
    return BLOCK * cost.kv_bytes_per_token(1, 8, 128, 1) // 2


def first_that_overflows(num_arrays: int = 1) -> int:
    return (torch.iinfo(torch.int32).max + 1) // (num_arrays * elements_of_a_block())


def overflow_gib(num_layers: int = 0) -> float:
    """GiB of fp16 K at the block that overflows, or of K and V of so many layers."""
    return first_that_overflows() * elements_of_a_block() * FP16 * (2 * num_layers or 1) / GIB


PAGE = 2 * MIB  # the CUDA driver's usual page of physical memory
DISCONNECTS, TOKENS_EACH = 20, 100


def page_tokens(kv_heads: int) -> float:
    return PAGE / (cost.kv_bytes_per_token(1, kv_heads, LLAMA_8B.head_dim, FP16) // 2)


def leaked_a_day() -> int:
    return DISCONNECTS * filled_blocks(TOKENS_EACH)


def collision_odds(num_blocks: int) -> float:
    """One in so many that two of these blocks have one 64-bit hash (birthdays)."""
    return 2 * 2**64 / num_blocks**2


def again_after_another_first_token(num_tokens: int) -> int:
    """Tokens that a prompt finds in the cache when a clock in front has moved on."""
    pool, tokens = BlockPool(num_tokens, BLOCK, enable_prefix_caching=True), list(range(num_tokens))
    first = BlockTable(pool)
    first.append(num_tokens)
    first.remember(tokens)
    return BlockTable(pool).adopt_prefix([num_tokens, *tokens[1:]])


TURN, SYSTEM, HISTORY, REPLICAS = 4096, 960, 2720, 4  # tokens of a chat's turn


def hits_at_random() -> float:
    return SYSTEM + HISTORY / REPLICAS


def computed_twice(watermark: float) -> float:
    """Tokens computed again for each chat, if a victim has half of its answer."""
    prompt, answer = paper.FIG_11_MEANS["ShareGPT"]
    return preemptions_per_100(watermark) / 100 * (prompt + answer / 2)


def at_start(gpu: presets.GpuPreset) -> float:
    """Bytes that vLLM leaves for blocks beside Llama-3.1-8B in fp16, if trial run and graphs take 2 GB."""
    return VLLM_SHARE * gpu.memory_gb * 1e9 - FP16 * LLAMA_8B.parameters - 2e9


def blocks_at_start(gpu: presets.GpuPreset) -> int:
    return int(at_start(gpu) // LLAMA_8B.kv_bytes(BLOCK, FP16))


CHAT_8B = presets.Budget(LLAMA_8B, H100, 4096, 1, FP16)


def room_8b() -> float:
    return CHAT_8B.usable_bytes - CHAT_8B.weight_bytes


def floor_seconds(batch: int, size: int = FP16) -> float:
    """A decode step of Llama-3.1-8B at 4,096 tokens each that reads everything once."""
    caches = batch * LLAMA_8B.kv_bytes(4096, size)
    return (CHAT_8B.weight_bytes + caches) / (H100.bandwidth_gb_s * 1e9)


def batch_within(seconds: float) -> int:
    return next(batch - 1 for batch in range(1, 10_000) if floor_seconds(batch) > seconds)


def fp8_batch() -> int:
    return int(room_8b() // LLAMA_8B.kv_bytes(4096, FP8))


def both_floors() -> float:
    """Milliseconds at a full memory, the same with either cache."""
    floors = {round(1000 * floor_seconds(*each), 1) for each in ((104, FP16), (208, FP8))}
    return floors.pop() if len(floors) == 1 else -1


def given(value: float) -> Callable[[], float]:
    """A number that the question itself sets."""
    return lambda: value


BITS_32, BITS_64 = (lambda: torch.iinfo(torch.int32).bits), (lambda: torch.iinfo(torch.int64).bits)
BLOCK_16, VERSION = (lambda: BLOCK), vllm_version

NUMBERS = {
    "refcount_above_one": {
        "10": lambda: forked(10, 4, 0)[0].num_tokens,
        "4": lambda: count_while_the_prompt_lives(gone=True),
        "5": count_while_the_prompt_lives,
    },
    "when_copy_on_write": {
        "16": BLOCK_16,
        "12.5": lambda: OPT.kv_bytes(BLOCK, FP16) / MIB,
        "37.5": lambda: copies_of(4) * OPT.kv_bytes(BLOCK, FP16) / MIB,
        "1,000": given(1000),
        "781": lambda: OPT.kv_bytes(1000, FP16) / MIB,
        "64": given(64),
        "4": lambda: filled_blocks(64) if copies_of(4, prompt_len=64) == 0 else -1,
    },
    "n_samples_and_beams": {
        "6.1": lambda: 100 * paper.FIG_15_ALPACA["sampling"][2],
        "8.5": computed_again_on_average,
        "9.8": lambda: 100 * paper.FIG_15_ALPACA["sampling"][6],
        "37.6": lambda: 100 * paper.FIG_15_ALPACA["beams"][2],
        "53.1": lambda: 100 * paper.FIG_15_ALPACA["beams"][4],
        "55.2": lambda: 100 * paper.FIG_15_ALPACA["beams"][6],
        "16": BLOCK_16,
        "19": lambda: paper.FIG_11_MEANS["Alpaca"][0],
        "58": lambda: paper.FIG_11_MEANS["Alpaca"][1],
    },
    "parent_hash": {"4,096": given(SYSTEM_PROMPT), "16": BLOCK_16, "256": lambda: num_keys(SYSTEM_PROMPT)},
    "compare_tokens_after_hit": {
        "1,000,000": given(1_000_000),
        "64": BITS_64,
        "37": lambda: collision_odds(1_000_000) / 1e6,
        "16": BLOCK_16,
    },
    "hash_or_radix_tree": {
        "16": BLOCK_16,
        "15": lambda: max(lost_tokens()),
        "7.5": lambda: sum(lost_tokens()) / BLOCK,
        "256": given(256),
        "255": lambda: longest_never_found(256),
    },
    "free_in_reverse": {"4": given(4), "12": given(12), "8": found_after_an_eviction},
    "one_token_left": {
        "16": lambda: again(64)[1],
        "64": lambda: again(65)[0],
        "48": lambda: again(64)[0],
        "65": given(65),
        "1": lambda: again(65)[1],
        "256": given(256),
    },
    "never_shared": {
        "1,024": given(1024),
        "171": lambda: 1000 * 1024 / (HALF * A100.fp16_tflops * 1e12 / (2 * 13e9)),
        "4,096": given(SYSTEM_PROMPT),
        "512": lambda: LLAMA_8B.kv_bytes(SYSTEM_PROMPT, FP16) / MIB,
        "100": given(100),
        "50": lambda: 100 * LLAMA_8B.kv_bytes(SYSTEM_PROMPT, FP16) / GIB,
    },
    "system_prompt_saving": {
        "68": lambda: prompt_tokens_per_second() / 1000,
        "4,096": given(SYSTEM_PROMPT),
        "1,000": given(USERS_A_MINUTE),
        "68,267": prompt_tokens_per_second,
        "8.03": lambda: LLAMA_8B.parameters / 1e9,
        "1.10": lambda: 2 * LLAMA_8B.parameters * prompt_tokens_per_second() / 1e15,
        "989": lambda: H100.fp16_tflops,
        "2.2": lambda: prompt_tokens_per_second() / prefill_rate(LLAMA_8B),
        "128": lambda: kib(LLAMA_8B),
        "512": lambda: LLAMA_8B.kv_bytes(SYSTEM_PROMPT, FP16) / MIB,
        "10": given(SECONDS_EACH),
        "167": at_once,
        "83": lambda: at_once() * LLAMA_8B.kv_bytes(SYSTEM_PROMPT, FP16) / GIB,
        "26.7": lambda: at_once() * LLAMA_8B.kv_bytes(SYSTEM_PROMPT, FP16) / (H100.bandwidth_gb_s * 1e6),
        "3,350": lambda: H100.bandwidth_gb_s,
        "0.32": VERSION,
        "1.67": lambda: paper.FIG_16[80],
        "3.58": lambda: paper.FIG_16[341],
        "256": lambda: num_keys(SYSTEM_PROMPT),
        "50": given(TENANTS),
        "25": lambda: TENANTS * LLAMA_8B.kv_bytes(SYSTEM_PROMPT, FP16) / GIB,
        "20": lambda: USERS_A_MINUTE / TENANTS,
    },
    "static_and_continuous": {
        "24": lambda: len(chats_of_notebook_07()[0]),
        "256": given(256),
        "455": lambda: chats_of_notebook_07()[1],
        "280": lambda: steps_of("reserve_max"),
        "38": lambda: 100 * (1 - steps_of("reserve_max") / chats_of_notebook_07()[1]),
        "121": lambda: steps_of("paged"),
        "16": BLOCK_16,
        "1,024": lambda: 4 * 256,
    },
    "admission": {
        "983": lambda: NUM_BLOCKS,
        "1": lambda: 100 * WATERMARK,
        "9": lambda: PagedAllocator(paper.NUM_SLOTS).num_spare,
        "2,000": given(NUM_CHATS),
        "45": lambda: preemptions_per_100(0.0),
        "28": lambda: preemptions_per_100(WATERMARK),
        "100": given(100),
        "20": lambda: 20 if preemptions_per_100(0.2) == 0 else -1,
        "35": lambda: crowd(0.0).mean_running,
        "0.32": VERSION,
    },
    "out_of_blocks": {
        "256": given(256),
        "43": lambda: milliseconds(BLOCK)[0],
        "32": given(32),
        "26": lambda: milliseconds(BLOCK)[1],
        "16": lambda: paper.FIG_19["comparable at"][0],
        "218": lambda: milliseconds(1)[1],
        "80": lambda: 2 * OPT.layers,
        "5": given(5),
        "20": lambda: paper_says(paper.FIG_19["recompute above swap"]),
        "64": lambda: paper.FIG_19["comparable at"][1],
    },
    "chunked_prefill": {
        "64": given(64),
        "400": lambda: sum(chunk_lengths()),
        "8": lambda: len(chunk_lengths()),
        "56": lambda: chunk_lengths()[0],
        "32,768": given(32_768),
        "2,048": given(2048),
        "8.5": lambda: reads_of_its_own_cache(32_768, 2048),
    },
    "http_to_token": {"100": given(100), "16": BLOCK_16, "7": lambda: filled_blocks(100)},
    "where_paging_stops_paying": {
        "2.7": lambda: paper.FIG_12["to reserve_max"][0],
        "4": lambda: ABSTRACT[1],
        "1.9": lambda: chats_on(2)["reserve_max"]["mean_running"],
        "8.3": lambda: chats_on(2)["paged"]["mean_running"],
        "2.3": lambda: chats_on(2)["ratio"],
        "16": given(16),
        "1.4": lambda: chats_on(16)["ratio"],
        "129": lambda: tokens_per_second(2),
        "2": lambda: ABSTRACT[0],  # and slabs and a batch, given
        "359": lambda: tokens_per_second(8),
        "8": lambda: paper.FIG_12["to reserve_max"][1],  # and a batch, given
        "640": lambda: tokens_per_second(32),
        "32": given(32),
        "731": lambda: tokens_per_second(64),
        "64": given(64),
        "295": lambda: 1000 * H100.fp16_tflops / H100.bandwidth_gb_s,
    },
    "largest_batch": {
        "50": given(50),
        "15": given(15),
        "60": given(60),
        "0.9": lambda: presets.USABLE,
        "80": lambda: H100.memory_gb,
        "16.1": lambda: CHAT_8B.weight_bytes / 1e9,
        "55.9": lambda: room_8b() / 1e9,
        "4,096": lambda: 4 * 2**10,
        "0.54": lambda: CHAT_8B.bytes_per_request / 1e9,
        "104": lambda: CHAT_8B.requests_that_fit,
        "167.5": lambda: 0.050 * H100.bandwidth_gb_s,
        "3,350": lambda: H100.bandwidth_gb_s,
        "282": lambda: batch_within(0.050),
        "1.7": lambda: 1000 * 104 * 2 * LLAMA_8B.parameters / (H100.fp16_tflops * 1e12),
        "21.5": both_floors,
        "35.8": lambda: 1000 * floor_seconds(104) / 0.60,
        "2,048": given(2048),
        "66.5": lambda: 1000 * 2048 / prefill_rate(LLAMA_8B),
        "28.5": lambda: 50 - 1000 * floor_seconds(104),
        "878": lambda: int((0.050 - floor_seconds(104)) * prefill_rate(LLAMA_8B)),
        "50.3": lambda: 0.015 * H100.bandwidth_gb_s,
        "63": lambda: batch_within(0.015),
        "208": fp8_batch,
    },
    "low_hit_rate": {
        "90": lambda: 100 * (SYSTEM + HISTORY) / TURN,
        "40": lambda: 100 * hits_at_random() / TURN,
        "1,640": hits_at_random,
        "4,096": given(TURN),
        "960": given(SYSTEM),
        "2,720": given(HISTORY),
        "16": BLOCK_16,
        "7.5": lambda: sum(lost_tokens()) / BLOCK,
        "256": given(256),
        "127.5": lambda: sum(lost_tokens(256)) / 256,
        "0": lambda: again_after_another_first_token(TURN),
    },
    "throughput_falls": {
        "45": lambda: preemptions_per_100(0.0),
        "100": given(100),
        "28": lambda: preemptions_per_100(WATERMARK),
        "1": lambda: 100 * WATERMARK,
        "20": lambda: 20 if preemptions_per_100(0.2) == 0 else -1,
        "330": lambda: computed_twice(0.0) / (preemptions_per_100(0.0) / 100),
        "148": lambda: computed_twice(0.0),
        "499": lambda: sum(paper.FIG_11_MEANS["ShareGPT"]),
        "30": lambda: 100 * computed_twice(0.0) / sum(paper.FIG_11_MEANS["ShareGPT"]),
        "35": lambda: crowd(0.0).mean_running,
    },
    "blocks_at_start": {
        "0.32": VERSION,
        "0.92": given(VLLM_SHARE),
        "80": lambda: H100.memory_gb,
        "73.6": lambda: VLLM_SHARE * H100.memory_gb,
        "16.1": lambda: FP16 * LLAMA_8B.parameters / 1e9,
        "2": lambda: LLAMA_8B.kv_bytes(BLOCK, FP16) / MIB,  # and GB, given
        "55.5": lambda: at_start(H100) / 1e9,
        "16": BLOCK_16,
        "26,483": lambda: blocks_at_start(H100),
        "424": lambda: blocks_at_start(H100) * BLOCK / 1000,
        "24": lambda: L4.memory_gb,
        "4.0": lambda: at_start(L4) / 1e9,
        "1,916": lambda: blocks_at_start(L4),
        "30.7": lambda: blocks_at_start(L4) * BLOCK / 1000,
        "131,072": lambda: LLAMA_8B.max_context,
        "3.2": lambda: blocks_at_start(H100) * BLOCK / LLAMA_8B.max_context,
    },
    "what_to_watch": {
        "97": lambda: 100 * crowd(WATERMARK).shares["token_states"],
        "28": lambda: preemptions_per_100(WATERMARK),
        "100": given(100),
    },
    "leak_without_load": {
        "983": lambda: NUM_BLOCKS,
        "20": given(DISCONNECTS),
        "100": given(TOKENS_EACH),
        "140": leaked_a_day,
        "7": lambda: NUM_BLOCKS / leaked_a_day(),
    },
    "samples_mix": {"16": BLOCK_16, "64": lambda: 64 if copies_of(4, prompt_len=64) == 0 else -1},
    "big_gpu_garbage": {
        "16": BLOCK_16,
        "8": given(8),
        "128": given(128),
        "16,384": elements_of_a_block,
        "131,072": first_that_overflows,
        "4": overflow_gib,
        "256": lambda: overflow_gib(32),
        "32": BITS_32,
        "64": lambda: overflow_gib(8),
        "2,048": lambda: first_that_overflows(2 * 32),
    },
    "boundary_crash": {
        "16": BLOCK_16,
        "35": running_at_once,
        "90": lambda: 100 * (1 - (1 - share_of_steps_that_take_a_block(1)) ** running_at_once()),
        "983": lambda: NUM_BLOCKS,
    },
    "paper_and_today": {"0.32": VERSION},
    "speculative_rollback": {
        "5": given(5),
        "16": BLOCK_16,
        "31": lambda: 100 * share_of_steps_that_take_a_block(5),
        "6": lambda: 100 * share_of_steps_that_take_a_block(1),
    },
    "disaggregation": {
        "4,096": given(4096),
        "1.25": lambda: LLAMA_70B.kv_bytes(4096, FP16) / GIB,
        "50": given(50),
        "27": lambda: 1000 * LLAMA_70B.kv_bytes(4096, FP16) / 50e9,
        "146": lambda: 1000 * 4096 / prefill_rate(LLAMA_70B, num_gpus=8),
        "16": BLOCK_16,
        "160": lambda: 2 * LLAMA_70B.layers,
        "32": lambda: (
            BLOCK * cost.kv_bytes_per_token(1, LLAMA_70B.kv_heads, LLAMA_70B.head_dim, FP16) / 2 / KIB
        ),
        "4": lambda: (
            BLOCK * cost.kv_bytes_per_token(1, LLAMA_70B.kv_heads // 8, LLAMA_70B.head_dim, FP16) / 2 / KIB
        ),
        "0.32": VERSION,
    },
    "offload_tiers": {
        "128": lambda: kib(LLAMA_8B),
        "63": given(63),
        "481": lambda: 63e9 / LLAMA_8B.kv_bytes(1, FP16) / 1000,
        "31": lambda: prefill_rate(LLAMA_8B) / 1000,
        "15.6": lambda: 63e9 / LLAMA_8B.kv_bytes(1, FP16) / prefill_rate(LLAMA_8B),
        "7": given(7),
        "53": lambda: 7e9 / LLAMA_8B.kv_bytes(1, FP16) / 1000,
        "69": lambda: kib(DEEPSEEK),
    },
    "cuda_graphs": {
        "1,024": given(1024),
        "131,072": lambda: LLAMA_8B.max_context,
        "16": BLOCK_16,
        "32": lambda: 1024 * (LLAMA_8B.max_context // BLOCK) * torch.int32.itemsize / MIB,
    },
    "tensor_parallel_table": {
        "320": lambda: rank_kib(1),
        "40": lambda: rank_kib(16),
        "8": lambda: LLAMA_70B.kv_heads,
        "16": given(16),
        "640": lambda: 16 * rank_kib(16),
    },
    "fp8_cache": {
        "8": given(8 * FP8),
        "80": lambda: H100.memory_gb,
        "0.9": lambda: presets.USABLE,
        "427": lambda: kv_room(FP16) / 1000,
        "854": lambda: kv_room(FP8) / 1000,
        "4": given(4),
        "0.32": VERSION,
    },
    "mla_and_blocks": {
        "576": lambda: DEEPSEEK.kv_bytes(1, 1) / DEEPSEEK.layers,
        "61": lambda: DEEPSEEK.layers,
        "68.6": lambda: kib(DEEPSEEK),
        "16": lambda: 8 * FP16,
        "128": lambda: DEEPSEEK.kv_heads,
        "3.8": lambda: all_heads_bytes() / MIB,
        "57": lambda: all_heads_bytes() / DEEPSEEK.kv_bytes(1, FP16),
        "4.7": lambda: LLAMA_70B.kv_bytes(1, FP16) / DEEPSEEK.kv_bytes(1, FP16),
        "131,072": lambda: DEEPSEEK.max_context,
        "8.6": lambda: DEEPSEEK.kv_bytes(DEEPSEEK.max_context, FP16) / GIB,
    },
    "sliding_windows": {
        "128": lambda: GPT_OSS.sliding_window,
        "18": lambda: GPT_OSS.num_sliding_layers,
        "36": lambda: GPT_OSS.layers,
        "4.5": lambda: GPT_OSS.kv_bytes(GPT_OSS.max_context, FP16) / GIB,
        "131,072": lambda: GPT_OSS.max_context,
        "9": lambda: (
            GPT_OSS.max_context
            * cost.kv_bytes_per_token(GPT_OSS.layers, GPT_OSS.kv_heads, GPT_OSS.head_dim, FP16)
            / GIB
        ),
        "8": lambda: GPT_OSS.sliding_window / BLOCK,
        "16": BLOCK_16,
    },
    "three_engines": {"16": BLOCK_16, "30": given(30)},
    "vattention": {
        "2": lambda: PAGE / MIB,
        "1,024": lambda: page_tokens(LLAMA_8B.kv_heads),
        "64": lambda: 2 * LLAMA_8B.layers * PAGE / 2 / MIB,
        "16": BLOCK_16,
        "0.9": lambda: (BLOCK - 1) / 2 * LLAMA_8B.kv_bytes(1, FP16) / MIB,
        "8": lambda: LLAMA_8B.kv_heads,
        "8,192": lambda: page_tokens(1),
    },
    "when_paging_does_not_help": {
        "2.3": lambda: chats_on(2)["ratio"],
        "16": given(16),
        "1.4": lambda: chats_on(16)["ratio"],
    },
    "choose_engine": {
        "32,768": given(32_768),
        "4": lambda: LLAMA_8B.kv_bytes(32_768, FP16) / GIB,
        "0.9": lambda: presets.USABLE,
        "80": lambda: H100.memory_gb,
        "13": lambda: presets.Budget(LLAMA_8B, H100, 32_768, 1, FP16).requests_that_fit,
        "50": given(50),
    },
    "many_machines": {
        "16": lambda: 8 * FP16,
        "812": lambda: on_h100s(8).weight_bytes / 1e9,
        "576": lambda: on_h100s(8).usable_bytes / 1e9,
        "0.9": lambda: presets.USABLE,
        "80": lambda: H100.memory_gb,
        "1,152": lambda: on_h100s(16).usable_bytes / 1e9,
        "659": lambda: (
            (on_h100s(16).usable_bytes - on_h100s(16).weight_bytes) / LLAMA_405B.kv_bytes(1, FP16) / 1000
        ),
        "8": lambda: LLAMA_405B.kv_heads,
        "0.32": VERSION,
        "126": lambda: LLAMA_405B.layers,
    },
}
