import numpy as np
import pytest

from benchmarks.bulk_queue import Prediction, ServiceTime, latencies, predict

EVERYONE = 10**9


def test_batches_of_one_and_a_fixed_time_wait_as_pollaczek_and_khinchine_say():
    service, rate = ServiceTime(0.01, 0.0), 60.0
    load = rate * 0.01
    expected = 0.01 + load * 0.01 / (2 * (1 - load))
    assert latencies(service, rate=rate, seconds=1_000, most=1, seed=1).mean() == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("load", [0.5, 0.8, 0.9])
def test_batches_of_all_that_wait_stay_just_below_inoues_bound_on_the_mean(load):
    # arXiv:1912.06322: with alpha = c, tau0 = a, it is 3/2 a / (1 - lc) + c/2 (lc + 2) / (1 - (lc)^2), and near it
    a, c = 0.004, 0.0013
    bound = 1.5 * a / (1 - load) + c / 2 * (load + 2) / (1 - load**2)
    mean = latencies(ServiceTime(a, c), rate=load / c, seconds=400, most=EVERYONE, seed=2).mean()
    assert 0.95 * bound < mean < 1.01 * bound


def test_who_is_alone_waits_for_nobody():
    taken = latencies(ServiceTime(0.004, 0.001), rate=0.01, seconds=10_000, most=8, seed=0)
    assert len(taken) > 50
    assert np.median(taken) == pytest.approx(0.005)


def test_a_batch_is_bounded_and_answers_all_of_it_at_once():
    taken = latencies(ServiceTime(0.0, 1.0), rate=100.0, seconds=0.1, most=3, seed=0)
    finished = np.sort(taken)  # all came within 0.1 s, so they are told apart by their batch
    assert len(taken) > 6
    assert finished[1:4].min() > 3
    assert finished[-1] == pytest.approx(len(taken), abs=0.2)  # c = 1 s each, one after another


def test_more_than_can_be_answered_waits_longer_the_longer_it_goes_on():
    service = ServiceTime(0.001, 0.01)
    taken = latencies(service, rate=200.0, seconds=10, most=10, seed=0)
    assert service.most_per_s(10) == pytest.approx(10 / 0.101)
    assert taken[-100:].mean() > 5 > 1 > taken[:100].mean()


def test_the_line_goes_through_what_was_measured():
    fitted = ServiceTime.fitted({1: [0.005, 0.007], 4: [0.009], 16: [0.021]})
    assert (fitted.per_batch_s, fitted.per_request_s) == (pytest.approx(0.005), pytest.approx(0.001))
    assert sorted(fitted.spread) == pytest.approx([5 / 6, 1.0, 1.0, 7 / 6])


def test_an_error_counts_by_what_it_is_a_part_of():
    # 10 ms off at 1 s is nothing beside 1 ms off at 2 ms
    fitted = ServiceTime.fitted({1: [0.002], 2: [0.003], 1_000: [1.011]})
    assert fitted.mean_s(1) == pytest.approx(0.002, rel=0.02)


def test_work_beside_the_batch_is_done_for_each_request():
    service = ServiceTime(0.004, 0.001, (0.5, 1.5)).with_work(0.002)
    assert service == ServiceTime(0.004, 0.003, (0.5, 1.5))


def test_the_spread_is_in_the_answers_and_the_same_seed_gives_the_same_run():
    service = ServiceTime(1.0, 0.0, (1.0, 3.0))
    taken = latencies(service, rate=0.01, seconds=20_000, most=1, seed=5)
    assert {1.0, 3.0} < set(np.round(taken, 6))
    assert np.array_equal(taken, latencies(service, rate=0.01, seconds=20_000, most=1, seed=5))
    assert not np.array_equal(taken[:20], latencies(service, rate=0.01, seconds=20_000, most=1, seed=6)[:20])


def test_a_prediction_is_the_middle_of_its_runs_and_says_how_far_they_lie_apart():
    [middle, high] = predict(ServiceTime(0.004, 0.001), (50, 99), rate=200, seconds=2, most=64, runs=10)
    assert middle.low <= middle.middle <= middle.high < high.low < high.middle < high.high
    assert Prediction(1.0, 0.5, 2.0).later(0.5) == Prediction(1.5, 1.0, 2.5)
