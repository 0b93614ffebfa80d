"""`genrec doctor`: whether this machine can do what genrec asks of it, told before a run of hours and not by it.

Each check gives findings: something is fine, worth a look, or broken. Knows names of packages, not what they are for.
"""

import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from pathlib import Path
from typing import Literal

import torch
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, T5Config, T5ForConditionalGeneration

BROKEN_EXIT = 70
ROOM_GB = 5.0
"""The demo takes a tenth of it; a base model of 135 million parameters with its checkpoints takes all of it."""
SHARED_MEMORY_MB = 256
PRODUCT_SIZE = 256
EXTRAS = ("service", "training", "client", "tensorboard", "encoders", "gguf", "otel", "ray")

Level = Literal["ok", "look", "broken"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        level: `ok`, `look` for what may be meant so, `broken` for what cannot be.
        text: For the person who can mend it.
    """

    level: Level
    text: str


def doctor() -> None:
    """Check versions, devices, disk, optional packages, bfloat16, and a tiny forward and backward pass."""
    found = [finding for check in CHECKS for finding in check()]
    for finding in found:
        typer.echo(f"{finding.level:<7} {finding.text}")
    broken = sum(finding.level == "broken" for finding in found)
    look = sum(finding.level == "look" for finding in found)
    typer.echo(f"\n{broken} broken, {look} worth a look, {len(found) - broken - look} fine")
    if broken:
        raise typer.Exit(BROKEN_EXIT)


def versions() -> Iterator[Finding]:
    """Python, and what every install needs."""
    yield Finding("ok", f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    for line in requires("genrec") or []:
        requirement = Requirement(line)
        if requirement.marker is None:
            yield _installed(requirement, missing="broken", extra="genrec")


def extras() -> Iterator[Finding]:
    """What only some commands need, by extra: one that is there must be whole and must import."""
    for extra in EXTRAS:
        wanted = [Requirement(line) for line in requires("genrec") or []]
        wanted = [one for one in wanted if one.marker is not None and one.marker.evaluate({"extra": extra})]
        found = [_installed(one, missing="look", extra=f"genrec[{extra}]") for one in wanted]
        wrong = [finding for finding in found if finding.level != "ok"] or list(_importable(wanted))
        if not wrong:
            yield Finding("ok", f"genrec[{extra}]: {', '.join(one.name for one in wanted)}")
        elif [finding.level for finding in wrong] == ["look"] * len(wanted):  # none of them is there
            yield Finding("ok", f"genrec[{extra}] is not installed")
        else:
            yield from wrong


def devices() -> Iterator[Finding]:
    """Cores, threads and accelerators."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    told = f"{cores} cores, {threads} threads of PyTorch"
    yield (
        Finding("look", f"{told}: more threads than cores wait for each other")
        if threads > cores
        else Finding("ok", told)
    )
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            yield Finding("ok", f"cuda:{index}: {facts.name}, {facts.total_memory / 2**30:.0f} GB")
    elif torch.version.cuda is not None:
        yield Finding("look", f"PyTorch is built for CUDA {torch.version.cuda} and sees no GPU: check the driver")
    else:
        yield Finding("ok", "no GPU: the CPU does everything")


def room() -> Iterator[Finding]:
    """Disk below the current directory and where temporary files go; shared memory for workers of a data loader."""
    for path in (Path.cwd(), Path(tempfile.gettempdir())):
        free = shutil.disk_usage(path).free / 2**30
        few = f"; a run may need {ROOM_GB:.0f}" if free < ROOM_GB else ""
        yield Finding("look" if few else "ok", f"{free:,.1f} GB free below {path}{few}")
    shared = Path("/dev/shm")  # noqa: S108  (only measured)
    if shared.is_dir() and (free := shutil.disk_usage(shared).free / 2**20) < SHARED_MEMORY_MB:
        yield Finding(
            "look", f"{free:.0f} MB of shared memory: dataloader_num_workers > 0 may die of it (docker --shm-size=1g)"
        )


def traps() -> Iterator[Finding]:
    """What has cost people hours."""
    if sys.flags.optimize:
        yield Finding("look", "Python runs with -O: libraries underneath check themselves with assert")
    if sys.getfilesystemencoding().lower() != "utf-8":
        yield Finding("look", f"file names are {sys.getfilesystemencoding()}, not UTF-8: set PYTHONUTF8=1")
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        yield Finding("look", "the processor has no vector instructions that PyTorch knows: everything is slow")
    if torch.get_default_dtype() != torch.float32:
        yield Finding("look", f"the default dtype is {torch.get_default_dtype()}: models from a config get it")


def mixed_precision() -> Iterator[Finding]:
    """Whether `bf16` pays on this CPU: one that has no instructions for it imitates them, some thirty times slower."""
    if torch.accelerator.is_available():
        return
    ratio = _product_s(torch.bfloat16) / _product_s(torch.float32)
    told = f"products in bfloat16 take {ratio:.1f} times as long as in float32 on this CPU"
    yield Finding("look", f"{told}: leave bf16 out of recipes") if ratio > 1 else Finding("ok", told)


def passes() -> Iterator[Finding]:
    """A forward and a backward pass of a tiny model of each kind, where it would be trained."""
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    for name, build in (("decoder-only", _llama), ("encoder-decoder", _t5)):
        for dtype in (torch.float32, torch.bfloat16):
            told = f"{name} model, {str(dtype).removeprefix('torch.')} on {device}"
            try:
                loss = _one_pass(build().to(device), dtype)
            except (RuntimeError, ImportError, OSError) as error:  # what PyTorch raises where a kernel is not there
                yield Finding("broken", f"{told}: {' '.join(str(error).split())[:200]}")
            else:
                fine = torch.isfinite(loss).item()
                yield Finding("ok" if fine else "broken", f"{told}: forward and backward, loss {loss.item():.2f}")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    versions, devices, room, traps, extras, mixed_precision, passes,
)  # fmt: skip


def _installed(requirement: Requirement, *, missing: Level, extra: str) -> Finding:
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return Finding(missing, f"{requirement.name} is not installed: install {extra}")
    if requirement.specifier.contains(found, prereleases=True):
        return Finding("ok", f"{requirement.name} {found}")
    return Finding("broken", f"{requirement.name} {found} is not {requirement.specifier}: install {extra} again")


def _importable(wanted: list[Requirement]) -> Iterator[Finding]:
    """A package that is there and does not import, as one built for another NumPy or CUDA."""
    names = {canonicalize_name(requirement.name) for requirement in wanted}
    for module, owners in sorted(packages_distributions().items()):
        owner = next((owner for owner in map(canonicalize_name, owners) if owner in names), None)
        if owner is None or not module.isidentifier() or module.startswith("_"):
            continue
        try:
            import_module(module)
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            yield Finding("broken", f"{owner} is installed and {module} does not import: {error}")


def _product_s(dtype: torch.dtype) -> float:
    """Seconds of one product of square matrices, the best of three."""
    matrix, taken = torch.ones(PRODUCT_SIZE, PRODUCT_SIZE, dtype=dtype), []
    for _ in range(4):  # the first one prepares
        begin = time.perf_counter()
        matrix @ matrix
        taken.append(time.perf_counter() - begin)
    return min(taken[1:])


def _one_pass(model: PreTrainedModel, dtype: torch.dtype) -> torch.Tensor:
    ids = torch.arange(8, device=model.device)[None]
    with torch.autocast(model.device.type, dtype, enabled=dtype != torch.float32):
        loss: torch.Tensor = model(input_ids=ids, labels=ids).loss
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    return loss.detach().float()


def _llama() -> PreTrainedModel:
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=16, **shape))


def _t5() -> PreTrainedModel:
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    return T5ForConditionalGeneration(T5Config(vocab_size=16, decoder_start_token_id=0, **shape))
