"""What one query of a real LLM reads from a paged cache."""

import ipywidgets as widgets
from tokenizers import Tokenizer

from course_lib.serving.model import LlamaModel
from course_lib.serving.static_batch import greedy
from course_lib.teaching import plots
from course_lib.teaching.explorers.bundle import LABEL, Explorer, picture_explorer
from course_lib.teaching.explorers.memory import HALF
from course_lib.teaching.recorder import Recorder


def block_reader(model: LlamaModel, tokenizer: Tokenizer, prompts: list[str], max_tokens: int) -> Explorer:
    """A real LLM continues some prompts on a paged cache; then choose a query, and see what it reads."""
    cache = Recorder(model.config, num_blocks=12, block_size=8)
    encoded = [tokenizer.encode(prompt).ids for prompt in prompts]
    answers = greedy(model, encoded, cache, max_tokens)
    tokens = {
        number: prompt + answer for number, (prompt, answer) in enumerate(zip(encoded, answers, strict=True))
    }
    texts = {number: [tokenizer.decode([token]) for token in ids] for number, ids in tokens.items()}
    names = [f"request {number}" for number in texts]
    sequence = widgets.SelectionSlider(options=names, description="query of", style=LABEL, layout=HALF)
    back = widgets.IntSlider(
        min=0, max=10, value=0, description="tokens before last", style=LABEL, layout=HALF
    )
    layer = widgets.IntSlider(
        min=0, max=model.config.num_layers - 1, value=15, description="layer", style=LABEL, layout=HALF
    )
    head = widgets.IntSlider(
        min=0,
        max=model.config.num_query_heads - 1,
        value=5,
        description="query head",
        style=LABEL,
        layout=HALF,
    )

    def draw() -> plots.Picture:
        chosen = names.index(sequence.value)
        position = cache.length(chosen) - 1 - back.value
        weights = cache.weights(layer.value, head.value, chosen, position)
        where = f"Layer {layer.value}, head {head.value}"
        return plots.block_reads(cache, texts, chosen, weights, where)

    return picture_explorer([sequence, back, layer, head], draw, per_row=2)
