"""What processes of workers are forked from: all that each would import, once."""

import gc

import pyarrow as pa

from service import score_worker  # noqa: F401

pa.array([""])  # with which PyArrow imports pandas where that is there
gc.freeze()  # the collector would write to each object, and so have each worker copy it
