"""Serves exported actors over HTTP with Ray Serve, on this machine only.

    rllib-maddpg export results/spread --format onnx --out exported
    python examples/serve.py exported --port 8000
    curl http://127.0.0.1:8000/ -d '{"agent": "agent_0", "observation": [0.1, 0.2, 0.3, ...]}'

The answer is `{"action": ...}`. `GET /` says which agents there are and what they observe. An observation that does not fit or
is not all numbers, an unknown agent or a body that is no such JSON gets status 422 and a `detail` that says what is wrong; a
body of more than 1 MiB gets 413. There is no password: whoever reaches the port may ask.
Needs the extras `export` and `serve`.
"""

import argparse
import importlib.util
import json
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import ray
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel, ValidationError
from ray import serve

api = FastAPI(title="MADDPG actors")


MAX_BYTES = 2**20


class Query(BaseModel):
    """What is asked: the agent, and its observation as (nested) lists or dicts of numbers."""

    agent: str | int
    observation: Any


def check_numbers(value: Any) -> None:
    """Raises a ValueError unless all that lies in lists and dicts are numbers; NumPy would take "1" and true for 1."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            check_numbers(item)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"The observation has {json.dumps(value)[:50]} in it. Only numbers are allowed.")
    elif not abs(value) < sys.float_info.max:
        raise ValueError("The observation has NaN or infinity in it, or a number that is too large.")


async def body_of(request: Request) -> bytes:
    """The body of a request, of which no more is read than is allowed."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BYTES:
            raise HTTPException(413, f"A body may have {MAX_BYTES:,} bytes at most.")
    return body


@serve.deployment
@serve.ingress(api)
class ActorServer:
    """One replica; holds all actors, which are small. `.options(num_replicas=N)` for more."""

    def __init__(self, folder: str, sub_policy: int | None = None):
        file = Path(folder) / "maddpg_actors.py"
        spec = importlib.util.spec_from_file_location("maddpg_actors", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        # By name, as JSON has them: an environment may name its agents 0, 1, 2.
        self._actors = {str(agent): actor for agent, actor in module.load_actors(folder, sub_policy).items()}

    @api.post("/")
    async def act(self, request: Request) -> dict:
        try:
            # By hand, whatever the request's Content-Type: `curl -d` names another than JSON.
            query = Query.model_validate_json(await body_of(request))
        except ValidationError as error:
            raise HTTPException(422, json.loads(error.json(include_url=False, include_input=False))) from error
        actor = self._actors.get(str(query.agent))
        if actor is None:
            raise HTTPException(422, f"There is no agent {str(query.agent)[:100]!r}. There are: {list(self._actors)}.")
        try:
            check_numbers(query.observation)
            action = actor(query.observation)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        if not np.isfinite(action).all():  # JSON has no word for it
            raise HTTPException(422, "The observation has numbers so large that the action is not finite.")
        return {"action": action.tolist()}

    @api.get("/")
    def agents(self) -> dict:
        return {agent: {"observation": a.inputs, "action": a.action} for agent, a in self._actors.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="that `rllib-maddpg export` has written")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--sub-policy",
        type=int,
        metavar="K",
        help="of policy ensembles: the one that plays (default: drawn at the start)",
    )
    args = parser.parse_args()
    folder = args.folder.resolve()
    if not (folder / "manifest.json").is_file():
        parser.error(f"{args.folder} has no manifest.json: give a folder that `rllib-maddpg export` has written.")

    # A Ray of its own, whichever others run here.
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    stop = threading.Event()
    # After `ray.init`, which sets handlers of its own.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    serve.start(http_options={"host": "127.0.0.1", "port": args.port})
    serve.run(ActorServer.bind(str(folder), args.sub_policy), route_prefix="/")
    print(f"Serving on http://127.0.0.1:{args.port}/ (Ctrl-C stops)", flush=True)
    stop.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
