"""Synthetic workloads by their statistics, trace files by every way in which one can be broken."""

import itertools
import statistics

import pytest

from course_lib.memory import Request, alpaca_like, azure_conversation_like, load_trace, sharegpt_like

ALL = [sharegpt_like, alpaca_like, azure_conversation_like]


def means(requests):
    return statistics.mean(r.prompt_len for r in requests), statistics.mean(r.output_len for r in requests)


@pytest.mark.parametrize("workload", ALL)
def test_the_same_seed_gives_the_same_requests(workload):
    assert workload(50, 2.0, seed=3) == workload(50, 2.0, seed=3)
    assert workload(50, 2.0, seed=3) != workload(50, 2.0, seed=4)
    assert workload(50, 2.0, seed=3)[:20] == workload(20, 2.0, seed=3), (
        "more requests do not change the first"
    )


@pytest.mark.parametrize("workload", ALL)
def test_arrivals_are_poisson_at_the_rate(workload):
    times = [request.arrival_time for request in workload(20_000, 4.0, seed=0)]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert times == sorted(times)
    assert statistics.mean(gaps) == pytest.approx(1 / 4, rel=0.03)
    assert statistics.stdev(gaps) / statistics.mean(gaps) == pytest.approx(1, rel=0.05), (
        "a CV of 1 is Poisson's"
    )


@pytest.mark.parametrize(
    ("workload", "prompt", "output", "within"),
    [
        (sharegpt_like, 161.31, 337.99, 0.07),
        (alpaca_like, 19.31, 58.45, 0.03),
        (azure_conversation_like, 1154.7, 211.1, 0.07),
    ],
)
def test_means_are_the_published_ones(workload, prompt, output, within):
    got = means(workload(50_000, 1.0, seed=1))
    assert got == (pytest.approx(prompt, rel=within), pytest.approx(output, rel=within))


@pytest.mark.parametrize("workload", [sharegpt_like, alpaca_like])
def test_lengths_are_clipped_as_said(workload):
    requests = workload(50_000, 1.0, seed=1)
    assert max(r.prompt_len for r in requests) <= 1024 and max(r.output_len for r in requests) <= 1024
    assert max(r.total_len for r in requests) <= 2048
    assert min(min(r.prompt_len, r.output_len) for r in requests) >= 1


def test_azure_quantiles_are_the_traces():
    requests = azure_conversation_like(50_000, 1.0, seed=2)
    for lengths, published in [
        ([r.prompt_len for r in requests], {5: 181, 25: 396, 50: 1020, 75: 1189, 95: 4083}),
        ([r.output_len for r in requests], {5: 41, 25: 85, 50: 129, 75: 395, 95: 451}),
    ]:
        cuts = statistics.quantiles(lengths, n=100)
        for percent, value in published.items():
            assert cuts[percent - 1] == pytest.approx(value, rel=0.06), f"p{percent}"


@pytest.mark.parametrize("workload", ALL)
@pytest.mark.parametrize(
    ("n", "rate", "said"),
    [(0, 1.0, "n must be .* got 0"), (3, 0, "rate .* got 0"), (3, -2, "got -2"), (3, "x", "got 'x'")],
)
def test_nonsense_is_refused_with_the_value(workload, n, rate, said):
    with pytest.raises(ValueError, match=said):
        workload(n, rate, seed=0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((-1.0, 3, 4), "arrival_time .* got -1.0"),
        ((0.0, 0, 4), "prompt_len .* got 0"),
        ((0.0, 3, 2.5), "output_len .* got 2.5"),
        ((float("nan"), 1, 1), "got nan"),
    ],
)
def test_an_impossible_request_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        Request(*arguments)


# -- trace files ----------------------------------------------------------------------------------------------

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
ROW1 = "2023-11-16 18:15:46.6805900,374,44\n"
ROW2 = "2023-11-16 18:15:50.9951690,396,109\n"


def write(tmp_path, text):
    path = tmp_path / "trace.csv"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        HEADER + ROW1 + ROW2,
        (HEADER + ROW1 + ROW2).replace("\n", "\r\n"),
        (HEADER + ROW1 + ROW2).rstrip("\n"),
        "\ufeff" + HEADER + ROW1 + ROW2,
    ],
)
def test_a_trace_is_read_with_times_from_its_first_row(tmp_path, text):
    assert load_trace(write(tmp_path, text)) == [Request(0.0, 374, 44), Request(4.314579, 396, 109)]


def test_columns_may_stand_in_any_order_beside_others(tmp_path):
    text = "GeneratedTokens,User,TIMESTAMP,ContextTokens\n44,x,2023-11-16 18:15:46,374\n"
    assert load_trace(write(tmp_path, text)) == [Request(0.0, 374, 44)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "trace.csv: the file is empty"),
        (HEADER, "trace.csv: the file has a header and no requests"),
        ("TIMESTAMP,ContextTokens\n", "line 1: no column GeneratedTokens; found TIMESTAMP, ContextTokens"),
        (HEADER + ROW1 + "2023-11-16 18:15:51,12\n", "line 3: 2 fields, the header has 3"),
        (HEADER + ROW1 + "yesterday,1,2\n", "line 3, column TIMESTAMP: 'yesterday' is no time"),
        (HEADER + ROW2 + ROW1, "line 3, column TIMESTAMP: .* is earlier than the line before"),
        (
            HEADER + ROW1 + ROW2.replace("396", "-5"),
            "line 3, column ContextTokens: '-5' is no number of tokens",
        ),
        (
            HEADER + ROW1.replace("44", "many"),
            "line 2, column GeneratedTokens: 'many' is no number of tokens",
        ),
        (
            HEADER + ROW1.replace("374", "0"),
            "line 2, column ContextTokens: '0' is no number of tokens of at least 1",
        ),
        (HEADER + ROW1 + "\n" + ROW2, "line 3: 0 fields"),
    ],
)
def test_a_broken_trace_is_an_error_that_says_where(tmp_path, text, said):
    with pytest.raises(ValueError, match=said):
        load_trace(write(tmp_path, text))
