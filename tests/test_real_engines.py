"""Notebook 09's table and stored answers: names that exist, rows that are noticed when vLLM changes, ties."""

import importlib
import json

import pytest
import torch

from benchmarks.beside_vllm import PROMPTS
from course_lib.serving.kv_cache import GrowingCache
from course_lib.serving.weights import build_model, read_config, read_tensors
from course_lib.teaching import real_engines

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


def test_the_table_shows_every_point_and_escapes_it():
    shown = real_engines.table().data
    assert shown.count("<tr>") == len(POINTS) + 1
    assert all(point.source in shown and point.where in shown for point in POINTS)
    assert real_engines.table("kernel").data.count("<tr>") == 2


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
