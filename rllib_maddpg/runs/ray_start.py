"""The Ray that a command runs on: one of its own, or that of a cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator

import ray

from rllib_maddpg.ray_compat import AuthenticationError

_START_ONE = "Start a cluster with `ray start --head --port=6379`, and `ray start --address=HOST:6379` on its other machines."
_TOKEN_PLACES = "RAY_AUTH_TOKEN, the file of RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token"


def local_ray(actors: int, address: str | None = None) -> contextlib.AbstractContextManager[None]:
    """`ray_at`, with a core for each of so many actors beside this process in a Ray of our own."""
    # Actors that find no free core would wait forever, so Ray is told of as many as they need.
    return ray_at(address, max(os.cpu_count() or 1, actors + 1))


@contextlib.contextmanager
def ray_at(address: str | None, num_cpus: int | None) -> Iterator[None]:
    """The Ray that this process has already, or that of a cluster, or one of our own until the end.

    Args:
        address: "HOST:PORT" of a cluster's head, or "auto" for the cluster that this machine is a part of; None: that of
            RAY_ADDRESS, if it is set, else a Ray of our own.
        num_cpus: Cores of a Ray of our own; None: those of the machine.

    Raises:
        ValueError: If no cluster answers there, or it does not let this process in.
    """
    if ray.is_initialized():
        yield
        return
    if address is not None:
        check_address(address)
    own = address is None and not os.environ.get("RAY_ADDRESS")
    # "local", because without an address Ray would join the newest cluster of this machine.
    options = {"address": "local", "num_cpus": num_cpus, "include_dashboard": False} if own else {"address": address}
    try:
        with _hangups_held_back():
            ray.init(**options, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, AuthenticationError) as error:
        if own:
            raise
        where = f"--address {address}" if address else f"RAY_ADDRESS={os.environ['RAY_ADDRESS']}"
        raise ValueError(f"{where}: no Ray cluster lets this process in ({error}). {_token_advice()} {_START_ONE}") from error
    try:
        yield
    finally:
        ray.shutdown()


def check_address(address: str) -> None:
    """Raises a ValueError unless the address is of a form that can work, and somebody listens there."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise ValueError(
            f"--address {address} is not allowed: it must be HOST:PORT of the cluster's head, or auto. From outside of the "
            "cluster, send the command there with `ray job submit`."
        )
    try:
        # Ray itself would try for minutes.
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise ValueError(f"--address {address}: nobody listens there ({error}). {_START_ONE}") from error


def _token_advice() -> str:
    """What to do if it is a token that keeps this process out: Ray's error does not say whether it is."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "token":
        return f"If the cluster has another token than this machine ({_TOKEN_PLACES}), copy that of the cluster's head."
    return (
        "If the cluster asks for a token (Ray does so by itself where ~/.ray/auth_token exists), set RAY_AUTH_MODE=token and "
        f"have the same token on all machines ({_TOKEN_PLACES}); on a machine of the cluster, --address auto works, too."
    )


@contextlib.contextmanager
def _hangups_held_back() -> Iterator[None]:
    """Keeps SIGHUP from the processes that are started meanwhile, which inherit what is blocked.

    A terminal that is closed sends it to all of them. Without Ray's processes nothing could be saved; they end with this one.
    """
    if not hasattr(signal, "SIGHUP") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
