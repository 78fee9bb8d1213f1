#!/usr/bin/env python3
"""Measures how soon a killed system answers rightly again: SIGKILL, start, first answer that equals the one before.

The system takes two hours of the load of `trefoil bench metrics` (as fast as it goes), is asked for all of it, killed,
started again, and asked the same every 10 ms. Prints the seconds from the start to the first right answer, and how
many answers before it were wrong rather than refused.

Only the standard library is used. What the numbers mean is written in docs/performance.md.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.parse

from systems import SYSTEMS, add_load_options, add_system_options, fetch, load, parse

ANSWER_SECONDS_MAX = 120
# The last value of every series, and some series over all of the time.
LAST = 'sum by (job) ({job=~".+"})'
ALL = "sum by (job) (sum_over_time(node_load1[$span]))"


def answers(url, span, at):
    """The results of the asked queries; raises while the system does not answer."""
    results = []
    for query in [LAST, ALL]:
        parameters = urllib.parse.urlencode({"query": query.replace("$span", span), "time": at, "nocache": "1"})
        answer = json.loads(fetch(f"{url}/api/v1/query?{parameters}", seconds=ANSWER_SECONDS_MAX))
        if answer["status"] != "success":
            raise OSError(answer)
        # Sums of floats may differ in their last digits by the order of series.
        results.append(sorted((s["metric"].get("job"), f"{float(s['value'][1]):.9g}") for s in answer["data"]["result"]))
    return results


def measure(name, options, start_ms):
    """Loads, kills and restarts one system; its figures as a dictionary."""
    system = SYSTEMS[name](tempfile.mkdtemp(prefix=f"trefoil-restart-{name}-", dir=options.directory))
    try:
        system.start(options)
        load(system, options, start_ms)
        span_seconds = options.samples * options.interval_ms // 1000
        span, at = f"{span_seconds + 60}s", start_ms // 1000 + span_seconds
        before = answers(system.url, span, at)
        system.kill()
        begun = time.perf_counter()
        system.restart()
        refused = wrong = 0
        while True:
            try:
                if answers(system.url, span, at) == before:
                    break
                wrong += 1
            except (OSError, urllib.error.URLError):
                refused += 1
            if time.perf_counter() - begun > ANSWER_SECONDS_MAX:
                raise SystemExit(f"{name}: no right answer in {ANSWER_SECONDS_MAX} s\n{system.log_ends()}")
            time.sleep(0.01)
        return {
            "system": name,
            "samples": options.samples * options.series,
            "right_answer_seconds": time.perf_counter() - begun,
            "refused_before": refused,
            "wrong_before": wrong,
        }
    finally:
        system.stop()
        shutil.rmtree(system.folder, ignore_errors=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    add_system_options(parser, "trefoil-1", "comma-separated")
    add_load_options(parser, samples=480, interval_ms=15_000)
    parser.add_argument("--rounds", type=int, default=3)
    return parse(parser)


def main():
    options = arguments()
    start_ms = int(time.time() * 1000) - options.samples * options.interval_ms
    rounds = []
    for name in options.systems.split(","):
        for number in range(options.rounds):
            print(f"{name}, round {number + 1} of {options.rounds} ...", file=sys.stderr)
            rounds.append(measure(name, options, start_ms))
    if options.json:
        print(json.dumps({"options": vars(options), "rounds": rounds}, indent=2))
        return
    for figures in rounds:
        print(
            f"{figures['system']:<18}{figures['samples']:>12} samples{figures['right_answer_seconds']:>8.2f} s"
            f"{figures['refused_before']:>6} refused{figures['wrong_before']:>4} wrong before"
        )


if __name__ == "__main__":
    main()
