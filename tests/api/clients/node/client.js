// Every rpc of user.v1 through @grpc/grpc-js, its messages read from the proto
// files at run time, over a channel with retries in its service config.
//
// usage: node client.js ADDR PROTO_DIR
'use strict';

const assert = require('node:assert/strict');
const { randomUUID } = require('node:crypto');
const { readFileSync } = require('node:fs');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');
const { details } = require('./errors');

const [addr, protoDir] = process.argv.slice(2);
const { status: Code } = grpc;

const serviceConfig = {
  loadBalancingConfig: [{ round_robin: {} }],
  methodConfig: [{
    name: [{ service: 'user.v1.UserService' }],
    retryPolicy: {
      maxAttempts: 4, initialBackoff: '0.05s', maxBackoff: '1s', backoffMultiplier: 2,
      retryableStatusCodes: ['UNAVAILABLE'],
    },
  }],
};

function load(file) {
  const options = { keepCase: true, includeDirs: [protoDir], defaults: true, oneofs: true };
  return grpc.loadPackageDefinition(protoLoader.loadSync(file, options));
}

// By TLS where TLS_CA names the authorities of the server, and with the token of TOKEN_FILE.
function credentials() {
  if (!process.env.TLS_CA) return grpc.credentials.createInsecure();
  const content = (name) => (process.env[name] ? readFileSync(process.env[name]) : null);
  const ssl = grpc.credentials.createSsl(content('TLS_CA'), content('TLS_KEY'), content('TLS_CERT'));
  if (!process.env.TOKEN_FILE) return ssl;
  const token = grpc.credentials.createFromMetadataGenerator((_, done) => {
    const metadata = new grpc.Metadata();
    metadata.set('authorization', `Bearer ${content('TOKEN_FILE').toString().trim()}`);
    done(null, metadata);
  });
  return grpc.credentials.combineChannelCredentials(ssl, token);
}

function connect(Service) {
  return new Service(addr, credentials(), {
    'grpc.service_config': JSON.stringify(serviceConfig),
    'grpc.keepalive_time_ms': 10_000,
    'grpc.keepalive_permit_without_calls': 1,
  });
}

// A call as a promise of its answer.
function call(client, method, request, options = {}) {
  const deadline = Date.now() + 20_000;
  return new Promise((resolve, reject) => {
    client[method](request, new grpc.Metadata(), { deadline, ...options },
      (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

async function fails(what, code, promise, reason) {
  const error = await promise.then(
    (answer) => assert.fail(`${what} went through: ${JSON.stringify(answer)}`),
    (error) => error,
  );
  assert.equal(error.code, code, `${what}: ${error.message}`);
  assert.ok(!error.details.includes('@'), `${what}: an address in the message ${error.details}`);
  const found = details(error);
  assert.equal(found.ErrorInfo?.domain, 'user-service', `${what}: no ErrorInfo`);
  if (reason) assert.equal(found.ErrorInfo.reason, reason, what);
  return found;
}

async function createAndRead(users) {
  const user = { name: ' Ada Lovelace ', email: 'Ada.Node@Example.com', age: 36 };
  const { user: ada } = await call(users, 'CreateUser', { user });
  assert.deepEqual([ada.name, ada.email, ada.age], ['Ada Lovelace', 'ada.node@example.com', 36]);
  assert.match(ada.id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$/);
  assert.match(ada.etag, /^".+"$/);
  assert.deepEqual((await call(users, 'GetUser', { id: ada.id })).user, ada);
  assert.deepEqual((await call(users, 'GetUser', { email: 'ADA.NODE@example.com' })).user, ada);

  let found = await fails('create, e-mail taken', Code.ALREADY_EXISTS, call(users, 'CreateUser', { user }));
  assert.ok(found.ResourceInfo, 'create, e-mail taken: no ResourceInfo');
  found = await fails('get a missing user', Code.NOT_FOUND, call(users, 'GetUser', { id: 'nobody' }));
  assert.ok(found.ResourceInfo, 'get a missing user: no ResourceInfo');
  const bad = { user: { name: '', email: 'none', age: 151 } };
  found = await fails('create with bad fields', Code.INVALID_ARGUMENT, call(users, 'CreateUser', bad));
  const fields = found.BadRequest.fieldViolations.map(({ field }) => field).sort();
  assert.deepEqual(fields, ['user.age', 'user.email', 'user.name']);
  return ada;
}

async function repeat(users) {
  const user = { name: 'Grace', email: 'grace.node@example.com' };
  const request = { user, request_id: randomUUID() };
  await call(users, 'CreateUser', { ...request, request_id: '', validate_only: true });
  const first = await call(users, 'CreateUser', request);
  assert.deepEqual(await call(users, 'CreateUser', request), first);
  const other = { ...request, user: { ...user, age: 1 } };
  await fails('the same request_id for something else', Code.INVALID_ARGUMENT,
    call(users, 'CreateUser', other), 'REQUEST_ID_REUSED');
}

async function updateAndDelete(users, ada) {
  const { user: changed } = await call(users, 'UpdateUser', {
    user: { id: ada.id, age: 37, name: 'not in the mask', etag: ada.etag }, update_mask: { paths: ['age'] },
  });
  assert.deepEqual([changed.age, changed.name], [37, 'Ada Lovelace']);
  assert.notEqual(changed.etag, ada.etag);
  await fails('update with an old etag', Code.ABORTED,
    call(users, 'UpdateUser', { user: { id: ada.id, age: 38, etag: ada.etag } }));
  await call(users, 'DeleteUser', { id: ada.id, etag: changed.etag });
  await fails('delete again', Code.NOT_FOUND, call(users, 'DeleteUser', { id: ada.id }));
  await call(users, 'DeleteUser', { id: ada.id, allow_missing: true });
}

async function listAndBatch(users) {
  const ids = ['node-1', 'node-2', 'node-3', 'node-4', 'node-5'];
  await Promise.all(ids.map((id) => call(users, 'CreateUser',
    { user_id: id, user: { name: id, email: `${id}@example.com` } })));
  const seen = [];
  let token = '';
  do {
    const page = await call(users, 'ListUsers', { page_size: 2, page_token: token });
    seen.push(...page.users.map(({ id }) => id));
    token = page.next_page_token;
  } while (token);
  assert.deepEqual(seen.filter((id) => id.startsWith('node-')), ids);
  await fails('list with a negative page size', Code.INVALID_ARGUMENT, call(users, 'ListUsers', { page_size: -1 }));

  const got = await call(users, 'BatchGetUsers', { ids: ['node-2', 'nobody', 'node-2'], allow_missing: true });
  assert.deepEqual(got.users.map(({ id }) => id), ['node-2', 'node-2']);
  assert.deepEqual(got.missing_ids, ['nobody']);
  await fails('batch get with a missing id', Code.NOT_FOUND, call(users, 'BatchGetUsers', { ids: ['nobody'] }));
}

async function deadline(users) {
  const error = await call(users, 'ListUsers', {}, { deadline: Date.now() - 1 }).catch((error) => error);
  assert.equal(error.code, Code.DEADLINE_EXCEEDED, 'a deadline that has passed');
}

async function healthChecks(health) {
  for (const service of ['', 'liveness', 'user.v1.UserService', 'UserService']) {
    assert.equal((await call(health, 'Check', { service })).status, 1, `health of '${service}'`);
  }
  const watch = health.Watch({ service: 'user.v1.UserService' });
  const first = await new Promise((resolve, reject) => watch.once('data', resolve).once('error', reject));
  assert.equal(first.status, 1, 'health watch');
  watch.on('error', () => {}); // the cancellation
  watch.cancel();
}

async function main() {
  const users = connect(load('user/v1/user_service.proto').user.v1.UserService);
  const health = connect(load('grpc/health/v1/health.proto').grpc.health.v1.Health);
  const ada = await createAndRead(users);
  await repeat(users);
  await updateAndDelete(users, ada);
  await listAndBatch(users);
  await deadline(users);
  await healthChecks(health);
  users.close();
  health.close();
  console.log('ok');
}

main().catch((error) => {
  console.error(`FAILED: ${error.stack}`);
  process.exit(1);
});
