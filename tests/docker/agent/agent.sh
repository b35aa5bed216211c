#!/bin/sh
# The scripted agent of tests/docker/walk.py. It is NOT a model: it writes one file for each order.
# A request that ends in "(N s)" makes `execute` take N seconds, one with "(attempts)" makes it hostile.
set -eu
request=$(cat)
seconds=$(echo "$request" | sed -n 's/.*(\([0-9]*\) s).*/\1/p' | head -n 1)

case ${AWO_STEP:?} in
    planning) echo "Plan of the scripted agent, not a model: write notes/$AWO_WORK_ORDER_ID.md." ;;
    execute)
        case $request in
            *"(attempts)"*) python3 -B /opt/attempts/attempts.py /srv/notes/facts.json /srv/notes/report > /dev/null ;;
        esac
        tick=0
        while [ "$tick" -lt "${seconds:-1}" ]; do
            tick=$((tick + 1))
            echo "scripted agent, not a model: second $tick of $seconds"
            sleep 1
        done
        mkdir -p notes
        echo "Written for $AWO_WORK_ORDER_ID." > "notes/$AWO_WORK_ORDER_ID.md"
        ;;
    prp-review) echo '{"passed": true, "summary": "Scripted review.", "issues": []}' ;;
    commit) echo "docs: add the note of $AWO_WORK_ORDER_ID" ;;
    create-pr) printf 'Add the note of %s\n\nBy a scripted agent, not a model.\n' "$AWO_WORK_ORDER_ID" ;;
esac
