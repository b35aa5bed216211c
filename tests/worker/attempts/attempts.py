"""A hostile agent. It tries one thing after the other that no agent may be able to do, and says of each
way it tried whether that was done or refused: one JSON object a line.

    attempts.py FACTS REPORT

FACTS is a JSON file that the test wrote: where the things are that it is after. What would do harm is
only begun: a file is opened for writing and not written, a signal is SIGCONT, a limit is set to what it
is. It also runs without being shut in, to show that each way works.

Each of the files beside this one has the attempts of one area, by name, in its ATTEMPTS; the row of each in
the table is in tests/worker/hostile_table.rs."""

import json
import os
import time

import of_files
import of_network
import of_processes
import of_secrets
from ground import Untried, facts, report


def tell(**words):
    print(json.dumps(words), file=report, flush=True)


for area in [of_processes, of_files, of_network]:
    for name, ways in area.ATTEMPTS.items():
        outcomes = []
        for way in ways:
            try:
                way()
                outcomes.append("done")
            except Untried:
                outcomes.append("untried")
            except OSError as error:
                outcomes.append(os.strerror(error.errno) if error.errno else str(error))
        tell(attempt=name, outcomes=outcomes)

os.makedirs(facts["beats"], exist_ok=True)
of_processes.leave_daemon("stays", 0)
of_processes.leave_daemon("hops", 1)
secret = os.environ.get("REGISTRY_PASSWORD")
if secret:
    of_secrets.tell_secret(secret)
tell(tried=True)
until = time.monotonic() + 60
outcome = "done"
try:
    of_secrets.search_token(lambda: time.monotonic() < until)
except OSError as error:
    outcome = str(error)
tell(attempt="token", outcomes=[outcome])
of_files.lay_traps()
