// Sends with the libraries of Node: node send_node.js GRPC_ENDPOINT HTTP_ENDPOINT, with NODE_PATH where they are.
'use strict';

const { OTLPMetricExporter: GrpcExporter } = require('@opentelemetry/exporter-metrics-otlp-grpc');
const { OTLPMetricExporter: JsonExporter } = require('@opentelemetry/exporter-metrics-otlp-http');
const { OTLPMetricExporter: ProtobufExporter } = require('@opentelemetry/exporter-metrics-otlp-proto');
const { resourceFromAttributes } = require('@opentelemetry/resources');
const { AggregationType, MeterProvider, PeriodicExportingMetricReader } = require('@opentelemetry/sdk-metrics');
const client = require('prom-client');

const TIMEOUT_MS = 10_000;

async function sendMetrics(name, exporter) {
  const reader = new PeriodicExportingMetricReader({
    exporter,
    exportIntervalMillis: 3_600_000,
    exportTimeoutMillis: TIMEOUT_MS,
  });
  const provider = new MeterProvider({
    resource: resourceFromAttributes({
      'service.name': `node-${name}`,
      'service.instance.id': '1',
      'host.name': 'h',
    }),
    readers: [reader],
    views: [
      {
        instrumentName: 'node.sizes',
        aggregation: { type: AggregationType.EXPONENTIAL_HISTOGRAM },
      },
    ],
  });
  const meter = provider.getMeter('test', '1.0');
  meter.createCounter('node.requests', { unit: '{request}' }).add(3, { 'http.route': '/a' });
  meter.createUpDownCounter('node.queue').add(-2);
  meter.createHistogram('node.latency', { unit: 'ms' }).record(7);
  const sizes = meter.createHistogram('node.sizes', { unit: 'By' });
  [1, 2, 4].forEach((size) => sizes.record(size));
  // Rejects when the exporter gave up.
  await provider.forceFlush({ timeoutMillis: TIMEOUT_MS });
  await provider.shutdown();
}

async function post(endpoint, contentType, body) {
  const answer = await fetch(`${endpoint}/api/v1/import/prometheus`, {
    method: 'POST',
    headers: { 'content-type': contentType },
    body,
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (answer.status !== 204) {
    throw new Error(`${contentType}: ${answer.status} ${await answer.text()}`);
  }
}

async function sendExposition(endpoint, contentType, name) {
  const registry = new client.Registry();
  registry.setContentType(contentType);
  registry.setDefaultLabels({ job: name });
  const isOpen = contentType === client.Registry.OPENMETRICS_CONTENT_TYPE;
  const registers = [registry];
  const requests = new client.Counter({
    name: 'node_exposed_requests_total',
    help: 'Requests with "quotation marks"\nand two lines.',
    labelNames: ['route'],
    registers,
    enableExemplars: isOpen,
  });
  if (isOpen) {
    requests.inc({ labels: { route: '/a\\"\n' }, value: 3, exemplarLabels: { trace_id: 'abc' } });
  } else {
    requests.inc({ route: '/a\\"\n' }, 3);
  }
  new client.Gauge({ name: 'node_exposed_queue', help: 'Queue.', registers }).set(-2.5);
  const latency = new client.Histogram({
    name: 'node_exposed_latency_seconds',
    help: 'Latency.',
    buckets: [0.1, 1],
    registers,
  });
  latency.observe(0.5);
  new client.Summary({ name: 'node_exposed_sizes', help: 'Sizes.', registers }).observe(4);
  await post(endpoint, contentType, await registry.metrics());
}

async function main() {
  const [grpcEndpoint, httpEndpoint] = process.argv.slice(2);
  const url = `${httpEndpoint}/v1/metrics`;
  await sendMetrics('grpc', new GrpcExporter({ url: grpcEndpoint, timeoutMillis: TIMEOUT_MS }));
  await sendMetrics('json', new JsonExporter({ url, timeoutMillis: TIMEOUT_MS }));
  await sendMetrics('protobuf', new ProtobufExporter({ url, compression: 'gzip', timeoutMillis: TIMEOUT_MS }));
  await sendExposition(httpEndpoint, client.Registry.PROMETHEUS_CONTENT_TYPE, 'node-text');
  await sendExposition(httpEndpoint, client.Registry.OPENMETRICS_CONTENT_TYPE, 'node-open');
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
