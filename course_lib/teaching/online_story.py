"""Online softmax on the scores of a real LLM, tile by tile: what the stepper of notebook 06 shows.

python -m course_lib.teaching.online_story      # records the scores anew; needs the weights
"""

import json
import math
from dataclasses import dataclass
from importlib.resources import files

import torch

TEXT = (
    "The old sailor told the children a story about a whale that swallowed his boat, "
    "and the children did not believe the old"
)
# name -> (layer, query head) of SmolLM2-135M; the query is that of the last token
QUERIES = {"scores that rise": (11, 2), "the first token rules": (29, 2), "mixed": (2, 1)}
NUM_VALUES = 8  # numbers of each value vector that are kept, of 64
RECORDED = files("course_lib.teaching").joinpath("recorded", "queries.json")


@dataclass(frozen=True)
class Query:
    """One query of the model, and what it meets."""

    tokens: list[str]
    layer: int
    head: int
    scores: torch.Tensor  # [S], scaled
    values: torch.Tensor  # [S, NUM_VALUES]


@dataclass(frozen=True)
class State:
    """What online softmax remembers."""

    largest: float  # m
    total: float  # l
    mixed: torch.Tensor  # o: [D], not yet divided by the total
    shrink: float = 1.0  # what the last tile multiplied the old total and mixture by


def states(scores: torch.Tensor, values: torch.Tensor, tile: int, *, rescale: bool = True) -> list[State]:
    """The state before the first tile and after each.

    Args:
        scores, values: [S] and [S, D].
        tile: scores that arrive at a time.
        rescale: False shows what happens if the old sums are left as they are.

    Example:
        >>> found = states(torch.tensor([0.0, 1.0]), torch.ones(2, 1), tile=1)
        >>> [(state.largest, round(state.total, 3)) for state in found]
        [(-inf, 0.0), (0.0, 1.0), (1.0, 1.368)]
    """
    found = [State(-torch.inf, 0.0, torch.zeros(values.shape[1]))]
    for part, rows in zip(scores.split(tile), values.split(tile), strict=True):
        old = found[-1]
        largest = max(old.largest, part.max().item())
        shrink = math.exp(old.largest - largest) if rescale else 1.0
        weights = torch.exp(part - largest)
        total = old.total * shrink + weights.sum().item()
        found.append(State(largest, total, old.mixed * shrink + weights @ rows, shrink))
    return found


def load() -> dict[str, Query]:
    """The recorded queries, by name."""
    raw = json.loads(RECORDED.read_text(encoding="utf-8"))
    return {
        name: Query(
            raw["tokens"], row["layer"], row["head"], torch.tensor(row["scores"]), torch.tensor(row["values"])
        )
        for name, row in raw["queries"].items()
    }


def record() -> dict:
    """Scores and values of the chosen queries, from the model itself."""
    from course_lib.serving import greedy, load_model
    from course_lib.teaching.recorder import Recorder

    model, tokenizer = load_model()
    ids = tokenizer.encode(TEXT).ids
    cache = Recorder(model.config, num_blocks=8)
    greedy(model, [ids], cache, 1)
    slots = [cache.tables[0].slot(position) for position in range(len(ids))]
    rows = {}
    for name, (layer, head) in QUERIES.items():
        kv_head = head // (model.config.num_query_heads // model.config.num_kv_heads)
        keys, values = (store[layer].flatten(0, 1)[slots][:, kv_head] for store in (cache.keys, cache.values))
        scores = keys @ cache.queries[layer, 0][len(ids) - 1][head] / keys.shape[1] ** 0.5
        rows[name] = dict(
            layer=layer, head=head, scores=_short(scores), values=_short(values[:, :NUM_VALUES])
        )
    return dict(tokens=[tokenizer.decode([token]) for token in ids], queries=rows)


def _short(tensor: torch.Tensor) -> list:
    return [[round(x, 4) for x in row] if isinstance(row, list) else round(row, 4) for row in tensor.tolist()]


if __name__ == "__main__":
    RECORDED.write_text(
        json.dumps(record(), ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8"
    )
