"""What counts as a call, what as a failure, and how many failures are too many."""

# Rules look at no other job, since many of the names they read are those of every
# gRPC service.
WHERE = 'job="user-service"'
# The chart's copies look at one release. Its templates replace both words.
RELEASE = 'namespace="CHART_NAMESPACE", job="CHART_JOB"'
# Where the repository is published, such as https://git.example.com/user-service/blob/main:
# alerts then have a `runbook_url`. Without it they name the page in the repository.
PUBLISHED = ""

OBJECTIVE = 0.999
BUDGET = round(1 - OBJECTIVE, 6)
# Fewer failures than this fire no alert, however few calls there were.
FEWEST_FAULTS = 10

# The API. Health and reflection serve operators, not callers.
API = 'grpc_service=~"user[.]v1[.]UserService|UserService"'
# How long a stream lasts is its caller's choice and no latency.
UNARY = f'{API}, grpc_type="unary"'
# As src/rpc/codes.rs: calls that could have been answered, and were not.
FAULTS = 'grpc_code=~"Unknown|DeadlineExceeded|Internal|Unavailable|DataLoss"'

# Streams end with UNAVAILABLE when their connection reaches its age or the server drains,
# and their callers go on over another one: no failure.
PLANNED = 'grpc_method=~"WatchUsers|ImportUsers", grpc_code="Unavailable"'

EVERY_SECONDS = 30
WINDOWS = ["5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d"]


class Burn:
    """How fast the budget may go, over a long window and a short one that ends the alert soon."""

    def __init__(self, factor: float, long: str, short: str, hold: str, severity: str, spent: str):
        self.factor, self.long, self.short = factor, long, short
        self.hold, self.severity, self.spent = hold, severity, spent


BURNS = [
    Burn(14.4, "1h", "5m", "2m", "critical", "2% of the month's budget in an hour"),
    Burn(6, "6h", "30m", "15m", "critical", "5% of the month's budget in six hours"),
    Burn(3, "1d", "2h", "1h", "warning", "10% of the month's budget in a day"),
    Burn(1, "3d", "6h", "3h", "warning", "10% of the month's budget in three days"),
]


def faults(where: str, window: str, by: str) -> str:
    """The rate of calls that failed through the service."""
    rate = "rate(grpc_server_handled_total{{{}, {}}}[{}])".format
    return f"sum {by} ({rate(where, f'{API}, {FAULTS}', window)}\n  unless {rate(where, PLANNED, window)})"


def over(series: str, selector: str, window: str) -> str:
    """The sum of a recorded rate over a window. The ratio of two such sums is exact,
    whatever came and went in between."""
    if window == "5m":
        return f"{series}{selector}"
    return f"sum_over_time({series}{selector}[{window}])"
