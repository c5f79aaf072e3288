"""A real LLM answering requests. Shapes use the legend of course_lib/attention."""

from course_lib.serving.beam_search import Beam, beam_search
from course_lib.serving.engine import Completion, EngineStats, LLMEngine, RequestOutput
from course_lib.serving.kv_cache import (
    ContiguousCache,
    GrowingCache,
    NoCache,
    PagedCache,
    block_table_tensors,
)
from course_lib.serving.model import LlamaConfig, LlamaModel
from course_lib.serving.sampling import SamplingParams
from course_lib.serving.static_batch import greedy, greedy_steps
from course_lib.serving.weights import WeightsError, chat_prompt, load_model

__all__ = [
    "Beam",
    "Completion",
    "ContiguousCache",
    "EngineStats",
    "GrowingCache",
    "LLMEngine",
    "LlamaConfig",
    "LlamaModel",
    "NoCache",
    "PagedCache",
    "RequestOutput",
    "SamplingParams",
    "WeightsError",
    "beam_search",
    "block_table_tensors",
    "chat_prompt",
    "greedy",
    "greedy_steps",
    "load_model",
]
