from pathlib import Path

import pytest

from genrec.errors import RecipeError
from training.recipe import builtin_recipes, dump_recipe, load_recipe

MINIMAL = 'name = "a"\n[prepare]\ndataset = "toy"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(folder, text), overrides)
    return str(caught.value)


@pytest.mark.parametrize("name", builtin_recipes())
def test_every_builtin_recipe_loads(name: str) -> None:
    assert load_recipe(name).name == name


def test_a_resolved_recipe_is_written_and_read_back_equal(tmp_path: Path) -> None:
    for name in builtin_recipes():
        recipe = load_recipe(name, ["seed=7"])
        assert load_recipe(write(tmp_path, dump_recipe(recipe))) == recipe


def test_overrides_are_toml_values_or_plain_strings(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    recipe = load_recipe(path, ["quantize.codebook_sizes=[8, 4]", "prepare.duplicates=last", "seed = 3"])
    assert recipe.quantize.codebook_sizes == (8, 4)
    assert recipe.prepare.duplicates == "last"
    assert recipe.seed == 3


@pytest.mark.parametrize("override", ["seed", "=3", "prepare..x=1", "name.x=3"])
def test_an_override_that_is_none_is_refused(tmp_path: Path, override: str) -> None:
    assert override in refusal(tmp_path, MINIMAL, override)


def test_an_unknown_key_is_named_with_its_section_and_the_nearest(tmp_path: Path) -> None:
    message = refusal(tmp_path, MINIMAL + "user_kore = 5\n")
    assert "unknown key 'user_kore' in [prepare]" in message
    assert "nearest valid name is 'user_core'" in message


def test_an_unknown_key_is_found_in_nested_sections_and_in_overrides(tmp_path: Path) -> None:
    text = 'name = "a"\n[prepare.interactions]\npath = "x"\n[prepare.items]\npath = "y"\n'
    assert "'time_unit'" in refusal(tmp_path, text, "prepare.interactions.time_unut=seconds")
    metadata = '[prepare.items.metadata]\ngenres = { type = "list", seperator = "|" }\n'
    message = refusal(tmp_path, text + metadata)
    assert "[prepare.items.metadata.genres]" in message
    assert "'separator'" in message


def test_an_unknown_section_lists_what_there_is(tmp_path: Path) -> None:
    message = refusal(tmp_path, MINIMAL + "[xyz]\na = 1\n")
    assert "unknown key 'xyz' in the recipe's top level" in message
    assert "prepare, embed, quantize" in message


def test_a_misspelt_key_explains_a_missing_one(tmp_path: Path) -> None:
    assert "unknown key 'nane'" in refusal(tmp_path, MINIMAL.replace("name", "nane"))


def test_a_wrong_value_says_what_is_allowed(tmp_path: Path) -> None:
    assert "prepare.split = 'loo'" in refusal(tmp_path, MINIMAL, "prepare.split=loo")
    assert "'leave_one_out', 'time' or 'none'" in refusal(tmp_path, MINIMAL, "prepare.split=loo")
    assert "prepare.user_core = 0" in refusal(tmp_path, MINIMAL, "prepare.user_core=0")
    assert "valid integer" in refusal(tmp_path, MINIMAL, 'prepare.user_core="5"')
    assert "valid list" in refusal(tmp_path, MINIMAL, "embed.parts=tfidf")
    assert "name" in refusal(tmp_path, MINIMAL.replace('"a"', '"../a"'))


def test_a_file_that_is_no_toml_or_no_text_is_refused(tmp_path: Path) -> None:
    assert "is not TOML" in refusal(tmp_path, "name = ")
    path = tmp_path / "latin.toml"
    path.write_bytes(b'name = "\xff"')
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(path)


def test_an_unknown_name_says_where_it_looked_and_what_is_built_in() -> None:
    with pytest.raises(RecipeError, match=r"'demoo'.*looked in.*nearest valid name is 'demo'"):
        load_recipe("demoo")


def test_a_run_without_validation_must_say_when_to_stop() -> None:
    with pytest.raises(RecipeError, match=r"set pretrain\.stop_at_epoch"):
        load_recipe("tiny-causal", ["prepare.split=none"])
    stops = ["pretrain.stop_at_epoch=1", "finetune.stop_at_epoch=2.5"]
    assert load_recipe("tiny-causal", ["prepare.split=none", *stops]).finetune.stop_at_epoch == 2.5


def test_so_must_one_that_trains_on_its_validation_and_has_no_baseline_that_stops_by_it() -> None:
    with pytest.raises(RecipeError, match=r"set pretrain\.stop_at_epoch"):
        load_recipe("tiny-causal", ["prepare.train_on_validation=true"])
    stops = ["prepare.train_on_validation=true", "pretrain.stop_at_epoch=1", "finetune.stop_at_epoch=1"]
    assert load_recipe("tiny-causal", stops).prepare.train_on_validation
    with pytest.raises(RecipeError, match=r"leaves no validation to stop \[evaluate\.sasrec\] by"):
        load_recipe("tiny-causal", [*stops, "evaluate.sasrec={}"])


def test_a_semantic_start_needs_vectors(tmp_path: Path) -> None:
    assert load_recipe("tiny-causal", ["model.semantic_start=0.3"]).model.semantic_start == 0.3
    none = MINIMAL + '[embed]\nparts = []\n[quantize]\nmethod = "random"\n[model]\nconfig = { model_type = "llama" }\n'
    assert "name some in embed.parts" in refusal(tmp_path, none, "model.semantic_start=0.3")
    assert load_recipe(write(tmp_path, none)).model.semantic_start is None


def test_a_base_bundle_is_a_path_and_nothing_else() -> None:
    assert load_recipe("tiny-causal").base is None
    assert load_recipe("tiny-causal", ["base.bundle=bundles/may"]).base.bundle == "bundles/may"
    with pytest.raises(RecipeError, match="nearest valid name is 'bundle'"):
        load_recipe("tiny-causal", ["base.bundel=x"])
