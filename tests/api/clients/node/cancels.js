// Calls of @grpc/grpc-js that are given up, BURST of them and then one in ten of CALLS,
// over one connection that keeps itself alive.
//
// usage: node cancels.js ADDR PROTO_DIR
'use strict';

const assert = require('node:assert/strict');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const [addr, protoDir] = process.argv.slice(2);
const BURST = Number(process.env.BURST ?? 2_000);
const CALLS = Number(process.env.CALLS ?? 1_000);

const definition = protoLoader.loadSync('user/v1/user_service.proto', { includeDirs: [protoDir] });
const { UserService } = grpc.loadPackageDefinition(definition).user.v1;
const users = new UserService(addr, grpc.credentials.createInsecure(), {
  'grpc.keepalive_time_ms': 10_000,
  'grpc.keepalive_permit_without_calls': 1,
  'grpc.enable_retries': 0,
});

// Makes a call, and resolves to the code that it ended with. One that is given up is
// first on its way.
function call(givenUp) {
  return new Promise((resolve) => {
    const made = users.listUsers({}, (error) => resolve(error?.code ?? grpc.status.OK));
    if (givenUp) setImmediate(() => made.cancel());
  });
}

async function main() {
  assert.equal(await call(false), grpc.status.OK);
  for (let done = 0; done < BURST; done += 100) {
    await Promise.all(Array.from({ length: 100 }, () => call(true)));
  }
  for (let first = 0; first < CALLS; first += 50) {
    const codes = await Promise.all(Array.from({ length: 50 }, (_, number) => call(number % 10 === 0)));
    codes.forEach((code, number) => assert.ok(number % 10 === 0 || code === grpc.status.OK, `code ${code}`));
  }
  users.close();
  console.log('ok');
}

main();
