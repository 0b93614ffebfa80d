"""The list of items that are off, as a file: by item id, because rows are another bundle's tomorrow.

    1f0c…                                                      sha256 of all that follows
    {"format_version":1,"catalog_version":7,"items":2}
    item id
    item id                                                    one a line; no id holds a control character

Lines, not one JSON document: 10^6 ids are written and read in tenths of a second. Knows neither catalog nor disk.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
class OffList:
    """Which items are off.

    Attributes:
        version: the catalog version.
        item_ids: distinct ids.
    """

    version: int
    item_ids: pa.StringArray

    @classmethod
    def of(cls, version: int, *parts: pa.StringArray | Iterable[str]) -> Self:
        """A list of the ids in `parts`, in order."""
        arrays = [part if isinstance(part, pa.Array) else pa.array(part, pa.string()) for part in parts]
        return cls(version, pa.concat_arrays(arrays))

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read a file.

        Raises:
            ValueError: it is damaged, or of a version this code does not read; the message says what is wrong.
        """
        digest, _, rest = content.partition(b"\n")
        if digest != _digest(rest):
            raise ValueError("its content is not what its first line says")
        head, _, body = rest.partition(b"\n")
        facts = json.loads(head)
        if facts["format_version"] != FORMAT_VERSION:
            raise ValueError(f"it has format version {facts['format_version']}, this code reads {FORMAT_VERSION}")
        item_ids = body.decode().split("\n")[:-1]
        if len(item_ids) != facts["items"]:
            raise ValueError(f"it holds {len(item_ids)} items instead of {facts['items']}")
        return cls(int(facts["catalog_version"]), pa.array(item_ids, pa.string()))

    def to_bytes(self) -> bytes:
        """The whole file."""
        facts = {"format_version": FORMAT_VERSION, "catalog_version": self.version, "items": len(self.item_ids)}
        lines = pc.binary_join(pa.LargeListArray.from_arrays([0, len(self.item_ids)], self.item_ids), "\n")
        body = lines[0].as_buffer().to_pybytes() + b"\n" if len(self.item_ids) else b""
        rest = json.dumps(facts, separators=(",", ":")).encode() + b"\n" + body
        return _digest(rest) + b"\n" + rest


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
