"""What is left of an agent: moves names of its checkout while somebody reads it. ARGS: checkout, outside, seed.

Each thing that it makes itself says "inside"; each thing outside says "precious".
"""

import ctypes
import os
import random
import sys
from pathlib import Path

outside = Path(sys.argv[2])
random.seed(int(sys.argv[3]))
libc = ctypes.CDLL(None, use_errno=True)
HERE, EXCHANGE, BIND, DETACH = -100, 2, 4096, 2
os.chdir(sys.argv[1])

FOLDERS = ["lib", "lib/inner", "deep/a/b", "src"]
FILES = ["lib/notes.txt", "lib/inner/more.txt", "src/main.txt", "deep/a/b/c.txt", "a.txt"]
RULES = [".gitignore", ".gitattributes", "lib/.gitignore", "src/.gitattributes"]


def inside(*paths):
    """Only who reads shall be led out: what lies outside is not the survivor's to move."""
    if any(above.is_symlink() for path in paths for above in Path(path).parents):
        raise PermissionError


def exchange(one, other):
    inside(one, other)
    libc.renameat2(HERE, str(one).encode(), HERE, str(other).encode(), EXCHANGE)


def write(path):
    inside(path)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    file = os.open(path, flags, 0o644)
    os.write(file, b"inside %d\n" % random.randrange(10**6))
    os.close(file)


def to_link(path, target):
    """The name is a link for a moment, or for good."""
    aside = Path(f".aside-{random.randrange(4)}")
    if random.random() < 0.1:
        aside.unlink(missing_ok=True)
    if not aside.is_symlink() and not aside.exists():
        aside.symlink_to(target)
    exchange(path, aside)
    if random.random() < 0.9:
        exchange(path, aside)


def link(path):
    to_link(path, outside / path)


def link_above(path):
    above = Path(path).parent
    if above != Path():
        to_link(above, Path("/".join([".."] * 12)) / str(outside / above).lstrip("/"))


def among(path):
    exchange(path, random.choice(FOLDERS + FILES))


def pipe(path):
    if not Path(".aside-pipe").is_fifo():
        os.mkfifo(".aside-pipe")
    exchange(path, ".aside-pipe")
    exchange(path, ".aside-pipe")


def mount(path):
    inside(path)
    if libc.mount(str(outside / path).encode(), path.encode(), None, BIND, None) == 0:
        for _ in range(random.randrange(2000)):
            pass
        libc.umount2(path.encode(), DETACH)


def rename(path):
    inside(path)
    Path(path).rename(path + ".moved")
    Path(path + ".moved").rename(path)


while True:
    path = random.choice(FOLDERS + FILES + RULES)
    try:
        random.choice([link, link, link_above, pipe, mount, rename, among])(path)
        if random.random() < 0.3:
            write(random.choice(FILES))
    except OSError:
        continue
