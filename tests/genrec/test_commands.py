"""The console command finds sub-commands by name, imports only the one it runs, and exits as promised."""

import subprocess
import sys
from importlib.metadata import EntryPoint, version
from typing import Annotated

import pytest
import typer

from genrec import commands, errors

LIGHT = (
    "sys.modules.keys() & {'torch', 'transformers', 'fastapi', 'pydantic', 'numpy', 'pyarrow', 'service', 'training'}"
)


def fail(kind: Annotated[str, typer.Argument()]) -> None:
    """Fail in the way asked for."""
    raise getattr(errors, kind)("what is wrong\nand how to mend it")


def greet(name: str, *, loud: bool = False) -> None:
    """Greet."""
    typer.echo(name.upper() if loud else name)


POINTS = [
    EntryPoint("fail", f"{__name__}:fail", commands.GROUP),
    EntryPoint("greet", f"{__name__}:greet", commands.GROUP),
    EntryPoint("train", "training.nothing_here:train", commands.GROUP),
    EntryPoint("inspect", "genrec.nothing_here:inspect", commands.GROUP),
]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(commands, "entry_points", lambda group: POINTS if group == commands.GROUP else [])

    def run(*arguments: str) -> tuple[int, str, str]:
        code = 0
        try:
            commands.main(arguments)
        except SystemExit as exit_of:
            code = exit_of.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_help_imports_no_library_that_a_command_would_need() -> None:
    program = (
        "import sys\nfrom genrec.commands import main\n"
        f"try: main(['--help'])\nfinally: sys.stderr.write(' '.join(sorted({LIGHT})))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("Usage: genrec COMMAND")


def test_the_installed_commands_are_listed_by_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_of:
        commands.main(["--help"])
    assert exit_of.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["genrec", "doctor,", "inspect"] for line in lines)
    assert any(line.startswith("  service") and "serve" in line for line in lines)
    assert any(line.startswith("  training") and "finetune" in line for line in lines)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    commands.main(["--version"])
    assert capsys.readouterr().out == f"genrec {version('genrec')}\n"


def test_a_command_is_run_with_its_arguments(run) -> None:
    assert run("greet", "you") == (0, "you\n", "")
    assert run("greet", "--loud", "you") == (0, "YOU\n", "")


def test_no_command_is_a_usage_error_that_shows_the_commands(run) -> None:
    code, out, _ = run()
    assert code == 2
    assert "greet" in out


@pytest.mark.parametrize(("typed", "meant"), [("gret", "greet"), ("trian", "train")])
def test_an_unknown_command_is_a_usage_error_that_names_the_nearest(run, typed: str, meant: str) -> None:
    code, out, err = run(typed)
    assert (code, out) == (2, "")
    assert err == f"genrec: there is no command '{typed}'. Did you mean '{meant}'? `genrec --help` lists all.\n"
    assert "Did you mean" not in run("zzzzzz")[2]


def test_wrong_arguments_are_a_usage_error(run) -> None:
    code, _, err = run("greet")
    assert code == 2
    assert "Missing argument" in err
    code, _, err = run("greet", "you", "--quiet")
    assert code == 2
    assert "--quiet" in err


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("InputError", 65),
        ("RecipeError", 65),
        ("DataError", 65),
        ("RequestError", 65),
        ("BundleError", 65),
        ("TrainingError", 70),
        ("EngineError", 70),
        ("GenrecError", 70),
    ],
)
def test_each_error_of_ours_has_its_exit_code_and_no_traceback(run, kind: str, code: int) -> None:
    assert run("fail", kind) == (code, "", "genrec fail: what is wrong\nand how to mend it\n")


def test_an_error_that_is_not_ours_is_not_hidden(run) -> None:
    with pytest.raises(AttributeError):
        run("fail", "NoSuchError")


def test_a_missing_extra_is_named(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise ModuleNotFoundError("No module named 'peft'", name="peft")

    monkeypatch.setattr(commands, "import_module", missing)
    assert run("train") == (2, "", "genrec train needs the module 'peft': install genrec[training].\n")
    assert run("inspect") == (2, "", "genrec inspect needs the module 'peft': install genrec.\n")


@pytest.mark.parametrize(("text", "told"), [("a\n  b\tc", "a b c"), ("", "ValueError"), ("x" * 999, "x" * 300)])
def test_what_another_library_says_is_told_in_one_line(text: str, told: str) -> None:
    assert errors.one_line(ValueError(text)) == told


def test_a_group_of_commands_is_run_as_one(run, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = typer.Typer()
    shelf.callback()(lambda: None)
    shelf.command("add")(lambda name: typer.echo(f"added {name}"))
    monkeypatch.setattr(commands, "_load", lambda point: shelf)
    assert run("inspect", "add", "one") == (0, "added one\n", "")
