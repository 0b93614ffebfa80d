import json

import pytest

from service.model_card import BEFORE_REFIT, MAX_BYTES, OURS, read_model_card
from tests.service.fakes import small_manifest

ESTIMATE = {"value": 0.2, "low": 0.1, "high": 0.3}
METRICS = {
    "test": {"recall@10": ESTIMATE},
    "validation": {"recall@10": ESTIMATE},
    "baselines": {"markov_with_validation": {"recall@10": ESTIMATE}},
    "users": {"test": 943, "validation": 943},
    "coverage": {"distinct_items": 876, "catalog_size": 1682},
    "protocol": {"num_beams": 20},
    "stages": {},
}


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "metrics.json").write_text(json.dumps(METRICS))
    (tmp_path / "README.md").write_text("# small\n")
    return tmp_path


def test_a_measured_bundle_stands_beside_its_baselines(bundle):
    card = read_model_card(bundle, small_manifest())
    assert card.card == "# small\n"
    assert card.bundle.version == "0123456789ab"
    assert card.evaluation is not None
    assert [method.name for method in card.evaluation.methods] == [OURS, "markov with validation"]
    assert card.evaluation.methods[0].metrics["recall@10"].value == 0.2
    assert (card.evaluation.users, card.evaluation.coverage["catalog_size"]) == (943, 1682)


def test_an_imported_bundle_was_not_measured(tmp_path):
    card = read_model_card(tmp_path, small_manifest())
    assert (card.evaluation, card.card) == (None, None)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"test": {}}', json.dumps({**METRICS, "users": {}}), "\udcff"])
def test_metrics_of_another_form_are_left_out(bundle, text):
    (bundle / "training" / "metrics.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    card = read_model_card(bundle, small_manifest())
    assert card.evaluation is None
    assert card.card == "# small\n"


def test_a_card_is_no_book(bundle):
    (bundle / "README.md").write_text("x" * (MAX_BYTES + 1))
    assert read_model_card(bundle, small_manifest()).card is None


def test_metrics_of_a_refitted_bundle_are_those_of_another_and_say_so(bundle):
    metrics = {**METRICS, "refit": {"measured_version": "0123456789ab", "note": "measured before"}}
    (bundle / "training" / "metrics.json").write_text(json.dumps(metrics))
    card = read_model_card(bundle, small_manifest())
    assert card.evaluation is not None
    assert [method.name for method in card.evaluation.methods] == [BEFORE_REFIT, "markov with validation"]
    assert OURS not in BEFORE_REFIT
