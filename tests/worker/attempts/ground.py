"""What every attempt needs: what the test told, and the kernel's calls. An attempt is a list of ways, each
without arguments: one that returns was done, one that raises OSError was refused, one that raises
Untried could not be tried here."""

import ctypes
import json
import os
import sys

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
    "ioprio_set": 251 if X86 else 30,
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
