"""Stage `baselines`: where simple methods rank what every evaluated user chose next.

They depend on the data alone, so they are measured once, however many models are trained on them.
"""

import json
from pathlib import Path
from typing import Any

from training.baselines import markov_ranks, popularity_ranks
from training.cases import evaluation_cases
from training.metrics import Ranks
from training.progress import Progress
from training.rank_table import SPLITS, RankTable, write_ranks
from training.recipe_model import Evaluate, SasRec
from training.sasrec import FittedSasRec, fit_sasrec, sasrec_ranks
from training.sequences import Sequences, load_sequences
from training.stage import Stage, StageContext

SASREC_FACTS = "sasrec.json"


def run(context: StageContext) -> None:
    """`prepare` -> ``ranks.parquet``, and ``sasrec.json`` if one was trained."""
    recipe = context.recipe
    sequences = load_sequences(context.inputs["prepare"])
    tables, sasrec = rank_baselines(sequences, recipe.evaluate, recipe.seed, context.progress)
    write_ranks(context.output, tables)
    if sasrec is not None:
        (context.output / SASREC_FACTS).write_text(json.dumps(sasrec, indent=1) + "\n", encoding="utf-8")


def rank_baselines(
    sequences: Sequences, settings: Evaluate, seed: int, progress: Progress
) -> tuple[dict[str, RankTable], dict[str, Any] | None]:
    """Popularity, Markov chains and perhaps a SASRec on the cases of both splits.

    All learn from training interactions; ``markov_with_validation`` learns from validation too, since a model reads it
    in the history of a test user, and so stands beside test only.

    Args:
        sequences: The data.
        settings: Which users, and whether there is a SASRec.
        seed: Of the SASRec.
        progress: The display.

    Returns:
        Split -> ranks of each method; and how the SASRec was trained, None where there is none.
    """
    training, num_items = sequences.training_sequences(), len(sequences.item_ids)
    cases = {split: evaluation_cases(sequences, split, settings) for split in SPLITS}
    ranks: dict[str, dict[str, Ranks]] = {
        split: {
            "popularity": popularity_ranks(training, asked, num_items),
            "markov": markov_ranks(training, asked, num_items),
        }
        for split, asked in cases.items()
    }
    ranks["test"]["markov_with_validation"] = markov_ranks(sequences.sequences_before_test(), cases["test"], num_items)
    fitted = None
    if settings.sasrec is not None:
        fitted = fit_sasrec(training, cases["validation"], num_items, settings.sasrec, seed, progress)
        for split, asked in cases.items():
            ranks[split]["sasrec"] = sasrec_ranks(fitted.model, asked, num_items)
        progress.say(f"sasrec: best of {fitted.epochs} epochs is {fitted.best_epoch}, in {fitted.seconds:.0f} s")
    tables = {split: RankTable.of(sequences, asked, ranks[split]) for split, asked in cases.items()}
    return tables, None if fitted is None or settings.sasrec is None else _facts(settings.sasrec, fitted)


def read_sasrec(directory: Path) -> dict[str, Any] | None:
    """How the SASRec of a finished stage was trained; None where there is none."""
    file = directory / SASREC_FACTS
    facts: dict[str, Any] | None = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    return facts


def _facts(settings: SasRec, fitted: FittedSasRec) -> dict[str, Any]:
    """No clock times: an equal run must write equal bytes."""
    return {
        "softmax": "full catalog" if fitted.negatives is None else f"{fitted.negatives} sampled items a step",
        "best_epoch": fitted.best_epoch,
        "epochs": fitted.epochs,
        "validation": {"recall@10": round(fitted.validation_recall, 6), "ndcg@10": round(fitted.validation_ndcg, 6)},
        "settings": settings.model_dump(mode="json"),
    }


def _section(recipe: Any) -> object:  # noqa: ANN401  (a Recipe)
    asked = recipe.evaluate
    return {"num_users": asked.num_users, "seed": asked.seed, "sasrec": asked.sasrec}


STAGE = Stage(name="baselines", needs=("prepare",), section=_section, run=run)
