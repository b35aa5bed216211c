#!/usr/bin/env python3
"""Stands in for codex, gemini and opencode, by the name it is called by: takes the arguments that the original
takes, keeps conversations where the original keeps them, and plays one of the samples that were made by hand.

In its own folder: `samples/NAME.jsonl`; `sample` names the one to play and the exit code, `success 0` without it;
`calls` gets a line of JSON for each call. It does what AWO_TASK asks for, so that a whole order can run."""

import json
import os
import sys
import uuid
from pathlib import Path

program = Path(sys.argv[0]).absolute()
place, name = program.parent, program.name
task = os.environ.get("AWO_TASK", "")
VERDICT = '{"passed": true, "summary": "good", "issues": []}'
ANSWERS = {"plan": "1. Write notes.txt.", "review": "I read it.\n\n" + VERDICT, "verdict": VERDICT,
           "commit-message": "feat: write notes",
           "pull-request": "Write notes\n\nAs ordered."}


def give_up(code, text):
    print(text, file=sys.stderr)
    sys.exit(code)


def options(words, flags, known):
    """Splits arguments: `--name=value` for the known names, `--name` for the flags, and the rest."""
    values, rest = {}, []
    for word in words:
        option, _, value = word.partition("=")
        if not word.startswith("--"):
            rest.append(word)
        elif option in known and value:
            values[option] = value
        elif word in flags:
            values[word] = True
        else:
            give_up(42 if name == "gemini" else 1, f"error: unexpected argument '{word}' found")
    return values, rest


def codex(words):
    values, rest = options(
        words, ["--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"],
        ["--color", "--model"])
    if "--json" not in values or rest[:1] != ["exec"] or rest[-1] != "-":
        give_up(2, f"not the headless mode: {words}")
    home = Path(os.environ["CODEX_HOME"])
    if not home.is_dir():
        give_up(1, "CODEX_HOME points to a path that does not exist")
    resumed = rest[2] if rest[1] == "resume" else None
    lost = f"Error: thread/resume: thread/resume failed: no rollout found for thread id {resumed} (code -32600)"
    return conversation(home / "sessions", resumed, str(uuid.uuid4()), 1, lost)


def gemini(words):
    values, rest = options(words, [], ["--output-format", "--approval-mode", "--extensions", "--model", "--resume",
                                       "--allowed-mcp-server-names"])
    if values.get("--output-format") != "stream-json" or rest:
        give_up(42, f"not the headless mode: {words}")
    if os.environ.get("GEMINI_CLI_TRUST_WORKSPACE") != "true":
        give_up(55, "Gemini CLI is not running in a trusted directory")
    if not os.environ.get("GEMINI_API_KEY"):
        give_up(41, "Please set an Auth method or specify GEMINI_API_KEY")
    json.loads(Path(os.environ["GEMINI_CLI_SYSTEM_SETTINGS_PATH"]).read_text())
    resumed = values.get("--resume")
    chats = Path(os.environ["GEMINI_CLI_HOME"]) / ".gemini" / "tmp" / "project" / "chats"
    return conversation(chats, resumed, str(uuid.uuid4()), 42,
                        f'Error resuming session: Invalid session identifier "{resumed}".')


def opencode(words):
    values, rest = options(words, [], ["--format", "--model", "--session"])
    if values.get("--format") != "json" or rest != ["run"]:
        give_up(1, f"not the headless mode: {words}")
    json.loads(os.environ["OPENCODE_CONFIG_CONTENT"])
    data = Path(os.environ["XDG_DATA_HOME"]) / "opencode" / "storage" / "session"
    new = "ses_" + uuid.uuid4().hex[:26]
    return conversation(data, values.get("--session"), new, 1, "Session not found")


def conversation(folder, resumed, new, code, lost):
    """The name of the conversation, whose file must be there when it is to go on."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{resumed or new}.jsonl"
    if resumed and not file.exists():
        give_up(code, lost)
    with file.open("a") as kept:
        kept.write(task + "\n")
    return resumed or new


prompt = sys.stdin.read()
call = {"arguments": sys.argv[1:], "task": task, "prompt": prompt,
        "environment": {key: os.environ[key] for key in sorted(os.environ)}}
with (place / "calls").open("a") as calls:
    calls.write(json.dumps(call) + "\n")
if sys.argv[1:] == ["--version"]:
    print(f"{name} 0.0.0")
    sys.exit(0)
session = {"codex": codex, "gemini": gemini, "opencode": opencode}[name](sys.argv[1:])
if task in ("change", "follow-up"):
    with Path("notes.txt").open("a") as notes:
        notes.write(f"{task} by {name}\n")
sample, code = "success", "0"
if (place / "sample").exists():
    sample, code = (place / "sample").read_text().split()
answer = json.dumps(ANSWERS.get(task, "Done."))[1:-1]
with (place / "samples" / f"{sample}.jsonl").open() as file:
    for line in file:
        sys.stdout.write(line.replace("SESSION", session).replace("ANSWER", answer))
        sys.stdout.flush()
sys.exit(int(code))
