#!/usr/bin/env bash
# HAProxy 2.6 loses the status of an answer that comes before the request has ended.
#
# By RFC 9113, section 8.1, a server may answer early and send RST_STREAM(NO_ERROR) after
# its answer, which must not make the client discard that answer.
#
# Versions: HAProxy 2.6.12 (Debian 12), h2 4.4.1 and grpcio 1.85.3 (PyPI), over loopback.
# Behaviour: a gRPC server answers a call of 300,000 bytes after its first DATA frame,
# with grpc-status 8 and then RST_STREAM(NO_ERROR). Directly, 20 of 20 callers get
# RESOURCE_EXHAUSTED. Behind HAProxy, in cleartext HTTP/2 on both sides, 20 of 20 get
# CANCELLED. A server that reads the request to its end first, and sends no reset, is
# understood both ways.
# Output seen:
#   early answer and reset, directly:       RESOURCE_EXHAUSTED 20
#   early answer and reset, behind HAProxy: CANCELLED 20
#   answer after the end, directly:         RESOURCE_EXHAUSTED 20
#   answer after the end, behind HAProxy:   RESOURCE_EXHAUSTED 20
# Exits with 1 if a line differs.
set -euo pipefail

dir=$(mktemp -d)
pids=()
end() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    rm -rf "$dir"
}
trap end EXIT
cd "$dir"

apt-get download -qq haproxy=2.6.12-1+deb12u4 liblua5.3-0 libopentracing-c-wrapper0 libopentracing1 2>/dev/null ||
    apt-get download -qq haproxy=2.6.12-1+deb12u4 liblua5.3-0
for package in ./*.deb; do dpkg-deb -x "$package" root; done
libraries=$(find "$dir/root" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
python3 -m venv venv
venv/bin/pip install -q h2==4.4.1 grpcio==1.85.3

cat >server.py <<'PY'
import socket, sys, threading
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded

early = sys.argv[1] == "early"

def serve(client):
    http2, answered = H2Connection(H2Configuration(client_side=False)), set()
    http2.initiate_connection()
    client.sendall(http2.data_to_send())
    while data := client.recv(65536):
        for event in http2.receive_data(data):
            if isinstance(event, DataReceived):
                http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            due = isinstance(event, DataReceived if early else StreamEnded)
            if due and event.stream_id not in answered:
                answered.add(event.stream_id)
                head = [(":status", "200"), ("content-type", "application/grpc"),
                        ("grpc-status", "8"), ("grpc-message", "too large")]
                http2.send_headers(event.stream_id, head, end_stream=True)
                if early:
                    http2.reset_stream(event.stream_id, 0)
        client.sendall(http2.data_to_send())

port = socket.create_server(("127.0.0.1", 0))
print(port.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(port.accept()[0],), daemon=True).start()
PY

cat >client.py <<'PY'
import collections, grpc, sys
codes = collections.Counter()
for _ in range(20):
    with grpc.insecure_channel("127.0.0.1:" + sys.argv[1]) as channel:
        call = channel.unary_unary("/any.Service/Call", lambda sent: sent, lambda got: got)
        try:
            call(b"x" * 300_000, timeout=20, wait_for_ready=True)
        except grpc.RpcError as error:
            codes[error.code().name] += 1
print(*(f"{code} {count}" for code, count in sorted(codes.items())))
PY

expect() {
    printf '%-39s %s\n' "$1:" "$3"
    [[ $3 == "$2 20" ]] || { echo "it was $2 20" >&2; exit 1; }
}

for kind in early late; do
    venv/bin/python server.py "$kind" >port 2>/dev/null &
    pids+=($!)
    until [[ -s port ]]; do sleep 0.1; done
    server=$(cat port)
    proxy=$(python3 -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')
    cat >haproxy.cfg <<CFG
defaults
  mode http
  timeout client 30s
  timeout server 30s
  timeout connect 5s
listen proxy
  bind 127.0.0.1:$proxy proto h2
  server backend 127.0.0.1:$server proto h2
CFG
    LD_LIBRARY_PATH=$libraries root/usr/sbin/haproxy -f haproxy.cfg >haproxy.log 2>&1 &
    pids+=($!)
    if [[ $kind == early ]]; then what="early answer and reset" behind=CANCELLED
    else what="answer after the end" behind=RESOURCE_EXHAUSTED; fi
    expect "$what, directly" RESOURCE_EXHAUSTED "$(venv/bin/python client.py "$server")"
    expect "$what, behind HAProxy" "$behind" "$(venv/bin/python client.py "$proxy")"
    rm port
done
