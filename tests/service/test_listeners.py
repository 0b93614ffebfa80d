import socket

import pytest

from genrec.errors import InputError
from service.listeners import ByPort, allow_open_files, bind, listen, port_of

MEND = "--host or --port"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_in_use_is_a_sentence(host):
    with bind(host, 0, MEND) as taken:
        listen(taken)
        with pytest.raises(InputError, match=f"cannot listen on {host} port {port_of(taken)}: .* another with --host"):
            bind(host, port_of(taken), MEND)


def test_a_port_is_free_again_at_once():
    with bind("127.0.0.1", 0, MEND) as listener:
        listen(listener)
        port = port_of(listener)
        with socket.create_connection(("127.0.0.1", port)) as client:
            listener.accept()[0].close()  # the side that ends first is the one whose port lingers
            assert client.recv(1) == b""
    bind("127.0.0.1", port, MEND).close()


def test_who_connects_while_it_loads_is_refused():
    with bind("127.0.0.1", 0, MEND) as bound, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port_of(bound)), timeout=5)


def test_of_two_that_start_on_one_port_the_later_is_told():
    with bind("127.0.0.1", 0, MEND) as first, bind("127.0.0.1", port_of(first), MEND) as second:
        listen(second)
        with pytest.raises(InputError, match=f"127.0.0.1 port {port_of(first)}: another process has taken it"):
            listen(first)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("scope", "asked"),
    [
        ({"type": "http", "server": ("127.0.0.1", 8001)}, "admin"),
        ({"type": "http", "server": ("::1", 8001)}, "admin"),
        ({"type": "http", "server": ("127.0.0.1", 8000)}, "main"),
        ({"type": "http", "server": ("127.0.0.1", 8000), "headers": [(b"host", b"127.0.0.1:8001")]}, "main"),
        ({"type": "http", "server": ("/run/socket", None)}, "main"),
        ({"type": "http", "server": None}, "main"),
        ({"type": "http"}, "main"),
        ({"type": "lifespan"}, "main"),
        ({"type": "lifespan", "server": ("127.0.0.1", 8001)}, "main"),
    ],
)
async def test_only_what_came_in_by_the_admin_port_is_for_the_admin_application(scope, asked):
    called = []

    def application(name):
        async def app(scope, receive, send):
            called.append(name)

        return app

    await ByPort(application("main"), application("admin"), 8001)(scope, None, None)
    assert called == [asked]


def test_the_limit_of_open_files_is_raised_as_far_as_needed_and_no_further(monkeypatch):
    given = []
    limits = {"now": (256, 4_096)}
    monkeypatch.setattr("service.listeners.resource.getrlimit", lambda _: limits["now"])
    monkeypatch.setattr("service.listeners.resource.setrlimit", lambda _, pair: given.append(pair))
    allow_open_files(200)
    assert given == []
    allow_open_files(1_300)
    assert given == [(1_300, 4_096)]
    with pytest.raises(InputError, match=r"need 5000 open files.*4096; lower GENREC_MAX_CONNECTIONS"):
        allow_open_files(5_000)
    limits["now"] = (-1, -1)
    allow_open_files(10**6)
    assert len(given) == 1
