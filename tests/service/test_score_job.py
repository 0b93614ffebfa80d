"""What makes two jobs differ, and a worker of the wrong one."""

import pytest

from genrec.errors import InputError
from service.score_job import check_job, differences, key_of, to_json


def test_differences_name_every_field_that_is_not_the_same():
    assert differences({"k": 1, "threads": 2}, {"threads": 2, "k": 1}) == ""
    assert (
        differences({"k": 1, "old": 1}, {"k": 2, "new": True})
        == "k was 1, is 2; new was None, is True; old was 1, is None"
    )


def test_the_key_depends_on_every_value_and_not_on_their_order():
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert len({key_of({"a": 1}), key_of({"a": 2}), key_of({"a": None}), key_of({"b": 1})}) == 4


def test_a_worker_of_another_kind_or_on_another_file_system_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read by a worker; all of them must see one file system"):
        check_job(tmp_path, {"processor": "AVX512"})
    (tmp_path / "_JOB.json").write_bytes(to_json({"processor": "AVX2"}))
    with pytest.raises(InputError, match=r"processor was AVX2, is AVX512. Let all workers be alike"):
        check_job(tmp_path, {"processor": "AVX512"})
    check_job(tmp_path, {"processor": "AVX2"})
