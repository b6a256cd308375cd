// Makes every call of both contracts with @grpc/grpc-js, by several targets
// concurrently, as go-mixed does (tests/proxies/README.md).
//
// usage: node mixed.js SERVICE_CONFIG USERS WINDOW PROTO_DIR NAME=ADDR...
'use strict';

const { randomUUID } = require('node:crypto');
const { readFileSync } = require('node:fs');
const { setTimeout: sleep } = require('node:timers/promises');
const readline = require('node:readline');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');
const { details } = require('./errors');

const [configFile, total, windowBytes, protoDir, ...targets] = process.argv.slice(2);
const { status: Code } = grpc;

// How long a caller waits between two rounds of calls, and before a stream is called
// again; how long what was created may take to be told. Milliseconds.
const PAUSE = 200;
const AGAIN = 50;
const PATIENCE = 300_000;
// Deadlines in milliseconds: long, because machines may be slow.
const CALL_MS = 60_000;
const IMPORT_MS = 300_000;

function load(file) {
  const options = { keepCase: true, includeDirs: [protoDir], defaults: true, oneofs: true, longs: Number };
  return grpc.loadPackageDefinition(protoLoader.loadSync(file, options));
}

const { UserService } = load('user/v1/user_service.proto').user.v1;
const { UserService: Article } = load('user.proto');
const { Health } = load('grpc/health/v1/health.proto').grpc.health.v1;

let stopping = false;
const counts = [];

// What one kind of calls by one target has seen since the last report.
class Count {
  constructor(target, kind) {
    Object.assign(this, { target, kind, calls: 0, failures: {} });
    counts.push(this);
  }

  failed(what) { this.failures[what] = (this.failures[what] ?? 0) + 1; }

  report() {
    const { target, kind, calls, failures: failed } = this;
    Object.assign(this, { calls: 0, failures: {} });
    return { target, kind, calls, failed };
  }
}

function text(method, error) {
  return `${method} ${Code[error.code]}: ${(error.details ?? '').slice(0, 160)}`;
}

// The error of a call, or nothing.
function failure(client, method, request) {
  const deadline = Date.now() + CALL_MS;
  return new Promise((resolve) => {
    client[method](request, new grpc.Metadata(), { deadline }, (error) => resolve(error));
  });
}

class Caller {
  constructor(addr, options, counted, watched) {
    const credentials = grpc.credentials.createInsecure();
    const of = (Service) => new Service(addr, credentials, options);
    Object.assign(this, { users: of(UserService), article: of(Article), health: of(Health), counted, watched });
  }

  async run() {
    for (let number = 0; !stopping; number += 1) {
      await this.round(`node-${process.pid}-${this.counted.target}-${this.counted.kind}-${number}`);
      await sleep(PAUSE);
    }
    for (const client of [this.article, this.health]) client.close();
  }

  // No round goes on after a call that failed, because what follows would fail with it.
  async round(id) {
    const { users, article, health } = this;
    // A watch that has not begun tells nothing of what is created before.
    const begun = this.watched?.token;
    const user = { name: id, email: `${id}@example.com` };
    const calls = [
      ['CreateUser', users, 'CreateUser', { user_id: id, request_id: randomUUID(), user }],
      ['GetUser', users, 'GetUser', { id }],
      ['UpdateUser', users, 'UpdateUser', { request_id: randomUUID(), user: { id, age: 37 } }],
      ['BatchGetUsers', users, 'BatchGetUsers', { ids: [id, id] }],
      ['ListUsers', users, 'ListUsers', { page_size: 1000 }],
      ['article CreateUser', article, 'CreateUser', { user: { id, ...user } }],
      ['article GetUser', article, 'GetUser', { user: { id } }],
      ['health Check', health, 'Check', { service: 'liveness' }],
      ['largest error', users, 'BatchGetUsers', { ids: Array(1000).fill('BAD') }, Code.INVALID_ARGUMENT, 'INVALID_FIELDS'],
      ['message too large', users, 'CreateUser', { user: { name: 'x'.repeat(300_000) } }, Code.RESOURCE_EXHAUSTED, 'MESSAGE_TOO_LARGE'],
      ['DeleteUser', users, 'DeleteUser', { id, request_id: randomUUID() }],
    ];
    for (const [what, client, method, request, code = Code.OK, reason = ''] of calls) {
      const error = await failure(client, method, request);
      this.counted.calls += 1;
      const found = error ? details(error).ErrorInfo?.reason ?? '' : '';
      if ((error?.code ?? Code.OK) !== code || found !== reason) {
        this.counted.failed(error ? text(what, error) : `${what} OK`);
        return;
      }
      if (what === 'CreateUser' && begun) this.watched.expected.add(id);
    }
  }
}

// Compares the users that were created with those that a watch told.
class Watched {
  constructor(counted) {
    Object.assign(this, { counted, expected: new Set(), told: new Set(), token: '', over: false });
  }

  async run(users) {
    while (!this.over) {
      const error = await this.follow(users);
      this.counted.calls += 1;
      if (!this.over) {
        this.counted.failed(error ? text('WatchUsers', error) : 'WatchUsers OK: it ended');
      }
      await sleep(AGAIN);
    }
    users.close();
  }

  follow(users) {
    this.stream = users.WatchUsers({ resume_token: this.token });
    return new Promise((resolve) => {
      this.stream.on('data', (message) => {
        this.token = message.resume_token;
        if (message.event !== 'created') return;
        if (this.told.has(message.created.id)) this.counted.failed('a user was told twice');
        this.told.add(message.created.id);
      }).on('error', resolve).on('end', () => resolve(null));
    });
  }

  missing() { return [...this.expected].filter((id) => !this.told.has(id)); }

  // Once no more users are created.
  async end() {
    for (const until = Date.now() + PATIENCE; this.missing().length && Date.now() < until;) await sleep(AGAIN);
    this.over = true;
    this.stream.cancel();
    const missing = this.missing();
    if (missing.length) this.counted.failed(`${missing.length} users were not told, such as ${missing[0]}`);
  }
}

// Imports the same users over and over, all of them at least once. A new stream sends
// what the last one has not answered.
async function imported(users, counted) {
  let [answered, whole] = [0, false];
  while (!stopping || !whole) {
    const { error, answers } = await importFrom(users, counted, answered);
    counted.calls += 1;
    answered += answers;
    if (error) counted.failed(text('ImportUsers', error));
    if (!error && answered < total) counted.failed(`an import ended with OK after ${answered} users of ${total}`);
    whole ||= answered === Number(total);
    answered %= total;
    await sleep(PAUSE);
  }
}

async function importFrom(users, counted, first) {
  const stream = users.ImportUsers(new grpc.Metadata(), { deadline: Date.now() + IMPORT_MS });
  let [answers, ended] = [0, false];
  const result = new Promise((resolve) => {
    const end = (error) => { ended = true; resolve({ error, answers }); };
    stream.on('data', (answer) => {
      answers += 1;
      if (answer.result === 'error') counted.failed(`an imported user was answered ${answer.error.message.slice(0, 160)}`);
    }).on('error', end).on('end', () => end(null));
  });
  for (let number = first; number < total && !ended; number += 1) {
    const id = `import-${number}`;
    if (!stream.write({ user_id: id, user: { name: 'x'.repeat(200), email: `${id}@example.com` } })) {
      const drained = new Promise((resolve) => { stream.once('drain', resolve); });
      await Promise.race([drained, result]);
    }
  }
  stream.end();
  return result;
}

async function main() {
  const config = readFileSync(configFile, 'utf8');
  const [calling, watching] = [[], []];
  // What a server may send before it is told to go on. 0: what the library takes.
  const window = Number(windowBytes) ? { 'grpc-node.flow_control_window': Number(windowBytes) } : {};
  for (const argument of targets) {
    const [target, addr] = argument.split('=');
    const bare = new Caller(addr, { 'grpc.enable_retries': 0, ...window }, new Count(target, 'bare'));
    const watched = new Watched(new Count(target, 'watch'));
    const retried = new Caller(addr, { 'grpc.service_config': config, ...window }, new Count(target, 'retried'), watched);
    calling.push(bare.run(), retried.run(), imported(retried.users, new Count(target, 'import')));
    watching.push([watched, watched.run(retried.users)]);
  }
  const report = () => console.log(JSON.stringify(counts.map((count) => count.report())));
  for await (const _ of readline.createInterface({ input: process.stdin })) report();
  stopping = true;
  await Promise.all(calling);
  await Promise.all(watching.map(([watched, run]) => watched.end().then(() => run)));
  report();
  process.exit(0);
}

main();
