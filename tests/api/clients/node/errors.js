// Decodes the details of an error. @grpc/grpc-js leaves them as bytes; these are
// the messages of google.rpc that the checks need.
'use strict';

const protobuf = require('protobufjs');

const { root } = protobuf.parse(`
  syntax = "proto3";
  package google.rpc;
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
  message BadRequest {
    message FieldViolation { string field = 1; string description = 2; }
    repeated FieldViolation field_violations = 1;
  }
  message Duration { int64 seconds = 1; int32 nanos = 2; }
  message RetryInfo { Duration retry_delay = 1; }
  message ResourceInfo { string resource_type = 1; string resource_name = 2; }
`);

// The details of an error by their names, such as ErrorInfo.
function details(error) {
  const [bytes] = error.metadata.get('grpc-status-details-bin');
  if (!bytes) return {};
  const status = root.lookupType('google.rpc.Status').decode(bytes);
  if (status.code !== error.code) throw new Error(`the details say ${status.code}, the status ${error.code}`);
  const found = {};
  for (const { type_url: url, typeUrl = url, value } of status.details) {
    const name = typeUrl.split('google.rpc.')[1];
    if (found[name]) throw new Error(`${name} is there twice`);
    found[name] = root.lookupType(`google.rpc.${name}`).decode(value);
  }
  return found;
}

module.exports = { details };
