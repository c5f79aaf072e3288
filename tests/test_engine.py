"""The engine against requests that run alone and compute everything anew: whatever shares a batch, a block or a seed
with a request, its tokens stay the same, and whatever it held is given back."""

import copy
import dataclasses
import itertools
import math
import random
from types import SimpleNamespace

import pytest
import torch
from paged_cases import make_problem, same_bits
from test_model import assert_same_tokens_or_tie
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import course_lib.serving.engine
from course_lib.attention import paged_attention, whole_blocks
from course_lib.attention.whole_blocks import attend_blocks, plan_blocks
from course_lib.memory import OutOfBlocks, block_pool
from course_lib.serving import (
    Completion,
    ContiguousCache,
    LLMEngine,
    NoCache,
    SamplingParams,
    beam_search,
    greedy,
)
from course_lib.serving.kv_cache import Run
from course_lib.serving.sampling import Draw, choose
from course_lib.serving.weights import ensure_default_checkpoint

# -- an engine, and the oracle ----------------------------------------------------------------------------------


class Numbers:
    """A tokenizer whose text is the tokens themselves."""

    def encode(self, text, **_):
        return SimpleNamespace(ids=[int(word) for word in text.split()])

    def decode(self, token_ids):
        return " ".join(map(str, token_ids))


def bytes_per_slot(model):
    config = model.config
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * model.embedding.element_size()


def make(model, num_slots=512, **options):
    """A small engine. Blocks of 4 unless they are asked for."""
    usual = dict(block_size=4, max_model_len=128, max_num_seqs=8, max_num_batched_tokens=64)
    return LLMEngine(model, Numbers(), kv_cache_bytes=num_slots * bytes_per_slot(model), **usual | options)


def with_eos(model, *tokens):
    """The same model, with other tokens that end a text."""
    changed = copy.copy(model)
    changed.config = dataclasses.replace(model.config, eos_token_ids=tokens)
    return changed


class Alone:
    """One request at a time, without any cache: every token is computed from the whole text before it."""

    def __init__(self, model):
        self.model, self.known = model, {}

    def logits(self, tokens):
        place = tuple(tokens)
        if place not in self.known:
            cache = NoCache()
            positions = cache.begin_step({0: len(tokens)})
            self.known[place] = self.model.logits(self.model(torch.tensor(tokens), positions, cache)[-1])
        return self.known[place]

    def next_token(self, tokens, params, index=0):
        if params.temperature == 0:
            return int(self.logits(tokens).argmax())
        draw = Draw(params.temperature, params.seed, index, len(tokens))
        return choose(self.logits(tokens)[None], [draw])[0]

    def answer(self, prompt, params, index=0, eos=()):
        tokens = list(prompt)
        while len(tokens) < len(prompt) + params.max_tokens:
            tokens.append(self.next_token(tokens, params, index))
            if tokens[-1] in eos and not params.ignore_eos:
                break
        return tokens[len(prompt) :]

    def hold(self, output, prompt, params, eos=()):
        """A finished output is what the request makes alone: its tokens, and why it ended."""
        assert output.finished and output.prompt_token_ids == list(prompt)
        assert [each.index for each in output.outputs] == list(range(params.n))
        for each in output.outputs:
            self._hold_tokens(each.token_ids, prompt, params, each.index)
            ends = [] if params.ignore_eos else [token in eos for token in each.token_ids]
            assert not any(ends[:-1]), "it went on behind its end"
            stopped = any(ends)
            assert stopped or len(each.token_ids) == params.max_tokens
            assert each.finish_reason == ("stop" if stopped else "length")
            assert each.text == " ".join(map(str, each.token_ids))

    def _hold_tokens(self, token_ids, prompt, params, index):
        tokens = list(prompt)
        for token in token_ids:
            expected = self.next_token(tokens, params, index)
            if token != expected:
                self._hold_tie(tokens, token, params, index)
                return  # from here on it is another text
            tokens.append(token)

    def _hold_tie(self, tokens, token, params, index):
        where = f"position {len(tokens)}: token {token}"
        if params.temperature == 0:
            log_probs = self.logits(tokens).log_softmax(-1)
            gap = (log_probs.max() - log_probs[token]).item()
            assert gap < 1e-3, f"{where} is {gap:.4f} below the likeliest"
        else:
            shares = torch.softmax(self.logits(tokens).double() / params.temperature, -1).cumsum(-1).tolist()
            dice = Draw(params.temperature, params.seed, index, len(tokens)).dice()
            low, high = [0.0, *shares][token], shares[token]
            assert low - 1e-3 < dice < high + 1e-3, (
                f"{where} has {low:.4f} to {high:.4f}, the dice {dice:.4f}"
            )


@pytest.fixture(scope="module")
def alone(tiny_model):
    return Alone(tiny_model)


def drain(engine, each_step=lambda outputs: None):
    """Step until nothing is left: {request_id: its last output}."""
    done = {}
    for _ in range(3000):
        if not engine.has_unfinished():
            return done
        outputs = engine.step()
        each_step(outputs)
        done |= {output.request_id: output for output in outputs if output.finished}
    raise AssertionError(f"{len(engine.jobs)} requests never end: {engine.stats}")


def assert_all_is_given_back(engine):
    assert not engine.jobs and not engine.sequences and not engine.has_unfinished()
    assert not engine.scheduler.running and not engine.scheduler.waiting
    stats, num_slots = engine.stats, engine.allocator.num_slots
    assert (stats.num_running, stats.num_waiting) == (0, 0)
    assert (stats.slots_used, stats.slots_reserved, stats.slots_free) == (0, 0, num_slots)
    if hasattr(engine.allocator, "pool"):
        pool = engine.allocator.pool
        pool.check([])
        assert pool.num_free == pool.num_blocks
        assert not engine.allocator.tables and not engine.allocator.requests and not engine.allocator.cached
    else:
        assert not engine.allocator.slabs and engine.allocator.region.holes == [(0, num_slots)]


def random_prompts(seed, lengths, vocab_size=97):
    dice = random.Random(seed)
    return [[dice.randrange(vocab_size) for _ in range(length)] for length in lengths]


def params_of(**changes):
    return SamplingParams(**{"ignore_eos": True, **changes})


def test_the_oracle_says_what_the_plain_loop_says(tiny_model, alone):
    for prompt in random_prompts(1, [1, 7, 20]):
        plain = greedy(tiny_model, [prompt], ContiguousCache(tiny_model.config, 1, 60), 12)
        assert plain == [alone.answer(prompt, params_of(max_tokens=12))]


# -- the same tokens, whatever else happens ---------------------------------------------------------------------

LENGTHS = [1, 40, 5, 13, 2, 29, 16, 8, 33, 3, 4, 17]
OUTPUTS = [9, 3, 20, 1, 14, 7, 2, 18, 11, 20, 5, 16]


def traffic():
    """Ragged requests; every second prompt begins as the longest does, and ends in a token of its own."""
    prompts = random_prompts(2, LENGTHS)
    for prompt in prompts[3::2]:
        prompt[:-1] = prompts[1][: len(prompt) - 1]
    return [(prompt, params_of(max_tokens=count)) for prompt, count in zip(prompts, OUTPUTS, strict=True)]


def serve(engine, requests, order_seed, at_once=5):
    """All requests in a random order, some of them while others are at work: [(request, output)]."""
    dice, waiting, ids, done = random.Random(order_seed), list(requests), {}, {}
    dice.shuffle(waiting)
    while waiting:
        for prompt, params in waiting[:at_once]:
            ids[engine.add_request(prompt, params)] = prompt, params
        del waiting[:at_once]
        for _ in range(dice.randint(1, 4)):
            done |= {output.request_id: output for output in engine.step() if output.finished}
    done |= drain(engine)
    assert len(ids) == len(requests) and done.keys() == ids.keys()
    return [(ids[request_id], output) for request_id, output in done.items()]


@pytest.mark.parametrize("num_slots", [64, 1024], ids=["short of slots", "plenty"])
@pytest.mark.parametrize("max_num_batched_tokens", [8, 64])
@pytest.mark.parametrize("enable_prefix_caching", [False, True], ids=["no caching", "caching"])
@pytest.mark.parametrize("block_size", [1, 3, 16])
def test_paged_tokens_are_those_of_the_request_alone(
    tiny_model, alone, block_size, enable_prefix_caching, max_num_batched_tokens, num_slots
):
    engine = make(
        tiny_model,
        num_slots,
        block_size=block_size,
        enable_prefix_caching=enable_prefix_caching,
        max_num_batched_tokens=max_num_batched_tokens,
    )
    for order_seed in range(3):  # from the second on, what is cached is warm
        for (prompt, params), output in serve(engine, traffic(), order_seed):
            alone.hold(output, prompt, params)
    assert (engine.stats.num_preemptions > 0) == (num_slots == 64)
    if not enable_prefix_caching:
        assert engine.stats.num_cached_tokens == 0
    elif num_slots > 64:
        assert engine.stats.num_cached_tokens > 0
    assert_all_is_given_back(engine)


@pytest.mark.parametrize("max_num_batched_tokens", [8, 64])
@pytest.mark.parametrize("num_slots", [64, 200], ids=["one slab", "three slabs"])
def test_tokens_on_slabs_are_those_of_the_request_alone(tiny_model, alone, num_slots, max_num_batched_tokens):
    engine = make(
        tiny_model,
        num_slots,
        allocator="reserve_max",
        max_model_len=60,
        max_num_batched_tokens=max_num_batched_tokens,
    )
    for (prompt, params), output in serve(engine, traffic(), order_seed=0):
        alone.hold(output, prompt, params)
    for prompt, params in traffic():
        engine.add_request(prompt, params)
    engine.step()
    stats = engine.stats
    if max_num_batched_tokens == 64:  # a smaller budget is used up before all slabs are taken
        assert (stats.num_running, stats.num_waiting) == (num_slots // 60, len(LENGTHS) - num_slots // 60)
    assert len(drain(engine)) == len(LENGTHS) and engine.stats.num_preemptions == 0
    assert_all_is_given_back(engine)


def test_a_budget_of_one_token_a_step_is_enough(tiny_model, alone):
    engine = make(tiny_model, max_num_seqs=1, max_num_batched_tokens=1)
    for (prompt, params), output in serve(engine, traffic()[:5], order_seed=0):
        alone.hold(output, prompt, params)


def test_a_step_computes_no_more_tokens_than_its_budget_for_no_more_than_max_num_seqs(
    tiny_model, monkeypatch
):
    engine, steps = make(tiny_model, 96, max_num_seqs=5, max_num_batched_tokens=7), []
    begin_step = engine.store.begin_step

    def watched(runs, copies):
        steps.append((len(runs), runs[-1].stop))
        return begin_step(runs, copies)

    monkeypatch.setattr(engine.store, "begin_step", watched)
    for prompt, params in traffic():
        engine.add_request(prompt, params)
    drain(engine)
    assert max(count for count, _ in steps) == 5 and max(total for _, total in steps) == 7


def test_generate_returns_the_outputs_in_the_order_of_the_prompts(tiny_model, alone):
    requests = traffic()
    engine = make(tiny_model, 64)
    outputs = engine.generate([prompt for prompt, _ in requests], [params for _, params in requests])
    for (prompt, params), output in zip(requests, outputs, strict=True):
        alone.hold(output, prompt, params)
    texts = ["5 9 30", "7"]
    for text, output in zip(texts, engine.generate(texts, params_of(max_tokens=4)), strict=True):
        alone.hold(output, [int(word) for word in text.split()], params_of(max_tokens=4))
    assert engine.generate([]) == []


def test_auto_is_torch_on_a_cpu_whatever_the_interpreter_says(tiny_model, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert make(tiny_model).store.backend == "torch"


def test_the_default_is_greedy_and_sixteen_tokens(tiny_model, alone):
    model = with_eos(tiny_model)
    (output,) = make(model).generate(["11 3 96"])
    alone.hold(output, [11, 3, 96], params_of(max_tokens=16))


def test_real_model_in_the_engine_equals_hugging_face_token_for_token(real):
    transformers = pytest.importorskip("transformers", reason="the reference needs the test extra")
    model, tokenizer = real
    hf_model = transformers.AutoModelForCausalLM.from_pretrained(
        ensure_default_checkpoint(), dtype=torch.float32
    )
    texts = ["The capital of Italy is", "Once upon a time there was a small", "1, 2, 3,"]
    engine = LLMEngine(
        model,
        tokenizer,
        kv_cache_bytes=3 * 8 * bytes_per_slot(model),
        block_size=8,
        max_model_len=64,
        max_num_seqs=3,
        max_num_batched_tokens=6,
    )
    outputs = engine.generate(texts, SamplingParams(max_tokens=8, ignore_eos=True))
    assert engine.stats.num_preemptions > 0
    for text, output in zip(texts, outputs, strict=True):
        prompt = tokenizer.encode(text).ids
        inputs = torch.tensor([prompt])
        theirs = hf_model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=8,
            min_new_tokens=8,
            do_sample=False,
        )
        ours = output.outputs[0].token_ids
        assert output.prompt_token_ids == prompt
        assert_same_tokens_or_tie(hf_model, prompt, ours, theirs[0, len(prompt) :].tolist())
        assert output.outputs[0].text == tokenizer.decode(ours)


# -- attention over whole blocks --------------------------------------------------------------------------------


def through_blocks(problem):
    """`attend_blocks` with the arguments of `paged_attention`."""
    starts = problem.query_start_loc
    starts = range(len(problem.context_lens) + 1) if starts is None else starts.tolist()
    plan = plan_blocks(
        problem.block_tables.tolist(), problem.context_lens.tolist(), list(starts), problem.key_cache
    )
    return attend_blocks(problem.query, problem.key_cache, problem.value_cache, plan), plan


def hold_blocks(problem):
    before = problem.key_cache.clone(), problem.value_cache.clone()
    out, plan = through_blocks(problem)
    assert same_bits(before[0], problem.key_cache) and same_bits(before[1], problem.value_cache)
    assert out.dtype == problem.query.dtype and out.shape == problem.query.shape
    assert not out.isnan().any(), f"NaN in rows {out.isnan().flatten(1).any(1).nonzero().flatten().tolist()}"
    rounding = 1e-5 if out.dtype == torch.float32 else 1e-3
    error = (out.double() - problem.expected()[0]).abs().max().item()
    assert error <= 4 * problem.torch_error() + rounding
    theirs = paged_attention(**problem.arguments())
    torch.testing.assert_close(out, theirs, rtol=10 * rounding, atol=10 * rounding)
    return plan


RAGGED = [1, 17, 5, 64, 3, 33, 16, 48, 2, 31]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("heads", [(2, 2), (6, 2), (4, 1), (16, 2)])
@pytest.mark.parametrize("block_size", [1, 3, 16])
def test_blocks_of_decodes_equal_paged_attention(block_size, heads, dtype):
    for loud in (1.0, 30.0):
        hold_blocks(make_problem(0, RAGGED, *heads, 8, block_size, dtype, unused_entry=10**6, loud=loud))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("block_size", [1, 3, 16])
def test_blocks_of_chunks_and_decodes_equal_paged_attention(block_size, dtype):
    query_lens = [1, 17, 1, 20, 2, 1, 16, 1, 1, 30]  # whole prompts, chunks behind a context, decodes
    problem = make_problem(
        1, RAGGED, 6, 2, 8, block_size, dtype, query_lens=query_lens, unused_entry=-(10**6)
    )
    plan = hold_blocks(problem)
    assert len(plan.prefills) == 5


@pytest.mark.parametrize("piece_bytes", [1, 5_000, 20_000])
def test_many_small_pieces_equal_one(monkeypatch, piece_bytes):
    monkeypatch.setattr(whole_blocks, "PIECE_BYTES", piece_bytes)
    problem = make_problem(2, RAGGED, 6, 2, 8, 4)
    plan = hold_blocks(problem)
    assert 1 < len(plan.pieces) <= len(RAGGED)
    assert sorted(row for piece in plan.pieces for row in piece.rows.tolist()) == list(range(len(RAGGED)))
    for piece in plan.pieces:  # no piece is larger than it may be, unless it is one sequence
        assert len(piece.rows) == 1 or len(piece.blocks) * 4 * 2 * 8 * 4 <= piece_bytes


def test_a_plan_serves_every_layer_and_what_one_left_is_not_seen_by_the_next(monkeypatch):
    monkeypatch.setattr(whole_blocks, "PIECE_BYTES", 5_000)
    first, second = (make_problem(3, RAGGED, 6, 2, 8, 4, query_lens=[1] * 8 + [2, 7]) for _ in range(2))
    second.value_cache.mul_(-2)
    second.key_cache.mul_(-2)
    before, plan = through_blocks(first)
    for problem in (second, first):
        after = attend_blocks(problem.query, problem.key_cache, problem.value_cache, plan)
        torch.testing.assert_close(after, paged_attention(**problem.arguments()), rtol=1e-4, atol=1e-5)
    assert same_bits(before, after)


def test_sequences_that_share_blocks_read_them_both():
    hold_blocks(make_problem(5, [20, 14, 9], 6, 2, 8, 4, share=(0, 1, 3)))


# -- sampling ---------------------------------------------------------------------------------------------------


def test_temperature_0_takes_the_likeliest_of_each_row_and_others_draw():
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 1.0, 0.0], [-5.0, -6.0, -4.0]])
    draws = [Draw(0.0, 1, 0, position) for position in range(3)]
    assert choose(logits, draws) == [1, 0, 2]
    mixed = [draws[0], Draw(1e6, 1, 0, 5), draws[2]]
    rows = [choose(logits, [*mixed[:1], Draw(1e6, seed, 0, 5), *mixed[2:]]) for seed in range(60)]
    assert {(row[0], row[2]) for row in rows} == {(1, 2)} and {row[1] for row in rows} == {0, 1, 2}


@pytest.mark.parametrize("name", ["seed", "index", "position"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_draws_are_distributed_as_the_softmax_says(name, temperature):
    logits, count = torch.tensor([1.0, -math.inf, 0.3, 2.0, -1.0, 1.9, -math.inf]), 4_000
    draws = [Draw(temperature, **{"seed": 3, "index": 0, "position": 9} | {name: n}) for n in range(count)]
    chosen = torch.tensor(choose(logits.expand(count, -1), draws))
    expected = count * torch.softmax(logits / temperature, -1)
    found = torch.bincount(chosen, minlength=len(logits))
    possible = expected > 0
    assert found[~possible].sum() == 0, "a token of probability 0 was drawn"
    chi_square = ((found - expected)[possible] ** 2 / expected[possible]).sum().item()
    assert chi_square < 18.5, "beyond what chance gives once in a thousand, with 4 degrees of freedom"


def test_no_two_draws_have_the_same_dice_and_the_temperature_is_no_part_of_them():
    keys = list(itertools.product(range(13), repeat=3))  # also 1, 11, 2 and 11, 1, 2
    assert len({Draw(1.0, *key).dice() for key in keys}) == len(keys)
    assert Draw(0.5, 1, 2, 3).dice() == Draw(2.0, 1, 2, 3).dice()
    assert all(0 <= Draw(1.0, *key).dice() < 1 for key in keys)


def test_the_dice_are_the_same_on_every_machine():
    assert Draw(1.0, seed=7, index=1, position=20).dice() == 0.3783821286979794


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-300, 5e-324])
def test_a_temperature_near_0_takes_the_likeliest(temperature):
    logits = torch.tensor([[1.0, 40.0, -3.0, 39.0]])
    assert {choose(logits, [Draw(temperature, seed, 0, 5)])[0] for seed in range(20)} == {1}
    assert {choose(-logits, [Draw(temperature, seed, 0, 5)])[0] for seed in range(20)} == {2}


def sampled_traffic():
    requests = []
    for number, (prompt, params) in enumerate(traffic()):
        temperature, n = [0.7, 0.0, 1.5][number % 3], 1 + number % 4
        changes = dict(temperature=temperature, n=n, seed=100 + number // 2)
        requests.append((prompt, dataclasses.replace(params, **changes)))
    return requests


CROWDED = {
    "plenty": dict(num_slots=1024),
    "short of slots": dict(num_slots=64),
    "short of slots, blocks of 1": dict(num_slots=64, block_size=1),
    "short of slots, caching": dict(num_slots=64, enable_prefix_caching=True),
    "chunks": dict(max_num_batched_tokens=8),
    "caching": dict(num_slots=1024, enable_prefix_caching=True),
    "short of all, caching": dict(
        num_slots=64, max_num_seqs=4, max_num_batched_tokens=4, enable_prefix_caching=True
    ),
    "one slab": dict(num_slots=64, allocator="reserve_max", max_model_len=60),
    "three slabs, chunks": dict(
        num_slots=180, allocator="reserve_max", max_model_len=60, max_num_batched_tokens=8
    ),
}


@pytest.mark.parametrize("name", CROWDED)
def test_sampled_tokens_are_shifted_by_nothing(tiny_model, alone, name):
    engine = make(tiny_model, **CROWDED[name])
    for order_seed in range(2):
        for (prompt, params), output in serve(engine, sampled_traffic(), order_seed):
            alone.hold(output, prompt, params)
    assert (engine.stats.num_preemptions > 0) == ("short" in name)
    assert (engine.stats.num_cached_tokens > 0) == ("caching" in name)
    assert_all_is_given_back(engine)


def test_the_outputs_of_one_request_differ_and_so_do_seeds(tiny_model):
    params = params_of(max_tokens=8, temperature=1.0, n=4, seed=3)
    engine, prompt = make(tiny_model), [5, 9, 2]
    texts = [
        [each.token_ids for each in engine.generate([prompt], one)[0].outputs]
        for one in (params, params, dataclasses.replace(params, seed=4))
    ]
    assert texts[0] == texts[1], "a seed makes it reproducible"
    assert len({tuple(tokens) for tokens in texts[0] + texts[2]}) == 8


def test_without_a_seed_every_request_has_its_own(tiny_model):
    params = params_of(max_tokens=8, temperature=1.0)
    outputs = make(tiny_model).generate([[5, 9, 2]] * 6, params)
    assert len({tuple(output.outputs[0].token_ids) for output in outputs}) == 6


# -- several outputs of one prompt ------------------------------------------------------------------------------


def test_siblings_share_the_blocks_of_the_prompt_and_copy_the_one_they_write(tiny_model, alone):
    engine, prompt = make(tiny_model), random_prompts(3, [10])[0]
    params = params_of(max_tokens=7, temperature=1.0, n=5, seed=1)
    request_id, pool = engine.add_request(prompt, params), engine.allocator.pool

    def blocks_in_use():
        return pool.num_blocks - pool.num_free

    (output,) = engine.step()
    assert [len(each.token_ids) for each in output.outputs] == [1] * 5, "all begin with one prefill"
    assert {tuple(table.block_ids) for table in engine.allocator.tables.values()} == {(0, 1, 2)}
    assert blocks_in_use() == 3
    computed = [progress.num_computed for progress in engine.scheduler.running.values()]
    assert computed == [10] * 5, "the prompt is computed once, and that is every sibling's"
    engine.step()
    assert blocks_in_use() == 2 + 5, "two full blocks are shared, the half-full one is each one's own"
    engine.step()
    engine.step()
    assert blocks_in_use() == 2 + 2 * 5
    assert {tuple(table.block_ids[:2]) for table in engine.allocator.tables.values()} == {(0, 1)}
    alone.hold(drain(engine)[request_id], prompt, params)
    assert_all_is_given_back(engine)


def test_blocks_are_copied_in_order_in_every_layer(tiny_model):
    """A block that is copied may be given to another sequence in the same step, and be written to."""
    store = make(tiny_model, 16).store
    for block in range(4):
        store.keys[:, block], store.values[:, block] = block, 10 + block
    store.begin_step([Run(0, 0, 1, 1)], [(0, 1), (2, 0)], [[3]])
    assert [store.keys[:, block].unique().tolist() for block in range(4)] == [[2], [0], [2], [3]]
    assert [store.values[:, block].unique().tolist() for block in range(4)] == [[12], [10], [12], [13]]


def test_siblings_of_a_prompt_that_fills_its_blocks_copy_nothing(tiny_model, alone, monkeypatch):
    engine, copies = make(tiny_model), []
    begin_step = engine.store.begin_step
    monkeypatch.setattr(
        engine.store, "begin_step", lambda runs, made: [copies.extend(made), begin_step(runs, made)][1]
    )
    for length, expected in [(8, 0), (9, 3), (7, 3)]:
        prompt, params = (
            random_prompts(length, [length])[0],
            params_of(max_tokens=6, temperature=1.0, n=4, seed=1),
        )
        alone.hold(engine.generate([prompt], params)[0], prompt, params)
        assert len(copies) == expected, "of four siblings the last has the block for itself"
        copies.clear()


@pytest.mark.parametrize(
    "options",
    [
        dict(max_num_seqs=4),
        dict(num_slots=32),
        dict(num_slots=32, enable_prefix_caching=True),
        dict(num_slots=32, block_size=1, max_num_seqs=4, max_num_batched_tokens=4),
        dict(allocator="reserve_max", max_model_len=32, num_slots=64),
        dict(allocator="reserve_max", max_model_len=32, num_slots=32, max_num_seqs=4),
    ],
    ids=str,
)
def test_siblings_that_find_no_place_come_later(tiny_model, alone, options):
    """Three requests of four outputs: never all of them at once."""
    engine = make(tiny_model, **options)
    requests = [
        (prompt, params_of(max_tokens=9, temperature=0.9, n=4, seed=seed))
        for seed, prompt in enumerate(random_prompts(4, [11, 18, 4]))
    ]
    ids = [engine.add_request(*request) for request in requests]
    most = 0

    def watch(outputs):
        nonlocal most
        most = max(most, engine.stats.num_running)

    done = drain(engine, watch)
    assert most < 12 and (engine.stats.num_preemptions > 0) == (
        options.get("num_slots") == 32 and "allocator" not in options
    )
    for request_id, (prompt, params) in zip(ids, requests, strict=True):
        alone.hold(done[request_id], prompt, params)
    assert_all_is_given_back(engine)


def test_greedy_siblings_are_all_the_same(tiny_model, alone):
    params = params_of(max_tokens=5, n=3)
    (output,) = make(tiny_model).generate([[5, 9, 2]], params)
    alone.hold(output, [5, 9, 2], params)


# -- prefix caching ---------------------------------------------------------------------------------------------


def shared_length(one, other):
    return next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


@pytest.mark.parametrize("block_size", [1, 3, 4, 16])
def test_cached_tokens_are_whole_blocks_of_what_was_computed_before_and_never_all(
    tiny_model, alone, block_size
):
    engine = make(tiny_model, 2048, block_size=block_size, enable_prefix_caching=True)
    base, params = random_prompts(5, [48])[0], params_of(max_tokens=5)
    computed, total, found = [], 0, set()
    prompts = [
        base[:20],
        base[:20],
        base[:16],
        base[:17],
        base,
        [*base[:33], 1, 2],
        [7, *base[:20]],
        base[:1],
    ]
    prompts += [base[:48], [*base[:20], *alone.answer(base[:20], params)]]  # goes on from an answer
    for prompt in prompts:
        (output,) = engine.generate([prompt], params)
        alone.hold(output, prompt, params)
        longest = max((shared_length(prompt, text) for text in computed), default=0)
        expected = min(longest, len(prompt) - 1) // block_size * block_size
        assert output.num_cached_tokens == expected
        total += expected
        found.add(expected)
        assert engine.stats.num_cached_tokens == total
        computed.append([*prompt, *output.outputs[0].token_ids[:-1]])  # the last one has no keys yet
    assert len(found) > 2
    assert_all_is_given_back(engine)


def test_without_caching_nothing_is_taken_over(tiny_model):
    engine = make(tiny_model)
    outputs = [engine.generate([[5, 9, 2, 1, 7, 7, 7, 8, 9]], params_of())[0] for _ in range(2)]
    assert [output.num_cached_tokens for output in outputs] == [
        0,
        0,
    ] and engine.allocator.pool.num_cached == 0


def test_a_prefix_is_shared_with_one_who_still_runs(tiny_model, alone):
    engine = make(tiny_model, enable_prefix_caching=True)
    pool = engine.allocator.pool
    prompt, params = random_prompts(6, [17])[0], params_of(max_tokens=9)
    first = engine.add_request(prompt, params)
    engine.step()
    in_use = pool.num_blocks - pool.num_free
    second = engine.add_request(prompt, params)
    engine.step()
    assert pool.num_blocks - pool.num_free == in_use + 1, (
        "four blocks of the prompt are shared, the fifth is not"
    )
    done = drain(engine)
    for request_id, cached in [(first, 0), (second, 16)]:
        alone.hold(done[request_id], prompt, params)
        assert done[request_id].num_cached_tokens == cached


def test_a_cached_block_reaches_only_those_whose_tokens_are_the_same(tiny_model, alone):
    prompt, params = random_prompts(7, [18])[0], params_of(max_tokens=6)
    other_first, other_last, shifted = (
        [prompt[0] + 1, *prompt[1:]],
        [*prompt[:3], 96, *prompt[4:]],
        prompt[4:],
    )
    swapped = prompt[4:8] + prompt[:4] + prompt[8:]
    for other in (other_first, other_last, shifted, swapped, prompt[:4]):
        engine = make(tiny_model, enable_prefix_caching=True)
        engine.generate([prompt], params)
        engine.store.keys.fill_(torch.nan)
        engine.store.values.fill_(torch.nan)
        (output,) = engine.generate([other], params)
        alone.hold(output, other, params)
        assert output.num_cached_tokens == 0
    (output,) = engine.generate([[*prompt[:8], 1, 2]], params)
    assert output.num_cached_tokens == 8
    with pytest.raises(AssertionError, match="below the likeliest"):  # so the poison does reach who shares
        alone.hold(output, [*prompt[:8], 1, 2], params)


COLLIDING = {
    "all alike": lambda parent, tokens: 0,
    "by depth": lambda parent, tokens: 0 if parent is None else parent + 1,
    "one of three": lambda parent, tokens: hash((parent, tokens)) % 3,
}


@pytest.mark.parametrize("name", COLLIDING)
def test_texts_that_have_the_same_hash_are_told_apart(tiny_model, alone, monkeypatch, name):
    monkeypatch.setattr(block_pool, "hash_block", COLLIDING[name])
    for num_slots in (64, 1024):
        engine = make(tiny_model, num_slots, enable_prefix_caching=True)
        for order_seed in range(2):
            for (prompt, params), output in serve(engine, sampled_traffic(), order_seed):
                alone.hold(output, prompt, params)
        assert_all_is_given_back(engine)
    assert engine.stats.num_cached_tokens > 0


@pytest.mark.parametrize("name", COLLIDING)
def test_a_block_is_found_behind_its_own_parent_only(tiny_model, alone, monkeypatch, name):
    monkeypatch.setattr(block_pool, "hash_block", COLLIDING[name])
    engine, params = make(tiny_model, enable_prefix_caching=True), params_of(max_tokens=6)
    one, two, three = random_prompts(22, [4, 4, 4])
    for prompt in ([*one, 7], [*two, *three, 7], [*one, *three, 7], [*one, *one, *one, 7]):
        alone.hold(engine.generate([prompt], params)[0], prompt, params)


def test_what_is_cached_gives_way_to_those_who_run(tiny_model, alone):
    engine = make(tiny_model, 64, enable_prefix_caching=True)
    params, prompts = params_of(max_tokens=4), random_prompts(8, [21] * 6)
    cached = [engine.generate([prompt], params)[0].num_cached_tokens for prompt in prompts]
    assert cached == [0] * 6
    assert engine.generate([prompts[5]], params)[0].num_cached_tokens == 20, "the last one is still there"
    assert engine.generate([prompts[0]], params)[0].num_cached_tokens == 0, "the first has been overwritten"
    for prompt in prompts * 2:
        alone.hold(engine.generate([prompt], params)[0], prompt, params)
        engine.allocator.pool.check([])
    (whole,) = engine.generate([[1] * 60], params_of(max_tokens=4))  # takes every block there is
    alone.hold(whole, [1] * 60, params_of(max_tokens=4))


def test_the_preempted_take_over_what_they_had_computed(tiny_model, alone):
    """All prompts differ: who takes over anything takes it from itself."""
    engine = make(tiny_model, 64, enable_prefix_caching=True)
    prompts, params = random_prompts(9, [12, 14, 9, 17, 11]), params_of(max_tokens=18)
    ids = [engine.add_request(prompt, params) for prompt in prompts]
    done = drain(engine)
    assert engine.stats.num_preemptions > 0 and engine.stats.num_cached_tokens > 0
    for request_id, prompt in zip(ids, prompts, strict=True):
        alone.hold(done[request_id], prompt, params)
    assert_all_is_given_back(engine)


def test_cached_tokens_of_a_preempted_request_are_whole_blocks_and_not_all_of_its_prompt(tiny_model):
    engine = make(tiny_model, 40, enable_prefix_caching=True)
    prompts = random_prompts(9, [9, 12, 14, 8])
    outputs = engine.generate(prompts, params_of(max_tokens=18))
    assert engine.stats.num_preemptions > 0
    cached = [output.num_cached_tokens for output in outputs]
    assert all(count % 4 == 0 for count in cached), f"{cached}: no whole blocks"
    assert all(count < len(prompt) for count, prompt in zip(cached, prompts, strict=True)), cached


# -- how requests end -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("enable_prefix_caching", [False, True])
def test_a_text_ends_at_any_end_token_and_says_so(tiny_model, alone, enable_prefix_caching):
    requests = [(prompt, params_of(max_tokens=12)) for prompt in random_prompts(10, [3, 9, 14, 5, 6])]
    free = [alone.answer(*request) for request in requests]
    eos = (
        free[0][4],
        free[2][0],
        free[3][11],
    )  # in the middle, at the very first, and where max_tokens ends it, too
    model = with_eos(tiny_model, *eos)
    reasons = set()
    for temperature, n in [(0.0, 1), (1.0, 3)]:
        engine = make(model, 64, enable_prefix_caching=enable_prefix_caching)
        mixed = [
            (prompt, params_of(max_tokens=12, ignore_eos=ignore, temperature=temperature, n=n, seed=2))
            for prompt, _ in requests
            for ignore in (False, True)
        ]
        for (prompt, params), output in serve(engine, mixed, order_seed=0):
            alone.hold(output, prompt, params, eos)
            reasons |= {(params.ignore_eos, each.finish_reason) for each in output.outputs}
        assert_all_is_given_back(engine)
    assert reasons == {(False, "stop"), (False, "length"), (True, "length")}


def test_an_end_token_in_the_prompt_ends_nothing(tiny_model, alone):
    (output,) = make(with_eos(tiny_model, 7)).generate([[7, 5, 7]], SamplingParams(max_tokens=3))
    alone.hold(output, [7, 5, 7], SamplingParams(max_tokens=3), eos=(7,))


@pytest.mark.parametrize("n", [1, 3])
def test_one_token_is_made_by_the_step_that_computes_the_prompt(tiny_model, alone, n):
    params = params_of(max_tokens=1, temperature=1.0, n=n, seed=1)
    for options in ({}, dict(num_slots=8), dict(allocator="reserve_max", max_model_len=8, num_slots=8)):
        engine = make(tiny_model, **options)
        request_id = engine.add_request([5, 9, 2, 1, 1, 3, 4], params)
        (output,) = engine.step()
        assert output.request_id == request_id
        alone.hold(output, [5, 9, 2, 1, 1, 3, 4], params)
        assert_all_is_given_back(engine)
        assert engine.step() == []


def llama_tokenizer():
    """Words, and a template that puts a token in front, as the tokenizers of Llama checkpoints do."""
    words = {"<s>": 0, "</s>": 1, "one": 2, "two": 3}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="one"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer


def test_a_prompt_is_encoded_as_it_stands(tiny_model):
    engine = make(tiny_model)
    engine.tokenizer = llama_tokenizer()
    assert engine.encode("<s> two </s> two") == [0, 3, 1, 3], "special tokens are recognised"
    assert engine.encode("one two") == [2, 3], "and none is added"


def test_text_leaves_special_tokens_out():
    completion = Completion(0, [2, 3, 1], "stop", llama_tokenizer())
    assert completion.text == "one two"


def in_the_middle(model, where, **options):
    """An engine with three requests that run, and the one that will be aborted: (engine, others, its id)."""
    engine = make(model, **dict(max_num_batched_tokens=16, max_num_seqs=6, num_slots=128) | options)
    requests = [(prompt, params_of(max_tokens=12)) for prompt in random_prompts(11, [5, 3])]
    victim = params_of(max_tokens=12, temperature=1.0, seed=1, n=4 if "siblings" in where else 1)
    others = {}
    if where == "the siblings wait":  # two of them; the others run
        requests *= 2
    if where == "behind others":
        requests += [(prompt, params_of(max_tokens=60)) for prompt in random_prompts(12, [60])]
    for prompt, params in requests:
        others[engine.add_request(prompt, params)] = prompt, params
    for _ in range(4):
        engine.step()
    prompt = random_prompts(13, [50 if where in ("behind others", "chunk") else 6])[0]
    return engine, others, engine.add_request(prompt, victim), prompt


STAGES = ["just added", "chunk", "behind others", "decoding", "siblings run", "the siblings wait"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("enable_prefix_caching", [False, True])
def test_an_abort_frees_all_at_once_and_harms_nobody(tiny_model, alone, stage, enable_prefix_caching):
    engine, others, victim, prompt = in_the_middle(
        tiny_model, stage, enable_prefix_caching=enable_prefix_caching
    )
    done = {}
    for _ in range({"just added": 0, "chunk": 2, "behind others": 1}.get(stage, 3)):
        done |= {output.request_id: output for output in engine.step() if output.finished}
    keys = [key for key, sequence in engine.sequences.items() if sequence.request_id == victim]
    running = {key: engine.scheduler.running[key] for key in keys if key in engine.scheduler.running}
    if stage == "chunk":
        (progress,) = running.values()
        assert 0 < progress.num_computed < len(prompt)
    else:
        expected = {"just added": (0, 1), "behind others": (0, 1), "decoding": (1, 0), "siblings run": (4, 0)}
        expected |= {"the siblings wait": (2, 2)}
        assert (len(running), len(keys) - len(running)) == expected[stage]
    mine = {block for key in running for block in engine.allocator.tables[key].block_ids}
    free = engine.allocator.pool.num_free
    engine.abort(victim)
    assert engine.allocator.pool.num_free == free + len(mine), "no other request shares them"
    engine.allocator.pool.check(table.block_ids for table in engine.allocator.tables.values())
    with pytest.raises(ValueError, match=f"request {victim} is unknown or finished"):
        engine.abort(victim)
    done |= drain(engine, lambda outputs: [victim in (o.request_id for o in outputs) and pytest.fail()])
    assert done.keys() == others.keys()
    for request_id, (text, params) in others.items():
        alone.hold(done[request_id], text, params)
    assert_all_is_given_back(engine)


@pytest.mark.parametrize("steps", [0, 1, 4, 9])
def test_an_abort_on_slabs_frees_the_slab_and_its_next_owner_sees_nothing_of_it(tiny_model, alone, steps):
    engine = make(tiny_model, 120, allocator="reserve_max", max_model_len=60, max_num_batched_tokens=9)
    long, short = random_prompts(14, [40, 3])
    params = params_of(max_tokens=18)
    first = engine.add_request(long, params)
    for _ in range(6):
        engine.step()
    victim = engine.add_request(random_prompts(15, [30])[0], params_of(max_tokens=20, temperature=1.0, n=2))
    for _ in range(steps):
        engine.step()
    free, cache = engine.stats.slots_free, engine.store.cache
    for numbers in (cache.keys, cache.values):  # it went wrong: what it has written is poison
        numbers[:, 1, : cache.length(1)] = torch.nan
    engine.abort(victim)
    assert engine.stats.slots_free == 60 and free == (60 if steps == 0 else 0)
    second = engine.add_request(short, params)  # shorter than the one beside it, which it is padded to
    done = drain(engine)
    alone.hold(done[first], long, params)
    alone.hold(done[second], short, params)
    assert_all_is_given_back(engine)


def test_only_requests_that_are_at_work_can_be_aborted(tiny_model):
    engine = make(tiny_model)
    request_id = engine.add_request([5, 9], params_of(max_tokens=2))
    for unknown in (request_id + 1, -1):
        with pytest.raises(ValueError, match=f"request {unknown} is unknown or finished"):
            engine.abort(unknown)
    drain(engine)
    with pytest.raises(ValueError, match=f"request {request_id} is unknown or finished"):
        engine.abort(request_id)


@pytest.mark.parametrize(
    "options", [dict(num_slots=64), dict(num_slots=64, enable_prefix_caching=True)], ids=str
)
def test_outputs_grow_step_by_step_and_those_handed_out_stay_as_they_are(tiny_model, alone, options):
    engine, requests, handed_out, latest = make(tiny_model, **options), {}, [], {}

    def watch(outputs):
        assert len({output.request_id for output in outputs}) == len(outputs)
        for output in outputs:
            prompt, params = requests[output.request_id]
            assert output.prompt_token_ids == prompt
            assert [each.index for each in output.outputs] == list(range(params.n))
            before = latest.get(output.request_id, [[]] * params.n)
            now = [each.token_ids for each in output.outputs]
            assert all(new[: len(old)] == old for old, new in zip(before, now, strict=True))
            growth = [len(new) - len(old) for old, new in zip(before, now, strict=True)]
            assert set(growth) <= {0, 1} and 1 in growth, "who is named has made a token, and one a step"
            ended = [each.finish_reason is not None for each in output.outputs]
            assert output.finished == all(ended) and ended == [len(new) == params.max_tokens for new in now]
            latest[output.request_id] = now
            handed_out.append((output, copy.deepcopy(output), repr(output)))

    for prompt, params in sampled_traffic():
        requests[engine.add_request(prompt, params)] = prompt, params
        watch(engine.step())
    drain(engine, watch)
    assert latest.keys() == requests.keys()
    for output, then, text in handed_out:
        assert output == then and repr(output) == text, "it changed after it was handed out"


def slots_by_hand(engine):
    """(used, reserved, free), counted slot by slot: a slot is used once its token went through the model."""
    holding, owned = set(), set()
    for key, progress in engine.scheduler.running.items():
        if hasattr(engine.allocator, "pool"):
            size = engine.allocator.pool.block_size
            mine = [b * size + i for b in engine.allocator.tables[key].block_ids for i in range(size)]
        else:
            slab = engine.allocator.slabs[key]
            mine = range(slab.offset, slab.offset + engine.max_model_len)
        owned |= set(mine)
        holding |= set(mine[: progress.num_computed])
    return len(holding), len(owned - holding), engine.allocator.num_slots - len(owned)


@pytest.mark.parametrize("max_num_batched_tokens", [8, 512])
@pytest.mark.parametrize(
    "options",
    [
        dict(num_slots=64),
        dict(num_slots=1024, block_size=16),
        dict(num_slots=64, enable_prefix_caching=True),
        dict(num_slots=190, allocator="reserve_max", max_model_len=60),
    ],
    ids=str,
)
def test_stats_are_right_at_every_step(tiny_model, options, max_num_batched_tokens):
    engine = make(tiny_model, max_num_batched_tokens=max_num_batched_tokens, **options)
    preemptions = 0

    def watch(outputs):
        stats = engine.stats
        used, reserved, free = slots_by_hand(engine)
        assert used + reserved + free == engine.allocator.num_slots
        assert (stats.slots_used, stats.slots_reserved, stats.slots_free) == (used, reserved, free)
        running, waiting = set(engine.scheduler.running), set(engine.scheduler.waiting)
        assert (stats.num_running, stats.num_waiting) == (len(running), len(waiting))
        assert running | waiting == set(engine.sequences) and not running & waiting
        assert stats.num_running <= 8 and stats.num_preemptions >= preemptions

    watch([])
    for prompt, params in sampled_traffic():
        engine.add_request(prompt, params)
        watch(engine.step())
        preemptions = engine.stats.num_preemptions
    drain(engine, watch)
    assert engine.stats.slots_free == engine.allocator.num_slots


@pytest.mark.parametrize("moment", ["before it begins", "in a layer", "scores", "draws"])
@pytest.mark.parametrize("name", ["plenty", "short of slots, caching", "chunks", "three slabs, chunks"])
def test_a_step_that_was_interrupted_can_be_done_again(tiny_model, alone, monkeypatch, name, moment):
    """Who stops a cell of a notebook in the middle of a step goes on with the next."""
    engine, done = make(copy.copy(tiny_model), **CROWDED[name]), {}
    owner, function = {
        "before it begins": (engine.store, "begin_step"),
        "in a layer": (engine.store, "attend"),
        "scores": (engine.model, "logits"),
        "draws": (course_lib.serving.engine, "choose"),
    }[moment]
    whole, dice, interrupted = getattr(owner, function), random.Random(0), 0

    def perhaps(*arguments):
        nonlocal interrupted
        if dice.random() < 0.4:
            interrupted += 1
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(owner, function, perhaps)
    ids = {engine.add_request(*request): request for request in sampled_traffic()}
    for _ in range(1000):
        try:
            done |= {output.request_id: output for output in engine.step() if output.finished}
        except KeyboardInterrupt:
            continue
    assert interrupted > 5 and not engine.has_unfinished()
    for request_id, (prompt, params) in ids.items():
        alone.hold(done[request_id], prompt, params)
    assert_all_is_given_back(engine)


# -- what is refused --------------------------------------------------------------------------------------------

BAD_REQUESTS = {
    "no token": ([], {}, "the prompt is empty"),
    "no text": ("", {}, "the prompt is empty"),
    "negative": ([5, -1], {}, "-1 is no token: they go from 0 to 96"),
    "too large": ([97], {}, "97 is no token: they go from 0 to 96"),
    "bool": ([5, True], {}, "True is no token"),
    "float": ([5.0], {}, "5.0 is no token"),
    "a token of text": ("5 97", {}, "97 is no token"),
    "too long": (
        [5] * 100,
        dict(max_tokens=29),
        "100 tokens and max_tokens 29 are 129: .* max_model_len 128",
    ),
    "prompt too long": ([5] * 128, dict(max_tokens=1), "128 tokens and max_tokens 1 are 129"),
    "more than the cache": ([5] * 60, dict(max_tokens=5), "65 tokens needs 17 blocks of 4; there are 16"),
    "too many outputs": ([5], dict(n=9), "n 9 is more than max_num_seqs 8"),
}


def state_of(engine):
    return (
        sorted(engine.jobs),
        sorted(engine.sequences),
        list(engine.scheduler.running),
        list(engine.scheduler.waiting),
        engine.stats,
        {key: list(table.block_ids) for key, table in engine.allocator.tables.items()},
    )


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_request_that_cannot_be_served_is_refused_and_nothing_changes(tiny_model, alone, name):
    prompt, changes, said = BAD_REQUESTS[name]
    engine, good = make(tiny_model, 64), params_of(max_tokens=9)
    first = engine.add_request([5, 9, 2], good)
    engine.step()
    second = engine.add_request([7], good)
    before = state_of(engine)
    with pytest.raises(ValueError, match=said):
        engine.add_request(prompt, SamplingParams(**changes))
    assert state_of(engine) == before
    third = engine.add_request([8, 8], good)
    assert third == second + 1, "no number was taken"
    done = drain(engine)
    for request_id, text in [(first, [5, 9, 2]), (second, [7]), (third, [8, 8])]:
        alone.hold(done[request_id], text, good)
    with pytest.raises(ValueError, match=said):
        engine.generate([[5], prompt, [6]], [good, SamplingParams(**changes), good])
    assert_all_is_given_back(engine)


def test_the_longest_request_that_fits_is_served(tiny_model, alone):
    for engine in (make(tiny_model, 128), make(tiny_model, 128, allocator="reserve_max")):
        prompt, params = random_prompts(15, [120])[0], params_of(max_tokens=8)
        alone.hold(engine.generate([prompt], params)[0], prompt, params)


def test_generate_is_refused_while_others_are_at_work_or_params_are_too_few(tiny_model, alone):
    engine, params = make(tiny_model), params_of(max_tokens=3)
    with pytest.raises(ValueError, match="2 prompts and 1 params"):
        engine.generate([[5], [6]], [params])
    request_id = engine.add_request([5, 9, 2], params)
    with pytest.raises(ValueError, match="1 requests are at work"):
        engine.generate([[5]], params)
    alone.hold(drain(engine)[request_id], [5, 9, 2], params)


SLOT = 384  # bytes: keys and values of 3 layers with 2 heads of 8 numbers, in fp32

BAD_ENGINES = {
    "less than a block": (
        dict(kv_cache_bytes=4 * SLOT - 1),
        "1,535 is below one block of 4 tokens, 1,536 bytes",
    ),
    "less than a slab": (
        dict(kv_cache_bytes=128 * SLOT - 1, allocator="reserve_max"),
        "49,151 is below one slab of 128 tokens, 49,152 bytes",
    ),
    "no bytes": (dict(kv_cache_bytes=0), "kv_cache_bytes 0 is below one block"),
    "negative bytes": (dict(kv_cache_bytes=-(2**20)), "kv_cache_bytes -1,048,576 is below one block"),
    "allocator": (dict(allocator="reserve_pow2"), "unknown allocator 'reserve_pow2': paged or reserve_max"),
    "backend": (dict(attention_backend="cuda"), "unknown attention_backend 'cuda': auto, torch or triton"),
    "budget": (dict(max_num_batched_tokens=7), "max_num_batched_tokens 7 is below max_num_seqs 8"),
    "no budget": (dict(max_num_batched_tokens=0, max_num_seqs=1), "max_num_batched_tokens .*0"),
    "half a token": (dict(max_num_batched_tokens=9.5), "max_num_batched_tokens .* 9.5"),
    "a float": (dict(max_num_batched_tokens=64.0), "max_num_batched_tokens .* 64.0"),
    "no sequence": (dict(max_num_seqs=0), "max_num_seqs must be .* got 0"),
    "true sequences": (dict(max_num_seqs=True), "max_num_seqs must be .* got True"),
    "half a sequence": (dict(max_num_seqs=2.5), "max_num_seqs must be .* got 2.5"),
    "no length": (dict(max_model_len=0), "max_model_len must be .* got 0"),
    "beyond the model": (dict(max_model_len=257), "max_model_len 257 is beyond the model's context of 256"),
    "no block": (dict(block_size=0), "block_size must be .* got 0"),
    "a negative block": (dict(block_size=-4), "block_size must be .* got -4"),
    "half a block": (dict(block_size=2.5), "block_size must be .* got 2.5"),
    "slabs that are cached": (
        dict(allocator="reserve_max", enable_prefix_caching=True),
        "needs the paged allocator",
    ),
}


@pytest.mark.parametrize("name", BAD_ENGINES)
def test_an_engine_that_could_not_work_is_refused(tiny_model, name):
    changes, said = BAD_ENGINES[name]
    usual = dict(
        kv_cache_bytes=2**20, block_size=4, max_model_len=128, max_num_seqs=8, max_num_batched_tokens=64
    )
    with pytest.raises(ValueError, match=said):
        LLMEngine(tiny_model, Numbers(), **usual | changes)


def test_one_block_and_one_slab_are_enough(tiny_model, alone):
    usual = dict(max_model_len=8, max_num_seqs=2, max_num_batched_tokens=2)
    params = params_of(max_tokens=2, n=2, temperature=1.0, seed=1)
    for options in (dict(block_size=4), dict(allocator="reserve_max", max_model_len=4)):
        engine = LLMEngine(tiny_model, Numbers(), kv_cache_bytes=4 * SLOT, **usual | options)
        assert engine.allocator.num_slots == 4
        alone.hold(engine.generate([[5, 9]], params)[0], [5, 9], params)
        assert_all_is_given_back(engine)


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_tokens", value) for value in (0, -1, 2.0, True, None, "3")]
    + [("n", value) for value in (0, -2, 1.0, True)]
    + [("temperature", value) for value in (-0.1, math.nan, math.inf, "1", None, True)]
    + [("seed", value) for value in (1.5, "7", True)],
)
def test_sampling_params_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .* got {value!r}"):
        SamplingParams(**{name: value})


# -- beams ------------------------------------------------------------------------------------------------------


def slow_beams(alone, prompt, width, max_tokens, length_penalty, eos):
    """The same search with every text computed anew: ([(tokens, log probability)], the narrowest decision)."""
    alive, finished, gaps = [((), 0.0)], [], []

    def best_of(beams, count, score=lambda beam: beam[1]):
        beams = sorted(beams, key=score, reverse=True)
        if len(beams) > count:
            gaps.append(score(beams[count - 1]) - score(beams[count]))
        return beams[:count]

    def mean_score(beam):
        return beam[1] / len(beam[0]) ** length_penalty

    for _ in range(max_tokens):
        grown = [
            ((*tokens, token), total + gain)
            for tokens, total in alive
            for token, gain in enumerate(alone.logits([*prompt, *tokens]).double().log_softmax(-1).tolist())
        ]
        grown = best_of(grown, 2 * width)
        finished += [beam for beam in grown if beam[0][-1] in eos]
        alive = best_of([beam for beam in grown if beam[0][-1] not in eos], width)
        if not alive:
            break
    found = best_of(finished + alive, width, mean_score)
    gaps += [mean_score(one) - mean_score(next_one) for one, next_one in itertools.pairwise(found)]
    return found, min(gaps)


@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 2.0])
@pytest.mark.parametrize("block_size", [1, 3, 16])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_beams_are_those_of_a_search_without_a_cache(tiny_model, alone, width, block_size, length_penalty):
    for eos in [(), range(0, 97, 9), range(97)]:  # at the last, everything ends at once
        engine = make(
            with_eos(tiny_model, *eos), 512, block_size=block_size, enable_prefix_caching=width == 2
        )
        for prompt in random_prompts(19, [1, 5, 16]):
            expected, gap = slow_beams(alone, prompt, width, 6, length_penalty, eos)
            assert gap > 1e-3, "the reference itself should have no tie"
            found = beam_search(engine, prompt, width, 6, length_penalty=length_penalty)
            assert [tuple(beam.token_ids) for beam in found] == [tokens for tokens, _ in expected]
            for beam, (tokens, total) in zip(found, expected, strict=True):
                assert beam.log_probability == pytest.approx(total, abs=1e-3)
                assert beam.score == pytest.approx(total / len(tokens) ** length_penalty, abs=1e-3)
                assert beam.text == " ".join(map(str, tokens))
            assert_all_is_given_back(engine)


def test_a_single_beam_is_greedy(tiny_model, alone):
    engine = make(with_eos(tiny_model))
    for prompt in random_prompts(17, [3, 11]):
        (beam,) = beam_search(engine, prompt, 1, 15)
        assert beam.token_ids == alone.answer(prompt, params_of(max_tokens=15))


def test_beams_leave_the_engine_as_it_was(tiny_model, alone):
    engine, params = make(tiny_model, 64, enable_prefix_caching=True), params_of(max_tokens=6)
    prompt = random_prompts(18, [17])[0]
    engine.generate([prompt], params)
    beam_search(engine, prompt, 4, 8)
    for text in (prompt, [5, 9]):
        alone.hold(engine.generate([text], params)[0], text, params)
    assert_all_is_given_back(engine)


@pytest.mark.parametrize("enable_prefix_caching", [False, True])
def test_beams_that_find_no_block_give_all_back(tiny_model, alone, enable_prefix_caching):
    prompt, params = random_prompts(19, [9])[0], params_of(max_tokens=5)
    for num_slots in (8, 12, 16, 20, 24, 28):
        engine = make(tiny_model, num_slots, enable_prefix_caching=enable_prefix_caching)
        with pytest.raises(OutOfBlocks, match=f"free of {num_slots // 4}"):
            beam_search(engine, prompt, 5, 12)
        assert_all_is_given_back(engine)
        if num_slots > 14:
            alone.hold(engine.generate([prompt], params)[0], prompt, params)


def test_beams_need_an_idle_paged_engine_and_numbers_that_fit(tiny_model):
    engine = make(tiny_model)
    for width, count, said in [
        (0, 5, "beam_width must be .* got 0"),
        (True, 5, "beam_width must be .* got True"),
        (2.0, 5, "beam_width must be .* got 2.0"),
        (2, 0, "max_tokens must be .* got 0"),
        (2, -3, "max_tokens must be .* got -3"),
        (2, 126, "3 tokens and max_tokens 126 .* max_model_len 128"),
    ]:
        with pytest.raises(ValueError, match=said):
            beam_search(engine, [5, 9, 2], width, count)
    with pytest.raises(ValueError, match="the prompt is empty"):
        beam_search(engine, [], 2, 5)
    with pytest.raises(ValueError, match="97 is no token"):
        beam_search(engine, [97], 2, 5)
    with pytest.raises(ValueError, match="the engine must be paged"):
        beam_search(make(tiny_model, allocator="reserve_max"), [5], 2, 5)
    engine.add_request([5])
    with pytest.raises(ValueError, match="1 requests are at work"):
        beam_search(engine, [5], 2, 5)


# -- the kernels ------------------------------------------------------------------------------------------------


def test_tokens_through_the_kernels_are_those_of_the_request_alone(tiny_model, alone):
    kernels = pytest.importorskip("course_lib.attention.kernels", reason="no Triton here")
    if not kernels.INTERPRETED:
        pytest.skip("CPU tensors need Triton's interpreter")
    engine = make(tiny_model, 24, attention_backend="triton", max_num_seqs=4, max_num_batched_tokens=6)
    requests = [
        (prompt, params_of(max_tokens=4, n=n, temperature=temperature, seed=1))
        for prompt, (n, temperature) in zip(random_prompts(20, [7, 2]), [(1, 0.0), (3, 1.0)], strict=True)
    ]
    calls, kernel = [], kernels.paged_attention
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "paged_attention", lambda *args: [calls.append(1), kernel(*args)][1])
        ids = [engine.add_request(*request) for request in requests]
        done = drain(engine)
    assert len(calls) >= 3 * 3 and engine.stats.num_preemptions > 0
    for request_id, (prompt, params) in zip(ids, requests, strict=True):
        alone.hold(done[request_id], prompt, params)
    assert_all_is_given_back(engine)
