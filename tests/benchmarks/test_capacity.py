import json
from dataclasses import replace

import pytest

from benchmarks import capacity
from benchmarks.bulk_queue import Prediction, ServiceTime
from benchmarks.capacity import Curve, Load, batch_rows, beside_s, held, predictions, time_batches
from benchmarks.http import Seen
from benchmarks.sender import Result
from genrec.recommender import Recommender
from genrec.requests import Request
from tests.fakes import tiny_bundle

TIMING = {"queue": 1.0, "encode": 2.0, "decode": 5.0, "total": 9.0}


def seen(milliseconds: list[float], offered: float | None = 10.0) -> Seen:
    count = len(milliseconds)
    answers = [{"items": [], "scores": [], "timing_ms": TIMING}] * count
    return Seen(
        "x", offered, Result([0] * count, milliseconds, [0.0] * count, [200] * count, answers, 2.0, 0.5), 1.0, 0
    )


def load(part: float, measured_ms: float, apart_s: float, shared_s: float) -> Load:
    guesses = {
        name: [Prediction(guess, guess, guess)] * 2 for name, guess in (("apart", apart_s), ("shared", shared_s))
    }
    return Load(part, seen([measured_ms] * 100), guesses)


def test_batches_of_each_size_are_timed_in_turns(tmp_path):
    recommender = Recommender.load(tiny_bundle(tmp_path))
    item_id = recommender.bundle.catalog.item_id(0)
    taken = time_batches(recommender, [Request([item_id], k=2)], [1, 3], seconds=0.2)
    assert taken.keys() == {1, 3}
    assert len(taken[1]) == len(taken[3]) >= 1
    assert all(second > 0 for times in taken.values() for second in times)


def test_a_row_of_batches_has_the_line_beside_the_mean():
    rows = batch_rows({1: [0.005, 0.007], 4: [0.009], 16: [0.021]})
    assert [row["a + c·b, ms"] for row in rows] == pytest.approx([6.0, 9.0, 21.0])
    assert rows[2]["requests/s"] == pytest.approx(16 / 0.021)


def test_what_is_beside_the_engine_is_all_that_is_not_encode_or_decode():
    assert beside_s(seen([10.0, 12.0, 30.0])) == pytest.approx(0.005)


def test_http_apart_adds_to_every_answer_and_shared_takes_from_the_engine():
    service = ServiceTime(0.004, 0.001)
    idle = predictions(service, 0.002, 64, rate=0.5, seconds=200)
    assert [one.middle for one in idle["apart"][:1] + idle["shared"][:1]] == pytest.approx([0.007, 0.007])
    busy = predictions(service, 0.002, 64, rate=400, seconds=5)  # beyond the 333/s of a server that has 3 ms to do
    assert busy["shared"][0].middle > 10 * busy["apart"][0].middle


def test_a_prediction_holds_up_to_the_first_load_at_which_it_is_off_by_more_than_a_quarter():
    loads = [load(0.2, 10, 0.010, 0.020), load(0.5, 10, 0.0124, 0.010), load(0.8, 10, 0.0126, 0.010)]
    loads.append(load(0.9, 10, 0.010, 0.020))  # what comes after a miss does not count
    assert {(row["HTTP"], row["percentile"]): row["holds up to load"] for row in held(loads)} == {
        ("apart", 50): 0.5, ("apart", 99): 0.5, ("shared", 50): None, ("shared", 99): None,
    }  # fmt: skip


def test_a_load_shows_measured_and_predicted_side_by_side():
    row = load(0.5, 10.0, 0.008, 0.011).row()
    assert (row["p99 ms"], row["apart p99"], row["shared p99"]) == (10.0, 8.0, pytest.approx(11.0))


def test_a_wrong_answer_of_any_run_counts():
    good, bad = seen([1.0]), replace(seen([1.0]), wrong=2)
    assert Curve(good, good, {0.5: good}).wrong == 0
    assert Curve(bad, bad, {0.5: good, 0.8: bad}).wrong == 6


@pytest.mark.soak
def test_a_real_service_is_held_against_the_model_and_nothing_is_left(tmp_path, monkeypatch, capsys):
    bundle = tiny_bundle(tmp_path / "bundle")
    line = f"capacity --bundle {bundle} --interactions {tmp_path}/none --users 8 --k 2 --sizes 1 4 --engine-seconds 0.5"
    monkeypatch.setattr("sys.argv", f"{line} --seconds 1 --loads 0.3 --output {tmp_path / 'out'}".split())
    capacity.main()
    document = json.loads((tmp_path / "out" / "capacity.json").read_text())
    assert [row["load"] for row in document["rows"]] == [0.3]
    assert all(row["p99 ms"] > 0 and row["apart p99"] > 0 and row["shared p99"] > 0 for row in document["rows"])
    assert {row["batch"] for row in document["batches"]} == {1, 4}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["capacity.json"]
    assert "holds up to load" in capsys.readouterr().out
