"""What cannot be trained is refused in one sentence, as early as it can be told, and no result is lost by it."""

import re
from pathlib import Path

import pytest

from genrec.errors import DataError, GenrecError, RecipeError
from tests.training.bench import RememberingProgress, write_csv
from tests.training.families import write_base
from tests.training.runs import Run
from training.pipeline import run_pipeline
from training.recipe import load_recipe
from training.stages import stages_of


def refused(work: Path, *overrides: str, recipe: str = "tiny-causal") -> GenrecError:
    with pytest.raises(GenrecError) as caught:
        loaded = load_recipe(recipe, overrides)
        run_pipeline(stages_of(loaded), loaded, work, RememberingProgress())
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("finetune.trainin_arguments={}", "nearest valid name is 'training_arguments'"),
        ("finetune.training_arguments.learning_rat=1", r"\[finetune\] .*learning_rat .*nearest is 'learning_rate'"),
        ("pretrain.training_arguments.num_train_epochs='5'", r"\[pretrain\] .*num_train_epochs = '5' is not allowed"),
        ('finetune.training_arguments.eval_strategy="no"', r"\[finetune\] .*load_best_model_at_end requires"),
        ('finetune.training_arguments.metric_for_best_model="eval_loss"', "instead there is early_stopping_on"),
        (
            "finetune.training_arguments.load_best_model_at_end=false finetune.average_checkpoints=2",
            "average_checkpoint",
        ),
        ('model.architecture="seq2seq" pretrain.examples="last" finetune.examples="last"', "is a decoder-only model"),
        ('model.config.model_type="t5"', "is an encoder-decoder model"),
    ],
)
def test_a_recipe_that_no_stage_could_follow_is_refused_before_any_stage_runs(
    tmp_path: Path, override: str, told: str
) -> None:
    error = refused(tmp_path / "work", *override.split(" "))
    assert isinstance(error, RecipeError)
    assert re.search(told, str(error))
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("family", "recipe", "told"),
    [
        (
            "llama",
            "tiny-t5",
            r'is a decoder-only model \(llama\), but model.architecture = "seq2seq"; set it to "causal"',
        ),
        (
            "t5",
            "tiny-causal",
            r'is an encoder-decoder model \(t5\), but model.architecture = "causal"; set it to "seq2',
        ),
    ],
)
def test_a_checkpoint_of_the_other_architecture_is_refused_by_its_config(
    tmp_path: Path, family: str, recipe: str, told: str
) -> None:
    base = write_base(family, tmp_path / "base")
    text = (Path(__file__).parents[2] / "training" / "recipes" / f"{recipe}.toml").read_text()
    head, _, rest = text.partition("[model.config]")
    (tmp_path / "recipe.toml").write_text(
        head.replace("[model]", f'[model]\ncheckpoint = "{base}"') + rest[rest.index("[prompt]") :]
    )
    error = refused(tmp_path / "work", recipe=str(tmp_path / "recipe.toml"))
    assert re.search(told, str(error))
    assert not (tmp_path / "work").exists()


EMPTY = {
    "no user is left": ("prepare.user_core=1000", "no interaction is left after: user_core = 1000"),
    "no item is known": ("prepare.items.path={folder}/others.csv prepare.missing_items=drop", "no interaction is left"),
    "no item has words": ("prepare.items.path={folder}/blank.csv", "hold no words at all"),
    "no interaction": ("prepare.interactions.path={folder}/none.csv", "holds no interactions"),
    "nothing to validate on": ("prepare.interactions.path={folder}/short.csv", "no user has three interactions"),
}


@pytest.mark.parametrize(("override", "told"), EMPTY.values(), ids=EMPTY)
def test_where_nothing_is_left_the_sentence_says_after_what(tmp_path: Path, override: str, told: str) -> None:
    head, items = "user_id,item_id,timestamp", [f"i{number}" for number in range(12)]
    rows = [
        f"u{user},{items[(user * 5 + place) % 12]},{1_000_000_000 + place}" for user in range(20) for place in range(5)
    ]
    write_csv(tmp_path / "interactions.csv", head, *rows)
    write_csv(tmp_path / "short.csv", head, *(row for row in rows if int(row[-1]) < 2))
    write_csv(tmp_path / "none.csv", head)
    write_csv(tmp_path / "items.csv", "item_id,title", *(f"{item},Title {item}" for item in items))
    write_csv(tmp_path / "others.csv", "item_id,title", *(f"x{item},Title {item}" for item in items))
    write_csv(tmp_path / "blank.csv", "item_id,title", *(f"{item}," for item in items))
    recipe = write_csv(
        tmp_path / "recipe.toml",
        'name = "few"',
        "[prepare]\nuser_core = 1\nitem_core = 1",
        f'[prepare.interactions]\npath = "{tmp_path}/interactions.csv"',
        f'[prepare.items]\npath = "{tmp_path}/items.csv"\n[prepare.items.metadata]\ntitle = "string"',
        '[embed]\nparts = ["tfidf"]\n[quantize]\ncodebook_sizes = [4, 4]',
    )
    error = refused(tmp_path / "work", *override.format(folder=tmp_path).split(" "), recipe=recipe)
    assert isinstance(error, DataError)
    assert told in str(error)


def test_a_refusal_touches_no_result_that_is_there(finished: Run, tmp_path: Path) -> None:
    run = finished.copy(tmp_path / "work")
    before = {path: path.stat().st_mtime_ns for path in run.work.rglob("*")}
    with pytest.raises(RecipeError, match="learning_rat"):
        run.again("finetune.training_arguments.learning_rat=1", "prepare.user_core=2")
    assert {path: path.stat().st_mtime_ns for path in run.work.rglob("*")} == before
