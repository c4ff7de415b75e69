"""Where a federation runs: Flower's simulation on Ray, or this process. The same apps, the same bits."""

import os
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeAlias
from uuid import uuid4

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.task_identity import TaskIdentity  # internal: Message() reads it, pinned with flwr==1.41
from flwr.superlink.grid import InMemoryGrid

Main: TypeAlias = Callable[[Grid], None]

_CLIENT_FAILED = 2  # Flower's ErrorCode.CLIENT_APP_RAISED_EXCEPTION


class Engine(Protocol):
    """Runs ``main`` against ``clients`` nodes that run ``client_app``."""

    def __call__(self, main: Main, client_app: ClientApp, clients: int) -> None: ...


class RaySimulation:
    """Flower's simulation engine: clients are Ray actors, ``main`` a thread of this process.

    Args:
        cpus: Of the machine, given to Ray.
        client_cpus: CPUs a client actor takes; ``cpus / client_cpus`` of them work at a time.
        client_gpus: Share of a GPU a client actor takes.

    Flower shuts Ray down when ``main`` returns, so whatever runs on it has to be collected inside ``main``.
    """

    def __init__(self, *, cpus: int, client_cpus: int = 1, client_gpus: float = 0.0) -> None:
        self._init = {"address": "local", "num_cpus": cpus, "log_to_driver": False, "include_dashboard": False}
        # an actor that died would otherwise stay in Flower's pool and swallow messages
        self._client = {"num_cpus": client_cpus, "num_gpus": client_gpus, "max_restarts": -1}

    def __call__(self, main: Main, client_app: ClientApp, clients: int) -> None:
        from flwr.simulation import run_simulation

        server_app = ServerApp()

        @server_app.main()
        def _(grid: Grid, context: Context) -> None:
            del context
            main(grid)

        path = os.environ.get("PYTHONPATH")
        config: dict[str, Any] = {"client_resources": dict(self._client), "init_args": dict(self._init)}
        try:
            run_simulation(server_app, client_app, num_supernodes=clients, backend_config=config)
        finally:
            if path is None:  # Flower lengthens it at each call
                os.environ.pop("PYTHONPATH", None)
            else:
                os.environ["PYTHONPATH"] = path


def simulated(grid: Grid) -> bool:
    """Whether the nodes are Flower's own Ray actors, started by whoever called us."""
    return isinstance(grid, InMemoryGrid)


class InProcess:
    """One message after the other, in this process, without Ray: for tests, debuggers and small studies."""

    def __call__(self, main: Main, client_app: ClientApp, clients: int) -> None:
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
        main(InProcessGrid(client_app, clients))


class InProcessGrid(Grid):
    """A grid whose nodes answer at once."""

    def __init__(self, client_app: ClientApp, clients: int) -> None:
        self._app, self._replies = client_app, dict[str, Message]()
        self._contexts = {
            100 + i: Context(
                run_id=1,
                node_id=100 + i,
                node_config={"partition-id": i, "num-partitions": clients},
                state=RecordDict(),
                run_config={},
            )
            for i in range(clients)
        }

    def set_run(self, run: Any) -> None:
        raise NotImplementedError("an in-process grid belongs to no run")

    @property
    def run(self) -> Any:
        raise NotImplementedError("an in-process grid belongs to no run")

    def create_message(self, content: RecordDict, message_type: str, dst_node_id: int, *_: Any, **__: Any) -> Message:
        return Message(content, dst_node_id, message_type)

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return [self._deliver(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(i) for i in message_ids if i in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        del timeout
        return self.pull_messages(self.push_messages(messages))

    def _deliver(self, message: Message) -> str:
        name = str(uuid4())
        message.metadata.__dict__["_message_id"] = name
        try:
            reply = self._app(message, self._contexts[message.metadata.dst_node_id])
        except Exception as error:
            reply = Message(Error(_CLIENT_FAILED, f"{type(error).__name__}: {error}"), reply_to=message)
        self._replies[name] = reply
        return name
