"""The decoder against Hugging Face's on the same checkpoint folder, and every cache against every other."""

import pytest
import torch

from conftest import write_checkpoint
from course_lib.serving import (
    ContiguousCache,
    GrowingCache,
    NoCache,
    PagedCache,
    chat_prompt,
    greedy,
    load_model,
)
from course_lib.serving.weights import ensure_default_checkpoint

RAGGED = [[5, 9, 2, 30], [7], [11, 3, 96, 4, 8, 1, 0, 55, 60], [40, 41]]


def hf_logits(hf_model, tokens):
    with torch.inference_mode():
        return hf_model(torch.tensor([tokens])).logits[0]


def hf_greedy(hf_model, prompt, new_tokens):
    tokens = list(prompt)
    for _ in range(new_tokens):
        tokens.append(int(hf_logits(hf_model, tokens)[-1].argmax()))
    return tokens[len(prompt) :]


def our_logits(model, sequences):
    """Logits of every token of a ragged batch in one forward pass."""
    cache = NoCache()
    positions = cache.begin_step({number: len(tokens) for number, tokens in enumerate(sequences)})
    flat = torch.tensor([token for tokens in sequences for token in tokens])
    return model.logits(model(flat, positions, cache)).split([len(tokens) for tokens in sequences])


def make_caches(config, num_sequences, max_len):
    slots = num_sequences * max_len
    return [
        NoCache(),
        GrowingCache(),
        ContiguousCache(config, num_sequences, max_len),
        PagedCache(config, slots // 4 + num_sequences, block_size=4),
    ]


def assert_same_tokens_or_tie(hf_model, prompt, ours, theirs):
    """design.md: greedy tokens are equal, except where the reference's own top two are within 1e-3."""
    for step, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a != b:
            log_probs = hf_logits(hf_model, prompt + theirs[:step])[-1].log_softmax(-1)
            gap = (log_probs.max() - log_probs[a]).item()
            assert gap < 1e-3, f"step {step}: token {a}, Hugging Face {b}, {gap:.4f} apart in log-probability"
            return


VARIANTS = {
    "tied": {},
    "untied": dict(tie_word_embeddings=False),
    "MHA": dict(num_key_value_heads=6),
    "MQA": dict(num_key_value_heads=1),
    "wide heads": dict(head_dim=16),
    "llama3 rope": dict(
        rope_scaling=dict(
            rope_type="llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=64,
        ),
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_equal_hugging_face_on_a_ragged_batch(name, tmp_path):
    hf_model = write_checkpoint(tmp_path, **VARIANTS[name])
    model, _ = load_model(str(tmp_path))
    sequences = [*RAGGED, list(range(90))]  # long enough to reach the stretched rope frequencies
    for tokens, logits in zip(sequences, our_logits(model, sequences), strict=True):
        torch.testing.assert_close(logits, hf_logits(hf_model, tokens), rtol=1e-4, atol=2e-4)


def test_greedy_tokens_equal_hugging_face_whatever_the_cache(tiny, tiny_model):
    _, hf_model = tiny
    expected = [hf_greedy(hf_model, prompt, 20) for prompt in RAGGED]
    for cache in make_caches(tiny_model.config, len(RAGGED), 40):
        for prompt, ours, theirs in zip(RAGGED, greedy(tiny_model, RAGGED, cache, 20), expected, strict=True):
            assert_same_tokens_or_tie(hf_model, prompt, ours, theirs)


def test_real_model_equals_hugging_face_token_for_token(real):
    transformers = pytest.importorskip("transformers", reason="the reference needs the test extra")
    model, tokenizer = real
    hf_model = transformers.AutoModelForCausalLM.from_pretrained(
        ensure_default_checkpoint(), dtype=torch.float32
    )
    questions = ["What is the capital of Italy?", "Name three colors, and say why you like each one.", "Hi!"]
    prompts = [tokenizer.encode(chat_prompt(question)).ids for question in questions]
    assert len({len(prompt) for prompt in prompts}) == 3, "the batch should be ragged"
    ours = greedy(model, prompts, ContiguousCache(model.config, 3, 64), 16)
    for prompt, tokens in zip(prompts, ours, strict=True):
        inputs = torch.tensor([prompt])
        mask = torch.ones_like(inputs)
        theirs = hf_model.generate(
            inputs, attention_mask=mask, max_new_tokens=16, min_new_tokens=16, do_sample=False
        )
        assert_same_tokens_or_tie(hf_model, prompt, tokens, theirs[0, len(prompt) :].tolist())


def test_real_tokenizer_folder_loads_in_transformers_and_agrees(real):
    transformers = pytest.importorskip("transformers", reason="the reference needs the test extra")
    theirs = transformers.AutoTokenizer.from_pretrained(ensure_default_checkpoint())
    text = chat_prompt("Naïve café costs 1234 €?\n\tYes 🙂")
    ours = real[1].encode(text).ids
    assert ours == theirs(text, add_special_tokens=False)["input_ids"]
    assert real[1].decode(ours, skip_special_tokens=False) == text
    chat = [{"role": "system", "content": ""}, {"role": "user", "content": "Hi"}]
    assert theirs.apply_chat_template(chat, tokenize=False, add_generation_prompt=True).endswith(
        chat_prompt("Hi")
    )


def test_real_model_knows_the_capital_of_italy(real):
    """Wrong rows of q and k, a wrong rope or a wrong vocabulary still load: only sense shows them."""
    model, tokenizer = real
    prompt = tokenizer.encode(chat_prompt("What is the capital of Italy?")).ids
    (answer,) = greedy(model, [prompt], GrowingCache(), 12, model.config.eos_token_ids)
    assert "Rome" in tokenizer.decode(answer)


def test_a_position_past_the_context_is_refused(tiny_model):
    cache = NoCache()
    positions = cache.begin_step({0: 257})
    with pytest.raises(ValueError, match="position 256 is past the model's context of 256"):
        tiny_model(torch.zeros(257, dtype=torch.int64), positions, cache)


def test_num_parameters_counts_a_tied_embedding_once(tiny, tiny_model):
    assert tiny_model.num_parameters == sum(p.numel() for p in tiny[1].parameters())
