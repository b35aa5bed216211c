#!/bin/bash
# An agent that keeps a list of what it was asked for. Written from docs/agents.md alone.
# shellcheck disable=SC2016 # Backticks are Markdown here.
set -euo pipefail

# "It reads the question from standard input to the end."
request=$(cat)
[ -n "$request" ] || { echo "no question: AWO_TASK is $AWO_TASK" >&2; exit 78; }

# "An empty folder means that the conversation begins."
count=$AWO_SESSION_DIR/count
number=$(($(cat "$count" 2>/dev/null || echo 0) + 1))
echo "$number" >"$count"

echo "call $AWO_RUN_ID of order $AWO_WORK_ORDER_ID" >&2   # progress belongs on standard error

case "$AWO_STEP/$AWO_TASK" in
planning/plan)
    printf '# Plan\n\n1. Keep a list in TODO.md.\n' ;;
execute/change)
    echo "- [ ] $number ($AWO_TASK)" >>TODO.md ;;       # "words for people, or nothing"
execute/follow-up | prp-review/fix)
    echo "- [x] $number ($AWO_TASK)" >>TODO.md ;;
prp-review/review | prp-review/verdict)
    if grep -q '^- \[x\]' TODO.md; then
        printf 'I have read it.\n\n```json\n{"passed": true, "summary": "Something is done.", "issues": []}\n```\n'
    else
        printf 'I have read it.\n{"passed": false, "summary": "Nothing is done.", "issues": [%s]}\n' \
            '{"severity": "blocker", "file": "TODO.md", "line": 1, "description": "tick something off"}'
    fi ;;
commit/commit-message)
    printf 'docs(todo): keep a list\n\nIt says what is done.\n' ;;
create-pr/pull-request)
    printf 'Keep a list of what is done\n\n- one file, `TODO.md`\n' ;;
*)
    echo "nothing is known of $AWO_STEP/$AWO_TASK" >&2
    exit 78 ;;
esac
