"""Every error that the project raises on purpose.

GenrecError
├── InputError            a caller or a file of theirs is wrong; the sentence names the value, the place, the mend
│   ├── RecipeError       a training recipe
│   ├── DataError         interactions, items, codes
│   └── RequestError      a request to recommend; `pointer` is the JSON pointer of the field
├── LockedError           another run holds what this one would write
├── DiskError             nothing more can be written; what was finished is kept
├── Stopped               SIGTERM came; what was saved is gone on from
├── BundleError           a bundle is damaged, inconsistent or not ours; it is not loaded
├── TrainingError         a proof that the training run owes did not hold (gradient, merge, leak)
└── EngineError           the model could not answer
    ├── InvalidOutput     it gave values that cannot be trusted, such as scores that are not finite
    │   └── IllegalBeam   not what any search of this catalog gives: an item twice, too few of them
    ├── OutOfMemory       the batch did not fit; a smaller one may
    └── EngineLost        the device is in a state in which nothing can be computed any more

Each class carries the exit code of a command that ends with it (design: 0 done, 2 usage, 65 input or bundle refused,
70 engine failed, 74 disk, 75 locked, 143 stopped). HTTP statuses live in `service/errors.py`: the domain knows no HTTP.
"""


class GenrecError(Exception):
    """Base of the tree. The message is one sentence for the person who can mend it."""

    exit_code = 70


class InputError(GenrecError):
    """The caller's input is wrong."""

    exit_code = 65


class RecipeError(InputError):
    """A recipe has an unknown key, a wrong value or settings that contradict each other."""

    exit_code = 65


class DataError(InputError):
    """A data file is missing, empty or not as its recipe says."""


class RequestError(InputError):
    """A request to recommend cannot be answered as asked.

    Attributes:
        pointer: JSON pointer to the field within the request, e.g. ``/num_beams``.
    """

    def __init__(self, message: str, pointer: str = "") -> None:
        super().__init__(message)
        self.pointer = pointer


class LockedError(GenrecError):
    """Another run holds what this one would write."""

    exit_code = 75


class DiskError(GenrecError):
    """A file could not be written: the disk is full, or a limit was reached."""

    exit_code = 74


class Stopped(GenrecError):
    """The run was told to stop by SIGTERM. Not a fault; the sentence says what goes on from where."""

    exit_code = 143


class BundleError(GenrecError):
    """A bundle is damaged, inconsistent, or of a version this code does not read."""

    exit_code = 65


class TrainingError(GenrecError):
    """A proof the training run owes did not hold; nothing is written."""


class EngineError(GenrecError):
    """The model could not give an answer that may be trusted."""


class InvalidOutput(EngineError):
    """The model gave values that cannot be trusted."""


class IllegalBeam(InvalidOutput):
    """The search gave what no search of this catalog gives: the fault is ours, not the model's."""


class OutOfMemory(EngineError):
    """The device or the machine has no memory left for what was asked at once."""


class EngineLost(EngineError):
    """The device cannot be used again by this process, as after a failed assertion in a CUDA kernel."""


def one_line(error: BaseException) -> str:
    """What another library says of its error, short and without line breaks, to stand in a sentence of ours."""
    return " ".join(str(error).split())[:300] or type(error).__name__
