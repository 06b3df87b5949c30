"""A Ray cluster on this machine: a head and further nodes, each as ``ray start`` makes them."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil

ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's own choice of 15 has its workers wait for all else that a busy machine does.
    "RAY_worker_niceness": "0",
    # Whoever is cut off or left alone is missed after some seconds rather than a minute.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "8",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "3",
}
MARK = "DREAMLAB_TEST_CLUSTER"
"""In the environment of whatever a cluster starts: the cluster's folder."""

_RAY = Path(sys.executable).with_name("ray")
_STORE_BYTES = "80000000"


class Node:
    """A node of the cluster, and its process group."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def has_ended(self) -> bool:
        """Whether it ended by itself: Ray gives up a start that takes 30 seconds."""
        return self._process.returncode is not None

    async def kill(self) -> None:
        """Kills it with all that runs on it."""
        everything: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            everything = psutil.Process(self._process.pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        await asyncio.to_thread(kill, everything)


class RayCluster:
    """A head that draws nothing, and nodes with one CPU each. Leaves no process and no file.

    Attributes:
        address: of the head, whether or not it is up.
        folder: below which all of its files lie.
        nodes: those that were started and not killed, by name.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        # Ray's sockets lie below it, and their names may have 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="dlr", dir="/tmp"))
        self.nodes: dict[str, Node] = {}
        self._host = host
        self._port = _free_port()
        self.address = f"{host}:{self._port}"

    async def start(self) -> None:
        """Starts the head, again at the same address where there was one."""
        self.nodes["head"] = await self._start(
            "--head",
            f"--port={self._port}",
            "--num-cpus=0",
            "--include-dashboard=false",
            f"--node-ip-address={self._host}",
            f"--temp-dir={self.folder}",
        )
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(self._host, self._port)
                writer.close()
                return
            await asyncio.sleep(0.05)

    async def join(
        self,
        name: str,
        *,
        host: str | None = None,
        within: tuple[str, ...] = (),
        **environment: str,
    ) -> None:
        """Has a node start.

        Args:
            name: of the node and of its folder.
            host: its address; None is the head's.
            within: words before the command, such as those that enter a network namespace.
            environment: what its processes have beside what all have.
        """
        self.nodes[name] = await self._start(
            f"--address={self.address}",
            "--num-cpus=1",
            f"--node-name={name}",
            f"--node-ip-address={host or self._host}",
            f"--labels=name={name}",
            within=within,
            **{"DREAMLAB_WORKER_FOLDER": str(self.folder / name)} | environment,
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until something is so, and starts nodes again that a busy machine kept from it."""
        while not condition():
            for name, node in list(self.nodes.items()):
                if node.has_ended and name != "head":
                    await self.kill(name)
                    await self.join(name)
            await asyncio.sleep(0.05)

    async def kill(self, name: str) -> None:
        """Kills a node with all that runs on it."""
        await self.nodes.pop(name).kill()

    async def stop(self) -> None:
        """Kills the head and all nodes."""
        await asyncio.gather(*(node.kill() for node in self.nodes.values()))
        self.nodes.clear()
        await asyncio.to_thread(kill, self.processes())

    async def close(self) -> None:
        """Kills everything and removes all files."""
        await self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        """Returns what the cluster's processes, and whoever speaks with them, need."""
        return ENVIRONMENT | {MARK: str(self.folder)}

    def processes(self) -> list[psutil.Process]:
        """Returns what runs for the cluster, by the process table; the bot's driver left out."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                is_ours = process.environ().get(MARK) == str(self.folder)
                words = " ".join(process.cmdline())
                if is_ours and "engine.ray_driver" not in words and process.pid != os.getpid():
                    found.append(process)
        return found

    def actor(self, name: str) -> psutil.Process:
        """Returns the process that draws on a node."""
        [found] = [
            process
            for process in self.processes()
            if "RayWorker" in " ".join(process.cmdline())
            and process.environ()["DREAMLAB_WORKER_FOLDER"] == str(self.folder / name)
        ]
        return found

    async def _start(self, *options: str, within: tuple[str, ...] = (), **environment: str) -> Node:
        words = (str(_RAY), "start", "--block", "--disable-usage-stats", *options)
        process = await asyncio.create_subprocess_exec(
            *within,
            *words,
            f"--object-store-memory={_STORE_BYTES}",
            env=os.environ | self.environment() | environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        return Node(process)


class Island:
    """A network namespace with one cable to this machine, which can be cut. Needs root.

    Attributes:
        mainland: this machine's end of the cable.
        host: the other end.
        within: words before a command that runs there.
    """

    def __init__(self) -> None:
        name = f"dlr{os.getpid() % 100_000}"
        number = os.getpid() % 250
        self.mainland, self.host = f"10.213.{number}.1", f"10.213.{number}.2"
        self.within = ("ip", "netns", "exec", name)
        self._name, self._cable = name, f"{name}a"

    def make(self) -> bool:
        """Makes it; returns whether this machine permits that."""
        far = f"{self._name}b"
        steps = (
            f"netns add {self._name}",
            f"link add {self._cable} type veth peer name {far}",
            f"link set {far} netns {self._name}",
            f"addr add {self.mainland}/30 dev {self._cable}",
            f"link set {self._cable} up",
            f"-n {self._name} addr add {self.host}/30 dev {far}",
            f"-n {self._name} link set {far} up",
            f"-n {self._name} link set lo up",
        )
        return all(map(_ip, steps))

    def without(self, folder: Path) -> tuple[str, ...]:
        """Returns `within`, for a machine that has another, empty folder in a folder's place."""
        hide = 'mount -t tmpfs none "$0" && exec "$@"'  # in the mount namespace that ip makes
        return (*self.within, "sh", "-c", hide, str(folder))

    def cut(self) -> None:
        """Cuts the cable."""
        assert _ip(f"link set {self._cable} down")

    def sink(self) -> None:
        """Removes it."""
        _ip(f"link del {self._cable}")
        _ip(f"netns del {self._name}")


def _ip(words: str) -> bool:
    program = shutil.which("ip")
    if program is None:
        return False
    done = subprocess.run([program, *words.split()], capture_output=True, check=False)
    return done.returncode == 0


def kill(processes: list[psutil.Process]) -> None:
    """Ends processes at once."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=20)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
