"""What an image and its containers must be: judged by `docker inspect` and by every file of every layer."""

import json
import re
import subprocess
import tarfile
import tempfile
from pathlib import PurePosixPath

from stack import Failure, expect, inspect, run

BUILD_TOOLS = {
    "ar", "as", "c++", "cargo", "cc", "clang", "cmake", "cpp", "g++", "gcc", "gmake", "go", "ld", "make",
    "node", "npm", "pip", "pip3", "rustc", "rustup", "unzip",
}
# Names of files that hold credentials, or what the build must not have taken along.
FORBIDDEN = {
    ".env", ".git", ".git-credentials", ".netrc", ".npmrc", ".pypirc", "credentials.toml", "id_ecdsa", "id_ed25519",
    "id_rsa", "hosts.yml",
}
CREDENTIALS = re.compile(
    rb"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}|sk-ant-[a-z0-9]+-[A-Za-z0-9_-]{80,}"
)
# Not looked for in programs and libraries: some carry keys for their self-tests, and their words run together.
CREDENTIALS_IN_TEXT = re.compile(
    rb"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----\s+[A-Za-z0-9+/=\s]{64,}"
    rb"|gh[opsu]_[A-Za-z0-9]{36}|AKIA[0-9A-Z]{16}\b"
    rb"|postgres(?:ql)?://[a-z]+:[A-Za-z0-9]{16,}@"
)


def check_image(image: str, canary: str) -> int:
    """Looks into every layer for credentials, for `canary` and for build tools; answers the size in bytes."""
    facts = inspect([image])[0]
    config = facts["Config"]
    expect(config["User"] == "10001:10001", "the image runs as uid 10001")
    expect(config["Healthcheck"]["Test"] == ["CMD", "archon-awo", "health"], "the binary is its own health check")
    names = ("title", "description", "licenses", "version", "revision")
    expect({f"org.opencontainers.image.{name}" for name in names} <= set(config["Labels"]), "the image has OCI labels")
    history = run("docker", "history", "--no-trunc", image)
    expect(canary not in json.dumps(facts) + history, "no credential of the build is in the image's description")

    found = [f"{layer} {path}: {what}" for layer, path, what in scan(image, canary.encode())]
    if found:
        raise Failure("in the layers: " + "; ".join(found))
    expect(True, "no layer holds a credential or a build tool")
    return facts["Size"]


def scan(image: str, canary: bytes):
    """Every file of every layer that should not be there."""
    files = 0
    with tempfile.TemporaryFile(dir="/var/tmp") as saved:
        subprocess.run(["docker", "save", image], stdout=saved, check=True, timeout=300)
        saved.seek(0)
        with tarfile.open(fileobj=saved) as outer:
            manifest = json.load(outer.extractfile("manifest.json"))
            for layer in manifest[0]["Layers"]:
                with tarfile.open(fileobj=outer.extractfile(layer)) as inner:
                    for member in inner:
                        files += 1
                        what = judge(member, inner, canary)
                        if what:
                            yield layer[:12], member.name, what
    # A scan that looked at nothing proves nothing.
    if files < 1000:
        raise Failure(f"the layers of {image} hold {files} files: the scan did not see them")


def judge(member: tarfile.TarInfo, layer: tarfile.TarFile, canary: bytes) -> str | None:
    path = PurePosixPath(member.name)
    if path.name in FORBIDDEN:
        return "its name"
    if path.name in BUILD_TOOLS and path.parent.name in ("bin", "sbin"):
        return "a build tool"
    if not member.isfile():
        return None
    content = layer.extractfile(member).read()
    if canary in content:
        return "the credential of the build"
    hit = CREDENTIALS.search(content)
    if not hit and not content.startswith(b"\x7fELF"):
        hit = CREDENTIALS_IN_TEXT.search(content)
    return f"looks like a credential: {hit.group()[:12]!r}…" if hit else None


def check_container(replica: str) -> None:
    """What the engine and the kernel say about a running replica."""
    facts = inspect([replica])[0]
    host = facts["HostConfig"]
    expect(facts["Config"]["User"] == "10001:10001", "uid 10001")
    expect(not host["CapAdd"] and host["CapDrop"] == ["ALL"], "no capability added, all dropped")
    expect(host["ReadonlyRootfs"], "the root file system is read-only")
    expect("no-new-privileges:true" in host["SecurityOpt"], "no-new-privileges")
    expect(host["Memory"] > 0 and host["PidsLimit"] > 0, "limits of memory and processes")
    expect(facts["State"]["Health"]["Status"] == "healthy", "health is healthy")

    status = run("docker", "exec", replica, "cat", "/proc/1/status")
    kernel = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    expect(kernel["Uid"].split() == ["10001"] * 4, "process 1 has uid 10001")
    expect(int(kernel["CapEff"], 16) == int(kernel["CapBnd"], 16) == 0, "process 1 can get no capability")
    expect(kernel["NoNewPrivs"] == "1", "process 1 cannot gain privileges")
    script = "for f in /probe /usr/local/bin/probe /home/archon/probe; do (: > $f) 2> /dev/null && echo $f; done; :"
    expect(run("docker", "exec", replica, "sh", "-c", script) == "", "nothing outside the volumes can be written")
    modes = run("docker", "exec", replica, "stat", "-c", "%u %n", *(
        f"/var/archon/{folder}" for folder in ("repositories", "work-orders", "config")
    ))
    expect({line.split()[0] for line in modes.splitlines()} == {"0"}, "the volumes belong to root")
    script = "for f in repositories work-orders config; do chmod 0 /var/archon/$f 2> /dev/null && echo $f; done; :"
    expect(run("docker", "exec", replica, "sh", "-c", script) == "", "no process of that user can close them")
