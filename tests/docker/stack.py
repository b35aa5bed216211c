"""One Compose project of a test: its commands, its database, its replicas."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path


class Failure(Exception):
    """What was promised and did not happen."""


def run(*command: str, env: dict[str, str] | None = None, cwd: Path | None = None, limit: float = 300) -> str:
    """Runs a command and answers its standard output; its failure tells what it printed."""
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=limit, check=False)
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


def expect(truth: object, promise: str) -> None:
    """Fails with what was promised unless it is true, and says that it is."""
    if not truth:
        raise Failure(f"broken: {promise}")
    say(f"ok: {promise}")


def until(condition: Callable[[], object], promise: str, limit: float, pause: float = 1) -> float:
    """Waits for a condition and answers how many seconds that took."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > limit:
            raise Failure(f"not within {limit:.0f} s: {promise}")
        time.sleep(pause)
    took = time.monotonic() - started
    say(f"ok: {promise} ({took:.0f} s)")
    return took


class Stack:
    """The project `name` of the files in `folder`."""

    def __init__(self, folder: Path, name: str, variables: dict[str, str]) -> None:
        self.folder = folder
        self.name = name
        self.files = ["-f", "compose.yaml", "-f", "tests/docker/compose.walk.yaml"]
        self.variables = {**os.environ, "COMPOSE_PROJECT_NAME": name, **variables}

    def compose(self, *arguments: str, limit: float = 300) -> str:
        return run(
            "docker", "compose", *self.files, "--profile", "awo", *arguments,
            env=self.variables, cwd=self.folder, limit=limit,
        )

    def up(self, replicas: int = 3) -> None:
        self.compose("up", "--detach", "--no-build", "--scale", f"archon-awo={replicas}")
        self.until_healthy(replicas)

    def until_healthy(self, replicas: int) -> None:
        until(lambda: self.states().count("healthy") == replicas, f"{replicas} healthy replicas", 180)

    def replicas(self) -> list[str]:
        """The ids of the containers that run."""
        return run(
            "docker", "ps", "--quiet", "--no-trunc",
            "--filter", f"label=com.docker.compose.project={self.name}",
            "--filter", "label=com.docker.compose.service=archon-awo",
        ).split()

    def states(self) -> list[str]:
        ids = self.replicas()
        return [facts["State"]["Health"]["Status"] for facts in inspect(ids)] if ids else []

    def sql(self, statement: str) -> list[list[str]]:
        """What psql answers, by rows and columns."""
        psql = ["psql", "-U", "archon", "-d", "archon", "-XAtq", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-c", statement]
        lines = self.compose("exec", "-T", "postgres", *psql).splitlines()
        return [line.split("\t") for line in lines]

    def value(self, statement: str) -> str:
        rows = self.sql(statement)
        return rows[0][0] if rows else ""

    def order(self, remote: str, seconds: int) -> str:
        """Orders work whose step `execute` takes that long."""
        return self.value(
            "INSERT INTO agent_work_orders (repository_url, user_request) "
            f"VALUES ('file:///srv/remotes/{remote}', 'Write a note ({seconds} s)') RETURNING agent_work_order_id"
        )

    def until_executing(self, orders: Iterable[str]) -> None:
        wanted = list(orders)
        count = (
            "SELECT count(DISTINCT s.job_id) FROM awo.steps s JOIN agent_work_orders o ON o.awo_job_id = s.job_id "
            f"WHERE s.step_name = 'execute' AND s.finished_at IS NULL AND o.agent_work_order_id IN ({quoted(wanted)})"
        )
        until(lambda: self.value(count) == str(len(wanted)), f"{len(wanted)} orders in execute", 90)

    def until_completed(self, orders: Iterable[str], limit: float = 240) -> None:
        wanted = list(orders)
        rows = f"SELECT status FROM agent_work_orders WHERE agent_work_order_id IN ({quoted(wanted)})"

        def completed() -> bool:
            states = [row[0] for row in self.sql(rows)]
            if "failed" in states or "cancelled" in states:
                why = "SELECT status, error_class, error_message FROM agent_work_orders WHERE finished_at IS NOT NULL"
                raise Failure(f"not all orders completed: {self.sql(why)}")
            return states == ["completed"] * len(wanted)

        until(completed, f"{len(wanted)} orders completed", limit)

    def owner(self, order: str) -> str:
        """The container whose worker holds the lease of an order."""
        host = self.value(
            "SELECT w.hostname FROM awo.leases l JOIN awo.workers w USING (worker_id) "
            f"JOIN agent_work_orders o ON o.awo_job_id = l.job_id WHERE o.agent_work_order_id = '{order}'"
        )
        owners = [replica for replica in self.replicas() if host and replica.startswith(host)]
        return owners[0] if owners else ""

    def attempts(self, order: str) -> list[str]:
        """How the claims of an order ended, in order."""
        rows = self.sql(
            "SELECT coalesce(a.outcome, 'open') FROM awo.attempts a "
            "JOIN agent_work_orders o ON o.awo_job_id = a.job_id "
            f"WHERE o.agent_work_order_id = '{order}' ORDER BY a.epoch"
        )
        return [row[0] for row in rows]

    def spent(self, orders: Iterable[str]) -> int:
        """How many attempts these completed orders have spent besides the one that succeeded."""
        return int(self.value(
            "SELECT sum(j.attempt - 1) FROM awo.jobs j JOIN agent_work_orders o ON o.awo_job_id = j.id "
            f"WHERE o.agent_work_order_id IN ({quoted(orders)})"
        ))


def inspect(names: list[str]) -> list[dict]:
    return json.loads(run("docker", "inspect", *names))


def quoted(words: Iterable[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)
