// Calls with @connectrpc/connect-node: by each protocol, over HTTP/1.1 and HTTP/2. The
// services are read from descriptors at run time.
//
// usage: node connect.js ADDR PROTO_DIR
'use strict';

const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const { resolve } = require('node:path');
const { createFileRegistry, fromBinary } = require('@bufbuild/protobuf');
const { FileDescriptorSetSchema } = require('@bufbuild/protobuf/wkt');
const { Code, ConnectError, createClient } = require('@connectrpc/connect');
const {
  compressionGzip, createConnectTransport, createGrpcTransport, createGrpcWebTransport,
} = require('@connectrpc/connect-node');

const [addr, protoDir] = process.argv.slice(2);
const baseUrl = `http://${addr}`;
const buf = resolve(protoDir, '../tools/buf/node_modules/.bin/buf');
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, execFileSync(buf, ['build', protoDir, '-o', '-'])));
const service = registry.getService('user.v1.UserService');

const gzip = { sendCompression: compressionGzip, compressMinBytes: 0 };
const transports = {
  'connect, HTTP/1.1': createConnectTransport({ baseUrl, httpVersion: '1.1' }),
  'connect, HTTP/2': createConnectTransport({ baseUrl, httpVersion: '2', useBinaryFormat: true, ...gzip }),
  'connect, GET': createConnectTransport({ baseUrl, httpVersion: '1.1', useHttpGet: true }),
  gRPC: createGrpcTransport({ baseUrl, ...gzip }),
  'gRPC-Web, HTTP/1.1': createGrpcWebTransport({ baseUrl, httpVersion: '1.1' }),
  'gRPC-Web, HTTP/2': createGrpcWebTransport({ baseUrl, httpVersion: '2' }),
};

async function refused(promise, code) {
  const error = await promise.then(() => assert.fail('it is not refused'), ConnectError.from);
  assert.equal(Code[error.code], Code[code]);
  const info = error.details.map(({ type }) => type);
  assert.ok(info.includes('google.rpc.ErrorInfo'), `details ${info}`);
}

async function walk(client) {
  const { user } = await client.createUser({ user: { name: 'Ada', email: 'ada@example.com', age: 36 } });
  const key = { case: 'id', value: user.id };
  for await (const { event, resumeToken } of client.watchUsers({ initialState: true })) {
    assert.equal(event.value.id, user.id);
    assert.notEqual(resumeToken, '');
    break;
  }
  assert.equal((await client.getUser({ key })).user.email, 'ada@example.com');
  await refused(client.createUser({ user: { email: 'nobody' } }), Code.InvalidArgument);
  await client.deleteUser({ id: user.id, etag: user.etag });
  await refused(client.getUser({ key }), Code.NotFound);
}

async function main() {
  for (const [name, transport] of Object.entries(transports)) {
    await walk(createClient(service, transport)).catch((error) => {
      console.error(`FAILED: ${name}`);
      throw error;
    });
  }
  console.log('ok');
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
