"""The hostile agent of tests/worker/attempts inside the real image, and in the hardened one: what it can do there is
what the columns of the table in docs/security.md say, and outside of the isolation the same attempts work."""

import hashlib
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

from stack import Failure, Stack, expect, run, say, until

SOURCE = Path(__file__).resolve().parents[2]
# What every attempt is after, made in the container by a process of the worker's user that stays.
PREPARE = r"""
import json, os, socket, sys
os.umask(0o022)
outside = "/srv/remotes/outside"
os.makedirs(outside + "/kept", exist_ok=True)
for name in ["to-link", "to-move", "to-remove", "kept/file"]:
    open(f"{outside}/{name}", "w").close()
open("/var/archon/config/secret", "w").close()
sockets = [socket.socket(socket.AF_UNIX) for _ in range(2)]
for peer, name in zip(sockets, ["\0archon-awo-hostile", "/srv/notes/socket"]):
    peer.bind(name)
    peer.listen()
open("/srv/notes/prepared", "w").close()
import time
time.sleep(900)
"""
# Looks around as root: pids, paths.
LOOK = r"""
import glob, json, os, sys
victim = sys.argv[1]
def words(pid):
    try:
        return open(f"/proc/{pid}/cmdline").read().split("\0")
    except OSError:
        return []
pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
worker = [pid for pid in pids if words(pid)[:2] == ["archon-awo", "worker"]][0]
def is_agent(pid):
    try:
        environment = open(f"/proc/{pid}/environ").read().split("\0")
    except OSError:
        return False
    return f"AWO_WORK_ORDER_ID={victim}" in environment and "agent.sh" in " ".join(words(pid)) \
        and words(pid)[1:2] not in (["shim"], ["confine"])
agent = [pid for pid in pids if is_agent(pid)][0]
root = "/var/archon/repositories"
maps = open(f"/proc/{worker}/maps").readline()
print(json.dumps({
    "worker": worker, "victim": agent, "address": int(maps.split("-")[0], 16),
    "uid": os.stat(f"/proc/{agent}").st_uid,
    "victim_checkout": [path for path in glob.glob(f"{root}/{victim}/*") if os.path.isdir(path)][0],
    "victim_record": f"/var/archon/work-orders/{victim}",
    "victim_prompt": os.listdir(f"/var/archon/work-orders/{victim}/prompts")[0],
    "mirror": glob.glob(f"{root}/.cache/mirrors/*/mirror.git")[0],
    "trusted": f"{root}/.cache/trusted/{victim}.git",
}))
"""


# What a container engine makes read-only for everybody: that it works elsewhere is shown by the other test.
MASKED = {"kernel-files"}


def columns() -> dict[str, dict[str, str]]:
    """The table of the page: words of an attempt to its cell, by column."""
    page = (SOURCE / "docs/security.md").read_text()
    lines = page.split("<!-- attempts: begin -->")[1].split("<!-- attempts: end -->")[0].strip().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    heads = [cell.strip() for cell in lines[0].strip("|").split("|")]
    return {head: {row[0]: row[number] for row in rows[2:]} for number, head in enumerate(heads)}


def words_of() -> dict[str, str]:
    """The name of an attempt to its words on the page, as tests/worker/hostile_rows.rs has them."""
    text = (SOURCE / "tests/worker/hostile_rows.rs").read_text().replace("\\\n", "")
    found = re.findall(r'attempt\(\s*"([^"]+)",\s*"((?:[^"\\]|\\.)+)"', text)
    return {name: re.sub(r"\s+", " ", words) for name, words in found}


def image_with_python(image: str, tag: str, folder: Path) -> None:
    """As the README tells those whose agents need a toolchain."""
    place = folder / "python"
    place.mkdir(exist_ok=True)
    (place / "Dockerfile").write_text(
        f"FROM {image}\nUSER 0:0\n"
        "RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-minimal python3 "
        "&& rm -rf /var/lib/apt/lists/*\nUSER 10001:10001\n"
    )
    run("docker", "build", "--quiet", "--tag", tag, str(place), limit=600)


def outcomes(text: str) -> dict[str, bool]:
    """Which attempts were done in one of their ways; those that could not be tried are left out."""
    found = {}
    for line in text.splitlines():
        said = json.loads(line)
        tried = [way == "done" for way in said.get("outcomes", []) if way != "untried"]
        if "attempt" in said and tried:
            found[said["attempt"]] = any(tried)
    return found


def beside(replica: str, image: str) -> str:
    """A container that shares everything with a replica but what holds its agents back: root with all rights."""
    return run(
        "docker", "run", "--detach", "--rm", "--user", "0:0", f"--pid=container:{replica}",
        f"--network=container:{replica}", f"--volumes-from={replica}",
        # What the engine itself may not have where it runs in a container.
        "--cap-add=ALL", "--cap-drop=SYS_RESOURCE",
        "--security-opt=seccomp=unconfined", "--entrypoint", "sleep", image, "900",
    ).strip()


def attack(stack: Stack, column: str, token: str) -> None:
    """One order of somebody, beside it the hostile one; compares what it could do with the page."""
    replica = stack.replicas()[0]
    outside = beside(replica, stack.variables["AWO_IMAGE"])
    try:
        compare(stack, column, token, replica, outside)
    finally:
        run("docker", "kill", outside)


def compare(stack: Stack, column: str, token: str, replica: str, outside: str) -> None:
    def inside(*command: str, user: str = "0:0") -> str:
        return run("docker", "exec", "--user", user, outside, *command)

    inside("chmod", "0777", "/srv/notes")
    run("docker", "exec", "--detach", "--user", "10001:10001", replica, "python3", "-c", PREPARE)
    until(lambda: "prepared" in inside("ls", "/srv/notes"), "what the attempts are after is there", 30)
    victim = stack.order("one", 200)
    stack.until_executing([victim])
    facts = json.loads(inside("python3", "-c", LOOK, victim))
    uid = facts.pop("uid")
    facts |= {
        "config": "/var/archon/config", "home": "/var/archon", "outside": "/srv/remotes/outside",
        "abstract": "archon-awo-hostile", "socket": "/srv/notes/socket", "setuid": [],
        "token_sha256": hashlib.sha256(token.encode()).hexdigest(), "steal": True,
        "enough": "/srv/notes/prepared", "beats": "/srv/notes/beats", "loot": "/srv/notes/loot",
    }
    attacker = stack.value(
        "INSERT INTO agent_work_orders (repository_url, user_request) "
        "VALUES ('file:///srv/remotes/two', 'Write a note (attempts)') RETURNING agent_work_order_id"
    )
    facts["own_record"] = f"/var/archon/work-orders/{attacker}"
    inside("python3", "-c", f"open('/srv/notes/facts.json', 'w').write({json.dumps(facts)!r})")
    stack.until_completed([attacker])
    tried = outcomes(inside("cat", "/srv/notes/report"))
    beats = inside("sh", "-c", "cat /srv/notes/beats/*")
    time.sleep(1)
    expect(beats and inside("sh", "-c", "cat /srv/notes/beats/*") == beats, "no daemon of the agent is left")
    isolation = stack.value(
        "SELECT isolation FROM agent_work_order_steps "
        f"WHERE agent_work_order_id = '{attacker}' AND step_name = 'execute'"
    )
    say(f"agents ran {isolation}")
    say(f"the other order's agent has uid {uid}")

    page, words = columns(), words_of()
    wrong, compared = [], 0
    for name, done in tried.items():
        cell = page[column].get(words[name], "no row")
        compared += 1
        if cell != ("done" if done else "refused"):
            wrong.append(f"{words[name]}: {'done' if done else 'refused'}, and the page says {cell}")
    if wrong:
        raise Failure(f"{column}: " + "; ".join(wrong))
    expect(compared > 20, f"{column}: {compared} attempts did what the page says")

    # The same without isolation: as the worker's user, and as root with all rights.
    works: dict[str, bool] = {}
    for user in ("10001", "0"):
        own = f"/srv/notes/control-{user}"
        control = facts | {"own_record": f"{own}/record", "beats": f"{own}/beats", "loot": f"{own}/loot"}
        inside("python3", "-c", f"import os; os.umask(0); os.makedirs('{own}'); "
               f"open('{own}/facts.json', 'w').write({json.dumps(control)!r})", user=user)
        script = (
            f"cd {own} && mkdir -p checkout tmp home record/outputs && touch .lock && cd checkout && "
            f"HOME={own}/home TMPDIR={own}/tmp timeout 120 "
            f"python3 -B /opt/attempts/attempts.py {own}/facts.json {own}/report > /dev/null"
        )
        inside("sh", "-euc", script, user=user)
        for name, done in outcomes(inside("cat", f"{own}/report")).items():
            works[name] = works.get(name, False) or done
        inside("sh", "-c", f"touch {own}/beats/stays.stop {own}/beats/hops.stop")
    idle = sorted(name for name, done in tried.items() if not done and not works.get(name) and name not in MASKED)
    expect(not idle, f"{column}: all of what was refused works outside {idle or ''}")


def both(folder: Path, name: str, image: str, variables: dict[str, str], prepare: Callable[[Stack], None]) -> None:
    """The image as compose.yaml runs it, then as compose.hardened.yaml does; `prepare` makes the remotes."""
    tag = f"{image}-hostile"
    image_with_python(image, tag, folder)
    token = "ghp_" + hashlib.sha256(name.encode()).hexdigest()[:32]
    try:
        for column, more in (("image", []), ("hardened image", ["-f", "compose.hardened.yaml"])):
            say(f"== attempts of a hostile agent: {column}")
            project = f"{name}-{column.split()[0]}"
            stack = Stack(folder, project, variables | {"AWO_IMAGE": tag, "GITHUB_TOKEN": token})
            stack.files += [*more, "-f", "tests/docker/compose.hostile.yaml"]
            try:
                prepare(stack)
                stack.up(1)
                attack(stack, column, token)
            except Failure:
                if stack.replicas():
                    say(stack.compose("logs", "--no-color", "--tail", "40"))
                raise
            finally:
                stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "10")
    finally:
        if run("docker", "image", "ls", "--quiet", tag):
            run("docker", "image", "rm", tag)
