import re

from tests.training.report.told import cell, metrics
from training.report.tables import (
    facts_table,
    interval_cell,
    leads_table,
    levels_table,
    methods_table,
    plain_table,
    verdict,
)


def test_methods_stand_below_the_model_with_their_intervals() -> None:
    made = methods_table(metrics(), "test", ["recall@5", "ndcg@10"])
    assert "test, 1,234 users" in made
    names = re.findall(r'<th scope="row">([^<]*)</th>', made)
    assert names == ["this bundle", "popularity", "Markov chain", "SASRec"]
    assert '<span class="value">0.2500</span>' in made
    assert '<span class="range">0.2000 to 0.3000</span>' in made


def test_validation_has_its_own_baselines() -> None:
    made = methods_table(metrics(), "validation", ["recall@5"])
    assert re.findall(r'<th scope="row">([^<]*)</th>', made) == ["this bundle", "popularity"]
    assert "0.1100" in made and "0.1000" not in made


def test_every_metric_is_in_the_plain_table() -> None:
    made = plain_table(metrics(), "test")
    assert made.count('<th scope="row">') == 9
    assert '<th scope="row">mrr@10</th><td>0.2500</td><td>0.1000</td><td>0.2600</td><td>0.4000</td>' in made


def test_a_verdict_is_given_only_where_zero_is_outside() -> None:
    assert 'class="better"' in verdict({"value": 0.1, "low": 0.01, "high": 0.2})
    assert 'class="worse"' in verdict({"value": -0.1, "low": -0.2, "high": -0.01})
    for low, high in ((-0.1, 0.1), (0.0, 0.1), (-0.1, 0.0)):
        assert "no clear difference" in verdict({"value": 0.0, "low": low, "high": high})
    made = leads_table(metrics())
    assert [made.count(said) for said in (">better<", ">worse<", ">no clear difference<")] == [1, 1, 1]
    assert "+0.1500" in made and "-0.0600 to +0.0400" in made


def test_without_other_methods_there_is_no_table_of_differences() -> None:
    assert leads_table(metrics(differences={})) == ""


def test_a_bar_reaches_from_low_to_high_on_the_columns_scale() -> None:
    made = interval_cell(cell(0.25), 0.5)
    assert 'x1="40.0" x2="60.0"' in made and 'cx="50.0"' in made


def test_levels_are_shown_with_what_is_known_of_them() -> None:
    made = levels_table(metrics(), [{"level": 0, "size": 64, "codes_used": 60, "entropy_share": 0.9}])
    assert '<th scope="row">level 0</th><td>60 of 64</td><td>90%</td><td>0.5000</td><td>-3.250</td>' in made
    assert '<th scope="row">level 1</th><td>–</td><td>–</td><td>0.5000</td><td>-3.250</td>' in made
    assert levels_table({}, []) == ""


def test_facts_that_are_not_known_are_left_out() -> None:
    made = facts_table({"a": "<b>", "c": None, "d": "", "e": 0})
    assert re.findall(r'<th scope="row">([^<]*)</th>', made) == ["a", "e"]
    assert "&lt;b&gt;" in made
