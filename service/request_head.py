"""Whether the head of a request can be read in one way only, by us and by any proxy before us (RFC 9112).

The parser refuses most of what is malformed. What it lets through, and what two servers have read in two ways before,
is refused here.
"""

from collections.abc import Sequence

AMBIGUOUS = "The request is not HTTP as RFC 9112 says, or could be read in two ways."
UPGRADE = "A request with a body cannot ask for another protocol; have the client speak HTTP/1.1, without Upgrade."


def fault_in(target: bytes, headers: Sequence[tuple[bytes, bytes]], version: str, *, upgrade: bool) -> str | None:
    """What is wrong with a head, as a sentence; None if nothing is.

    Args:
        target: as it stands in the request line.
        headers: names in lower case.
        version: such as 1.1.
        upgrade: whether it asks for another protocol. The parser does not read the body of such a request.
    """
    lengths = sum(name == b"content-length" for name, _ in headers)
    codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    hosts = sum(name == b"host" for name, _ in headers)
    plain = (
        version in ("1.0", "1.1")
        and target.startswith(b"/")
        and target.isascii()
        and b"#" not in target
        and lengths <= 1
        and codings in ([], [b"chunked"])
        and not (codings and (lengths or version == "1.0"))
        and (hosts == 1 or (hosts == 0 and version == "1.0"))
    )
    if not plain:
        return AMBIGUOUS
    return UPGRADE if upgrade and (lengths or codings) else None
