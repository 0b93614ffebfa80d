"""A benchmark's command line silences transformers for its process; here that process is everybody's."""

from collections.abc import Iterator

import pytest
from transformers.utils import logging as transformers_logging


@pytest.fixture(autouse=True)
def voice_of_the_library() -> Iterator[None]:
    yield
    transformers_logging.enable_progress_bar()
