import pytest

from genrec.errors import InputError
from service.tokens import Tokens

OLD, NEW = "0123456789abcdef", "f" * 64


def tokens_in(tmp_path, content: str) -> Tokens:
    file = tmp_path / "tokens"
    file.write_text(content, encoding="utf-8")
    return Tokens.read(file)


@pytest.mark.parametrize("content", [f"{OLD}\n{NEW}", f"\n{OLD}\r\n\n  {NEW}  \n"])
def test_every_token_of_the_file_opens_and_nothing_else(tmp_path, content):
    tokens = tokens_in(tmp_path, content)
    assert tokens.accept(OLD.encode()) and tokens.accept(NEW.encode())
    for wrong in (b"", OLD[:-1].encode(), OLD.encode() + b" ", OLD.upper().encode(), b"\xff\xfe", b"x" * 1_000_000):
        assert not tokens.accept(wrong)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("short", "line 1 .* takes 16 to 1024"),
        (f"{OLD}\nzwölf zeichen und mehr", "line 2"),
        ("two words that are long", "line 1"),
        ("x" * 1_025, "line 1"),
    ],
)
def test_a_file_that_protects_nothing_is_refused_without_its_content(tmp_path, content, said):
    with pytest.raises(InputError, match=said) as caught:
        tokens_in(tmp_path, content)
    assert not content.strip() or content.split()[0] not in str(caught.value).replace("tokens", "")


def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        Tokens.read(tmp_path / "no")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read: it is not text"):
        Tokens.read(tmp_path / "binary")


def test_a_token_is_not_kept_and_not_shown(tmp_path):
    tokens = tokens_in(tmp_path, OLD)
    assert OLD not in repr(tokens)
    assert tokens.digests[0].hex() not in repr(tokens)
    assert OLD.encode() not in tokens.digests


def test_all_tokens_are_compared_whichever_is_right(tmp_path, monkeypatch):
    compared = []
    tokens = tokens_in(tmp_path, f"{OLD}\n{NEW}")
    monkeypatch.setattr("service.tokens.hmac.compare_digest", lambda a, b: compared.append(b) or a == b)
    for given in (OLD, NEW, "neither"):
        tokens.accept(given.encode())
    assert compared == [*tokens.digests] * 3


def test_a_label_is_what_a_token_is_called_and_no_part_of_it(tmp_path):
    tokens = tokens_in(tmp_path, f"shop-1 {OLD}\n{NEW}\n")
    assert (tokens.label_of(OLD.encode()), tokens.label_of(NEW.encode()), tokens.label_of(b"x")) == ("shop-1", "", None)
    assert not tokens.accept(f"shop-1 {OLD}".encode())


@pytest.mark.parametrize("label", ["-x", "a" * 33, "é", "a:b"])
def test_a_label_that_could_confuse_a_log_is_refused(tmp_path, label):
    with pytest.raises(InputError, match="line 1"):
        tokens_in(tmp_path, f"{label} {OLD}")
