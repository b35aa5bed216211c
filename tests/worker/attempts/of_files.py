"""Files: of the product, of other orders, of the host."""

import os
import signal
import stat

from ground import Untried, facts, here, overwrite, plant, read, tmp, victim


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


def parent_cgroup():
    line = [line for line in open("/proc/self/cgroup") if line.startswith("0::")][0]
    mounts = [line.split() for line in open("/proc/self/mountinfo") if " - cgroup2 " in line]
    if not mounts:
        raise Untried
    overwrite(mounts[0][4] + os.path.dirname(line.strip()[3:].rstrip("/")) + "/cgroup.procs")


def large_file():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with open(tmp + "/large", "wb") as file:
            file.seek(9 << 20)
            file.write(b"x")
    finally:
        os.unlink(tmp + "/large")


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


def close_folder(path):
    """Sets the mode that it has: whoever may do that may close it too."""
    os.chmod(path, stat.S_IMODE(os.stat(path).st_mode))


def give_away():
    path = tmp + "/given"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o000))
    try:
        os.chown(path, 12345, 12345)
    finally:
        os.unlink(path)


def open_closed():
    path = tmp + "/closed-to-all"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o000))
    try:
        read(path)
    finally:
        os.unlink(path)


ATTEMPTS = {
    "close-others": [lambda path=path: close_folder(path)
                     for path in [os.path.dirname(facts["victim_checkout"]), facts["victim_record"],
                                  os.path.dirname(facts["trusted"])]],
    "attributes": [lambda: os.setxattr(facts["victim_checkout"] + "/README.md", "user.awo", b"x"),
                   lambda: os.listxattr(facts["victim_checkout"] + "/README.md")],
    "rights-over-files": [give_away, open_closed],
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
    "large-file": [large_file],
}
