"""Real models and GPUs for the KV calculator. The numbers and their sources are in presets.toml."""

import tomllib
from dataclasses import dataclass
from importlib.resources import files

from course_lib.serving.cost import kv_bytes_per_token

USABLE = (
    0.9  # share of a GPU's memory for weights and cache; vLLM's gpu_memory_utilization: 0.92 in version 0.32
)


@dataclass(frozen=True)
class ModelPreset:
    """What the size of a model's KV cache depends on."""

    name: str
    layers: int
    query_heads: int
    kv_heads: int
    head_dim: int
    parameters: int
    max_context: int
    attention: str  # MHA, GQA, MQA or MLA
    source: str
    sliding_window: int = 0  # tokens that a sliding layer looks back; 0: no such layers
    num_sliding_layers: int = 0
    kv_lora_rank: int = 0  # MLA: one compressed vector a token and layer, shared by all heads
    rope_head_dim: int = 0
    note: str = ""

    def kv_bytes(self, context_len: int, bytes_per_number: int) -> int:
        """Bytes of cache that one request of `context_len` tokens needs.

        Example:
            >>> load_presets()[0]["OPT-13B"].kv_bytes(1, bytes_per_number=2)
            819200
        """
        if self.kv_lora_rank:
            return context_len * self.layers * (self.kv_lora_rank + self.rope_head_dim) * bytes_per_number
        per_layer = kv_bytes_per_token(1, self.kv_heads, self.head_dim, bytes_per_number)
        full = (self.layers - self.num_sliding_layers) * context_len
        sliding = self.num_sliding_layers * min(context_len, self.sliding_window)
        return per_layer * (full + sliding)


@dataclass(frozen=True)
class GpuPreset:
    """A GPU by its data sheet."""

    name: str
    memory_gb: float  # decimal GB, as printed
    bandwidth_gb_s: float
    fp16_tflops: float  # dense
    source: str
    note: str = ""

    @property
    def usable_bytes(self) -> int:
        """Bytes for weights and KV cache: the rest is for activations and the CUDA context."""
        return int(self.memory_gb * 1e9 * USABLE)


def load_presets() -> tuple[dict[str, ModelPreset], dict[str, GpuPreset]]:
    """All presets by name, in the order of the file."""
    raw = tomllib.loads(files("course_lib.teaching").joinpath("presets.toml").read_text(encoding="utf-8"))
    models = {row["name"]: ModelPreset(**row) for row in raw["model"]}
    return models, {row["name"]: GpuPreset(**row) for row in raw["gpu"]}


@dataclass(frozen=True)
class Budget:
    """How a GPU's memory divides between one copy of a model and its KV cache."""

    model: ModelPreset
    gpu: GpuPreset
    context_len: int
    batch: int
    bytes_per_number: int  # of weights and cache alike
    num_gpus: int = 1

    @property
    def usable_bytes(self) -> int:
        return self.num_gpus * self.gpu.usable_bytes

    @property
    def weight_bytes(self) -> int:
        return self.model.parameters * self.bytes_per_number

    @property
    def bytes_per_request(self) -> int:
        return self.model.kv_bytes(self.context_len, self.bytes_per_number)

    @property
    def kv_bytes(self) -> int:
        return self.batch * self.bytes_per_request

    @property
    def requests_that_fit(self) -> int:
        """Whole requests of this context beside the weights; 0 if not even the weights fit."""
        return max(0, self.usable_bytes - self.weight_bytes) // self.bytes_per_request
