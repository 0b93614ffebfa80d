"""No line of the packages unpickles, or asks a library to; what would is named here and searched in every module."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("genrec", "service", "training", "benchmarks", "scripts")
MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "pandas"}
CALLS = {
    "torch.load",
    "torch.hub.load",
    "torch.jit.load",
    "torch.package",
    "np.lib.format.read_array",
}
NUMPY = {"np.load", "numpy.load"}
KEYWORDS = {"allow_pickle": True, "trust_remote_code": True, "weights_only": False, "use_safetensors": False}


def dotted(node: ast.expr) -> str:
    """`a.b.c` of an expression that is a name, else nothing."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (inner := dotted(node.value)):
        return f"{inner}.{node.attr}"
    return ""


def unpickling(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ([node.module] if node.module.split(".")[0] in MODULES else [])
            yield from (name for alias in node.names if (name := f"{node.module}.{alias.name}") in CALLS)
        elif isinstance(node, ast.Call):
            if dotted(node.func) in CALLS or dotted(node.func).endswith(("read_pickle", "torch.load")):
                yield dotted(node.func)
            if dotted(node.func) in NUMPY and "allow_pickle" not in {keyword.arg for keyword in node.keywords}:
                yield dotted(node.func)  # its default has been the other one
            for keyword in node.keywords:
                value = keyword.value
                if keyword.arg in KEYWORDS and not (
                    isinstance(value, ast.Constant) and value.value == (not KEYWORDS[keyword.arg])
                ):
                    yield f"{keyword.arg}={ast.unparse(value)}"


FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def test_every_package_is_searched() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(PACKAGES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_module_unpickles(path: Path) -> None:
    assert list(unpickling(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, joblib",
        "from pickle import loads",
        "from joblib import load",
        "import pandas as pd",
        "torch.load('x')",
        "torch.load('x', weights_only=True)",
        "from torch import load",
        "np.load('x')",
        "np.load('x', allow_pickle=True)",
        "pd.read_pickle('x')",
        "model.from_pretrained('x', trust_remote_code=True)",
        "model.from_pretrained('x', trust_remote_code=trusted)",
        "model.from_pretrained('x', use_safetensors=None)",
        "def f():\n    import shelve",
    ],
)
def test_the_search_finds_what_it_is_for(source: str) -> None:
    assert list(unpickling(source))


def test_what_is_harmless_is_not_found() -> None:
    source = "model.from_pretrained('x', trust_remote_code=False, use_safetensors=True)\njson.load(f)\nimport picklock"
    source += "\nnp.load('x', allow_pickle=False)"
    assert list(unpickling(source)) == []
