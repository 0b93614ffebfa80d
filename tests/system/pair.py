"""Bundles with the same items and other weights, and what each answers, asked in this process and one by one."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from genrec.recommender import Recommender
from genrec.requests import Request
from tests.fakes import TinyShape, tiny_bundle
from tests.system.wire import Reply, post

K = 5
ROWS = 6
"""Beam rows of a request."""
MARKED = "i39"
"""An item that is in none of the histories."""
HISTORIES: Sequence[Sequence[str]] = [[f"i{number}", f"i{(number * 7 + 3) % 39}"] for number in range(12)]
REQUESTS: Sequence[bytes] = [post({"history": history, "k": K}) for history in HISTORIES]


@dataclass(frozen=True)
class Pair:
    """Bundles `a` and `b` on a shelf, and `c`, which has four items more.

    Attributes:
        root: the shelf.
        versions: name -> version.
        golden: version -> the items for each of HISTORIES.
    """

    root: Path
    versions: Mapping[str, str]
    golden: Mapping[str, Sequence[Sequence[str]]]

    @property
    def a(self) -> Path:
        return self.root / "a"

    def right(self, reply: Reply, which: int) -> bool:
        """Whether it is the answer to the history of that number, of the bundle that it says."""
        return reply.status == 200 and reply.items == self.golden[reply.version][which]


def make_pair(root: Path) -> Pair:
    (root / "shelf").mkdir()
    versions, golden = {}, {}
    for seed, name in enumerate("abc"):
        shape = TinyShape("causal", num_items=44 if name == "c" else 40, seed=seed)
        (root / name).mkdir()
        shutil.move(tiny_bundle(root / name, shape), root / "shelf" / name)
        recommender = Recommender.load(root / "shelf" / name, device="cpu")
        versions[name] = recommender.bundle.manifest.version
        golden[versions[name]] = [
            [item.item_id for item in recommender.recommend([Request(history, k=K)])[0].items] for history in HISTORIES
        ]
    return Pair(root / "shelf", versions, golden)
