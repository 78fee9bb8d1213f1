"""Sends what Prometheus' own library exposes: python3 send_exposition.py HTTP_ENDPOINT."""

import sys
import urllib.request

from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Summary
from prometheus_client import exposition, openmetrics


def registry_of(job):
    registry = CollectorRegistry(target_info={"job": job, "version": "1"})
    requests = Counter("python_requests", "Requests.\nTwo lines.", ["job", "route"], registry=registry)
    requests.labels(job, '/a\\"\n').inc(3, exemplar={"trace_id": "abc"})
    Gauge("python_queue", "Queue.", ["job"], registry=registry).labels(job).set(float("-inf"))
    latency = Histogram("python_latency_seconds", "Latency.", ["job"], buckets=[0.1, 1], registry=registry)
    latency.labels(job).observe(0.5, {"trace_id": "def"})
    Summary("python_sizes", "Sizes.", ["job"], registry=registry).labels(job).observe(4)
    Info("python_build", "Build.", ["job"], registry=registry).labels(job).info({"version": "1.2"})
    state = Enum("python_state", "State.", ["job"], states=["idle", "busy"], registry=registry)
    state.labels(job).state("busy")
    return registry


def post(endpoint, content_type, body):
    request = urllib.request.Request(
        f"{endpoint}/api/v1/import/prometheus", data=body, headers={"Content-Type": content_type}
    )
    # Raises an error for a status that is none of success.
    with urllib.request.urlopen(request, timeout=10) as answer:
        if answer.status != 204:
            sys.exit(f"{content_type}: {answer.status}")


[endpoint] = sys.argv[1:]
text = exposition.generate_latest(registry_of("python-text"))
post(endpoint, exposition.CONTENT_TYPE_LATEST, text)
open_text = openmetrics.exposition.generate_latest(registry_of("python-open"))
post(endpoint, openmetrics.exposition.CONTENT_TYPE_LATEST, open_text)
