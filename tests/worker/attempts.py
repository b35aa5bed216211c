"""A hostile agent. It tries one thing after the other that no agent may be able to do, and says of each
way it tried whether that was done or refused: one JSON object a line.

    attempts.py FACTS REPORT

FACTS is a JSON file that the test wrote: where the things are that it is after. What would do harm is
only begun: a file is opened for writing and not written, a signal is SIGCONT, a limit is set to what it
is. It also runs without being shut in, to show that each way works."""

import ctypes
import hashlib
import json
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.parse
from base64 import b64encode

facts = json.load(open(sys.argv[1]))
report = open(sys.argv[2], "a", buffering=1)
libc = ctypes.CDLL(None, use_errno=True)
here = os.getcwd()
tmp = os.environ["TMPDIR"]
worker, victim = facts["worker"], facts["victim"]
X86 = os.uname().machine == "x86_64"
CALLS = {
    "keyctl": 250 if X86 else 219,
    "bpf": 321 if X86 else 280,
    "io_uring_setup": 425,
    "pidfd_open": 434,
    "pidfd_getfd": 438,
}


class Untried(Exception):
    pass


def checked(answer):
    if answer == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer


def call(name, *arguments):
    return checked(libc.syscall(CALLS[name], *arguments))


def in_child(work):
    """Does something that would change this process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        number = 0
        try:
            work()
        except OSError as error:
            number = error.errno or 1
        os.write(writer, b"%d" % number)
        os._exit(0)
    os.close(writer)
    text = os.read(reader, 16)
    os.close(reader)
    os.waitpid(child, 0)
    # A child that was killed said nothing.
    if text != b"0":
        raise OSError(int(text or b"1"), "refused")


def read(path):
    with open(path, "rb") as file:
        file.read(1)


def overwrite(path):
    os.close(os.open(path, os.O_WRONLY))


def plant(folder):
    path = os.path.join(folder, f"archon-awo-planted-{os.getpid()}")
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    os.unlink(path)


def memory_by_call():
    if not facts["address"]:
        raise Untried
    class Piece(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
    buffer = ctypes.create_string_buffer(16)
    ours = Piece(ctypes.addressof(buffer), 16)
    theirs = Piece(facts["address"], 16)
    checked(libc.process_vm_readv(worker, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0))


def trace():
    # PTRACE_SEIZE: it goes on running, and is let go of when the tracer ends.
    libc.ptrace.argtypes = [ctypes.c_long] * 4
    in_child(lambda: checked(libc.ptrace(0x4206, worker, 0, 0)))


def take_descriptor():
    pidfd = call("pidfd_open", worker, 0)
    try:
        os.close(call("pidfd_getfd", pidfd, 1, 0))
    finally:
        os.close(pidfd)



def shim():
    parent = open(f"/proc/{os.getppid()}/stat").read().rsplit(")", 1)[1].split()[1]
    return int(parent)


def mount():
    def work():
        libc.unshare(0x00020000)
        libc.mount(None, b"/", None, 0x4000 | 0x40000, None)
        checked(libc.mount(b"none", tmp.encode(), b"tmpfs", 0, None))
    in_child(work)


def namespace(flags):
    in_child(lambda: checked(libc.unshare(flags)))


def bpf_map():
    attributes = (ctypes.c_uint32 * 16)(2, 4, 4, 1)
    os.close(call("bpf", 0, ctypes.byref(attributes), 64))


def ring():
    os.close(call("io_uring_setup", 1, ctypes.byref(ctypes.create_string_buffer(256))))


def packets():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()


def connect(address):
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(address)


def setuid():
    """Runs `id` as the owner of a file that is not ours."""
    files = [file for file in facts["setuid"] if os.stat(file).st_uid != os.geteuid()]
    if not files:
        raise Untried
    answer = subprocess.run([files[0], "-u"], capture_output=True, text=True)
    if answer.stdout.strip() != str(os.stat(files[0]).st_uid):
        raise OSError(1, "ran as ourselves")


def hard_link():
    os.link(facts["outside"] + "/to-link", tmp + "/linked")
    os.unlink(tmp + "/linked")


def move_away():
    os.rename(facts["outside"] + "/to-move", tmp + "/moved")


def remove():
    os.unlink(facts["outside"] + "/to-remove")


def device():
    os.mknod(tmp + "/device", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    os.unlink(tmp + "/device")


def large_file():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with open(tmp + "/large", "wb") as file:
            file.seek(9 << 20)
            file.write(b"x")
    finally:
        os.unlink(tmp + "/large")


def many_files():
    held = []
    try:
        for _ in range(300):
            held.append(os.open("/dev/null", os.O_RDONLY))
    finally:
        for descriptor in held:
            os.close(descriptor)


def forks():
    children = []
    try:
        for _ in range(400):
            child = os.fork()
            if child == 0:
                signal.pause()
            children.append(child)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def parent_cgroup():
    line = [line for line in open("/proc/self/cgroup") if line.startswith("0::")][0]
    mounts = [line.split() for line in open("/proc/self/mountinfo") if " - cgroup2 " in line]
    if not mounts:
        raise Untried
    overwrite(mounts[0][4] + os.path.dirname(line.strip()[3:].rstrip("/")) + "/cgroup.procs")


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


ATTEMPTS = {
    "worker-environment": [lambda: read(f"/proc/{worker}/environ")],
    "worker-memory": [lambda: read(f"/proc/{worker}/maps"), lambda: open(f"/proc/{worker}/mem", "rb").close(),
                      memory_by_call, trace],
    "worker-descriptors": [lambda: overwrite(f"/proc/{worker}/fd/1"), take_descriptor],
    "worker-signals": [lambda: os.kill(worker, signal.SIGCONT), lambda: os.kill(shim(), signal.SIGCONT)],
    "worker-limits": [lambda: resource.prlimit(worker, resource.RLIMIT_CORE, (0, 0))],
    "other-agent": [lambda: read(f"/proc/{victim}/environ"), lambda: open(f"/proc/{victim}/mem", "rb").close(),
                    lambda: os.kill(victim, signal.SIGCONT),
                    lambda: resource.prlimit(victim, resource.RLIMIT_CORE, (0, 0))],
    "other-sandbox": [lambda: os.listdir(facts["victim_checkout"]),
                      lambda: read(facts["victim_checkout"] + "/README.md"),
                      lambda: plant(facts["victim_checkout"])],
    "records": [lambda: os.listdir(facts["victim_record"] + "/prompts"),
                lambda: read(facts["victim_record"] + "/prompts/" + facts["victim_prompt"]),
                lambda: plant(facts["own_record"] + "/outputs")],
    "mirror": [lambda: read(facts["mirror"] + "/HEAD"), lambda: overwrite(facts["mirror"] + "/HEAD"),
               lambda: plant(facts["mirror"] + "/objects")],
    "trusted": [lambda: read(facts["trusted"] + "/HEAD"), lambda: overwrite(facts["trusted"] + "/config"),
                lambda: plant(facts["trusted"])],
    "sandbox-lock": [lambda: overwrite("../.lock"), lambda: plant("..")],
    "config": [lambda: os.listdir(facts["config"]), lambda: read(facts["config"] + "/secret"),
               lambda: plant(facts["config"])],
    "shadow": [lambda: read("/etc/shadow")],
    "write-outside": [lambda folder=folder: plant(folder)
                      for folder in [facts["home"], facts["outside"], "/tmp", "/var/tmp", "/dev/shm"]],
    "move-outside": [hard_link, move_away, remove],
    "change-outside": [lambda: os.chmod(facts["outside"] + "/to-link", 0o640),
                       lambda: os.utime(facts["outside"] + "/to-link")],
    "kernel-files": [lambda: overwrite("/proc/sys/kernel/core_pattern"),
                     lambda: overwrite(f"/proc/{victim}/oom_score_adj"), parent_cgroup],
    "devices": [device],
    "namespaces": [mount, lambda: namespace(0x10000000), lambda: namespace(0x20000000)],
    "kernel-calls": [lambda: call("keyctl", 0, -2, 1), bpf_map, ring, packets],
    "abstract-socket": [lambda: connect("\0" + facts["abstract"])],
    "path-socket": [lambda: connect(facts["socket"])],
    "setuid": [setuid],
    "large-file": [large_file],
    "open-files": [many_files],
    "forks": [forks],
}

DAEMON = """
import os, signal, sys, time
beat, hops = sys.argv[1], int(sys.argv[2])
for number in [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]:
    signal.signal(number, signal.SIG_IGN)
end = time.monotonic() + 60
while time.monotonic() < end and not os.path.exists(beat + ".stop"):
    open(beat, "a").write("%d\\n" % os.getpid())
    time.sleep(0.1)
    # Never the same process for long.
    if hops and os.fork():
        os._exit(0)
"""


def leave_daemon(name, hops):
    """Twice forked, in a session of its own, under the name of a kernel thread, with no variable."""
    beat = os.path.join(facts["beats"], name)
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    nowhere = os.open("/dev/null", os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nowhere, descriptor)
    os.closerange(3, 1024)
    os.chdir("/")
    os.execve("/usr/bin/python3", ["[kworker/u8:2]", "-c", DAEMON, beat, str(hops)], {})


def lay_traps():
    """For whoever deletes this sandbox: links that lead out, folders that are closed."""
    for folder in [here, tmp, os.environ["HOME"]]:
        os.symlink(facts["outside"], folder + "/way-out")
        os.symlink(facts["outside"] + "/kept", folder + "/file-out")
        for name, mode in [("closed", 0o000), ("read-only", 0o555)]:
            inner = os.path.join(folder, name, "inner")
            os.makedirs(inner)
            open(inner + "/file", "w").close()
            os.symlink(facts["outside"], inner + "/way-out")
            os.chmod(inner, mode)
            os.chmod(os.path.dirname(inner), mode)
    deep = tmp
    for _ in range(150):
        deep += "/d"
        os.mkdir(deep)
    open(os.path.join(tmp.encode(), b"odd\n\xff\x1b[31m"), "w").close()


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


for name, ways in ATTEMPTS.items():
    outcomes = []
    for way in ways:
        try:
            way()
            outcomes.append("done")
        except Untried:
            outcomes.append("untried")
        except OSError as error:
            outcomes.append(os.strerror(error.errno) if error.errno else str(error))
    print(json.dumps({"attempt": name, "outcomes": outcomes}), file=report, flush=True)

os.makedirs(facts["beats"], exist_ok=True)
leave_daemon("stays", 0)
leave_daemon("hops", 1)
secret = os.environ.get("REGISTRY_PASSWORD")
if secret:
    tell_secret(secret)
print(json.dumps({"tried": True}), file=report, flush=True)
until = time.monotonic() + 60
outcome = "done"
try:
    search_token(lambda: time.monotonic() < until)
except OSError as error:
    outcome = str(error)
print(json.dumps({"attempt": "token", "outcomes": [outcome]}), file=report, flush=True)
lay_traps()
