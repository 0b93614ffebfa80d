"""Importing the package does nothing; its faces are there when they are asked for."""

import subprocess
import sys

import pytest

import genrec


def test_the_faces_of_the_package_are_those_of_the_recommender() -> None:
    from genrec import recommender

    for name in genrec.__all__:
        assert getattr(genrec, name) is getattr(recommender, name)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'genrec' has no attribute 'Recomender'"):
        _ = genrec.Recomender


def test_importing_the_package_imports_no_library() -> None:
    program = "import genrec, sys; print(sorted(sys.modules.keys() & {'torch', 'transformers', 'numpy', 'pyarrow'}))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
