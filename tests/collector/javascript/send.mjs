// Sends one log record with attributes of every type through one of the SDK's exporters:
//   node send.mjs json|protobuf|grpc URL
import { argv } from 'node:process';
import { SeverityNumber } from '@opentelemetry/api-logs';
import { OTLPLogExporter as GrpcExporter } from '@opentelemetry/exporter-logs-otlp-grpc';
import { OTLPLogExporter as JsonExporter } from '@opentelemetry/exporter-logs-otlp-http';
import { OTLPLogExporter as ProtobufExporter } from '@opentelemetry/exporter-logs-otlp-proto';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { LoggerProvider, SimpleLogRecordProcessor } from '@opentelemetry/sdk-logs';

const [kind, url] = argv.slice(2);
const Exporter = { json: JsonExporter, protobuf: ProtobufExporter, grpc: GrpcExporter }[kind];
const results = [];
const exporter = new Exporter({ url, compression: 'gzip' });
const send = exporter.export.bind(exporter);
exporter.export = (records, done) => send(records, (result) => { results.push(result); done(result); });

const provider = new LoggerProvider({
  resource: resourceFromAttributes({ 'service.name': 'shop', 'number': 1.5 }),
  processors: [new SimpleLogRecordProcessor({ exporter })],
});
provider.getLogger('library', '1.2').emit({
  eventName: 'order.placed',
  timestamp: [1700000000, 123456789],
  observedTimestamp: [1700000001, 1],
  severityNumber: SeverityNumber.INFO,
  severityText: 'INFO',
  body: { 'a b': ['é', null, 2.5] },
  attributes: {
    'audit.tenant': `javascript-${kind}`,
    text: 'Zoë \u{1F600} \u0000"\\',
    yes: true,
    small: -7,
    large: Number.MAX_SAFE_INTEGER,
    tiny: 5e-324,
    bytes: new Uint8Array([0, 1, 254, 255]),
    list: ['a', 1, false, 0.5],
    empty: [],
    map: { b: { c: 'd' }, a: 1 },
  },
});
await provider.shutdown();
if (results.length !== 1 || results[0].code !== 0) {
  console.error(results);
  process.exit(1);
}
