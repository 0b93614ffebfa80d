"""From the directory of a bundle to a recommender that may serve: verified, proven, warm."""

import gc
from pathlib import Path

from genrec.decoding.threads import use_threads
from genrec.recommender import Recommender
from genrec.warm_up import warm_up
from service.settings import Settings

_GC_THRESHOLDS = (20_000, 20, 20)
"""Objects made before the youngest are looked at, and how often the older ones are; at Python's 700, 10, 10 it took a
twentieth of the event loop's time."""


def load_to_serve(bundle: Path, settings: Settings) -> Recommender:
    """The recommender of a bundle, its golden answers replayed, every shape of batch tried once.

    It is kept out of sight of the garbage collector. PyTorch and a model are some 400,000 objects, and a collection
    walks them all, 250 ms on the event loop's time; frozen they are left alone. What a request makes is freed as its
    last reference goes, so collections may be rare.

    Raises:
        BundleError: the bundle is refused.
        InputError: the settings ask for what cannot be had.
        EngineError: the model fails at what it is tried with.
    """
    use_threads(settings.threads)
    recommender = Recommender.load(
        bundle,
        device=settings.device,
        dtype=settings.dtype,
        engine=settings.engine,
        max_proof_beams=settings.max_proof_beams,
        expect_version=settings.expect_version,
    )
    warm_up(recommender, settings.max_batch_rows)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    return recommender
