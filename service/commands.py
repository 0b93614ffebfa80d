"""`genrec serve`: one process, one bundle, one engine, until it is told to stop.

Exit codes: 0 stopped by SIGTERM or Ctrl-C, 65 the bundle, a setting or what was kept was refused, 70 the engine died or
hangs, 75 another service holds the state directory.

What imports PyTorch is imported last, so that a wrong flag or a port in use is told at once and not seconds later.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from service.connection_limits import open_files
from service.listeners import allow_open_files, bind, listen, port_of
from service.settings import read_settings


def serve(
    bundle: Annotated[Path | None, typer.Option(help="The bundle to serve, a directory. [GENREC_BUNDLE]")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [GENREC_HOST, 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one. [GENREC_PORT, 8000]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N. [GENREC_DEVICE, auto]")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16, float16. [GENREC_DTYPE, auto]")] = None,
    engine: Annotated[str | None, typer.Option(help="auto or an engine's name. [GENREC_ENGINE, auto]")] = None,
    expect_version: Annotated[
        str | None, typer.Option(help="Refuse every other version of a bundle. [GENREC_EXPECT_VERSION]")
    ] = None,
    ray: Annotated[
        str | None, typer.Option(help="Serve with Ray: HOST:PORT of a cluster's head node to deploy there, or local.")
    ] = None,
    replicas: Annotated[
        str | None, typer.Option(help="With --ray, how many: 2, or from 1 to 8 by load: 1-8. [1]")
    ] = None,
) -> None:
    """Serve a bundle over HTTP. Every setting is also a GENREC_* variable; flags win."""
    if replicas is not None and ray is None:
        raise typer.BadParameter(
            "without --ray there is one process; give --ray local for more", param_hint="--replicas"
        )
    settings = read_settings(
        {
            "bundle": bundle, "host": host, "port": port, "device": device, "dtype": dtype, "engine": engine,
            "expect_version": expect_version,
        }
    )  # fmt: skip
    if ray is not None:
        from service.ray_deployment import Replicas
        from service.serve_ray import serve_on_ray

        serve_on_ray(settings, ray, Replicas.parse(replicas or "1"))
        return
    with ExitStack() as sockets:
        allow_open_files(open_files(settings))
        listeners = [sockets.enter_context(bind(settings.host, settings.port, "--host or --port"))]
        if settings.admin_address is not None:
            listeners.append(sockets.enter_context(bind(*settings.admin_address, "GENREC_ADMIN_LISTEN")))
        from service.process import serve_until_stopped

        for listener in listeners:
            listen(listener)
        code = serve_until_stopped(settings.model_copy(update={"port": port_of(listeners[0])}), listeners)
    if code:
        raise typer.Exit(code)
