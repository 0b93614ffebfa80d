import pytest

from service.request_head import AMBIGUOUS, UPGRADE, fault_in

HOST = (b"host", b"x")
LENGTH = (b"content-length", b"5")
CHUNKED = (b"transfer-encoding", b"chunked")


@pytest.mark.parametrize(
    ("target", "headers", "version"),
    [
        (b"/", [HOST], "1.1"),
        (b"/a?b=%23", [HOST, LENGTH], "1.1"),
        (b"/a", [HOST, (b"transfer-encoding", b"Chunked")], "1.1"),
        (b"/a", [], "1.0"),
        (b"/a", [HOST, LENGTH], "1.0"),
    ],
)
def test_a_plain_head_has_no_fault(target, headers, version):
    assert fault_in(target, headers, version, upgrade=False) is None


@pytest.mark.parametrize(
    ("target", "headers", "version"),
    [
        (b"/", [], "1.1"),
        (b"/", [HOST, HOST], "1.1"),
        (b"/", [HOST, HOST], "1.0"),
        (b"/", [HOST, LENGTH, LENGTH], "1.1"),
        (b"/", [HOST, LENGTH, CHUNKED], "1.1"),
        (b"/", [HOST, CHUNKED, CHUNKED], "1.1"),
        (b"/", [HOST, (b"transfer-encoding", b"gzip, chunked")], "1.1"),
        (b"/", [HOST, (b"transfer-encoding", b"identity")], "1.1"),
        (b"/", [CHUNKED], "1.0"),
        (b"http://x/", [HOST], "1.1"),
        (b"@x/", [HOST], "1.1"),
        (b"*", [HOST], "1.1"),
        (b"x:80", [HOST], "1.1"),
        (b"", [HOST], "1.1"),
        (b"/#", [HOST], "1.1"),
        ("/é".encode(), [HOST], "1.1"),
        (b"/", [HOST], "2.0"),
        (b"/", [], "0.9"),
    ],
)
def test_a_head_that_could_be_read_in_two_ways_is_refused(target, headers, version):
    assert fault_in(target, headers, version, upgrade=False) == AMBIGUOUS


def test_only_a_body_makes_an_upgrade_a_fault():
    assert fault_in(b"/", [HOST], "1.1", upgrade=True) is None
    for framing in (LENGTH, CHUNKED):
        assert fault_in(b"/", [HOST, framing], "1.1", upgrade=True) == UPGRADE
