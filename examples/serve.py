"""Serves exported actors over HTTP with Ray Serve, on this machine only.

    rllib-maddpg export results/spread --format onnx --out exported
    python examples/serve.py exported --port 8000
    curl http://127.0.0.1:8000/ -d '{"agent": "agent_0", "observation": [0.1, 0.2, 0.3, ...]}'

The answer is `{"action": ...}`. `GET /` says which agents there are and what they observe. An observation that does not fit, an
unknown agent or a body that is no such JSON gets status 422 and a `detail` that says what is wrong.
Needs the extras `export` and `serve`.
"""

import argparse
import importlib.util
import json
import signal
import threading
from pathlib import Path
from typing import Any

import ray
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel, ValidationError
from ray import serve

api = FastAPI(title="MADDPG actors")


class Query(BaseModel):
    """What is asked: the agent, and its observation as (nested) lists or dicts of numbers."""

    agent: str
    observation: Any


@serve.deployment
@serve.ingress(api)
class ActorServer:
    """One replica; holds all actors, which are small. `.options(num_replicas=N)` for more."""

    def __init__(self, folder: str):
        file = Path(folder) / "maddpg_actors.py"
        spec = importlib.util.spec_from_file_location("maddpg_actors", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self._actors = module.load_actors(folder)

    @api.post("/")
    async def act(self, request: Request) -> dict:
        try:
            # By hand, whatever the request's Content-Type: `curl -d` names another than JSON.
            query = Query.model_validate_json(await request.body())
        except ValidationError as error:
            raise HTTPException(422, json.loads(error.json(include_url=False, include_input=False))) from error
        if query.agent not in self._actors:
            raise HTTPException(422, f"There is no agent {query.agent!r}. There are: {list(self._actors)}.")
        try:
            action = self._actors[query.agent](query.observation)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        return {"action": action.tolist()}

    @api.get("/")
    def agents(self) -> dict:
        return {agent: {"observation": a.inputs, "action": a.action} for agent, a in self._actors.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="that `rllib-maddpg export` has written")
    parser.add_argument("--port", type=int, default=8000)
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
    serve.run(ActorServer.bind(str(folder)), route_prefix="/")
    print(f"Serving on http://127.0.0.1:{args.port}/ (Ctrl-C stops)", flush=True)
    stop.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
