"""The console command `genrec`: sub-commands are entry points of installed packages, imported only when used.

So `training` and `service` register theirs without an import running upward, and a machine with one of them alone has
only its commands. Every GenrecError becomes one sentence and the exit code it carries.
"""

import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points, version
from typing import Any

import typer

from genrec.errors import GenrecError

GROUP = "genrec.commands"
USAGE_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one sub-command and exit with its code."""
    name, *rest = (sys.argv[1:] if arguments is None else list(arguments)) or [""]
    if name == "--version":
        typer.echo(f"genrec {version('genrec')}")
    elif name in ("", "-h", "--help", "help"):
        typer.echo(_overview())
        sys.exit(0 if name else USAGE_ERROR)
    else:
        try:
            _command(name)(rest)
        except GenrecError as error:
            typer.echo(f"genrec {name}: {error}", err=True)
            sys.exit(error.exit_code)


def _command(name: str) -> Callable[[Sequence[str]], Any]:
    points = {point.name: point for point in _registered()}
    if name not in points:
        near = get_close_matches(name, points, n=1)
        meant = f" Did you mean '{near[0]}'?" if near else ""
        typer.echo(f"genrec: there is no command '{name}'.{meant} `genrec --help` lists all.", err=True)
        sys.exit(USAGE_ERROR)
    loaded = _load(points[name])
    if not isinstance(app := loaded, typer.Typer):  # one command; otherwise a group of them
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command(name)(loaded)
    return lambda rest: app(args=list(rest), prog_name=f"genrec {name}")


def _load(point: EntryPoint) -> Callable[..., Any]:
    package = point.module.split(".")[0]
    try:
        return getattr(import_module(point.module), point.attr)  # type: ignore[no-any-return]
    except ModuleNotFoundError as error:
        extra = "genrec" if package == "genrec" else f"genrec[{package}]"
        typer.echo(f"genrec {point.name} needs the module '{error.name}': install {extra}.", err=True)
        sys.exit(USAGE_ERROR)


def _registered() -> list[EntryPoint]:
    return sorted(entry_points(group=GROUP), key=lambda point: (point.module, point.name))


def _overview() -> str:
    packages: dict[str, list[str]] = {}
    for point in _registered():
        packages.setdefault(point.module.split(".")[0], []).append(point.name)
    lines = [f"  {package:<10}{', '.join(names)}" for package, names in packages.items()]
    return "\n".join(
        ["Usage: genrec COMMAND [ARGUMENTS]", "", "Commands, by package (genrec COMMAND --help tells more):", *lines]
    )
