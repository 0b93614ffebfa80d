import dataclasses
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from genrec.errors import BundleError, DataError, InputError, LockedError
from tests.training.bench import RememberingProgress, recipe
from training.pipeline import PARTIAL_KEY, RECORD, read_record, run_pipeline
from training.recipe import Recipe
from training.stage import Stage, StageContext


class Chain:
    """Three stages that write down what they read; `ran` lists those that ran."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.ran: list[str] = []
        self.lines: list[str] = []
        self.before: Callable[[StageContext], None] = lambda context: None
        self.source = work.parent / "source.txt"
        self.source.write_text("source")
        self.stages = (
            Stage("prepare", (), lambda r: r.prepare, self._run, reads=lambda _: [self.source]),
            Stage("embed", ("prepare",), lambda r: r.embed, self._run),
            Stage("quantize", ("prepare", "embed"), lambda r: (r.quantize, None), self._run),
        )

    def _run(self, context: StageContext) -> None:
        name = context.output.name.removeprefix(".").removesuffix(".partial")
        self.ran.append(name)
        self.before(context)
        inputs = {need: (path / "out.txt").read_text() for need, path in context.inputs.items()}
        # What a stage writes: its inputs, and one value of its section.
        own = {
            "prepare": context.recipe.prepare.user_core,
            "embed": context.recipe.embed.parts,
            "quantize": context.recipe.quantize.codebook_sizes,
        }
        text = json.dumps([inputs, own[name]])
        (context.output / "out.txt").write_text(text)

    def run(self, recipe: Recipe, until: str | None = None) -> list[str]:
        self.ran = []
        progress = RememberingProgress()
        try:
            run_pipeline(self.stages, recipe, self.work, progress, until)
        finally:
            self.lines = progress.lines
        return self.ran


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    chain = Chain(tmp_path / "work")
    assert chain.run(recipe()) == ["prepare", "embed", "quantize"]
    return chain


def test_a_second_run_skips_everything(chain: Chain) -> None:
    assert chain.run(recipe()) == []
    assert all("skipped" in line for line in chain.lines)


def test_a_changed_section_reruns_its_stage_and_what_depends_on_its_result(chain: Chain) -> None:
    assert chain.run(recipe(quantize={"codebook_sizes": [4, 4]})) == ["quantize"]
    assert "changed: the recipe" in " ".join(chain.lines)
    assert chain.run(recipe(embed={"parts": []}, quantize={"codebook_sizes": [4, 4]})) == ["embed", "quantize"]
    assert "changed: the result of embed" in " ".join(chain.lines)


def test_a_rerun_with_an_equal_result_stops_there(chain: Chain) -> None:
    # item_core is in the section of prepare but not in what it writes.
    assert chain.run(recipe({"dataset": "toy", "item_core": 2})) == ["prepare"]


def test_the_seed_and_the_content_of_an_outside_file_count_and_its_date_does_not(chain: Chain) -> None:
    assert chain.run(recipe(seed=2)) == ["prepare", "embed", "quantize"]
    os.utime(chain.source, (1, 1))
    assert chain.run(recipe(seed=2)) == []
    chain.source.write_text("other")
    assert chain.run(recipe(seed=2)) == ["prepare"]
    assert "the files it reads" in " ".join(chain.lines)


def test_a_new_version_of_a_stage_reruns_it(chain: Chain) -> None:
    first, *rest = chain.stages
    chain.stages = (Stage("prepare", (), first.section, first.run, first.reads, version=2), *rest)
    assert chain.run(recipe()) == ["prepare"]


def test_an_edited_result_is_noticed_and_made_again(chain: Chain) -> None:
    (chain.work / "embed" / "out.txt").write_text("edited")
    assert chain.run(recipe()) == ["embed"]
    assert "edited" in " ".join(chain.lines)
    (chain.work / "embed" / "extra.txt").write_text("added")
    assert chain.run(recipe()) == ["embed"]
    assert not (chain.work / "embed" / "extra.txt").exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"key": 1}'])
def test_a_broken_record_counts_as_none(chain: Chain, text: str) -> None:
    (chain.work / "embed" / RECORD).write_text(text)
    assert chain.run(recipe()) == ["embed"]


def test_until_stops_after_a_stage(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "work")
    assert chain.run(recipe(), until="embed") == ["prepare", "embed"]
    with pytest.raises(InputError, match="no stage 'seal'"):
        chain.run(recipe(), until="seal")


def test_a_stage_that_failed_leaves_nothing_that_is_trusted(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "work")

    def fail(context: StageContext) -> None:
        (context.output / "half.txt").write_text("half")
        raise DataError("broken")

    chain.before = fail
    with pytest.raises(DataError, match="broken"):
        chain.run(recipe())
    assert read_record(chain.work / "prepare") is None
    chain.before = lambda context: None
    assert chain.run(recipe()) == ["prepare", "embed", "quantize"]
    assert not (chain.work / "prepare" / "half.txt").exists()


def test_a_failed_rerun_keeps_the_old_result_but_does_not_trust_it(chain: Chain) -> None:
    def fail(context: StageContext) -> None:
        raise DataError("broken")

    chain.before = fail
    changed = recipe(embed={"parts": []})
    with pytest.raises(DataError):
        chain.run(changed)
    chain.before = lambda context: None
    assert chain.run(changed) == ["embed", "quantize"]


def _hold_and_die(work: Path) -> None:
    chain = Chain(work)

    def die(context: StageContext) -> None:
        if context.output.name == ".embed.partial":
            (context.output / "half.txt").write_text("half")
            os._exit(9)  # as a kill would: no cleanup of any kind

    chain.before = die
    chain.run(recipe())


@pytest.mark.system
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_hold_and_die, args=(tmp_path / "work",))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert (tmp_path / "work" / ".embed.partial" / "half.txt").exists()
    chain = Chain(tmp_path / "work")
    assert chain.run(recipe()) == ["embed", "quantize"]
    assert not (tmp_path / "work" / "embed" / "half.txt").exists()
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == [".lock", "embed", "prepare", "quantize"]


def resumable(work: Path, found: list[list[str]]) -> Stage:
    def run(context: StageContext) -> None:
        found.append(sorted(path.name for path in context.output.iterdir() if path.name != PARTIAL_KEY))
        (context.output / "checkpoint").write_text("1")
        if len(found) == 1:
            raise DataError("stopped")

    return Stage("finetune", (), lambda r: r.embed, run, resumable=True)


def test_a_resumable_stage_finds_what_a_run_of_the_same_key_left(tmp_path: Path) -> None:
    found: list[list[str]] = []
    stage = resumable(tmp_path, found)
    with pytest.raises(DataError):
        run_pipeline([stage], recipe(), tmp_path / "work", RememberingProgress())
    run_pipeline([stage], recipe(), tmp_path / "work", RememberingProgress())
    assert found == [[], ["checkpoint"]]
    assert sorted(path.name for path in (tmp_path / "work" / "finetune").iterdir()) == ["checkpoint", RECORD]


def test_a_resumable_stage_of_another_key_starts_afresh(tmp_path: Path) -> None:
    found: list[list[str]] = []
    stage = resumable(tmp_path, found)
    with pytest.raises(DataError):
        run_pipeline([stage], recipe(), tmp_path / "work", RememberingProgress())
    run_pipeline([stage], recipe(embed={"parts": []}), tmp_path / "work", RememberingProgress())
    assert found == [[], []]


def test_a_stage_whose_input_was_never_made_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs the result of 'prepare'"):
        run_pipeline(Chain(tmp_path / "work").stages[1:], recipe(), tmp_path / "work", RememberingProgress())


def test_two_runs_cannot_share_a_work_directory(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "work")

    def run_again(context: StageContext) -> None:
        with pytest.raises(LockedError, match="in use by another run"):
            run_pipeline(chain.stages, recipe(), chain.work, RememberingProgress())

    chain.before = run_again
    assert len(chain.run(recipe())) == 3


def test_other_ranks_join_the_stages_of_all_ranks_and_wait_for_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, str]] = []
    both = threading.Barrier(2)

    def alone(context: StageContext) -> None:
        ran.append((threading.current_thread().name, "prepare"))
        (context.output / "out.txt").write_text("x")

    def together(context: StageContext) -> None:
        both.wait(timeout=20)
        name = threading.current_thread().name
        ran.append((name, "finetune"))
        if name == "0":
            (context.output / "out.txt").write_text("y")

    stages = (
        Stage("prepare", (), lambda r: r.prepare, alone),
        Stage("finetune", ("prepare",), lambda r: r.embed, together, every_rank=True),
        Stage("merge", ("finetune",), lambda r: r.quantize, alone),
    )
    monkeypatch.setattr("training.pipeline.is_main", lambda: threading.current_thread().name == "0")
    monkeypatch.setattr("training.pipeline.POLL_S", 0.01)

    def work() -> None:
        run_pipeline(stages, recipe(), tmp_path / "work", RememberingProgress())

    ranks = [threading.Thread(target=work, name=name) for name in ("1", "0")]
    for rank in ranks:
        rank.start()
        time.sleep(0.05)  # rank 1 comes first and has to wait
    for rank in ranks:
        rank.join(timeout=30)
    assert sorted(ran) == [("0", "finetune"), ("0", "prepare"), ("0", "prepare"), ("1", "finetune")]
    assert (tmp_path / "work" / "finetune" / "out.txt").read_text() == "y"


def test_the_version_of_the_base_bundle_counts_for_stages_that_read_it(chain: Chain, tmp_path: Path) -> None:
    from tests.fakes import TinyShape, tiny_bundle  # PyTorch comes with it, which the processes of other tests need not

    one = tiny_bundle(tmp_path / "one", TinyShape(seed=1))
    first, *rest = chain.stages
    chain.stages = (dataclasses.replace(first, reads_base=True), *rest)
    going_on = recipe(base={"bundle": str(one)})
    assert chain.run(recipe()) == []  # a recipe without a base depends on nothing new
    assert chain.run(going_on) == ["prepare"]
    assert chain.run(going_on) == []
    moved = one.rename(tmp_path / "moved")
    assert chain.run(recipe(base={"bundle": str(moved)})) == []  # the same bundle elsewhere
    other = tiny_bundle(tmp_path / "two", TinyShape(seed=2))
    assert chain.run(recipe(base={"bundle": str(other)})) == ["prepare"]
    assert "changed: the base bundle" in " ".join(chain.lines)
    with pytest.raises(BundleError, match="not a directory"):
        chain.run(going_on)
