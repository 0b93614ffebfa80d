from tests.training.report.told import PREPARED, cell, metrics
from training.report.notes import honest_notes, protocol_notes


def test_the_protocol_says_who_was_asked_how_and_beside_what() -> None:
    said = "\n".join(protocol_notes(metrics()))
    assert "1,234 users, 1,300 held-out items (test; 1,234 of 9,000 of test, drawn by seed 1)" in said
    assert "a search of 20 beams" in said
    assert "users as the unit" in said
    assert "cross-entropy over 8192 sampled items a step" in said


def test_what_was_not_done_is_not_told() -> None:
    told = metrics(baselines={}, differences={})
    del told["sasrec"], told["cases"]
    said = "\n".join(protocol_notes(told))
    assert "SASRec" not in said and "Popularity" not in said and "held-out items" not in said


def test_limits_are_told_with_numbers() -> None:
    said = "\n".join(honest_notes(metrics(), PREPARED))
    assert "recall@10 is known to about ±0.050" in said
    assert "17 targets never occur in training; on those recall@10 is 0.0600" in said
    assert "51% of neighbouring interactions" in said
    assert "3 items of the data are not in the bundle" in said
    assert "fairness" in said


def test_limits_that_do_not_apply_are_left_out() -> None:
    few = metrics(
        buckets={
            "target_training_count": [{"bucket": "1-4", "cases": 1, "methods": {"model": {"recall@10": cell(0.1)}}}]
        }
    )
    few["protocol"]["items_the_bundle_does_not_know"] = 0
    said = "\n".join(honest_notes(few, {}))
    assert "never occur" not in said and "same time" not in said and "not in the bundle" not in said


def test_a_refitted_bundle_says_whose_numbers_they_are() -> None:
    assert next(honest_notes(metrics(refit={"note": "of the run before"}), {})) == "of the run before"
