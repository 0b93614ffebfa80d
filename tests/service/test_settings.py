import pytest
from pydantic import ValidationError

from genrec.errors import InputError
from service.settings import Settings, is_loopback, read_settings
from tests.service.fakes import some_settings


@pytest.fixture(autouse=True)
def no_settings_around(monkeypatch):
    """The machine that runs the tests may have settings of its own."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"GENREC_{name.upper()}", raising=False)


def test_variables_are_read_and_flags_win(monkeypatch):
    monkeypatch.setenv("GENREC_BUNDLE", "from/environment")
    monkeypatch.setenv("GENREC_PORT", "9000")
    monkeypatch.setenv("GENREC_DOCS", "off")
    settings = read_settings({"port": 9001, "host": None})
    assert (str(settings.bundle), settings.port, settings.host, settings.docs) == (
        "from/environment",
        9001,
        "127.0.0.1",
        False,
    )


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("GENREC_PROT", "GENREC_PORT"),
        ("GENREC_MAX_QUEUE_ROW", "GENREC_MAX_QUEUE_ROWS"),
        ("genrec_divice", "GENREC_DEVICE"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(monkeypatch, name, nearest):
    monkeypatch.setenv(name, "1")
    with pytest.raises(InputError, match=f"{name}.*the nearest is {nearest}\\."):
        read_settings({"bundle": "b"})


def test_names_of_others_are_not_ours_to_refuse(monkeypatch):
    monkeypatch.setenv("GENRECORDER_X", "1")
    assert read_settings({"bundle": "b"}).port == 8000


def test_an_empty_variable_is_as_good_as_none(monkeypatch):
    monkeypatch.setenv("GENREC_PORT", "")
    assert read_settings({"bundle": "b"}).port == 8000


def test_a_missing_bundle_says_how_to_give_it():
    with pytest.raises(InputError, match="give --bundle or set GENREC_BUNDLE"):
        read_settings({})


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"port": 65_536}, "GENREC_PORT"),
        ({"port": "eight"}, "GENREC_PORT"),
        ({"device": "gpu"}, "GENREC_DEVICE"),
        ({"auth": "closed"}, "GENREC_AUTH"),
        ({"max_history_items": 0}, "GENREC_MAX_HISTORY_ITEMS"),
        ({"max_batch_requests": 20_000}, "raise max_queue_rows or lower max_batch_requests"),
        ({"stall_timeout_ms": 30_000}, "raise watchdog_timeout_ms"),
    ],
)
def test_values_that_do_not_fit_are_one_sentence(flags, named):
    with pytest.raises(InputError, match=named) as caught:
        read_settings({"bundle": "b", **flags})
    assert "\n" not in str(caught.value)


ADMIN = {"state_dir": "s", "admin_token_file": "t"}


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("127.0.0.1:8001", ("127.0.0.1", 8001)),
        ("8001", ("127.0.0.1", 8001)),
        ("[::1]:8001", ("::1", 8001)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("admin.internal:65535", ("admin.internal", 65_535)),
    ],
)
def test_the_admin_listener_is_an_address_and_a_port_or_a_port_on_loopback(given, address):
    assert read_settings({"bundle": "b", "admin_listen": given, **ADMIN}).admin_address == address


def test_without_an_admin_listener_there_is_none():
    assert read_settings({"bundle": "b", "state_dir": "s"}).admin_address is None


@pytest.mark.parametrize(
    "given", ["127.0.0.1", "127.0.0.1:", ":8001", "::1:8001", "a b:1", "http://x:1", "x:-1", "x:1/", "/run/a", "1\n"]
)
def test_an_admin_address_that_is_none_is_refused(given):
    with pytest.raises(InputError, match="GENREC_ADMIN_LISTEN"):
        read_settings({"bundle": "b", "admin_listen": given, **ADMIN})


@pytest.mark.parametrize(
    ("flags", "mend"),
    [
        ({"admin_listen": "8001"}, "set GENREC_ADMIN_TOKEN_FILE to a file with a token"),
        ({"admin_listen": "8001", "state_dir": "s"}, "set GENREC_ADMIN_TOKEN_FILE to a file with a token"),
        ({"admin_token_file": "t"}, "set GENREC_ADMIN_LISTEN"),
        ({"admin_token_file": "t", "state_dir": "s"}, "set GENREC_ADMIN_LISTEN"),
        ({"admin_listen": "8001", "admin_token_file": "t"}, "set GENREC_STATE_DIR to a directory"),
        ({"admin_listen": "8000", **ADMIN}, "another than the service's own"),
        ({"admin_listen": "70000", **ADMIN}, "at most 65535"),
    ],
)
def test_half_an_admin_listener_is_refused_with_what_is_missing(flags, mend):
    with pytest.raises(InputError, match=mend) as caught:
        read_settings({"bundle": "b", **flags})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org", "127.0.0.1.example.org"])
def test_an_address_others_can_reach_needs_auth_open(host):
    with pytest.raises(InputError, match="GENREC_AUTH=open"):
        read_settings({"bundle": "b", "host": host})
    assert read_settings({"bundle": "b", "host": host, "auth": "open"}).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_loopback_needs_nothing(host):
    assert is_loopback(host)
    assert read_settings({"bundle": "b", "host": host}).host == host


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        some_settings().port = 1


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:8000"), ("0.0.0.0", "http://127.0.0.1:8000"), ("::1", "http://[::1]:8000")],
)
def test_the_url_is_one_a_browser_here_can_open(host, url):
    assert some_settings(host=host, auth="open").url == url


@pytest.mark.parametrize(
    ("flags", "mend"),
    [
        ({"api_keys_file": "k", "auth": "open"}, "unset GENREC_AUTH to ask for keys, or unset GENREC_API_KEYS_FILE"),
        ({"host": "0.0.0.0"}, "set GENREC_API_KEYS_FILE to a file of keys"),
        (
            {"header_timeout_ms": 2_000, "receive_timeout_ms": 1_000},
            "raise receive_timeout_ms or lower",
        ),
        ({"header_timeout_ms": 1}, "GENREC_HEADER_TIMEOUT_MS"),
        ({"max_connections": 0}, "GENREC_MAX_CONNECTIONS"),
    ],
)
def test_who_may_come_in_and_how_fast_is_not_left_unclear(flags, mend):
    with pytest.raises(InputError, match=mend) as caught:
        read_settings({"bundle": "b", **flags})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "127.0.0.1"])
def test_with_keys_any_address_is_served(host):
    assert read_settings({"bundle": "b", "host": host, "api_keys_file": "k"}).host == host


@pytest.mark.parametrize(("told", "threads"), [("3", 3), ("2,1", 2), (" 4 ", 4), ("", 7), ("many", 7), ("-1", 7)])
def test_threads_are_what_openmp_was_told_or_a_core_less_than_there_are(monkeypatch, tmp_path, told, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert read_settings({"bundle": tmp_path}).threads == threads
