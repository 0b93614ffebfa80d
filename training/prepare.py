"""The prepare stage: from raw tables to histories with a split, checked against leaks.

Reads a recipe's data, applies its filters in a fixed order (order in time, minimum rating, missing items, duplicates,
core, split) and writes ``interactions.parquet``, ``items.parquet`` and a report. Knows nothing of vectors and codes.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from genrec.errors import DataError
from training.datasets import RawData, named
from training.interactions import Interactions, core, in_order, rated_at_least, without_duplicates
from training.prepare_read import read_interactions, read_items
from training.prepare_write import write_interactions, write_items
from training.processes import cache_dir
from training.recipe import Recipe
from training.recipe_data import Prepare
from training.seen import base_seen_until, instant
from training.sources import find_files, scan
from training.split import (
    SPLITS,
    TEST,
    TRAIN,
    Split,
    all_training,
    by_time,
    check_no_leak,
    leave_one_out,
    positions,
    seen_is_training,
    validation_is_training,
)
from training.stage import Stage, StageContext
from training.stage_report import write_report

_RULES = {
    "leave_one_out": "Leave-one-out: a user's last interaction is test, the one before it validation.",
    "time": "Split by time: the newest interactions of all users are test, those before them validation.",
    "none": "No split: everything is training, and nothing can be measured on these data.",
}
_NO_VALIDATION = "Validation interactions are training here: what was chosen was chosen on another run, without them."

Steps = list[dict[str, object]]
"""How many users, items and interactions were left after each step."""


def run(context: StageContext) -> None:
    """Prepare the data of ``recipe.prepare``.

    Raises:
        DataError: The data are absent, empty, unreadable, or nothing is left of them.
        TrainingError: The split leaks.
    """
    recipe, section = context.recipe, context.recipe.prepare
    raw = _open(section)
    with context.progress.task("reading") as advance:
        interactions = read_interactions(raw.interactions, raw.interaction_columns, context.output)
        items = None if raw.items is None or raw.item_columns is None else read_items(raw.items, raw.item_columns)
        advance(len(interactions))
    steps: Steps = []
    interactions = _filtered(in_order(interactions, recipe.seed), items, section, steps)
    position, split = positions(interactions.user), _split(interactions, section)
    seen_until_ms = base_seen_until(recipe)
    if seen_until_ms is not None:
        split = seen_is_training(interactions, split, seen_until_ms)
    check_no_leak(interactions.user, position, split)
    catalog = _catalog(items, interactions, section.keep_unseen_items)
    hashes = [
        write_interactions(context.output / "interactions.parquet", interactions, position, split),
        write_items(context.output / "items.parquet", catalog),
    ]
    _report(context.output, section, interactions, split, catalog, steps, hashes)
    context.progress.say(
        f"{interactions.user_count:,} users, {catalog.height:,} items, {len(interactions):,} interactions, "
        f"{np.count_nonzero(split == TEST):,} of them test"
    )


def files_read(recipe: Recipe) -> Sequence[Path]:
    """The user's own files; a named data set is pinned by its checksums instead."""
    sources = [source for source in (recipe.prepare.interactions, recipe.prepare.items) if source is not None]
    return [file for source in sources for file in find_files(source.path)]


def _open(section: Prepare) -> RawData:
    if section.interactions is None:
        return named(str(section.dataset), cache_dir())
    return RawData(
        interactions=scan(section.interactions.path, section.interactions.separator),
        interaction_columns=section.interactions,
        items=None if section.items is None else scan(section.items.path, section.items.separator),
        item_columns=section.items,
    )


def _filtered(interactions: Interactions, items: pl.DataFrame | None, section: Prepare, steps: Steps) -> Interactions:
    """Apply the filters of the recipe, noting after each what is left.

    Raises:
        DataError: A filter leaves nothing, or items are missing.
    """

    def note(step: str, left: Interactions) -> Interactions:
        if not len(left):
            raise DataError(f"no interaction is left after: {step}; loosen it in [prepare]")
        counts = {"users": left.user_count, "items": left.item_count, "interactions": len(left)}
        steps.append({"step": step, **counts})
        return left

    kept = note("read", interactions)
    if section.minimum_rating is not None:
        kept = note(f"minimum_rating = {section.minimum_rating:g}", rated_at_least(kept, section.minimum_rating))
    if items is not None:
        kept = note(f'missing_items = "{section.missing_items}"', _known(kept, items, section))
    if section.duplicates != "keep":
        kept = note(f'duplicates = "{section.duplicates}"', without_duplicates(kept, section.duplicates))
    if max(section.user_core, section.item_core) > 1:
        cored = core(kept, section.user_core, section.item_core)
        kept = note(f"user_core = {section.user_core}, item_core = {section.item_core}", cored)
    return kept


def _known(interactions: Interactions, items: pl.DataFrame, section: Prepare) -> Interactions:
    """Interactions with items that the items file has; the others are refused or dropped, as the recipe says."""
    known = pl.Series(interactions.item_ids, dtype=pl.String).is_in(items.get_column("item_id").implode()).to_numpy()
    missing = np.unique(interactions.item[~known[interactions.item]])
    if len(missing) and section.missing_items == "error":
        names = ", ".join(repr(interactions.item_ids[item]) for item in missing[:5])
        path = section.items.path if section.items is not None else section.dataset
        raise DataError(
            f"{path} lacks {len(missing):,} items that have interactions ({names}{', …' if len(missing) > 5 else ''}); "
            'add them, or set prepare.missing_items = "drop" to drop their interactions'
        )
    return interactions.take(known[interactions.item])


def _split(interactions: Interactions, section: Prepare) -> Split:
    if section.split == "none":
        return all_training(interactions)
    if section.split == "time":
        split = by_time(interactions, section.validation_share, section.test_share)
    else:
        split = leave_one_out(interactions)
    if not (split == TEST).any():
        raise DataError("no user has three interactions, so leave_one_out leaves nothing to test on; give more data")
    return validation_is_training(split) if section.train_on_validation else split


def _catalog(items: pl.DataFrame | None, interactions: Interactions, keep_unseen: bool) -> pl.DataFrame:
    """The items that stay, sorted by id: those with interactions, or all of the items file."""
    if items is not None and keep_unseen:
        return items
    seen = pl.DataFrame({"item_id": [interactions.item_ids[item] for item in np.unique(interactions.item)]})
    if items is None:
        return seen
    return items.join(seen, on="item_id", how="semi").sort("item_id")


def _report(
    output: Path,
    section: Prepare,
    interactions: Interactions,
    split: Split,
    catalog: pl.DataFrame,
    steps: Steps,
    hashes: Sequence[str],
) -> None:
    lengths = np.bincount(interactions.user)
    lengths = lengths[lengths > 0]
    counts = np.bincount(split, minlength=len(SPLITS))
    untested = interactions.user_count - len(np.unique(interactions.user[split == TEST]))
    facts = {
        "data": section.dataset or (section.interactions.path if section.interactions else ""),
        "users": interactions.user_count,
        "items": catalog.height,
        "interactions": len(interactions),
        "interactions_sha256": hashes[0],
        "items_sha256": hashes[1],
        "first_time": instant(int(interactions.time.min())),
        "last_time": instant(int(interactions.time.max())),
        "tied_neighbours": _tied_share(interactions),
        "items_without_training_interaction": catalog.height - len(np.unique(interactions.item[split == TRAIN])),
        "users_without_test": untested,
        "steps": steps,
        "split": {name: int(count) for name, count in zip(SPLITS, counts, strict=True)},
        "history_length": {
            "minimum": int(lengths.min()),
            "median": float(np.median(lengths)),
            "maximum": int(lengths.max()),
        },
        "metadata": {name: str(kind) for name, kind in catalog.schema.items() if name != "item_id"},
    }
    notes = [
        _RULES[section.split],
        *([_NO_VALIDATION] if section.train_on_validation else []),
        f"{untested:,} users have no test interaction"
        + (" because they have fewer than three; they only train." if section.split == "leave_one_out" else "."),
        "Interactions of one user at one time are ordered by a seeded hash of user and item, not by the file's order.",
        "Checked: no user has training data at or after a held-out position.",
    ]
    write_report(output, "Data", facts, notes)


def _tied_share(interactions: Interactions) -> float:
    """Share of neighbouring interactions of one user that bear the same time, so that the seed ordered them."""
    same_user = np.diff(interactions.user) == 0
    tied = same_user & (np.diff(interactions.time) == 0)
    return round(float(tied.sum() / max(same_user.sum(), 1)), 6)


STAGE = Stage(
    name="prepare",
    needs=(),
    section=lambda recipe: recipe.prepare,
    run=run,
    reads=files_read,
    reads_base=True,
)
