"""`genrec evaluate`: any bundle on prepared interactions, beside baselines and, if given, beside another bundle.

The bundles are only read. What the stage `evaluate` does to a draft happens here to what is sealed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genrec.bundle import Manifest
from genrec.errors import InputError
from genrec.recommender import Recommender
from training.ask import ask
from training.baseline_ranks import rank_baselines
from training.cases import evaluation_cases
from training.evaluate import describe, measure, write_evaluation
from training.metrics import Ranks
from training.progress import Progress
from training.rank_table import SPLITS, RankTable
from training.recipe_model import Evaluate
from training.report.page import FILE as REPORT
from training.report.page import Story, report_page
from training.results import cutoffs_within
from training.seen import check_unseen
from training.sequences import Sequences, load_sequences


def evaluate_bundle(
    bundle: Path,
    output: Path,
    *,
    prepared: Path | None,
    against: Path | None,
    split: str,
    settings: Evaluate,
    device: str,
    progress: Progress,
) -> None:
    """Measure a bundle and write metrics, ranks, pictures and the page.

    Args:
        bundle: Its directory.
        output: Where results go; made if absent.
        prepared: Result of the stage `prepare`; None is ``runs/<name of the bundle>/prepare``.
        against: A second bundle, measured on the same cases as one more method.
        split: ``test``, ``validation`` or ``both``.
        settings: Cut-offs, users, seeds.
        device: auto, cpu, cuda or cuda:N.
        progress: The display.

    Raises:
        InputError: The bundle has seen what it would be measured on, or the split has no case.
    """
    recommender = _load(bundle, device)
    other = None if against is None else _load(against, device)
    manifest = recommender.bundle.manifest
    sequences = load_sequences(prepared if prepared is not None else Path("runs") / manifest.name / "prepare")
    check_unseen(manifest, sequences)
    tables, sasrec = rank_baselines(sequences, settings, settings.seed, progress)
    wanted = {name: tables[name] for name in SPLITS if split in (name, "both") and len(tables[name])}
    if not wanted:
        raise InputError(
            f"the prepared data have no user with a held-out item in {split}; give another --split or data."
        )
    if other is not None:
        check_unseen(other.bundle.manifest, sequences)
        settings = _within_both(settings, recommender, other)
        wanted = _with_another(wanted, other, sequences, settings, progress)
    evaluation = measure(recommender, sequences, wanted, settings, progress)
    extra: dict[str, Any] = {"bundle": _named(manifest)} | ({} if sasrec is None else {"sasrec": sasrec})
    write_evaluation(output, evaluation, extra)
    story = Story(manifest, {**evaluation.metrics, **extra}, evaluation.examples, pictures=output)
    (output / REPORT).write_text(report_page(story), encoding="utf-8")
    for line in describe(evaluation.metrics):
        progress.say(line)


def _load(bundle: Path, device: str) -> Recommender:
    return Recommender.load(bundle, device=device, dtype="float32")


def _within_both(settings: Evaluate, *recommenders: Recommender) -> Evaluate:
    """The cut-offs that both bundles give, so that no list is longer than the other."""
    max_k = min(recommender.bundle.manifest.generation.max_k for recommender in recommenders)
    return settings.model_copy(update={"cutoffs": cutoffs_within(settings, max_k)})


def _with_another(
    tables: Mapping[str, RankTable],
    other: Recommender,
    sequences: Sequences,
    settings: Evaluate,
    progress: Progress,
) -> dict[str, RankTable]:
    """The other bundle's ranks as those of one more method."""
    name = _named(other.bundle.manifest)

    def ranks(split: str) -> Ranks:
        cases = evaluation_cases(sequences, split, settings)
        return ask(
            other, sequences, cases, max(settings.cutoffs), settings.batch_size, progress, f"{name}, {split}"
        ).ranks

    return {split: table.with_ranks({name: ranks(split)}) for split, table in tables.items()}


def _named(manifest: Manifest) -> str:
    return f"{manifest.name} {manifest.version}"
