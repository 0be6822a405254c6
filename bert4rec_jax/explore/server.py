"""Server: serves the page on a port of this machine."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bert4rec_jax.errors import UserError

_LOOPBACK = ["127.0.0.1", "localhost", "[::1]"]


def serve(bundles: Sequence[Path], *, host: str, port: int, k: int, console: Console) -> None:
    """Serve the page until interrupted.

    Args:
      bundles: folders made by `bert4rec export`.
      host: address to listen on; unless it is a loopback address, the page is open to the network.
      port: port to listen on; 0 takes any that is free.
      k: length of the lists.
      console: shows the address of the page.

    Raises:
      UserError: there is no bundle, the port is in use, the address is not this machine's, the
        extra `demo` is not installed, or see `Bundle.open`.
    """
    if not bundles:
        raise UserError("name at least one bundle; make one with `bert4rec export RUN BUNDLE`")
    try:
        import uvicorn

        from bert4rec_jax.explore.app import make_app
    except ModuleNotFoundError as error:
        raise UserError(
            f"the page needs {error.name}, which is not installed; pip install 'bert4rec-jax[demo]'"
        ) from error
    from bert4rec_jax.explore.models import Models

    with listen(host, port) as listening:
        models = Models.open(bundles, k)
        name, port = listening.getsockname()[:2]
        hosts = _LOOPBACK if name in ("127.0.0.1", "::1") else ["*"]
        shown = f"[{name}]" if ":" in name else name
        console.print(f"http://{shown}:{port}/  (Ctrl-C stops it)", highlight=False, markup=False)
        if hosts == ["*"]:
            console.print("Whoever can reach this machine can open the page.", style="yellow")
        config = uvicorn.Config(make_app(models, hosts), log_level="warning", lifespan="off")
        uvicorn.Server(config).run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; call this before models are loaded, so that it fails early.

    Raises:
      UserError: the port is in use or out of range, or the address is not of this machine.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"port is {port}; expected 0 to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"port {port} of {host} is in use, perhaps by another `bert4rec explore`; stop "
                "that, or choose another with --port (0 takes any that is free)"
            ) from error
        raise UserError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}; choose others "
            "with --host and --port"
        ) from error
    except TypeError:  # Python cannot encode the name
        raise UserError(
            f"cannot listen on {host!r}, which is no name of a host; choose another with --host"
        ) from None
