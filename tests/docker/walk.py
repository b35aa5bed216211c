#!/usr/bin/env python3
"""Walks through the life of a deployment on the real Docker engine, from `cp .env.example .env` on.

    tests/docker/walk.py [--partition SECONDS] [--image NAME] [--keep]

Six orders on three replicas of which one is killed, a drain, a restart, a rolling update, down and up,
a network partition; after each: every order completed once, and the database's own invariants hold. Then a
hostile agent, in the image and in the hardened one: what it can do is what docs/security.md says.
Only what is outside is stood in for: the agent is a script, the forge a volume with git repositories.
"""

import argparse
import json
import os
import random
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path

import hostile
import image
from stack import Failure, Stack, expect, inspect, run, say, until

SOURCE = Path(__file__).resolve().parents[2]
REMOTES = ("one", "two", "three")
# Stands for the credentials of whoever builds: it must not get into the image.
CANARY = "canary-of-the-build-5b1f0c"


def clean_clone(folder: Path) -> None:
    """The files a clone of this working tree would have, and beside them what must not be built in."""
    files = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=SOURCE).split("\0")
    for name in filter(None, files):
        if (SOURCE / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(SOURCE / name, folder / name, follow_symlinks=False)
    shutil.copy(folder / ".env.example", folder / ".env")
    for name in ("src/.env", "target/left", "private.key"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(CANARY)


def make_remotes(stack: Stack) -> None:
    script = "".join(
        f"git init -q --bare -b main {name}; git clone -q {name} /tmp/{name} 2>/dev/null; "
        f"(cd /tmp/{name}; echo '# {name}' > README.md; git add .; "
        f"git -c user.name=Test -c user.email=test@localhost commit -q -m 'Begin'; git push -q origin main); "
        for name in REMOTES
    )
    run(
        "docker", "run", "--rm", "--user", "0:0", "--entrypoint", "sh", "--network", "none",
        "--volume", f"{stack.name}_remotes:/srv/remotes", "--workdir", "/srv/remotes",
        stack.variables["AWO_IMAGE"], "-euc", script + "chown -R 10001:10001 /srv/remotes",
    )


def check_remotes(stack: Stack, orders: list[str]) -> None:
    """One branch, one pull request and one commit for each order, whatever happened to its workers."""
    script = (
        "cd /srv/remotes; for r in *; do "
        "for b in $(git -C $r for-each-ref --format='%(refname)' refs/heads refs/awo/pulls); "
        "do echo $r $b $(git -C $r rev-parse $b) $(git -C $r rev-list --count main..$b) "
        "$(git -C $r diff --name-only main...$b | tr '\\n' ,); done; done"
    )
    rows = [line.split() for line in run("docker", "exec", stack.replicas()[0], "sh", "-euc", script).splitlines()]
    branches = [row for row in rows if row[1].startswith("refs/heads/") and row[1] != "refs/heads/main"]
    pulls = [row for row in rows if row[1].startswith("refs/awo/pulls/")]
    wanted = sorted(f"notes/{order}.md," for order in orders)
    expect(sorted(row[4] for row in branches) == wanted, f"one branch for each of {len(orders)} orders")
    expect(all(row[3] == "1" for row in branches), "one commit on each branch")
    expect(sorted(row[2] for row in pulls) == sorted(row[2] for row in branches), "one pull request for each branch")
    urls = stack.value("SELECT count(DISTINCT github_pull_request_url) FROM agent_work_orders")
    expect(urls == str(len(orders)), "each order names a pull request of its own")


def check_invariants(stack: Stack) -> None:
    until(lambda: stack.sql("SELECT broken, subject FROM awo.invariants") == [], "awo.invariants is empty", 30)


def idle_cost(stack: Stack, seconds: int = 30) -> None:
    """Memory and processor time of replicas that wait for work, by `docker stats`."""
    samples = []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        lines = run("docker", "stats", "--no-stream", "--format", "{{json .}}", *stack.replicas()).splitlines()
        samples += [json.loads(line) for line in lines]
    cpu = sorted(float(sample["CPUPerc"].rstrip("%")) for sample in samples)
    memory = [sample["MemUsage"].split(" / ")[0] for sample in samples[-3:]]
    say(f"idle: memory {', '.join(memory)}; CPU mean {sum(cpu) / len(cpu):.2f} %, "
        f"median {cpu[len(cpu) // 2]:.2f} %, {len(cpu)} samples")


def six_orders_and_a_kill(stack: Stack) -> list[str]:
    orders = [stack.order(REMOTES[number % 3], 15) for number in range(6)]
    stack.until_executing(orders)
    workers = stack.value("SELECT count(DISTINCT worker_id) FROM awo.leases")
    expect(workers == "3", "all three replicas work")
    victim = stack.owner(orders[0])
    run("docker", "kill", "--signal", "KILL", victim)
    say("killed a replica in the middle of its orders")
    stack.until_completed(orders)
    expect(stack.attempts(orders[0]) == ["crashed", "succeeded"], "the order of the killed replica went on elsewhere")
    expect(stack.spent(orders) == 0, "no attempt spent")
    stack.up()
    return orders


def a_drain(stack: Stack) -> list[str]:
    order = stack.order("one", 30)
    stack.until_executing([order])
    replica = stack.owner(order)
    started = time.monotonic()
    run("docker", "stop", "--time", "90", replica)
    took = time.monotonic() - started
    code = inspect([replica])[0]["State"]["ExitCode"]
    expect(code == 0 and took < 60, f"a stop drains: exit code 0 after {took:.0f} s, killed only after 90 s")
    stack.until_completed([order])
    expect(stack.attempts(order) == ["interrupted", "succeeded"], "the order went on elsewhere")
    expect(stack.spent([order]) == 0, "no attempt spent")
    stack.up()
    return [order]


def a_restart(stack: Stack) -> list[str]:
    run("docker", "exec", stack.replicas()[0], "sh", "-c",
        "echo 'awo_git_author_name: Configured Author' > /var/archon/config/agent-settings.yaml")
    orders = [stack.order(remote, 20) for remote in REMOTES]
    stack.until_executing(orders)
    stack.compose("restart")
    say("everything restarted, Postgres too")
    stack.until_healthy(3)
    stack.until_completed(orders)
    return orders


def a_rolling_update(stack: Stack) -> list[str]:
    old, new = stack.variables["AWO_IMAGE"], stack.variables["AWO_IMAGE"] + "-next"
    with tempfile.TemporaryDirectory() as empty:
        (Path(empty) / "Dockerfile").write_text(f"FROM {old}\nLABEL archon-awo.walk=next\n")
        run("docker", "build", "--quiet", "--tag", new, empty)
    orders = [stack.order(remote, 25) for remote in REMOTES]
    stack.until_executing(orders)
    stack.variables["AWO_IMAGE"] = new
    run("ops/compose/roll", *stack.files, env=stack.variables, cwd=stack.folder, limit=600)
    wanted = inspect([new])[0]["Id"]
    images = [facts["Image"] for facts in inspect(stack.replicas())]
    expect(images == [wanted] * 3, "three replicas of the new image")
    stack.until_completed(orders)
    expect(stack.spent(orders) == 0, "no attempt spent")
    # A second `up` with the same files changes nothing.
    before = stack.replicas()
    stack.up()
    expect(set(stack.replicas()) == set(before), "another up keeps the replicas")
    return orders


def down_and_up(stack: Stack) -> list[str]:
    kept = "cd /var/archon; ls repositories work-orders; cat config/agent-settings.yaml"
    orders = [stack.order(remote, 20) for remote in REMOTES]
    stack.until_executing(orders)
    before = run("docker", "exec", stack.replicas()[0], "sh", "-c", kept)
    stack.compose("down", "--timeout", "90")
    stack.up()
    after = run("docker", "exec", stack.replicas()[0], "sh", "-c", kept)
    expect(before == after and all(order in after for order in orders), "sandboxes, orders' files and config are kept")
    stack.until_completed(orders)
    expect(stack.spent(orders) == 0, "no attempt spent")
    authors = run("docker", "exec", stack.replicas()[0], "sh", "-euc",
                  "git -C /srv/remotes/one log --all --format='%an' --grep " + orders[0])
    expect(authors.split("\n")[0] == "Configured Author", "the kept config is in force")
    return orders


def a_partition(stack: Stack, seconds: int) -> list[str]:
    order = stack.order("two", 30)
    stack.until_executing([order])
    replica = stack.owner(order)
    network = f"{stack.name}_database"
    run("docker", "network", "disconnect", network, replica)
    cut = time.monotonic()
    say(f"cut a replica off from Postgres for {seconds} s")
    try:
        until(lambda: stack.owner(order) not in ("", replica), "another replica owns the order", max(seconds, 45) - 2)
        # Whatever its former owner still runs stands still, stopped or traced; the shim over it is our own.
        lines = run("docker", "top", replica, "-eo", "pid,stat,args").splitlines()
        agents = [line.split() for line in lines if "scripted-agent" in line and " shim " not in line]
        expect(all(agent[1][0] in "TtZ" for agent in agents), "no agent of the former owner goes on")
        time.sleep(max(0, seconds - (time.monotonic() - cut)))
    finally:
        run("docker", "network", "connect", network, replica)
    say(f"connected again after {time.monotonic() - cut:.0f} s")
    stack.until_completed([order])
    stack.until_healthy(3)
    # The frozen agent holds the sandbox until its worker hears that the lease is gone: others wait.
    first, *waits, last = stack.attempts(order)
    expect((first, last) == ("crashed", "succeeded") and set(waits) <= {"interrupted"},
           f"the order had one owner after the other, and waited {len(waits)} times for its sandbox")
    expect(stack.spent([order]) == 0, "no attempt spent")
    return [order]


def walk(stack: Stack, partition: int, given: str | None) -> None:
    if given:
        run("docker", "tag", given, stack.variables["AWO_IMAGE"])
    else:
        started = time.monotonic()
        stack.compose("build", "archon-awo", limit=3000)
        say(f"image built in {time.monotonic() - started:.0f} s")
    size = image.check_image(stack.variables["AWO_IMAGE"], CANARY)
    say(f"the image takes {size / 1e6:.0f} MB")
    make_remotes(stack)
    stack.up()
    workers = stack.value("SELECT count(*) FROM awo.workers WHERE stopped_at IS NULL")
    expect(workers == "3", "one database knows all three")
    for replica in stack.replicas():
        image.check_container(replica)
    idle_cost(stack)

    orders: list[str] = []
    for step in (six_orders_and_a_kill, a_drain, a_restart, a_rolling_update, down_and_up, a_partition):
        say(f"== {step.__name__.replace('_', ' ')}")
        orders += step(stack, partition) if step is a_partition else step(stack)
        check_invariants(stack)
        check_remotes(stack, orders)


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody uses, for the replicas to be published on.

    They lie below the kernel's ephemeral range (32768 and up by default): a port out of that range
    can be taken by any outgoing connection between this look and the start of the containers.
    """
    for _ in range(100):
        first = random.randrange(20000, 32000, count)
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise Failure(f"no {count} free ports in a row between 20000 and 32000 on 127.0.0.1")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--partition", type=int, default=60, help="seconds without a network (60)")
    parser.add_argument("--image", help="walk with this image instead of building one")
    parser.add_argument("--keep", action="store_true", help="leave the containers running, to look at them")
    parser.add_argument("--hostile-only", action="store_true", help="only the attempts of a hostile agent")
    arguments = parser.parse_args()
    # Many runs may share an engine.
    name = f"awo-walk-{os.getpid()}"
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    first = free_ports(10)
    tag = f"archon-awo:walk-{os.getpid()}"
    stack = Stack(folder, name, {
        "AWO_IMAGE": tag,
        "AWO_PORTS": f"127.0.0.1:{first}-{first + 9}",
        # Interrupted steps are what is looked at: soon.
        "AWO_DRAIN_GRACE": "5s",
        "GITHUB_TOKEN": CANARY,
        "ANTHROPIC_API_KEY": CANARY,
    })
    try:
        clean_clone(folder)
        if not arguments.hostile_only:
            walk(stack, arguments.partition, arguments.image)
            stack.compose("down", "--volumes", "--timeout", "10")
        elif arguments.image:
            run("docker", "tag", arguments.image, tag)
        else:
            stack.compose("build", "archon-awo", limit=3000)
        hostile.both(folder, name, tag, {"AWO_PORTS": stack.variables["AWO_PORTS"]}, make_remotes)
        say("everything held")
        return 0
    except Failure as failure:
        say(f"FAILED: {failure}")
        logs = stack.compose("logs", "--no-color", "--tail", "60") if stack.replicas() else ""
        print(logs, file=sys.stderr)
        return 1
    finally:
        if arguments.keep:
            say(f"kept: docker compose -p {name} down --volumes, docker image rm {tag}, rm -r {folder}")
        else:
            stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "10")
            for used in (tag, tag + "-next"):
                if run("docker", "image", "ls", "--quiet", used):
                    run("docker", "image", "rm", used)
            shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
