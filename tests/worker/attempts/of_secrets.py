"""Secrets: the token of GitHub, and what the agent itself was given."""

import hashlib
import json
import os
import re
import sys
import time
import urllib.parse
from base64 import b64encode

from ground import facts, report


def search_token(looks):
    """Looks at every process for something that is the token, which we know by its hash alone."""
    found, seen = False, set()
    # What this program printed waits in pipes that its parent has open too: reading them would keep it from the log.
    own = {os.fstat(descriptor).st_ino for descriptor in range(3)}
    def scan(data):
        for match in re.findall(rb"ghp_[0-9a-f]{32}", data):
            if hashlib.sha256(match).hexdigest() == facts["token_sha256"]:
                return True
        return False
    while True:
        for pid in filter(str.isdigit, os.listdir("/proc")):
            for name in ["cmdline", "environ"]:
                try:
                    with open(f"/proc/{pid}/{name}", "rb") as file:
                        data = file.read()
                except OSError:
                    continue
                found = found or scan(data)
                if name == "cmdline" and b"git" in data.split(b"\0")[0]:
                    seen.add(data)
            if not facts["steal"]:
                continue
            try:
                descriptors = os.listdir(f"/proc/{pid}/fd")
            except OSError:
                continue
            for descriptor in descriptors if int(pid) != os.getpid() else []:
                try:
                    file = os.open(f"/proc/{pid}/fd/{descriptor}", os.O_RDONLY | os.O_NONBLOCK)
                except OSError:
                    continue
                try:
                    found = found or (os.fstat(file).st_ino not in own and scan(os.read(file, 4096)))
                except OSError:
                    pass
                finally:
                    os.close(file)
        if not looks() or os.path.exists(facts["enough"]):
            break
    print(json.dumps({"git_seen": len(seen)}), file=report, flush=True)
    if not found:
        raise OSError(1, "not found")


def tell_secret(secret):
    """Prints a secret in pieces and in every code that a log might hold it in."""
    for number in range(0, len(secret), 3):
        print(secret[number:number + 3], end="", flush=True)
        time.sleep(0.02)
    print()
    for before in ["", "a", "ab"]:
        print("base64", b64encode((before + secret).encode()).decode(), flush=True)
    print("url", urllib.parse.quote(secret, safe=""))
    print("json", json.dumps({"password": secret}))
    print("hex", secret.encode().hex(), file=sys.stderr)
    with open(facts["loot"], "w") as loot:
        loot.write(secret)
