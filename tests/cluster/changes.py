"""Upgrades from the chart as it was, the way back, and upgrades that go wrong."""

from kube import CHART, CI, IMAGE, ROOT, Place, refused, until

# The chart as it was when it first knew PostgreSQL, packed by Helm. It never changes, as
# what is installed somewhere does not change either.
EARLIER = ROOT / "tests" / "cluster" / "earlier-chart.tgz"
# It may be older than the image.
TAG = f"image.tag={IMAGE.rpartition(':')[2]}"


def fill(place: Place) -> list[dict]:
    people = [{"name": name, "email": f"{name.lower()}@example.com"} for name in ("Ada", "Grace", "Edsger")]
    return [place.call("CreateUser", {"user": person})["user"] for person in people]


def must_hold(place: Place, people: list[dict]) -> None:
    for user in people:
        assert place.call("GetUser", {"id": user["id"]})["user"] == user, f"{user} is lost"


def there_and_back(place: Place, values, *settings: str) -> None:
    """From the earlier chart to this one and back, with users from before and after."""
    place.install(values, TAG, *settings, chart=EARLIER)
    people = fill(place)
    place.upgrade(values, *settings)
    must_hold(place, people)
    people.append(place.call("CreateUser", {"user": {"name": "Barbara", "email": "barbara@example.com"}})["user"])
    place.helm("rollback", place.release, "1", "--wait", "--timeout", "2m")
    must_hold(place, people)
    place.smoke()


def an_upgrade_from_an_earlier_chart_loses_nothing_on_sqlite(_) -> None:
    place = Place("earlier-sqlite")
    place.volume()
    there_and_back(place, CI / "defaults-values.yaml")


def an_upgrade_from_an_earlier_chart_loses_nothing_on_postgres(postgres) -> None:
    place = Place("earlier-postgres")
    postgres.give(place)
    there_and_back(place, CI / "postgres-values.yaml", "rollout.minReadySeconds=1")


def a_bad_upgrade_takes_no_old_pod_down(postgres) -> None:
    place = Place("bad-upgrade")
    postgres.give(place)
    values = CI / "postgres-values.yaml"
    place.install(values)
    pods = {pod["metadata"]["uid"] for pod in place.pods()}
    bad = {
        "image.tag=not-there": "ErrImageNeverPull",
        # The schema cannot know a filter from a text; the service can.
        "config.log_filter=user_service=loud": "CrashLoopBackOff",
        "store.postgres.existingSecret.passwordKey=wrong": "ContainerCreating",
    }
    for setting, reason in bad.items():
        said = refused("helm", "--namespace", place.name, "upgrade", place.release, CHART, "--values", values,
                       "--set", setting, "--set", "image.pullPolicy=Never", "--wait", "--timeout", "15s")
        assert "deadline" in said or "timed out" in said, said
        until(f"the new pod is in {reason}", lambda: reason in waiting(place))
        still = {pod["metadata"]["uid"] for pod in place.pods()}
        assert pods <= still, f"{setting} took an old pod down"
        assert place.ready() == 3, f"{setting}: {place.ready()} pods are ready"
        place.call("ListUsers", {})
        place.helm("rollback", place.release, "1", "--wait", "--timeout", "2m")
        until("the new pod is gone", lambda: {pod["metadata"]["uid"] for pod in place.pods()} == pods)
    assert place.restarts() == 0, "an old pod was restarted"


def waiting(place: Place) -> list[str]:
    """Why containers do not run."""
    return [status["state"]["waiting"]["reason"] for pod in place.pods()
            for status in pod["status"].get("containerStatuses", []) if "waiting" in status["state"]]
