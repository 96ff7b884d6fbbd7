"""Starts, watches and stops all services of Sextant on this machine.

Used by deploy/local/{up,status,scale,down}, by the quickstart and by the integration tests.
Standard library only, so that it runs before anything is installed.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEFAULT_FOLDER = ROOT / "build/local"
DEFAULT_MODEL = ROOT / "build/models/SmolLM2-135M-Instruct.Q4_1.gguf"
READY_TIMEOUT_S = 300
DRAIN_TIMEOUT_S = 20
# As many as their HTTP ports have room for: ranks from +1011 to capture at +1020, decoders from +1040.
MOST_RANKS = 9
MOST_DECODERS = 100
USES = {
    "up": "Starts all services on this machine and waits until they are ready.",
    "status": "Shows what runs where; exit code 0 when all of it is ready.",
    "scale": "Starts or ends lens decoders while work runs.",
    "down": "Drains and stops everything.",
}
# As in deploy/Dockerfile: glibc otherwise keeps memory for each of its many arenas, which fill for hours and look like a
# leak. Who sets it for `up` decides.
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}
# As common/base/log writes it.
ERROR_LINE = re.compile(r'\S+ error (?P<service>\w+): (?P<message>.*?)(?: status="(?P<status>.*)")?$')
# Calls go from left to right, so services start from the right and stop from the left.
STOP_ORDER = ["gateway", "shard_worker", "lens_decoder", "capture", "steering_registry"]


class ClusterError(Exception):
    """What went wrong and what to do, in one paragraph."""


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0 when it has ended."""
    try:
        # The name, in parentheses, may hold spaces and parentheses; after it come the state and 18 more fields.
        state, *fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if state in "ZX" else int(fields[18])


def children(pid: int) -> list[int]:
    """The process ids of a process's children; none when it has ended."""
    try:
        tasks = list(pathlib.Path(f"/proc/{pid}/task").iterdir())
        return sorted(int(child) for task in tasks for child in (task / "children").read_text().split())
    except OSError:
        return []


@dataclasses.dataclass
class Process:
    """One started service. `http` is its port of /metrics, /livez and /readyz."""

    name: str
    binary: str
    pid: int
    http: int
    log: str
    flags: list[str]
    started: int  # see start_time; 0 when it had ended before it was asked

    def alive(self) -> bool:
        try:
            # A child of ours that has ended is a zombie until it is waited for.
            os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            pass
        # Its number may have gone to somebody else's process.
        return self.started != 0 and start_time(self.pid) == self.started

    def ranks(self) -> list[tuple[int, int]]:
        """(rank, process id) of each rank that a shard worker has started."""
        found = []
        try:
            for pid in children(self.pid):
                words = pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                found += [(int(word.removeprefix("--rank=")), pid) for word in words if word.startswith("--rank=")]
        except OSError:
            pass  # Some have ended meanwhile.
        return sorted(found)

    def last_error(self) -> str:
        """What it said last of why it ended, without time and level; "" when it said nothing."""
        try:
            lines = pathlib.Path(self.log).read_text(errors="replace").splitlines()
        except OSError:
            return ""
        found = [match for line in lines if (match := ERROR_LINE.match(line))]
        # A supervisor only says that its ranks have said why.
        own = [match for match in found if "RANKS_REFUSED" not in (match["status"] or "")]
        if not found:
            return lines[-1] if lines else ""
        match = (own or found)[-1]
        return match["status"] or match["message"]

    def ready(self) -> tuple[bool, str]:
        """Whether /readyz says yes, and the reason when it says no."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/readyz", timeout=2) as answer:
                return True, answer.read().decode(errors="replace").strip()
        except urllib.error.HTTPError as error:
            return False, error.read().decode(errors="replace").strip()
        except OSError as error:
            return False, str(error)

    def metric(self, name: str) -> float | None:
        """The sum of a metric over its labels, or None."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/metrics", timeout=2) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return None
        values = [float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name]
        return sum(values) if values else None


def gpu_count(visible: str | None, folder: pathlib.Path = pathlib.Path("/dev")) -> int:
    """NVIDIA GPUs that a process sees to which CUDA_VISIBLE_DEVICES says `visible`, or nothing."""
    present = sum(path.name.removeprefix("nvidia").isdecimal() for path in folder.glob("nvidia*"))
    if visible is None:
        return present
    named: list[str] = []
    for name in (word.strip() for word in visible.split(",")):
        # CUDA stops at the first name it does not know.
        if not (name.isdecimal() and int(name) < present or name.startswith(("GPU-", "MIG-"))):
            break
        if name in named:
            return 0  # as CUDA has it
        named.append(name)
    return min(len(named), present)


def place(device: str, ranks: int, gpus: int) -> tuple[str, str]:
    """The --device of the ranks and of lens decoders: one GPU a rank, decoders on the first that no rank uses."""
    if device == "cpu":
        return "cpu", "cpu"
    if ranks > gpus:
        raise ClusterError(f"--device cuda with {ranks} ranks: this machine shows {gpus} NVIDIA GPUs "
                           "(/dev/nvidia0, ... and CUDA_VISIBLE_DEVICES); "
                           "start fewer --ranks, or use --device cpu")
    # Ranks fill their GPUs with keys and values, so that a decoder beside one would find no room.
    return "cuda:0", f"cuda:{ranks}" if ranks < gpus else "cpu"


class Cluster:
    """The processes of one suite, remembered in `folder`/state.json and started with `environment` besides this process's."""

    def __init__(self, folder: pathlib.Path, binaries: pathlib.Path = ROOT / "build/bin", port: int = 7700,
                 environment: dict[str, str] | None = None) -> None:
        self.folder = folder.resolve()
        self.binaries = binaries
        self.port = port
        self.environment = environment or {}
        self.processes: list[Process] = []
        self.settings: dict = {}
        state = self.folder / "state.json"
        if state.exists():
            saved = json.loads(state.read_text())
            self.port, self.settings = saved["port"], saved["settings"]
            self.processes = [Process(**p) for p in saved["processes"]]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {"port": self.port, "settings": self.settings, "processes": [vars(p) for p in self.processes]}
        # Prometheus reads targets.json again and again.
        targets = [{"targets": [f"127.0.0.1:{port}" for port in self.http_ports()]}]
        for name, content in (("state.json", state), ("targets.json", targets)):
            part = self.folder / f"{name}.part"
            part.write_text(json.dumps(content, indent=1))
            part.rename(self.folder / name)

    def http_ports(self) -> list[int]:
        """Where /metrics is served: one port a process, and one more for each further rank."""
        ranks = range(1, self.settings.get("ranks", 1))
        return [port for p in self.processes for port in [p.http] + [p.http + r for r in ranks if p.binary == "shard_worker"]]

    def start(self, name: str, binary: str, http: int, flags: list[str], nice: int = 0) -> Process:
        """Starts one service in the background, in a session of its own so that Ctrl-C here does not reach it."""
        path = self.binaries / binary
        if not path.exists():
            raise ClusterError(f"{path} is missing: run deploy/quickstart once, or `deploy/setup build {binary}`")
        logs = self.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        log = logs / f"{name}.log"
        with open(log, "ab") as out:
            child = subprocess.Popen(
                [str(path), f"--http_port={http}", *flags], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env=ENVIRONMENT | os.environ | self.environment, start_new_session=True, preexec_fn=(lambda: os.nice(nice)) if nice else None)
        process = Process(name, binary, child.pid, http, str(log), flags, start_time(child.pid))
        self.processes.append(process)
        self._save()
        return process

    def up(self, model: pathlib.Path, ranks: int, decoders: int, device: str, dtype: str, say=lambda text: None,
           extra: dict[str, list[str]] | None = None) -> None:
        """Starts everything and waits until it is ready; on failure everything is stopped again."""
        if any(p.alive() for p in self.processes):
            raise ClusterError(f"a cluster is up already on port {self.port}: deploy/local/status shows it, deploy/local/down ends it; "
                               "for another one beside it, name another --folder and --port")
        if not model.exists():
            raise ClusterError(f"no model at {model}: `deploy/setup model` fetches the quickstart's, --model names another")
        if not (1 <= self.port <= 64000 and 1 <= ranks <= MOST_RANKS and 0 <= decoders <= MOST_DECODERS):
            raise ClusterError(f"--port is 1 to 64000 (others follow it), --ranks 1 to {MOST_RANKS}, --decoders 0 to {MOST_DECODERS}")
        ranks_on, decoders_on = place(device, ranks, gpu_count(os.environ.get("CUDA_VISIBLE_DEVICES")) if device == "cuda" else 0)
        ports = [self.port + n for n in (0, 10, 20, 30, 1000, 1010, 1020, 1030)]
        for port in ports + [self.port + 1011 + r for r in range(ranks)] + [self.port + 1040 + d for d in range(decoders)]:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError as error:
                    raise ClusterError(f"port {port} is taken ({error.strerror}): end what uses it, or choose another base with --port") from error
        extra = extra or {}
        self.processes = []
        for log in (self.folder / "logs").glob("*.log"):
            log.unlink()  # an earlier cluster's: its errors would be read as this one's
        self.settings = {"model": str(model), "ranks": ranks, "device": device, "decoder_device": decoders_on, "dtype": dtype,
                         "decoder_flags": extra.get("lens_decoder", []), "decoder_count": 0}
        base, capture = self.port, f"127.0.0.1:{self.port + 20}"
        try:
            self.start("steering_registry", "steering_registry", base + 1030,
                       [f"--port={base + 30}", f"--data_dir={self.folder / 'registry'}", *extra.get("steering_registry", [])])
            self.start("capture", "capture", base + 1020,
                       [f"--port={base + 20}", f"--data_dir={self.folder / 'capture'}", *extra.get("capture", [])])
            self.start("shard_worker", "shard_worker", base + 1011,
                       [f"--port={base + 10}", f"--model={model}", f"--ranks={ranks}", f"--dtype={dtype}",
                        f"--device={ranks_on}", f"--digest_cache_dir={self.folder / 'digests'}", *extra.get("shard_worker", [])])
            self.scale(decoders, wait=False)
            self.start("gateway", "gateway", base + 1000,
                       [f"--port={base}", f"--workers=127.0.0.1:{base + 10}", f"--capture={capture}",
                        f"--registry=127.0.0.1:{base + 30}", *extra.get("gateway", [])])
            self.wait_ready(say)
        except BaseException:
            self.down()
            raise

    def scale(self, decoders: int, wait: bool = True) -> None:
        """Starts lens decoders, or ends the newest ones, until `decoders` are alive."""
        alive = [p for p in self.processes if p.binary == "lens_decoder" and p.alive()]
        self.processes = [p for p in self.processes if p.binary != "lens_decoder" or p in alive]
        for process in reversed(alive[decoders:]):
            self.stop(process)
        used = {p.http for p in alive}
        for _ in range(decoders - len(alive)):
            http = next(h for h in range(self.port + 1040, self.port + 1140) if h not in used)
            used.add(http)
            self.settings["decoder_count"] += 1
            self.start(f"lens_decoder-{self.settings['decoder_count']}", "lens_decoder", http,
                       [f"--capture=127.0.0.1:{self.port + 20}", f"--model={self.settings['model']}",
                        f"--dtype={self.settings['dtype']}", f"--device={self.settings.get('decoder_device', 'cpu')}",
                        *self.settings["decoder_flags"]], nice=10)
        self._save()
        if wait:
            self.wait_ready()

    def wait_ready(self, say=lambda text: None, timeout_s: float = READY_TIMEOUT_S) -> None:
        deadline = time.monotonic() + timeout_s
        waiting = list(self.processes)
        while waiting:
            for process in list(waiting):
                # A process that has died is reported even if another one answers on its port.
                if not process.alive():
                    raise ClusterError(f"{process.name} ended while starting: {process.last_error() or 'it said nothing'} (log: {process.log})")
                if process.ready()[0]:
                    waiting.remove(process)
                    say(f"{process.name} is ready")
            if waiting and time.monotonic() > deadline:
                reasons = "; ".join(f"{p.name}: {p.ready()[1]}" for p in waiting)
                raise ClusterError(f"not ready after {timeout_s:.0f} s: {reasons} (logs: {self.folder / 'logs'})")
            time.sleep(0.1)

    def stop(self, process: Process, timeout_s: float = DRAIN_TIMEOUT_S) -> None:
        """Drains one process; kills it when it does not end in time."""
        deadline = time.monotonic() + timeout_s
        if process.alive():
            os.kill(process.pid, signal.SIGTERM)
        while process.alive():
            if time.monotonic() > deadline:
                os.kill(process.pid, signal.SIGKILL)
                deadline = float("inf")
            time.sleep(0.02)
        self.processes = [p for p in self.processes if p.pid != process.pid]

    def down(self) -> int:
        """Stops everything, clients' side first. Returns how many processes were alive."""
        count = sum(p.alive() for p in self.processes)
        for binary in STOP_ORDER:
            for process in [p for p in self.processes if p.binary == binary]:
                self.stop(process)
        self.processes = []
        for name in ("state.json", "targets.json"):
            (self.folder / name).unlink(missing_ok=True)
        return count

    def status(self) -> bool:
        """Prints what runs where. True when everything is alive and ready."""
        if not self.processes:
            print("no cluster is up here; deploy/local/up starts one")
            return False
        print(f"model {self.settings['model']}  ranks {self.settings['ranks']}  dtype {self.settings['dtype']}  gateway {self.address}")
        good = True
        dead = []
        print(f"{'service':<20}{'pid':>8}  {'state':<12}address")
        for process in self.processes:
            alive = process.alive()
            ready, reason = process.ready() if alive else (False, "")
            good &= ready
            state = "ready" if ready else "not ready" if alive else "dead"
            if not alive:
                dead.append(process)
            note = "" if ready or not alive else f"  {reason}"
            print(f"{process.name:<20}{process.pid:>8}  {state:<12}http://127.0.0.1:{process.http}/metrics{note}")
            if alive and process.binary == "shard_worker":
                for rank, pid in process.ranks():
                    print(f"{'  rank ' + str(rank):<20}{pid:>8}{'':<14}http://127.0.0.1:{process.http + rank}/metrics")
        capture = next((p for p in self.processes if p.binary == "capture" and p.alive()), None)
        for title, name in (("lens decoders connected", "sextant_capture_decoders"), ("rows waiting for a lens", "sextant_capture_waiting_rows")):
            value = capture.metric(name) if capture else None
            print(f"{title}:", "unknown" if value is None else f"{value:.0f}")
            if value == 0 and "decoders" in name:
                print("  readings wait until there is one: deploy/local/scale --decoders 1")
        for process in dead:
            print(f"{process.name} has died; its log {process.log} ends: {process.last_error() or 'with nothing'}")
        if dead:
            print(f"to have {'it' if len(dead) == 1 else 'them'} back: {self._cure(dead)}")
        return good

    def _cure(self, dead: list[Process]) -> str:
        """The commands that replace services that have died."""
        where = "" if self.folder == DEFAULT_FOLDER else f" --folder {shlex.quote(str(self.folder))}"
        decoders = sum(p.binary == "lens_decoder" for p in self.processes)
        if all(p.binary == "lens_decoder" for p in dead):
            return f"deploy/local/scale --decoders {decoders}{where}"
        flags = f"--model {shlex.quote(self.settings['model'])} --ranks {self.settings['ranks']} --decoders {decoders}"
        flags += f" --port {self.port} --dtype {self.settings['dtype']}"
        return f"deploy/local/down{where} && deploy/local/up {flags}{where}"


def named_path(text: str) -> pathlib.Path:
    """A path that says something: an empty one would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty: name a path, or leave the flag out")
    return pathlib.Path(text)


def counted(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="deploy/local", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", prog="deploy/local/up", help="start all services and wait until they are ready")
    up.add_argument("--model", type=named_path, default=DEFAULT_MODEL, help="Hugging Face folder or GGUF file")
    up.add_argument("--ranks", type=int, default=2, help="tensor-parallel ranks, one process each (default 2)")
    up.add_argument("--decoders", type=int, default=2, help="lens decoders (default 2)")
    up.add_argument("--port", type=int, default=7700, help="gateway's port; the others follow at +10, +20, +30 and +1000 (default 7700)")
    up.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="what the ranks run on (default cpu)")
    up.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16",
                    help="of weights and rows; float32 is slow and exact (default bfloat16)")
    commands.add_parser("status", prog="deploy/local/status", help="what runs where")
    scale = commands.add_parser("scale", prog="deploy/local/scale", help="start or end lens decoders until N are alive")
    scale.add_argument("--decoders", type=int, required=True, metavar="N", help="how many are to be alive")
    commands.add_parser("down", prog="deploy/local/down", help="stop everything")
    for name, command in commands.choices.items():
        command.description = f"{USES[name]} Ports, state and logs: deploy/README.md."
        command.add_argument("--folder", type=named_path, default=DEFAULT_FOLDER, help="state, data and logs; one folder a cluster (default build/local)")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    cluster = Cluster(arguments.folder)
    try:
        if arguments.command == "up":
            if not any(p.alive() for p in cluster.processes):
                cluster.port = arguments.port
            cluster.up(arguments.model.resolve(), arguments.ranks, arguments.decoders, arguments.device, arguments.dtype,
                       say=lambda text: print(f"  {text}", flush=True))
            print(f"up: gateway at {cluster.address}; try: .venv/bin/sextant --server {cluster.address} generate \"Once upon a time\" --lens")
        elif arguments.command == "status":
            return 0 if cluster.status() else 1
        elif arguments.command == "scale":
            if not 0 <= arguments.decoders <= MOST_DECODERS:
                raise ClusterError(f"--decoders is 0 to {MOST_DECODERS}")
            if not any(p.alive() for p in cluster.processes):
                raise ClusterError("no cluster is up here; deploy/local/up starts one")
            cluster.scale(arguments.decoders)
            print(counted(arguments.decoders, "lens decoder is ready", "lens decoders are ready"))
        else:
            print(f"stopped {counted(cluster.down(), 'process', 'processes')}")
    except (ClusterError, OSError) as error:
        said = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else error
        print(f"error: {said}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was started has been stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
