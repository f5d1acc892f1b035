// The upstream of `cargo xtask demo`: a small service behind Envoy that uses the package.
//
//   node examples/demo-service.js [port]     (default 0: any free one)
//
//   GET /            who asked and which trace the request belongs to
//   GET /news        the same for everyone, cacheable for ten seconds
//   GET /report      dear: costs five tokens of the service's own limiter
//   GET /metrics     the limiter's counters for Prometheus
import { createServer } from 'node:http';
import { RateLimiter, guard } from 'edgeweir';

const limiter = new RateLimiter({ rateLimit: 50, refillRate: 20 });
const passes = guard(limiter, {
  // The filter in front of us has told apart who may ask; we protect ourselves.
  key: (req) => req.headers['x-client'] ?? req.socket.remoteAddress,
  cost: (req) => (req.url.startsWith('/report') ? 5 : 1),
  skip: (req) => req.url === '/metrics',
});
let served = 0;

/** The trace id and the caller's span id of a `traceparent` (W3C Trace Context). */
function readTrace(header) {
  const [, traceId, parentId, flags] = /^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})/.exec(header ?? '') ?? [];
  return { traceId: traceId ?? null, parentId: parentId ?? null, sampled: flags === undefined ? null : (Number.parseInt(flags, 16) & 1) === 1 };
}

const server = createServer((req, res) => {
  if (!passes(req, res)) return;
  const path = req.url.split('?', 1)[0];
  if (path === '/metrics') return void res.setHeader('Content-Type', 'text/plain; version=0.0.4').end(limiter.prometheus());
  if (!['/', '/news', '/report'].includes(path)) return void res.writeHead(404).end();
  served += 1;
  const body = JSON.stringify({ service: 'edgeweir-demo', path, served, at: new Date().toISOString(), ...readTrace(req.headers.traceparent) });
  res.setHeader('Content-Type', 'application/json');
  res.setHeader('Cache-Control', path === '/news' ? 'max-age=10' : 'no-store');
  res.setHeader('Content-Length', Buffer.byteLength(body));
  res.end(`${body}`);
});

server.listen(Number(process.argv[2] ?? 0), '127.0.0.1', () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => {
    server.close(() => limiter.shutdown());
    server.closeIdleConnections();
  });
}
