"""What a call can end in instead of an answer.

ServiceError               the service refused, or failed; `problem` says why
├── Unavailable            it cannot answer now: 429, 503, or nobody answers at that address
└── TimedOut               the time ran out, the caller's or (504) that of the request
"""

from service.schemas import Problem


class ServiceError(Exception):
    """A call without an answer.

    Attributes:
        problem: what the service said; None if it said nothing.
        retry_after_s: when it wants to be asked again, in seconds; None if it did not say.
    """

    def __init__(self, message: str, problem: Problem | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.problem = problem
        self.retry_after_s = retry_after_s

    @property
    def status(self) -> int | None:
        """The HTTP status."""
        return self.problem.status if self.problem else None

    @property
    def code(self) -> str | None:
        """The problem's word for programs, such as `invalid_request`."""
        return self.problem.code if self.problem else None

    @property
    def pointer(self) -> str | None:
        """JSON pointer to the field that was refused."""
        return self.problem.pointer if self.problem else None

    @property
    def request_id(self) -> str | None:
        """Under which the service's log has the request."""
        return self.problem.request_id if self.problem else None


class Unavailable(ServiceError):
    """The service cannot answer now. Nothing was computed, or nobody knows: asking again is safe."""


class TimedOut(ServiceError):
    """The time ran out before the answer."""
