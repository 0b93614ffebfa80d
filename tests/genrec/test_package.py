"""Importing the package does nothing; its faces are there when they are asked for."""

import subprocess
import sys

import pytest

import genrec


def test_the_faces_of_the_package_are_there_by_name() -> None:
    for name in genrec.__all__:
        assert getattr(genrec, name).__name__ == name
    assert set(genrec._HOMES) == set(genrec.__all__)


@pytest.mark.parametrize(("name", "absent"), [("Request", {"torch", "transformers"}), ("Answer", {"torch"})])
def test_a_face_that_needs_no_model_waits_for_no_model_library(name: str, absent: set[str]) -> None:
    program = f"import genrec, sys; genrec.{name}; print(sorted(sys.modules.keys() & {absent}))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'genrec' has no attribute 'Recomender'"):
        _ = genrec.Recomender


def test_importing_the_package_imports_no_library() -> None:
    program = "import genrec, sys; print(sorted(sys.modules.keys() & {'torch', 'transformers', 'numpy', 'pyarrow'}))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
