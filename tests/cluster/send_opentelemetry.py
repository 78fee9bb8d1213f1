"""Sends with OpenTelemetry's own exporters: python3 send_opentelemetry.py GRPC_ENDPOINT HTTP_ENDPOINT."""

import sys

import grpc
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (
    OTLPMetricExporter as GrpcExporter,
)
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import (
    OTLPMetricExporter as HttpExporter,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource


def send(name, exporter):
    resource = Resource.create({"service.name": name, "service.instance.id": "1", "host.name": "h"})
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    provider = MeterProvider(metric_readers=[reader], resource=resource)
    meter = provider.get_meter("test", "1.0")
    meter.create_counter("sdk.requests", unit="{request}").add(3, {"http.route": "/a"})
    meter.create_up_down_counter("sdk.queue").add(-2)
    meter.create_histogram("sdk.latency", unit="ms").record(7)
    # False when the exporter gave up.
    if not provider.force_flush(10_000):
        sys.exit(f"{name}: not exported")
    provider.shutdown()


grpc_endpoint, http_endpoint = sys.argv[1:]
send("plain", GrpcExporter(endpoint=grpc_endpoint, insecure=True, timeout=10))
send(
    "compressed",
    GrpcExporter(endpoint=grpc_endpoint, insecure=True, compression=grpc.Compression.Gzip, timeout=10),
)
send(
    "http",
    HttpExporter(endpoint=f"{http_endpoint}/v1/metrics", compression=Compression.Gzip, timeout=10),
)
