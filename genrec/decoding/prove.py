"""Search, and search again with a wider beam until the first k hypotheses are proven to be the k best.

`Beam.proves` is the certificate, a budget ends the search without one. What is wide enough: the prefixes of one level
are disjoint events, so at most 1/p of them have a probability of p or more. Let p be that of the k-th best item,
``exp(score * L ** length_penalty)``, then a beam of 1/p prunes nothing that could be among the k best; nor does one as
wide as the allowed catalog. A beam does not know p beforehand, hence the widening. Works over any engine.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from genrec.decoding.engine import Beam, Engine, Query
from genrec.errors import EngineError

GROWTH = 4
"""How much wider the next beam is. All narrower ones together then cost a third of the last."""


@dataclass(frozen=True, eq=False)
class Search:
    """A query, and how wide it may be searched.

    Attributes:
        query: what is searched for.
        k: how many hypotheses are to be proven.
        num_beams: the width of the first beam, at least k.
        max_beams: the width of the last one; with no more than `num_beams` there is one search, proven or not.
    """

    query: Query
    k: int
    num_beams: int
    max_beams: int

    def next_width(self, width: int, outcome: Beam | EngineError) -> int | None:
        """How wide to search again after a beam of `width` that ended in `outcome`; None if that is final."""
        if isinstance(outcome, EngineError) or width >= self.max_beams or outcome.proves(self.k):
            return None
        return min(width * GROWTH, self.max_beams)


def search_proven(engine: Engine, searches: Sequence[Search]) -> list[Beam | EngineError]:
    """The last beam of each search, in order; `Beam.proves` tells whether its proof was reached.

    A search that is proven is not repeated because of others. Repeated ones never hold more beams at once than the
    first round did, or a single query needs: what fits in memory without proofs fits with them, but for the width of
    the budget.
    """
    outcomes: dict[int, Beam | EngineError] = {}
    widths = {place: search.num_beams for place, search in enumerate(searches)}
    beams_at_once = sum(widths.values())
    while widths:
        for width, places in _together(widths, beams_at_once):
            found = engine.search([searches[place].query for place in places], width)
            outcomes |= zip(places, found, strict=True)
        again = ((place, searches[place].next_width(width, outcomes[place])) for place, width in widths.items())
        widths = {place: width for place, width in again if width is not None}
    return [outcomes[place] for place in range(len(searches))]


def _together(widths: Mapping[int, int], beams_at_once: int) -> Iterator[tuple[int, Sequence[int]]]:
    """Places of searches of the same width, as many at once as have no more than so many beams; at least one."""
    by_width: dict[int, list[int]] = defaultdict(list)
    for place, width in widths.items():
        by_width[width].append(place)
    for width, places in by_width.items():
        for part in _slices(places, max(1, beams_at_once // width)):
            yield width, part


def _slices(places: Sequence[int], size: int) -> Iterable[Sequence[int]]:
    return (places[start : start + size] for start in range(0, len(places), size))
