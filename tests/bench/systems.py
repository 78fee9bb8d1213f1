"""The systems that are measured, each with its processes, and what all measurements have in common: the load and its options.

A system is started fresh on loopback over a directory of its own and takes the load of `trefoil bench metrics`. The same
seed gives all of them the same bytes.
"""

import json
import os
import shlex
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

START_SECONDS_MAX = 30
STOP_SECONDS_MAX = 30
TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    """A TCP port that nothing uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fetch(url, data=None, seconds=60):
    """The body of a page; raises on any status but success."""
    with urllib.request.urlopen(url, data=data, timeout=seconds) as answer:
        return answer.read()


class System:
    """A system under load: its processes, where it takes writes, and where its bytes lie."""

    def __init__(self, folder):
        self.folder = folder
        self.processes = []
        self.commands = []
        self.url = None

    def spawn(self, *command):
        log = open(os.path.join(self.folder, f"log-{len(self.processes)}"), "wb")
        self.processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        self.commands.append(command)

    def kill(self):
        """SIGKILL to all processes."""
        for process in self.processes:
            process.kill()
            process.wait()

    def restart(self):
        """Starts the ended processes as they were started first; returns at once."""
        commands, self.commands, self.processes = self.commands, [], []
        for command in commands:
            self.spawn(*command)

    def log_ends(self):
        """The last lines that each process wrote."""
        ends = []
        for number in range(len(self.processes)):
            with open(os.path.join(self.folder, f"log-{number}"), errors="replace") as log:
                ends.append(f"process {number}:\n" + "".join(log.readlines()[-20:]))
        return "\n".join(ends)

    def wait_ready(self, urls):
        deadline = time.monotonic() + START_SECONDS_MAX
        for url in urls:
            while True:
                try:
                    fetch(url, seconds=2)
                    break
                except (OSError, urllib.error.URLError):
                    if time.monotonic() > deadline or any(p.poll() is not None for p in self.processes):
                        raise SystemExit(f"{url} did not become ready\n{self.log_ends()}")
                    time.sleep(0.05)

    def processor_seconds(self):
        total = 0
        for process in self.processes:
            with open(f"/proc/{process.pid}/stat") as stat:
                fields = stat.read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def memory_peak_bytes(self):
        total = 0
        for process in self.processes:
            with open(f"/proc/{process.pid}/status") as status:
                line = next(line for line in status if line.startswith("VmHWM"))
            total += int(line.split()[1]) * 1024
        return total

    def settle(self):
        """Asks the system to bring what it holds into its lasting form, where it can be asked."""

    def disk_bytes(self):
        """All bytes below the data directories."""
        return disk_bytes(self.folder)

    def lasting_bytes(self):
        """Bytes in the form that stays: without journals that will be dropped."""
        return self.disk_bytes()

    def stop(self):
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def disk_bytes(folder):
    """Allocated bytes of all files below a folder, as du counts them."""
    total, seen = 0, set()
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                stat = os.lstat(os.path.join(place, name))
            except FileNotFoundError:
                continue
            if not name.startswith("log-") and stat.st_ino not in seen:
                seen.add(stat.st_ino)
                total += stat.st_blocks * 512
    return total


class Prometheus(System):
    def configuration(self):
        return "global: {}\n"

    def start(self, options):
        port = free_port()
        config = os.path.join(self.folder, "prometheus.yml")
        with open(config, "w") as out:
            out.write(self.configuration())
        self.data = os.path.join(self.folder, "data")
        self.spawn(
            options.prometheus,
            f"--config.file={config}",
            f"--storage.tsdb.path={self.data}",
            "--storage.tsdb.retention.time=10y",
            f"--web.listen-address=127.0.0.1:{port}",
            "--web.enable-remote-write-receiver",
            "--web.enable-admin-api",
        )
        self.url = f"http://127.0.0.1:{port}"
        self.wait_ready([f"{self.url}/-/ready"])

    def lasting_bytes(self):
        # A snapshot writes the head as a block: what these samples cost once they are compacted.
        answer = json.loads(fetch(f"{self.url}/api/v1/admin/tsdb/snapshot", data=b""))
        return disk_bytes(os.path.join(self.data, "snapshots", answer["data"]["name"]))


class VictoriaMetrics(System):
    def start(self, options):
        port = free_port()
        self.data = os.path.join(self.folder, "data")
        self.spawn(
            options.victoria_metrics,
            f"-storageDataPath={self.data}",
            f"-httpListenAddr=127.0.0.1:{port}",
            "-retentionPeriod=100y",
        )
        self.url = f"http://127.0.0.1:{port}"
        self.wait_ready([f"{self.url}/health"])

    def settle(self):
        fetch(f"{self.url}/internal/force_flush")

    def lasting_bytes(self):
        fetch(f"{self.url}/internal/force_merge")
        # The merge is asynchronous: wait until its size stands still for two seconds.
        before, still = -1, 0
        for _ in range(120):
            now = self.disk_bytes()
            still = still + 1 if now == before else 0
            if still == 4:
                break
            before = now
            time.sleep(0.5)
        return self.disk_bytes()


class Trefoil(System):
    nodes = 1
    # Of every node's configuration file.
    settings = ""

    def start(self, options):
        http = [free_port() for _ in range(self.nodes)]
        peer = [free_port() for _ in range(self.nodes)]
        seeds = ",".join(f"127.0.0.1:{port}" for port in peer) if self.nodes > 1 else ""
        configuration = os.path.join(self.folder, "trefoil.yaml")
        with open(configuration, "w", encoding="utf-8") as file:
            file.write(self.settings or "{}\n")
        for number in range(self.nodes):
            command = [
                options.trefoil,
                "serve",
                f"--config={configuration}",
                f"--data-dir={self.folder}/node-{number + 1}",
                f"--node-name=node-{number + 1}",
                f"--http=127.0.0.1:{http[number]}",
                f"--peer=127.0.0.1:{peer[number]}",
                f"--bootstrap-expect={self.nodes}",
            ]
            self.spawn(*command, *([f"--seeds={seeds}"] if seeds else []))
        urls = [f"http://127.0.0.1:{port}" for port in http]
        self.url = urls[0]
        self.wait_ready([f"{url}/-/ready" for url in urls])

    def lasting_bytes(self):
        # A node that stops writes its head into blocks.
        self.stop()
        return sum(
            disk_bytes(os.path.join(self.folder, f"node-{number + 1}", "blocks"))
            for number in range(self.nodes)
        )


class TrefoilCluster(Trefoil):
    nodes = 3


SYSTEMS = {
    "trefoil-1": Trefoil,
    "trefoil-3": TrefoilCluster,
    "prometheus": Prometheus,
    "victoria-metrics": VictoriaMetrics,
}


def load(system, options, start_ms):
    """Sends the load to a system and says what the generator reports."""
    generator = shlex.split(options.generator or f"{options.trefoil} bench metrics")
    command = [
        *generator,
        f"--url={system.url}",
        f"--series={options.series}",
        f"--samples={options.samples}",
        f"--interval-ms={options.interval_ms}",
        f"--seed={options.seed}",
        f"--start={start_ms}",
        "--output=json",
        *(f"--{name}={getattr(options, name)}" for name in ["concurrency", "rate"] if getattr(options, name, None)),
    ]
    run = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if run.returncode != 0:
        raise SystemExit(f"{system.url}: the load failed: {run.stdout.decode()}")
    return json.loads(run.stdout)


def add_system_options(parser, systems, meaning):
    """The options about systems; `systems` are measured if none are named."""
    parser.add_argument("--systems", default=systems, help=meaning)
    parser.add_argument("--directory", help="where the data directories are made; default: TMPDIR")
    parser.add_argument("--trefoil", default="target/release/trefoil")
    parser.add_argument("--prometheus", default="prometheus")
    parser.add_argument("--victoria-metrics", default="victoria-metrics")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def add_load_options(parser, samples, interval_ms):
    """The options about the load, with these sizes if none are named."""
    parser.add_argument("--series", type=int, default=50_000)
    parser.add_argument("--samples", type=int, default=samples, help="of each series")
    parser.add_argument("--interval-ms", type=int, default=interval_ms)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--generator", help="command of the load generator; default: the trefoil binary")


def parse(parser):
    """The options of the command line; ends with a message when a system is unknown."""
    options = parser.parse_args()
    unknown = set(options.systems.split(",")) - set(SYSTEMS)
    if unknown:
        parser.error(f"unknown systems {sorted(unknown)}; there are {sorted(SYSTEMS)}")
    return options
