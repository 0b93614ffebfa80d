"""Made-up requests of every shape that serving meets, so that no user's request is the first of its shape.

On a GPU each shape is recorded once (`decoding/graphs.py`), which takes seconds; on a CPU the first calls allocate and
pack. Both belong before the moment when a server says that it is ready.
"""

from collections.abc import Iterator

from genrec.decoding.graphs import TOKEN_STEP
from genrec.recommender import Recommender
from genrec.requests import Request


def warm_up(recommender: Recommender, max_batch_rows: int) -> None:
    """Answer one batch of each shape, at the bundle's own beam width.

    Args:
        recommender: who answers.
        max_batch_rows: beam rows of the largest batch that it will be given.

    Raises:
        EngineError: the model fails at it.
    """
    num_beams = recommender.bundle.manifest.generation.num_beams
    catalog, longest = recommender.bundle.catalog, recommender.bundle.encoder.prompt.max_history_items
    popular = [catalog.item_id(int(row)) for row in catalog.most_popular()[:longest]]
    for num_items, num_requests in _shapes(recommender, max(1, max_batch_rows // num_beams)):
        history = [popular[place % len(popular)] for place in range(num_items)]
        recommender.recommend([Request(history, k=1, exclude_history=False)] * num_requests)


def _shapes(recommender: Recommender, most_requests: int) -> Iterator[tuple[int, int]]:
    """Items of a history, and requests at once."""
    longest = recommender.bundle.encoder.prompt.max_history_items
    if recommender.device == "cpu":
        yield from ((1, 1), (longest, 1), (longest, most_requests))
        return
    encode = recommender.bundle.encoder.encode
    by_tokens = {-(-len(encode([0] * items)) // TOKEN_STEP): items for items in range(1, longest + 1)}
    for items in by_tokens.values():
        requests = 1
        while requests < most_requests:
            yield items, requests
            requests *= 2
        yield items, requests
