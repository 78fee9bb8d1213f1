#!/usr/bin/env python3
"""Measures what samples of a real node exporter cost on disk, in Trefoil beside Prometheus and VictoriaMetrics.

Prometheus scrapes a node exporter of this machine every second and forwards every sample to the others by remote
write. After the run each is brought into its lasting form, and the bytes are divided by the number of samples that
Prometheus took. Prints a table, or JSON.

Only the standard library is used. What the numbers mean is written in docs/performance.md.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse

from systems import SYSTEMS, Prometheus, Trefoil, add_system_options, fetch, free_port, parse


class TrefoilWholeWindows(Trefoil):
    """A node that writes blocks only when it stops: one for each window, as merges leave them once it is closed."""

    settings = "storage:\n  flush_interval_seconds: 86400\n  flush_samples: 1000000000\n"


SYSTEMS["trefoil-1-whole"] = TrefoilWholeWindows


class Scraper(Prometheus):
    """A Prometheus that scrapes the exporter and forwards to others."""

    def __init__(self, folder, exporter, receivers, interval):
        super().__init__(folder)
        self.exporter, self.receivers, self.interval = exporter, receivers, interval

    def configuration(self):
        writes = "".join(f"  - url: {url}/api/v1/write\n" for url in self.receivers)
        return (
            f"global:\n  scrape_interval: {self.interval}\n"
            f"scrape_configs:\n  - job_name: node\n    static_configs:\n      - targets: ['{self.exporter}']\n"
            f"remote_write:\n{writes}"
        )


def count(url):
    """Samples of the last day that a system has, asked name by name: functions drop names, and Prometheus would find
    series that become equal."""
    names = json.loads(fetch(f"{url}/api/v1/label/__name__/values"))["data"]
    total = 0
    for name in names:
        query = f'sum(count_over_time({name}{{job="node"}}[1d]))'
        parameters = urllib.parse.urlencode({"query": query, "time": int(time.time()) + 60, "nocache": "1"})
        result = json.loads(fetch(f"{url}/api/v1/query?{parameters}"))["data"]["result"]
        total += int(float(result[0]["value"][1])) if result else 0
    return total


def wait_forwarded(systems, samples):
    """Until everyone has what Prometheus has, but for what it never forwards."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        counts = [count(system.url) for system in systems]
        if all(found >= samples for found in counts):
            return
        time.sleep(0.5)
    raise SystemExit(f"of {samples} samples only {counts} arrived")


def measure(options, folders):
    address = f"127.0.0.1:{free_port()}"
    exporter = subprocess.Popen(
        [options.exporter, f"--web.listen-address={address}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    receivers = {}
    scraper = None
    try:
        for name in options.systems.split(","):
            folders.append(tempfile.mkdtemp(prefix=f"trefoil-exporter-{name}-", dir=options.directory))
            receivers[name] = SYSTEMS[name](folders[-1])
            receivers[name].start(options)
        folders.append(tempfile.mkdtemp(prefix="trefoil-exporter-prometheus-", dir=options.directory))
        urls = [system.url for system in receivers.values()]
        scraper = Scraper(folders[-1], address, urls, f"{options.interval_ms}ms")
        scraper.start(options)
        for second in range(options.seconds):
            if second % 30 == 0:
                print(f"scraping, {options.seconds - second} s left ...", file=sys.stderr)
            time.sleep(1)
        exporter.terminate()
        time.sleep(2)
        # Stale markers are not counted by any.
        samples = count(scraper.url)
        wait_forwarded(receivers.values(), samples)
        rows = []
        for name, system in [("prometheus", scraper), *receivers.items()]:
            system.settle()
            size = system.lasting_bytes()
            rows.append({"system": name, "samples": samples, "lasting_bytes": size, "bytes_per_sample": size / samples})
        return rows
    finally:
        exporter.kill()
        for system in [*receivers.values(), scraper]:
            if system:
                system.stop()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    add_system_options(
        parser, "trefoil-1,trefoil-1-whole,victoria-metrics", "beside the scraping Prometheus"
    )
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--interval-ms", type=int, default=1_000, help="between scrapes")
    parser.add_argument("--exporter", default="prometheus-node-exporter")
    return parse(parser)


def main():
    options = arguments()
    folders = []
    try:
        rows = measure(options, folders)
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        print(json.dumps({"options": vars(options), "systems": rows}, indent=2))
        return
    for row in rows:
        print(f"{row['system']:<18}{row['samples']:>10} samples{row['lasting_bytes'] / 1024:>10.0f} KiB"
              f"{row['bytes_per_sample']:>8.3f} B/sample")


if __name__ == "__main__":
    main()
