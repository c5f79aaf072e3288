"""The interview questions: complete, spoken, and every number in them computed from course_lib.

tests/question_numbers_a.py and _b.py say what computes each numeral; a numeral that stands there for nothing, or that
stands in a text and is computed by nothing, fails.
"""

import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import question_numbers_a
import question_numbers_b

import course_lib.teaching

QUESTIONS = tomllib.loads(
    (Path(course_lib.teaching.__file__).parent / "questions.toml").read_text(encoding="utf-8")
)["questions"]
BY_ID = {question["id"]: question for question in QUESTIONS}
NUMBERS = question_numbers_a.NUMBERS | question_numbers_b.NUMBERS
PUBLISHED = question_numbers_a.PUBLISHED
for quoting in question_numbers_a.QUOTE_18A:
    NUMBERS[quoting] = question_numbers_a.SLOWER | NUMBERS.get(quoting, {})

TEXTS = ("ask", "sentence", "paragraph", "depth", "problem", "motivation", "mechanism", "real")
# The gain, in the same words wherever it is told.
HEADLINE = (
    "2 to 4 times the throughput at the same latency (abstract); "
    "2.7 to 8 times Orca (Max)'s rate on ShareGPT (Fig 12)"
)
LONG = "in_five_minutes"  # the one question whose paragraph is a speech

# What interviewers ask, each with the question that practises it.
ASKED = {
    "why cache K and V and not Q": "why_k_and_v",
    "KV bytes per token, a 70B GQA model at 8K": "kv_bytes_70b",
    "GQA, MQA, MLA and the cache": "gqa_mqa_mla",
    "prefill compute-bound, decode bandwidth-bound": "prefill_vs_decode",
    "reserved, internal and external waste": "three_wastes",
    "unknown output length": "unknown_length",
    "32K requests in 80 GB beside 13 GB": "requests_32k",
    "PagedAttention in one minute": "in_one_minute",
    "PagedAttention in five minutes": "in_five_minutes",
    "token 17 to a slot": "token_17",
    "the bound on waste": "waste_bound",
    "the OS analogy": "os_analogy",
    "what the indirection costs": "indirection_cost",
    "slot mapping and who writes it": "slot_mapping",
    "choosing the block size": "block_size",
    "K/V layouts": "kv_layouts",
    "PagedAttention and FlashAttention": "paged_and_flash",
    "how online softmax merges blocks": "online_softmax",
    "when a reference count exceeds one": "refcount_above_one",
    "when copy-on-write fires": "when_copy_on_write",
    "prefix caching and the parent hash": "parent_hash",
    "comparing tokens after a hit": "compare_tokens_after_hit",
    "hash blocks against a radix tree": "hash_or_radix_tree",
    "freeing in reverse": "free_in_reverse",
    "static and continuous batching": "static_and_continuous",
    "running out: swap or recompute, and the victim": "out_of_blocks",
    "chunked prefill": "chunked_prefill",
    "from HTTP to token": "http_to_token",
    "free blocks fall daily with no load": "leak_without_load",
    "wrong only on cache hits": "wrong_on_hits",
    "a 4K system prompt at 1,000 users a minute": "system_prompt_saving",
    "when PagedAttention does not help": "when_paging_does_not_help",
    "why the 2023 kernel served decode only": "decode_only_2023",
    "speculative decoding and blocks": "speculative_rollback",
    "prefill/decode disaggregation": "disaggregation",
    "KV offload tiers": "offload_tiers",
    "block tables under CUDA graphs": "cuda_graphs",
    "vLLM, SGLang and TensorRT-LLM": "three_engines",
    "vAttention": "vattention",
    "how many blocks, and max_model_len above the cache": "blocks_at_start",
    "throughput falls as load rises": "throughput_falls",
    "a hit rate that is too low": "low_hit_rate",
    "write allocate, append and free": "write_the_pool",
    "the largest batch within a time per token": "largest_batch",
}
# One for each point of notebook 09.
OF_NOTEBOOK_09 = {
    "the paper and vLLM today": "paper_and_today",
    "names": "our_names",
    "why the 2023 kernel served decode": "decode_only_2023",
    "tokens that are taken back": "speculative_rollback",
    "prefill/decode disaggregation": "disaggregation",
    "offload tiers": "offload_tiers",
    "CUDA graphs": "cuda_graphs",
    "tensor parallel": "tensor_parallel_table",
    "several machines": "many_machines",
    "FP8": "fp8_cache",
    "MLA": "mla_and_blocks",
    "windows and hybrid models": "sliding_windows",
    "when paging does not help": "when_paging_does_not_help",
    "vAttention": "vattention",
    "engines compared": "three_engines",
    "choosing": "choose_engine",
}

NUMERAL = re.compile(r"\d[\d,]*(?:\.\d+)?")
PART_OF_A_NAME = re.compile(
    r"[^\W\d]$|[^\W\d]-$|\d\.$|[^\W\d]\d*\.\d*$|[^\W\d]-[\d.]*$|O\($|\bFig $"
)  # before a numeral
UNIT_OF_A_NAME = re.compile(r"(?!x\b)[^\W\d]")  # after it: 70B, 8K, 3rd; but 1.67x counts
YEAR = re.compile(r"(?:19|20)\d\d")


def numerals(text):
    """Numerals that stand for themselves: not those of H100, fp16, V1, 70B, Llama-3.1-70B, O(1), Fig 12, nor a year."""
    found = []
    for match in NUMERAL.finditer(text):
        numeral = match.group().rstrip(",")
        before, after = text[: match.start()], text[match.start() + len(numeral) :]
        named = PART_OF_A_NAME.search(before) or UNIT_OF_A_NAME.match(after)
        if not named and not YEAR.fullmatch(numeral):
            found.append(numeral)
    return found


def shown(numeral, value):
    """Whether a value, rounded to the digits that are shown, is the numeral."""
    plain = numeral.replace(",", "")
    digits = len(plain.partition(".")[2])
    return abs(float(value) - float(plain)) <= 0.5 * 10**-digits + 1e-9


def sentences(text):
    return len(re.findall(r"[.!?](?:[\"')]*)(?=\s|$)", text.strip()))


def texts_of(question):
    found = {field: question[field] for field in TEXTS}
    for number, follow_up in enumerate(question["follow_ups"], start=1):
        found[f"follow-up {number}"] = follow_up["answer"]
        found[f"ask of follow-up {number}"] = follow_up["ask"]
    return found


def test_the_rule_itself():
    text = "In 2023 an H100 with fp16 runs Llama-3.1-70B at 1.67x, 819,200 B a token, 20 to 26%, O(1), 8K, 4 KV heads"
    text += ", Fig 12."
    assert numerals(text) == ["1.67", "819,200", "20", "26", "4"]
    assert shown("1.67", 1.6749) and not shown("1.67", 1.676) and shown("819,200", 819_200)
    assert not shown("20", 20.6)


@pytest.mark.parametrize("question", QUESTIONS, ids=list(BY_ID))
def test_every_number_is_computed(question):
    mine, seen = NUMBERS.get(question["id"], {}), set()
    for field, text in texts_of(question).items():
        for numeral in numerals(text):
            seen.add(numeral)
            asked = "ask" in field  # a question may set its own numbers
            published = question["id"] in PUBLISHED.get(numeral, ((), ""))[0]
            assert asked or numeral in mine or published, f"{field}: nothing computes {numeral}: {text}"
    for numeral, compute in mine.items():
        assert numeral in seen, f"{numeral} is computed and stands nowhere"
        value = compute()
        assert shown(numeral, value), f"{numeral} stands there, computed is {value}"


@pytest.mark.parametrize("question", QUESTIONS, ids=list(BY_ID))
def test_it_can_be_said(question):
    assert sentences(question["sentence"]) == 1 and len(question["sentence"].split()) <= 42
    assert 3 <= sentences(question["paragraph"]) <= (14 if question["id"] == LONG else 6)
    for field, text in texts_of(question).items():
        assert text == " ".join(text.split()), f"{field} has stray white space"
        assert not re.search(r"[—–\U0001F300-\U0001FAFF]", text), f"{field}: {text}"


def test_one_headline_for_the_gain():
    told = [text for question in QUESTIONS for text in texts_of(question).values() if "2.7 to 8" in text]
    assert len(told) >= 5 and all(HEADLINE in text for text in told)
    assert not any(
        "two to four times" in text for question in QUESTIONS for text in texts_of(question).values()
    )


def test_a_candidate_speaks_and_not_a_course():
    for question in QUESTIONS:
        for field, text in texts_of(question).items():
            assert not re.search(r"(?i)\b(?:the|this) course\b|^course:|\bnotebook\b", text), (
                f"{field}: {text}"
            )


def test_enough_of_every_kind():
    assert len(BY_ID) == len(QUESTIONS) >= 80
    levels = Counter(question["level"] for question in QUESTIONS)
    assert min(levels[level] for level in ("screen", "onsite", "expert")) >= 15
    topics = Counter(question["topic"] for question in QUESTIONS)
    assert len(topics) == 9 and min(topics.values()) >= 3
    assert {question["lesson"] for question in QUESTIONS} >= {f"{number:02}" for number in range(1, 11)}


@pytest.mark.parametrize("point", [*ASKED.items(), *OF_NOTEBOOK_09.items()])
def test_what_is_asked_is_practised(point):
    assert point[1] in BY_ID


def test_numbers_belong_to_questions():
    assert NUMBERS.keys() <= BY_ID.keys()
    for numeral, (ids, _) in PUBLISHED.items():
        for id in ids:
            stands = {each for text in texts_of(BY_ID[id]).values() for each in numerals(text)}
            assert numeral in stands, f"{numeral} is published for {id}, where it does not stand"
