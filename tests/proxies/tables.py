"""Writes what a long run saw into the tables of docs/PROXIES.md."""

import collections
import itertools
import re
import subprocess

from place import PROXIES, ROOT, system
from marked import markdown, replaced

DOCUMENT = ROOT / "docs" / "PROXIES.md"
NAMES = {"nginx": "nginx", "haproxy": "HAProxy", "caddy": "Caddy"}
PHASES = {"ages": "connections age", "rollouts": "replicas are rolled out", "kills": "replicas are killed"}
KINDS = {"bare": "without retries", "retried": "with retries", "watch": "watches", "import": "imports"}


def write(seen, length, lines: list[tuple[str, str, str, str]]) -> None:
    text = DOCUMENT.read_text()
    made = {"versions": versions(), "calls": f"{run_of(length)}\n\n{calls(seen)}", "endings": endings(seen), "lines": lines_table(lines)}
    for name, table in made.items():
        text = replaced(text, name, table)
    DOCUMENT.write_text(text)


def versions() -> str:
    def said(*command: str) -> str:
        ran = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return re.search(r"\d+\.\d+\.\d+", ran.stdout)[0]

    caddy = re.search(r"caddyserver/caddy/v2 v(\S+)", (ROOT / "tools" / "caddy" / "go.mod").read_text())[1]
    return f"nginx {said(system('nginx'), '-v')}, HAProxy {said(system('haproxy'), '-v')}, Caddy {caddy}."


def run_of(length) -> str:
    return (f"In this run connections aged early for {length.ages_seconds} s. Rollouts of both replicas: "
            f"{length.rollouts}. Replicas killed: {length.kills}.")


def calls(seen) -> str:
    """How many calls failed of how many, by phase and kind, of all clients."""
    rows = []
    for phase, while_ in PHASES.items():
        for kind, name in KINDS.items():
            def of(proxy: str) -> str:
                keys = [(phase, proxy, client, kind) for client in seen.clients]
                return f"{sum(seen.failed(*key) for key in keys):,} of {sum(seen.calls[key] for key in keys):,}"
            rows.append([while_, name, *map(of, PROXIES)])
    return markdown(["while", "calls", *(NAMES[proxy] for proxy in PROXIES)], rows, "---")


def endings(seen) -> str:
    """How those that failed ended, by phase, proxy and kind."""
    found = collections.defaultdict(collections.Counter)
    for (phase, proxy, client, kind, text), count in seen.texts.items():
        code = re.search(r"(\w+):", text)
        # grpc-go says `DeadlineExceeded` where others say `DEADLINE_EXCEEDED`.
        code = re.sub("(?<=[a-z])(?=[A-Z])", "_", code[1]).upper().replace("CANCELED", "CANCELLED") if code else text
        found[phase, proxy, kind][f"{code} ({client})"] += count
    rows = []
    for phase, proxy, kind in itertools.product(PHASES, PROXIES, KINDS):
        if codes := found.get((phase, proxy, kind)):
            said = ", ".join(f"{count:,} {code}" for code, count in sorted(codes.items()))
            rows.append([PHASES[phase], NAMES[proxy], KINDS[kind], said])
    return markdown(["while", "proxy", "calls", "how they ended"], rows, "---")


def lines_table(lines: list[tuple[str, str, str, str]]) -> str:
    rows = [[NAMES[proxy], f"`{line}`" if line else "", what, f"`{re.sub(r'[^ ]*127[.]0[.]0[.]1.*', '...', saw)}`"]
            for proxy, line, what, saw in sorted(lines, key=lambda row: (list(PROXIES).index(row[0]), not row[1]))]
    return markdown(["proxy", "line", "call", "how it ends without the line"], rows, "---")
