"""How many answers that are none are too many."""

from service.invalid_outputs import InvalidOutputs


def test_two_within_a_minute_are_bad_requests_and_three_are_a_bad_model():
    outputs = InvalidOutputs()
    assert not outputs.too_many(0.0)
    outputs.note(2, 0.0)
    assert not outputs.too_many(1.0)
    outputs.note(1, 59.0)
    assert outputs.too_many(59.5)


def test_a_minute_later_it_is_asked_again():
    outputs = InvalidOutputs()
    outputs.note(64, 0.0)
    assert outputs.too_many(59.9)
    assert not outputs.too_many(60.0)


def test_three_over_a_longer_time_are_nothing():
    outputs = InvalidOutputs()
    for at in (0.0, 40.0, 80.0, 120.0):
        outputs.note(1, at)
        assert not outputs.too_many(at)
