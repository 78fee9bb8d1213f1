#!/usr/bin/env python3
"""Times the queries of dashboards on Trefoil beside Prometheus and VictoriaMetrics over one and the same data.

Every system is started fresh on loopback and takes the load of `trefoil bench metrics`; then all of them run at
once and each query is sent to one after another, so that a machine that grows slower favours nobody. A query's time
is its fastest of some rounds; result caches are asked to stay out of the way. The number of answered series must be
equal everywhere. Prints the times, the ratio of each query, and the geometric mean of the ratios, or JSON.

Only the standard library is used. What the numbers mean is written in docs/performance.md.
"""

import argparse
import http.client
import json
import math
import shutil
import sys
import tempfile
import time
import urllib.parse

from systems import SYSTEMS, add_load_options, add_system_options, load, parse

QUERY_SECONDS_MAX = 120

# What dashboards and rules of node exporters ask. `$w` is the window of rates.
EXPRESSIONS = [
    # One target of many, as the panels of one machine ask.
    'node_load1{instance="$target"}',
    'sum by (mode) (rate(node_cpu_seconds_total{instance="$target"}[$w]))',
    '1 - avg(rate(node_cpu_seconds_total{instance="$target", mode="idle"}[$w]))',
    'node_memory_MemTotal_bytes{instance="$target"} - node_memory_MemAvailable_bytes{instance="$target"}',
    'rate(node_network_receive_bytes_total{instance="$target"}[$w]) * 8',
    'irate(node_disk_io_time_seconds_total{instance="$target"}[$w])',
    'node_filesystem_avail_bytes{instance="$target"} / node_filesystem_size_bytes{instance="$target"}',
    'deriv(node_filesystem_avail_bytes{instance="$target", mountpoint="/"}[$w])',
    # All targets of a job.
    'sum(rate(node_cpu_seconds_total{job="node-3", mode!="idle"}[$w]))',
    'avg by (instance) (rate(node_cpu_seconds_total{job="node-3", mode="system"}[$w]))',
    'max by (instance) (node_load1{job="node-3"})',
    # All targets.
    "sum(node_load1)",
    "avg by (job) (node_load1)",
    "count by (job) (node_memory_MemTotal_bytes)",
    "sum by (job) (rate(node_cpu_seconds_total[$w]))",
    "sum by (instance) (rate(node_cpu_seconds_total[$w]))",
    "sum by (job, mode) (rate(node_cpu_seconds_total[$w]))",
    "sum(rate(node_network_receive_bytes_total[$w]))",
    "sum by (job) (increase(node_disk_written_bytes_total[$w]))",
    "topk(5, rate(node_network_transmit_bytes_total[$w]))",
    "bottomk(5, node_filesystem_avail_bytes)",
    "quantile(0.9, node_load1)",
    "stddev by (job) (node_load1)",
    "max_over_time(node_load1[$w])",
    "avg_over_time(node_memory_MemAvailable_bytes[$w])",
    "count(node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes > 0.1)",
    "sum by (job) (node_memory_MemTotal_bytes - node_memory_MemFree_bytes)",
    "count(rate(node_context_switches_total[$w]) > 1000)",
    'sum({__name__=~"node_disk_.*_bytes_total"})',
    'label_replace(sum by (instance) (node_load5), "host", "$1", "instance", "(.*):.*")',
]
# (name, seconds back, step in seconds, window of rates)
RANGES = [("1h", 3_600, 15, "5m"), ("24h", 86_400, 300, "10m")]


def loaded(name, options, start_ms):
    """A started system with the load."""
    system = SYSTEMS[name](tempfile.mkdtemp(prefix=f"trefoil-queries-{name}-", dir=options.directory))
    system.start(options)
    load(system, options, start_ms)
    system.settle()
    return system


def connected(system):
    """A connection that is kept, as Grafana and rulers keep theirs."""
    return http.client.HTTPConnection(urllib.parse.urlsplit(system.url).netloc, timeout=QUERY_SECONDS_MAX)


def ask(connection, expression, begin, end, step):
    """Seconds, and the number of series of the answer."""
    # VictoriaMetrics keeps results; the others take the parameter as it is.
    parameters = {"query": expression, "start": begin, "end": end, "step": step, "nocache": "1"}
    url = f"/api/v1/query_range?{urllib.parse.urlencode(parameters)}"
    begun = time.perf_counter()
    connection.request("GET", url)
    body = connection.getresponse().read()
    took = time.perf_counter() - begun
    answer = json.loads(body)
    if answer["status"] != "success":
        raise SystemExit(f"{connection.host}:{connection.port}{url}: {answer}")
    return took, len(answer["data"]["result"])


def pack(options, span_seconds):
    """(range, expression, seconds back, step) of every query that the loaded data has times for."""
    for name, seconds, step, window in RANGES:
        if seconds <= span_seconds + 60:
            for expression in EXPRESSIONS:
                expression = expression.replace("$w", window).replace("$target", options.target)
                yield name, expression, seconds, step


def time_queries(systems, options, end, span_seconds):
    """Per query: its times in milliseconds by system, and what they answered."""
    rows = []
    connections = {name: connected(system) for name, system in systems.items()}
    for name, expression, seconds, step in pack(options, span_seconds):
        best = {system: math.inf for system in systems}
        sizes = {}
        for round_number in range(options.rounds):
            order = list(systems) if round_number % 2 == 0 else list(systems)[::-1]
            for system in order:
                took, sizes[system] = ask(connections[system], expression, end - seconds, end, step)
                best[system] = min(best[system], took * 1e3)
        rows.append({"range": name, "query": expression, "ms": best, "series": sizes})
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return rows


def geometric_mean(values):
    values = list(values)
    return math.exp(sum(math.log(value) for value in values) / len(values)) if values else math.nan


def table(rows, names):
    first, others = names[0], names[1:]
    lines = []
    for row in rows:
        cells = "".join(f"{row['ms'][name]:>10.1f}" for name in names)
        ratios = "".join(f"{row['ms'][first] / row['ms'][other]:>8.2f}x" for other in others)
        differs = "" if len(set(row["series"].values())) == 1 else f"  series: {row['series']}"
        lines.append(f"{row['range']:<4}{cells}{ratios}  {row['query']}{differs}")
    lines.append(f"ms of {', '.join(names)}; ratios of {first} to {', '.join(others)}")
    for other in others:
        ratios = [row["ms"][first] / row["ms"][other] for row in rows]
        slower = sum(ratio > 1 for ratio in ratios)
        lines.append(
            f"{first} / {other}: geometric mean {geometric_mean(ratios):.2f}x,"
            f" slowest {max(ratios):.2f}x, {slower} of {len(ratios)} slower"
        )
    return "\n".join(lines)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    compared = "trefoil-1,prometheus,victoria-metrics"
    add_system_options(parser, compared, "the first is compared with each other")
    add_load_options(parser, samples=1_440, interval_ms=60_000)
    parser.add_argument("--rounds", type=int, default=5, help="times that each query is sent to each system")
    parser.add_argument("--target", help="the instance that queries for one target name; default: one of the load's")
    options = parse(parser)
    options.target = options.target or f"10.0.0.7:{9100 + options.seed % 1000}"
    return options


def main():
    options = arguments()
    names = options.systems.split(",")
    span_ms = options.samples * options.interval_ms
    start_ms = int(time.time() * 1000) - span_ms
    systems = {}
    try:
        for name in names:
            print(f"loading {name} ...", file=sys.stderr)
            systems[name] = loaded(name, options, start_ms)
        # Steps are aligned, as Grafana aligns them.
        end = (start_ms + span_ms) // 1000 // 300 * 300
        before = {name: system.processor_seconds() for name, system in systems.items()}
        rows = time_queries(systems, options, end, span_ms // 1000)
        cpu = {name: system.processor_seconds() - before[name] for name, system in systems.items()}
    finally:
        for system in systems.values():
            system.stop()
            shutil.rmtree(system.folder, ignore_errors=True)
    if options.json:
        print(json.dumps({"options": vars(options), "queries": rows, "cpu_seconds": cpu}, indent=2))
    else:
        print(table(rows, names))
        print(f"processor seconds of all rounds: {', '.join(f'{name} {cpu[name]:.2f}' for name in names)}")


if __name__ == "__main__":
    main()
