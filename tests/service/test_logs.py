import io
import json
import logging
import warnings

import pytest
import structlog

from service.logs import configure_logs


@pytest.fixture
def stream():
    root = logging.getLogger()
    before = root.handlers, root.level
    yield io.StringIO()
    root.handlers, root.level = before
    logging.captureWarnings(False)
    structlog.reset_defaults()


def events(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().split("\n")[:-1]]


def test_ours_and_theirs_are_one_object_a_line(stream):
    configure_logs("json", stream)
    structlog.stdlib.get_logger("service.x").info("one", k=3)
    logging.getLogger("uvicorn.error").warning("two %s", "words")
    logging.getLogger("some.library").error("three")
    assert [(event["event"], event["level"], event["logger"]) for event in events(stream)] == [
        ("one", "info", "service.x"),
        ("two words", "warning", "uvicorn.error"),
        ("three", "error", "some.library"),
    ]
    assert list(events(stream)[0])[:3] == ["timestamp", "level", "event"]


def test_a_library_with_a_handler_of_its_own_is_taken_over(stream):
    theirs = logging.getLogger("loud.library")
    theirs.addHandler(logging.StreamHandler(io.StringIO()))
    theirs.propagate = False
    configure_logs("json", stream)
    theirs.warning("hello")
    assert theirs.handlers == []
    assert [event["event"] for event in events(stream)] == ["hello"]


@pytest.mark.parametrize(
    "text", ["a\nb", "a\r\nb", "\x1b[31mred", "\u2028\u2029", "\x00", '"}\n{"event": "forged"', "\x85"]
)
def test_no_text_can_forge_a_line(stream, text):
    configure_logs("json", stream)
    structlog.stdlib.get_logger().info(text, field=text)
    logging.getLogger("x").info(text)
    assert [event["event"] for event in events(stream)] == [text, text]
    assert stream.getvalue().isascii()


def test_a_traceback_is_a_field_without_the_values_of_variables(stream):
    for log_format in ("json", "console"):
        configure_logs(log_format, stream)
        secret = "canary-" + "5f1e"
        try:
            raise ValueError(len(secret))
        except ValueError:
            structlog.stdlib.get_logger().exception("failed")
    assert "ValueError: 11" in stream.getvalue()
    assert "canary-5f1e" not in stream.getvalue()
    assert "ValueError" in json.loads(stream.getvalue().split("\n")[0])["exception"]


def test_warnings_are_events(stream):
    configure_logs("json", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("careful", stacklevel=1)
    assert "careful" in str(events(stream)[0]["event"])


def test_people_read_columns_and_can_copy_a_command(stream):
    configure_logs("console", stream)
    structlog.stdlib.get_logger().info("""try: curl -d '{"history": ["50"]}'""")
    assert stream.getvalue().rstrip().endswith("""try: curl -d '{"history": ["50"]}'""")


def test_a_stream_that_is_no_terminal_gets_json(stream, monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    configure_logs("auto", stream)
    structlog.stdlib.get_logger().info("x")
    assert events(stream)[0]["event"] == "x"
