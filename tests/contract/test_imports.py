"""Each package imports with its own extra installed and no other, as in an image for serving or a plain install.

The closure of distributions is computed from the metadata of what is installed. A subprocess then runs with finders
that find no module of a distribution outside that closure, as if it were not installed, and imports every module.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
PACKAGES = {"genrec", "service", "training"}

# Modules that a package must not reach are absent rather than broken: optional imports of libraries ask find_spec.
PROBE = """
import importlib, json, sys

absent, modules, bundle = json.loads(sys.argv[1])

class Without:
    def __init__(self, finder):
        self._finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else self._finder.find_spec(name, path, target)

    def __getattr__(self, name):  # importlib.metadata looks for find_distributions
        return getattr(self._finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
for module in modules:
    try:
        importlib.import_module(module)
    except ImportError as error:
        sys.exit(f"{module} needs {error.name}")
if bundle:
    from genrec import Recommender, Request
    assert Recommender.load(bundle).recommend([Request(["i1"])])[0].items
"""


def closure(*extras: str, of: Sequence[str] = ("genrec",)) -> set[str]:
    """Canonical names of the distributions that ``pip install genrec[extras]`` brings, as far as they are installed."""
    found: set[tuple[str, str]] = set()
    waiting = [(name, extra) for name in of for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in found:
            continue
        try:
            requirements = [Requirement(line) for line in distribution(name).requires or []]
        except PackageNotFoundError:  # another platform's, or an optional one
            continue
        found.add((name, extra))
        for requirement in requirements:
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(requirement.name), wanted) for wanted in ("", *requirement.extras)]
    return {name for name, _ in found}


def absent_modules(installed: set[str], packages: set[str]) -> list[str]:
    """Top-level modules that would not be there with only `installed`, and those of ours that are not `packages`."""
    owners = {module: {canonicalize_name(name) for name in names} for module, names in packages_distributions().items()}
    foreign = {module for module, names in owners.items() if not names & installed}
    return sorted((foreign - PACKAGES) | (PACKAGES - packages))


def modules_of(package: str) -> list[str]:
    """Every module of one of our packages but the one that runs it."""
    files = sorted((ROOT / package).rglob("*.py"))
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    return [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]


def probe(
    packages: set[str],
    modules: list[str],
    *extras: str,
    bundle: str = "",
    path: Path = ROOT,
    distributions: Sequence[str] = ("genrec",),
) -> subprocess.CompletedProcess[str]:
    """Import `modules`, with the current directory `path` on the module path, where only `packages` of ours exist."""
    payload = json.dumps([absent_modules(closure(*extras, of=distributions), packages), modules, bundle])
    command = [sys.executable, "-c", PROBE, payload]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=path)


@pytest.mark.parametrize("upper", ["service", "training"])
def test_every_module_imports_with_only_its_own_extra(upper: str) -> None:
    modules = [name for name in modules_of(upper) if not name.startswith("service.client")]  # which has its own
    run = probe({"genrec", upper}, modules_of("genrec") + modules, upper)
    assert (run.returncode, run.stderr) == (0, "")


def test_the_client_imports_where_only_httpx_and_pydantic_are() -> None:
    modules = [name for name in modules_of("service") if name.startswith("service.client")]
    assert "service.client.retries" in modules
    run = probe({"service"}, modules, distributions=("httpx", "pydantic"))
    assert (run.returncode, run.stderr) == (0, "")


def test_a_client_that_imported_the_domain_or_a_framework_would_be_found(tmp_path: Path) -> None:
    for module in ("genrec", "starlette", "numpy"):
        (tmp_path / "offender.py").write_text(f"import {module}\n")
        run = probe({"service"}, ["offender"], path=tmp_path, distributions=("httpx", "pydantic"))
        assert (run.returncode, run.stderr) == (1, f"offender needs {module}\n")


def test_the_domain_imports_and_answers_without_any_extra(causal_bundle_path: Path) -> None:
    assert {"genrec", "genrec.bundle.load", "genrec.recommender"} <= set(modules_of("genrec"))
    run = probe({"genrec"}, modules_of("genrec"), bundle=str(causal_bundle_path))
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("module", ["peft", "sklearn", "matplotlib", "polars", "training", "ray"])
def test_a_service_that_imported_a_dependency_of_another_extra_would_be_found(module: str, tmp_path: Path) -> None:
    assert find_spec(module), f"install {module} for this test to show anything"
    (tmp_path / "offender.py").write_text(f"import {module}\n")
    run = probe({"genrec", "service"}, ["offender"], "service", path=tmp_path)
    assert (run.returncode, run.stderr) == (1, f"offender needs {module}\n")


def test_the_service_brings_no_training_dependency() -> None:
    service, training = closure("service"), closure("training")
    assert {"fastapi", "uvicorn", "torch", "transformers", "starlette"} <= service
    assert {"peft", "polars", "scikit-learn", "matplotlib", "accelerate"} <= training
    assert not service & {"peft", "datasets", "scikit-learn", "matplotlib", "polars", "accelerate", "pytest", "ray"}
    assert not training & {"fastapi", "uvicorn", "pytest"}
    assert not closure() & {"fastapi", "peft", "uvicorn"}
