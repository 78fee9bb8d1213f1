#!/usr/bin/env python3
"""Times the panels of a dashboard that is refreshed: the same queries over a day, moved by one step each time.

A node is started fresh on loopback and takes the load of `trefoil bench metrics`. Then each query is asked in rounds, once with
`nocache=1` and once with the help of what the node has kept of the rounds before; both answers must be the same. Prints the
fastest times and their ratios. The first round is left out of the times with help: it is the one that keeps.

Only the standard library is used.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
import urllib.parse

from queries import EXPRESSIONS, geometric_mean
from systems import SYSTEMS, add_load_options, add_system_options, fetch, load, parse

DAY = 86_400


def ask(system, expression, end, step, nocache):
    """Milliseconds, and the data."""
    parameters = {"query": expression, "start": end - DAY, "end": end, "step": step, "nocache": nocache}
    url = f"{system.url}/api/v1/query_range?{urllib.parse.urlencode(parameters)}"
    begun = time.perf_counter()
    body = fetch(url, seconds=120)
    took = time.perf_counter() - begun
    answer = json.loads(body)
    if answer["status"] != "success":
        raise SystemExit(f"{url}: {answer}")
    return took * 1e3, answer["data"]


def measure(system, options, end):
    """Per query: the fastest milliseconds cold and warm, and those of the round that keeps."""
    rows = []
    for expression in EXPRESSIONS:
        expression = expression.replace("$w", "10m").replace("$target", options.target)
        cold, warm = [], []
        for number in range(options.rounds + 1):
            until = end - (options.rounds - number) * options.step
            pair = [ask(system, expression, until, options.step, nocache) for nocache in ("1", "0")]
            if pair[0][1] != pair[1][1]:
                raise SystemExit(f"{expression}: the answers differ at {until}")
            cold.append(pair[0][0])
            warm.append(pair[1][0])
        row = {"query": expression, "cold": min(cold), "first": warm[0]}
        rows.append({**row, "warm": min(warm[1:])})
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    add_system_options(parser, "trefoil-1", "the system that is measured")
    add_load_options(parser, samples=3_600, interval_ms=30_000)
    parser.add_argument("--rounds", type=int, default=5, help="refreshes of each query behind the first")
    parser.add_argument("--step", type=int, default=60, help="seconds")
    parser.add_argument("--settle-seconds", type=int, default=60, help="between the load and the first query")
    parser.add_argument("--target", help="the instance that queries for one target name; default: one of the load's")
    options = parse(parser)
    options.target = options.target or f"10.0.0.7:{9100 + options.seed % 1000}"
    span_ms = options.samples * options.interval_ms
    start_ms = int(time.time() * 1000) - span_ms
    system = SYSTEMS[options.systems](tempfile.mkdtemp(prefix="trefoil-dashboard-", dir=options.directory))
    try:
        system.start(options)
        load(system, options, start_ms)
        time.sleep(options.settle_seconds)
        end = (start_ms + span_ms) // 1000 // options.step * options.step
        rows = measure(system, options, end)
    finally:
        system.stop()
        shutil.rmtree(system.folder, ignore_errors=True)
    if options.json:
        print(json.dumps({"options": vars(options), "queries": rows}, indent=2))
        return
    for row in rows:
        ratio = row["warm"] / row["cold"]
        print(f"{row['cold']:>10.1f}{row['first']:>10.1f}{row['warm']:>10.1f}{ratio:>8.2f}x  {row['query']}")
    first = geometric_mean(row["first"] / row["cold"] for row in rows)
    warm = geometric_mean(row["warm"] / row["cold"] for row in rows)
    print("ms cold, the first time with keeping, warm; ratio of warm to cold")
    print(f"geometric means: first / cold {first:.2f}x, warm / cold {warm:.2f}x")


if __name__ == "__main__":
    main()
