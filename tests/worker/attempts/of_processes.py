"""Other processes, calls of the kernel, and what may be used up."""

import ctypes
import os
import resource
import signal
import subprocess

from ground import Untried, call, checked, facts, in_child, libc, overwrite, read, tmp, victim, worker


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


def priority(process):
    os.setpriority(os.PRIO_PROCESS, process, os.getpriority(os.PRIO_PROCESS, process))


def scheduling(process):
    os.sched_setscheduler(process, os.sched_getscheduler(process), os.sched_getparam(process))


def processors(process):
    os.sched_setaffinity(process, os.sched_getaffinity(process))


def io_priority(process):
    # IOPRIO_WHO_PROCESS, in the class of those that have chosen none.
    checked(call("ioprio_set", 1, process, 2 << 13 | 4))


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


def setuid():
    """Runs `id` as the owner of a file that is not ours."""
    files = [file for file in facts["setuid"] if os.stat(file).st_uid != os.geteuid()]
    if not files:
        raise Untried
    answer = subprocess.run([files[0], "-u"], capture_output=True, text=True)
    if answer.stdout.strip() != str(os.stat(files[0]).st_uid):
        raise OSError(1, "ran as ourselves")


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


ATTEMPTS = {
    "rights-over-users": [lambda: in_child(lambda: os.setuid(12345)), lambda: in_child(lambda: os.setgid(12345)),
                          lambda: in_child(lambda: os.setgroups([12345]))],
    "worker-environment": [lambda: read(f"/proc/{worker}/environ")],
    "worker-memory": [lambda: read(f"/proc/{worker}/maps"), lambda: open(f"/proc/{worker}/mem", "rb").close(),
                      memory_by_call, trace],
    "worker-descriptors": [lambda: overwrite(f"/proc/{worker}/fd/1"), take_descriptor],
    "worker-signals": [lambda: os.kill(worker, signal.SIGCONT), lambda: os.kill(shim(), signal.SIGCONT)],
    "scheduling": [lambda of=of, set=set: set(of()) for of in [lambda: worker, shim, lambda: victim]
                   for set in [priority, scheduling, processors, io_priority]],
    "worker-limits": [lambda: resource.prlimit(worker, resource.RLIMIT_CORE, (0, 0))],
    "other-agent": [lambda: read(f"/proc/{victim}/environ"), lambda: open(f"/proc/{victim}/mem", "rb").close(),
                    lambda: os.kill(victim, signal.SIGCONT),
                    lambda: resource.prlimit(victim, resource.RLIMIT_CORE, (0, 0))],
    "namespaces": [mount, lambda: namespace(0x10000000), lambda: namespace(0x20000000)],
    "kernel-calls": [lambda: call("keyctl", 0, -2, 1), bpf_map, ring],
    "setuid": [setuid],
    "open-files": [many_files],
    "forks": [forks],
}
