"""Notebook 09's table and stored answers: names that exist, rows that are noticed when vLLM changes, ties."""

import importlib
import json
from pathlib import Path

import pytest
import torch

from benchmarks.beside_vllm import PROMPTS
from course_lib.serving.kv_cache import GrowingCache
from course_lib.serving.tensor_parallel import Report
from course_lib.serving.weights import build_model, read_config, read_tensors
from course_lib.teaching import plots, real_engines

POINTS = real_engines.load_table().points


@pytest.mark.parametrize("point", POINTS, ids=[point.name for point in POINTS])
def test_what_the_table_calls_ours_is_there(point):
    parts = point.where.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(["course_lib", *parts[:cut]]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            found = getattr(found, name)
        return
    pytest.fail(f"course_lib has no {point.where}")


def make_package(folder, points):
    for point in points:
        file = folder / point.source
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text((file.read_text() if file.exists() else "") + f"{point.word}\n")


def test_a_vllm_that_has_changed_is_noticed(tmp_path):
    make_package(tmp_path, POINTS)
    assert real_engines.missing_sources(tmp_path) == []
    (tmp_path / POINTS[0].source).write_text("")
    (tmp_path / POINTS[2].source).unlink()
    gone = real_engines.missing_sources(tmp_path)
    assert f"{POINTS[0].name}: {POINTS[0].source} does not say {POINTS[0].word}" in gone
    assert f"{POINTS[2].name}: no file {POINTS[2].source}" in gone


def test_the_two_tables_show_every_point_once():
    first, rest = real_engines.table().data, real_engines.table(rest=True).data
    assert first.count("<tr>") == len(real_engines.FIRST) + 1 and "<details" not in first
    assert rest.count("<tr>") == len(POINTS) - len(real_engines.FIRST) + 1
    for point in POINTS:
        assert (point.source in first) + (point.source in rest) >= 1
        assert (f"<b>{point.name}</b>" in first) != (f"<b>{point.name}</b>" in rest)


def test_the_picture_of_the_ranks_shows_one_table_and_each_ranks_heads():
    report = Report([[1], [2]], ["a", "b"], [2, 1], [31_457_280, 15_728_640], [[[0, 3], [1, 2]]] * 2)
    picture = plots.ranks(report)
    assert "rank 0 holds KV heads 0 and 1 in 30.0 MiB" in picture.alt
    assert "rank 1 holds KV head 2 in 15.0 MiB" in picture.alt
    words = [text.get_text() for axes in picture.axes for text in axes.texts]
    assert words.count("3") == 3, "block 3 stands in the table and in both ranks' pools"
    other = Report([[1], [2]], ["a", "b"], [2, 1], [1, 1], [[[0, 3], [1, 2]], [[0, 3], [1, 4]]])
    with pytest.raises(ValueError, match="ranks have different block tables"):
        plots.ranks(other)


def test_the_stored_answers_are_vllms_to_our_prompts():
    stored = real_engines.stored()
    assert [row["prompt"] for row in stored["tokens"]] == list(PROMPTS)
    assert all(row["same"] for row in stored["tokens"])
    assert stored["vllm"]["version"] == stored["measured"]["vllm"] == real_engines.load_table().version
    assert {row["batch"] for row in stored["decode"]} == {1, 8, 32}
    for row in stored["decode"]:
        assert row["same_as_vllm"] == f"{row['batch']} of {row['batch']} sequences"
    assert json.dumps(stored).isascii()


def test_agreement_up_to_a_tie(tiny):
    folder = tiny[0]
    config = read_config(folder)
    tensors = read_tensors(folder, torch.device("cpu"), torch.float32)
    model = build_model(config, tensors, packs=False)
    prompt, cache = [5, 9, 2], GrowingCache()
    hidden = model(torch.tensor(prompt), cache.begin_step({0: 3}), cache)
    first, second = model.logits(hidden[-1]).topk(2).indices.tolist()
    assert real_engines.agree(model, prompt, [first, 7], [first, 7])
    assert not real_engines.agree(model, prompt, [first, 7], [second, 7]), "these two are no tie"
    assert not real_engines.agree(model, prompt, [first, 7], [first])
    model.lm_head[:, second] = model.lm_head[:, first]  # now they are
    assert real_engines.agree(model, prompt, [first, 7], [second, 3]), "what follows a tie may differ"


def test_the_readme_tells_what_each_took_from_its_cache():
    cached = real_engines.stored()["cached"]
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    again = f"of a text of {cached['prompt_tokens']} tokens that comes again, vLLM takes {cached['vllm'][1]} "
    slots = f"from its cache (its blocks have {cached['vllm_block_size']} slots on a CPU), ours {cached['ours'][1]}"
    assert again + slots in readme
