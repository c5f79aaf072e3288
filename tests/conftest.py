"""What the tests share: few threads, a progress file of their own, a tiny random Llama, the real one."""

import json
import os

import pytest
import torch

# Without a GPU the kernels are interpreted. That must be said before triton is imported for the first time.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from course_lib.serving import load_model
from course_lib.serving.weights import DEFAULT_MODEL, WeightsError, cache_dir, find_checkpoint

# With as many threads as cores, torch stalls whenever anything else runs. One is steady.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def state_home(tmp_path, monkeypatch):
    """Nothing a test does is written into the user's own progress."""
    monkeypatch.setenv("COURSE_STATE_HOME", str(tmp_path / "state"))


TINY = dict(
    architectures=["LlamaForCausalLM"],
    model_type="llama",
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=8,
    rms_norm_eps=1e-5,
    rope_theta=10_000.0,
    max_position_embeddings=256,
    vocab_size=97,
    tie_word_embeddings=True,
    hidden_act="silu",
    eos_token_id=2,
)


def write_checkpoint(folder, **changes):
    """A random Llama in Hugging Face's own words, so that the reference is theirs and not ours."""
    transformers = pytest.importorskip("transformers", reason="the reference needs the test extra")
    config = transformers.LlamaConfig(**{**TINY, **changes})
    torch.manual_seed(7)
    model = transformers.LlamaForCausalLM(config).eval()
    for parameter in model.parameters():  # large enough for logits that are far apart
        torch.nn.init.normal_(parameter, std=0.35) if parameter.dim() > 1 else parameter.data.uniform_(
            0.5, 1.5
        )
    model.tie_weights()
    model.save_pretrained(folder)
    tokenizer = {"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], **tokenizer}))
    return model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """(folder, Hugging Face's model) of a tiny random Llama."""
    folder = tmp_path_factory.mktemp("tiny")
    return folder, write_checkpoint(folder)


@pytest.fixture(scope="session")
def tiny_model(tiny):
    return load_model(str(tiny[0]))[0]


@pytest.fixture(scope="session")
def real():
    """(model, tokenizer) of the course's LLM. Fetched if need be; without a network the tests that use it skip."""
    try:
        find_checkpoint(DEFAULT_MODEL)
    except WeightsError as error:
        pytest.skip(f"the course's LLM is not at {cache_dir()} and cannot be fetched: {error}")
    return load_model()
