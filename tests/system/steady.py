"""Steady load on a service, from outside: python3 -m tests.system.steady PORT REQUESTS_A_SECOND SECONDS ITEM…

Ends with 0 if every request was answered with 200, and says what became of the others. Connections are kept open, as
those of real clients are. Needs nothing but Python: scripts/docker_test.sh starts it without our packages.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence

from tests.system.wire import Lines, Reply, p99, post


async def replies(port: int, rate: float, seconds: float, history: Sequence[str]) -> list[Reply]:
    return await Lines(port).open_loop([post({"history": history, "k": 5})], rate, seconds)


if __name__ == "__main__":
    came = asyncio.run(replies(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]))
    statuses = Counter("torn" if reply.torn else reply.status for reply in came)
    slowest = max(reply.seconds for reply in came)
    sys.stdout.write(f"{dict(statuses)}, p99 {p99(came):.2f} s, slowest {slowest:.2f} s\n")
    sys.exit(set(statuses) != {200})
