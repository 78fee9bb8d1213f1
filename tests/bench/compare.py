#!/usr/bin/env python3
"""Measures Trefoil beside Prometheus and VictoriaMetrics under one and the same load.

Every system is started fresh on loopback with an empty directory, takes the load of
`trefoil bench metrics`, rests, and is asked for its costs: processor seconds (of all its processes,
from start to the end of the rest, so that background work counts), peak resident memory, bytes on
disk. The systems run one after another in the order A-B-C-C-B-A, so that a machine that grows slower
or faster favours nobody. Prints a table with ratios, or JSON.

Only the standard library is used. What the numbers mean, and what makes them unequal, is written in
docs/performance.md.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time

from systems import SYSTEMS, add_load_options, add_system_options, load, parse


def measure(name, options, start_ms):
    """Runs one system under the load; its costs as a dictionary."""
    folder = tempfile.mkdtemp(prefix=f"trefoil-compare-{name}-", dir=options.directory)
    system = SYSTEMS[name](folder)
    try:
        system.start(options)
        report = load(system, options, start_ms)
        system.settle()
        time.sleep(options.rest_seconds)
        samples = report["samples_acknowledged"]
        costs = {
            "system": name,
            "samples": samples,
            "samples_per_second": report["samples_per_second"],
            "latency_p99_ms": report["latency_p99_ms"],
            "cpu_seconds_per_million": system.processor_seconds() / samples * 1e6,
            "memory_peak_bytes": system.memory_peak_bytes(),
            "disk_bytes": system.disk_bytes(),
        }
        costs["lasting_bytes"] = system.lasting_bytes()
        return costs
    finally:
        system.stop()
        shutil.rmtree(folder, ignore_errors=True)


def middle(rounds, name, key):
    return statistics.median(r[key] for r in rounds if r["system"] == name)


def table(rounds, names):
    """Medians of the rounds, and their ratios to each of the other products."""
    keys = [
        ("samples/s", "samples_per_second", 1, "{:.0f}"),
        ("p99 ms", "latency_p99_ms", 1, "{:.1f}"),
        ("CPU s/M", "cpu_seconds_per_million", 1, "{:.2f}"),
        ("peak MiB", "memory_peak_bytes", 1 << 20, "{:.0f}"),
        ("disk MiB", "disk_bytes", 1 << 20, "{:.1f}"),
        ("lasting MiB", "lasting_bytes", 1 << 20, "{:.1f}"),
    ]
    lines = [[""] + [title for title, *_ in keys] + ["lasting B/sample"]]
    for name in names:
        cells = [form.format(middle(rounds, name, key) / unit) for _, key, unit, form in keys]
        per_sample = middle(rounds, name, "lasting_bytes") / middle(rounds, name, "samples")
        lines.append([name, *cells, f"{per_sample:.2f}"])
    for name in names:
        for other in names:
            if name.startswith("trefoil") and not other.startswith("trefoil"):
                ratios = [middle(rounds, name, k) / max(middle(rounds, other, k), 1e-9) for _, k, *_ in keys]
                lines.append([f"{name} / {other}", *(f"{ratio:.2f}x" for ratio in ratios)])
    widths = [max(len(line[i]) for line in lines if i < len(line)) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths)))
        for line in lines
    )


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_system_options(parser, ",".join(SYSTEMS), "comma-separated, in order")
    add_load_options(parser, samples=120, interval_ms=15_000)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--rate", type=int, help="samples per second; default: as fast as it goes")
    parser.add_argument("--rest-seconds", type=float, default=10, help="after the load, counted")
    parser.add_argument("--once", action="store_true", help="one round in order, without the way back")
    return parse(parser)


def main():
    options = arguments()
    names = options.systems.split(",")
    order = names if options.once else names + names[::-1]
    # The same times for all systems, the last of them current.
    start_ms = int(time.time() * 1000) - options.samples * options.interval_ms
    rounds = []
    for name in order:
        print(f"measuring {name} ...", file=sys.stderr)
        rounds.append(measure(name, options, start_ms))
    if options.json:
        print(json.dumps({"options": vars(options), "rounds": rounds}, indent=2))
    else:
        print(table(rounds, names))


if __name__ == "__main__":
    main()
