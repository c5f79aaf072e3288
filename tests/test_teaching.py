"""Pictures by the numbers behind them, explorers by what their controls do, presets by arithmetic, the doctor."""

import base64
import html
import io
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from matplotlib.legend import Legend
from matplotlib.patches import Rectangle
from PIL import Image

from course_lib.serving import ContiguousCache, GrowingCache, cost
from course_lib.serving.model import LlamaConfig
from course_lib.teaching import check, explorers, measure, plots, runtime
from course_lib.teaching.exercises import EXERCISES
from course_lib.teaching.presets import Budget, load_presets

MODELS, GPUS = load_presets()
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def slabs():
    config = LlamaConfig(2, 0, 0, 6, 2, 8, 0, 64, 1e-5, 10_000.0)
    cache = ContiguousCache(config, 3, 40)
    cache.begin_step({0: 10, 2: 25})
    return cache


def rectangles(axes):
    """(x, y, width, hatch) of every slot bar, in the order drawn."""
    patches = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    return [
        (round(p.get_x(), 3), round(p.get_y(), 3), round(p.get_width(), 3), p.get_hatch()) for p in patches
    ]


def bundle_of(shown):
    return shown._repr_mimebundle_()


# -- pictures -------------------------------------------------------------------------------------------------


def pictures(cache):
    point = cost.Cost(flops=10**9, num_bytes=10**8)
    return {
        "work_map": plots.work_map([(0, 3), (0, 4)], [(0, 3), (3, 4)]),
        "slabs": plots.slabs(cache),
        "times": plots.times([1, 2], {"no cache": [1.0, 4.0]}),
        "roofline": plots.roofline({"decode": (point, None)}, 1e12, 1e11, "a machine"),
        "kv_budget": plots.kv_budget(Budget(MODELS["Llama-3.1-8B"], GPUS["NVIDIA T4"], 128, 1, 2)),
    }


def test_every_picture_says_what_is_to_be_seen_three_times(slabs):
    for name, picture in pictures(slabs).items():
        data, metadata = bundle_of(picture)
        assert data["text/plain"] == metadata["image/png"]["alt"] == picture.alt
        assert len(picture.alt.split()) >= 12, f"{name}: too short to see by"
        captions = [" ".join(text.get_text().split()) for text in picture.texts]
        assert picture.alt in captions, f"{name}: the sentence does not stand under the picture"


def test_pictures_are_pngs_of_one_width_and_repeat_to_the_byte(slabs):
    again = pictures(slabs)
    for name, picture in pictures(slabs).items():
        image = Image.open(io.BytesIO(picture.png()))
        assert (image.format, image.width) == ("PNG", 900), name
        assert picture.png() == again[name].png(), f"{name} differs from run to run"
        full = np.asarray(Image.open(io.BytesIO(picture.png(small=False))).convert("RGB")).astype(int)
        worst = np.abs(full - np.asarray(image.convert("RGB"))).max()
        assert worst <= 8, f"{name}: fewer colours have changed one by {worst} of 255"
        shades = np.asarray(image.convert("L"))
        assert shades.std() > 10, f"{name} is nearly blank"


def test_no_picture_cuts_its_text_off(slabs):
    for name, picture in pictures(slabs).items():
        picture.canvas.draw()
        width, height = picture.canvas.get_width_height()
        texts = list(picture.texts)
        for axes in picture.axes:
            texts += [axes.title, axes.xaxis.label, axes.yaxis.label]
        for legend in picture.findobj(Legend):
            texts += legend.get_texts()
        for text in texts:
            box = text.get_window_extent()
            inside = box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height
            assert inside or not text.get_text(), f"{name}: {text.get_text()!r} leaves the picture: {box}"


def test_work_map_counts_first_and_repeated_work():
    picture = plots.work_map([(0, 3), (0, 4), (0, 5)], [(0, 3), (3, 4), (4, 5)])
    assert "12 tokens in all" in picture.alt and "only what is new, 5." in picture.alt
    without, cached = picture.axes
    again = [width for *_, width, hatch in rectangles(without) if hatch and width]
    assert again == [3, 4]
    assert sum(width for *_, width, hatch in rectangles(cached) if hatch) == 0


def test_slabs_shows_the_state_of_the_cache(slabs):
    picture = plots.slabs(slabs, names=["first"])
    bars = rectangles(picture.axes[0])
    assert [width for *_, width, hatch in bars if hatch] == [40, 40, 40]
    assert [width for *_, width, hatch in bars if not hatch] == [10, 0, 25]
    assert "35 of 120 slots hold a token's keys and values (29%)" in picture.alt
    assert [label.get_text() for label in picture.axes[0].get_yticklabels()] == [
        "first",
        "request 1",
        "request 2",
    ]
    slabs.begin_step({1: 5})
    assert "40 of 120" in plots.slabs(slabs).alt


def test_a_request_keeps_its_colour_and_hatches_stand_beside_colours(slabs):
    fills = [patch.get_facecolor() for patch in plots.slabs(slabs).axes[0].patches if not patch.get_hatch()]
    assert fills == [to_rgba(plots.request_color(slab)) for slab in range(3)]
    assert plots.RESERVED["hatch"]


def test_roofline_puts_counted_points_on_the_roof_and_measured_ones_where_they_were_measured():
    slow, fast = (
        cost.Cost(10**9, 10**9),
        cost.Cost(10**12, 10**9),
    )  # 1 and 1,000 FLOP per byte; the ridge is at 10
    picture = plots.roofline({"decode": (slow, None), "prefill": (fast, 2.0)}, 1e12, 1e11, "m")
    dots = [line for line in picture.axes[0].lines if len(line.get_xdata()) == 1]
    assert [(float(d.get_xdata()[0]), float(d.get_ydata()[0])) for d in dots] == [
        (1.0, 100.0),
        (1000.0, 500.0),
    ]
    assert "10.0 FLOP per byte. 1 of 2 points lie left" in picture.alt


def test_kv_budget_draws_what_does_not_fit():
    fits = plots.kv_budget(Budget(MODELS["Llama-3.1-8B"], GPUS["NVIDIA A100 80GB SXM"], 8192, 32, 2))
    over = plots.kv_budget(Budget(MODELS["Llama-3.1-70B"], GPUS["NVIDIA A100 80GB SXM"], 8192, 32, 2))
    assert fits.alt.startswith("52 requests fit: Llama-3.1-8B") and len(fits.axes[0].patches) == 2
    assert over.alt.startswith("The weights alone do not fit: ") and len(over.axes[0].patches) == 3


def test_kv_budget_says_when_a_model_was_not_made_for_so_long_a_context():
    opt, gpu = MODELS["OPT-13B"], GPUS["NVIDIA A100 40GB"]
    assert "But" not in plots.kv_budget(Budget(opt, gpu, 2048, 8, 2)).alt
    assert (
        "But OPT-13B was made for 2,048 tokens at most." in plots.kv_budget(Budget(opt, gpu, 4096, 8, 2)).alt
    )


def test_kv_budget_words_one_request_and_small_sizes():
    alt = plots.kv_budget(Budget(MODELS["SmolLM2-135M"], GPUS["NVIDIA T4"], 128, 1, 2)).alt
    assert "3 MB of KV cache for 1 request of 128 tokens" in alt


def test_the_readers_own_matplotlib_settings_stay(slabs):
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.slabs(slabs).png()
    assert dict(matplotlib.rcParams) == before


# -- explorers ------------------------------------------------------------------------------------------------


def test_kv_calculator_is_one_bundle_and_answers_to_every_control():
    explorer = explorers.kv_calculator()
    data, metadata = bundle_of(explorer)
    assert set(data) == {WIDGET_VIEW, "image/png", "text/plain"}
    assert metadata["image/png"]["alt"] == data["text/plain"]
    *controls, view = explorer.widget.children
    for control in controls:
        assert control.description, "a control without a name cannot be found by ear"
        before = view.value
        options = [option[1] if isinstance(option, tuple) else option for option in control.options]
        control.value = next(option for option in options if option != control.value)
        assert view.value != before, f"{control.description} changes nothing"


def test_the_live_picture_is_the_plot_with_its_alt_text():
    explorer = explorers.kv_calculator()
    view = explorer.widget.children[-1]
    explorer.widget.children[0].value = "OPT-13B"
    alt, data = re.search(r'alt="([^"]*)" src="data:image/png;base64,([^"]*)"', view.value).groups()
    assert ": OPT-13B on NVIDIA A100 80GB SXM," in alt
    assert Image.open(io.BytesIO(base64.b64decode(data))).width == 900


@pytest.mark.parametrize("lesson", ["00", "01"])
def test_a_quiz_tells_right_from_wrong_at_once_and_reads_cold(lesson):
    explorer = explorers.quiz(lesson)
    data, _ = bundle_of(explorer)
    assert set(data) == {WIDGET_VIEW, "text/html", "text/plain"}
    assert data["text/html"].count("<summary>answer</summary>") == 3
    rows = explorer.widget.children
    quiz = Path(check.__file__).with_name("exercises") / "quiz.toml"
    questions = [q for q in tomllib.loads(quiz.read_text())["question"] if q["lesson"] == lesson]
    for question, choice, feedback in zip(questions, rows[1::3], rows[2::3], strict=True):
        assert choice.value is None, "a question must not start with an answer"
        for number, (option, why) in enumerate(question["options"]):
            choice.value = option
            sign = "✓" if number == question["right"] else "✗"
            assert html.unescape(feedback.value) == f"<b>{sign}</b> {why}"


def test_an_unknown_quiz_is_refused():
    with pytest.raises(ValueError, match="no quiz for lesson '99'"):
        explorers.quiz("99")


# -- presets --------------------------------------------------------------------------------------------------


def test_presets_are_eight_models_and_gpus_from_t4_to_b200_each_with_a_source():
    assert len(MODELS) >= 8 and {"NVIDIA T4", "NVIDIA B200 (DGX/HGX)"} <= set(GPUS)
    for preset in [*MODELS.values(), *GPUS.values()]:
        assert len(preset.source) > 10, f"{preset.name} has no source"


@pytest.mark.parametrize(
    ("name", "bytes_per_token"),
    [
        ("OPT-13B", 819_200),  # the paper, section 3
        ("SmolLM2-135M", 2 * 30 * 3 * 64 * 2),
        ("Falcon-7B", 2 * 32 * 1 * 64 * 2),
        ("Llama-3.1-405B", 2 * 126 * 8 * 128 * 2),
        ("DeepSeek-V3", 61 * (512 + 64) * 2),
    ],
)
def test_bytes_per_token(name, bytes_per_token):
    assert MODELS[name].kv_bytes(1, 2) == bytes_per_token
    assert MODELS[name].kv_bytes(1000, 1) == 500 * bytes_per_token


def test_sliding_layers_stop_growing():
    model = MODELS["gpt-oss-120b"]
    assert (model.layers, model.num_sliding_layers, model.sliding_window) == (36, 18, 128)
    assert model.kv_bytes(10_000, 2) - model.kv_bytes(9_000, 2) == 1000 * 2 * 18 * 8 * 64 * 2


@pytest.mark.parametrize(
    "name", ["SmolLM2-135M", "Llama-2-7B", "Mistral-7B-v0.3", "Llama-3.1-8B", "Qwen3-32B"]
)
def test_parameters_agree_with_the_models_name(name):
    size = re.search(r"(\d+(?:\.\d+)?)([MB])", name)
    wanted = float(size[1]) * {"M": 1e6, "B": 1e9}[size[2]]
    assert MODELS[name].parameters == pytest.approx(wanted, rel=0.06)


def test_smollm2_preset_is_the_real_model(real):
    config, preset = real[0].config, MODELS["SmolLM2-135M"]
    assert preset.parameters == real[0].num_parameters
    ours = (
        config.num_layers,
        config.num_query_heads,
        config.num_kv_heads,
        config.head_dim,
        config.max_position,
    )
    assert ours == (preset.layers, preset.query_heads, preset.kv_heads, preset.head_dim, preset.max_context)


@pytest.mark.parametrize("batch", [1, 7])
def test_budget_is_one_arithmetic(batch):
    budget = Budget(MODELS["Llama-3.1-70B"], GPUS["NVIDIA H100 SXM 80GB"], 4096, batch, 2, num_gpus=4)
    room = budget.usable_bytes - budget.weight_bytes
    assert budget.usable_bytes == 4 * 72_000_000_000
    assert budget.requests_that_fit * budget.bytes_per_request <= room
    assert (budget.requests_that_fit + 1) * budget.bytes_per_request > room
    assert budget.kv_bytes == batch * budget.bytes_per_request


def test_nothing_fits_where_the_weights_do_not():
    budget = Budget(MODELS["Llama-3.1-405B"], GPUS["NVIDIA T4"], 128, 1, 2)
    assert budget.requests_that_fit == 0


# -- the machine ----------------------------------------------------------------------------------------------


def test_doctor_says_ready_where_everything_is_there(real, capsys):
    runtime.doctor()
    out = capsys.readouterr().out
    assert "ready: every notebook runs on this machine" in out
    assert "✓ torch" in out and "✓ weights" in out and "✗" not in out


def test_doctor_names_what_is_missing_and_the_way_out(capsys, monkeypatch, tmp_path):
    known = runtime._version
    monkeypatch.setattr(
        runtime, "_version", lambda name: {"ipywidgets": "7.6.5", "tokenizers": None}.get(name, known(name))
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    runtime.doctor()
    out = capsys.readouterr().out
    assert re.search(r"✗ ipywidgets +7.6.5 +7.7 or later is needed: run `make setup`", out)
    assert re.search(r"✗ tokenizers +missing", out)
    assert re.search(r"○ weights +not fetched yet +load_model\(\) fetches them: 93 MB", out)
    assert "mend first: ipywidgets, tokenizers" in out


def test_doctor_shows_no_path_of_this_machine(real, capsys):
    runtime.doctor()
    assert str(Path.home()) not in capsys.readouterr().out


def test_setup_leaves_a_core_to_the_rest(monkeypatch):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        monkeypatch.setattr(runtime.os, "cpu_count", lambda: 2)
        runtime.setup()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_on_colab_only_what_is_missing_is_installed_and_nothing_upgraded(monkeypatch):
    commands = []
    monkeypatch.setitem(runtime.sys.modules, "google.colab", object())
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(runtime.subprocess, "run", lambda command, check: commands.append(command))
    runtime.setup()
    ((*_, last),) = commands
    assert last == "gguf" and "--no-deps" in commands[0]
    assert not any(word in ("-U", "--upgrade", "torch", "numpy") for word in commands[0])
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: "found")
    runtime.setup()
    assert len(commands) == 1


@pytest.mark.parametrize(("has_gpu", "kind"), [(False, "cpu"), (True, "cuda")])
def test_the_device_is_the_gpu_where_torch_sees_one(has_gpu, kind, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert runtime.device().type == kind


def test_elsewhere_setup_installs_nothing(monkeypatch):
    monkeypatch.setattr(runtime.subprocess, "run", lambda *args, **kwargs: pytest.fail("pip was called"))
    runtime.setup()


def test_step_seconds_adds_one_token_a_repeat_to_every_sequence(tiny_model):
    cache = GrowingCache()
    seconds = measure.step_seconds(tiny_model, cache, 9, batch=3, repeats=4)
    assert seconds > 0
    assert [cache.length(sequence) for sequence in range(3)] == [13, 13, 13]


def test_measured_steps_carry_their_counted_cost(tiny_model):
    found = measure.steps(tiny_model, [1, 3], context=10, prefill=12)
    assert list(found) == ["decode 1", "decode 3", "prefill 12"]
    assert found["decode 3"][0] == cost.forward_cost(tiny_model.config, [1] * 3, [10] * 3)
    assert found["prefill 12"][0] == cost.forward_cost(tiny_model.config, [12], [12])
    assert all(seconds > 0 for _, seconds in found.values())


def test_every_cache_is_measured_at_every_context(tiny_model):
    found = measure.cache_milliseconds(tiny_model, [5, 9])
    assert {name: len(values) for name, values in found.items()} == {
        "no cache": 2,
        "growing": 2,
        "contiguous": 2,
    }


def test_peaks_are_of_this_century():
    flops, bandwidth = measure.peaks(seconds=0.05)
    assert 1e8 < flops < 1e16 and 1e8 < bandwidth < 1e14


def test_every_exercise_says_its_minutes_and_difficulty():
    for exercise in EXERCISES.values():
        assert exercise.minutes > 0 and exercise.difficulty in ("easy", "medium", "hard")
        assert len(exercise.hints) == 3
