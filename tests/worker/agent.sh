#!/bin/sh
folder=$(dirname "$0")
cat > "$folder/prompt-$AWO_WORK_ORDER_ID-$AWO_STEP-$AWO_ATTEMPT"
echo "$AWO_RUN_ID $AWO_STEP $AWO_ATTEMPT $$" >> "$folder/runs"
while [ -e "$folder/hold-$AWO_STEP" ]; do sleep 0.05; done
[ -e "$folder/stderr-$AWO_STEP" ] && cat "$folder/stderr-$AWO_STEP" >&2
[ -e "$folder/stdout-$AWO_STEP" ] && cat "$folder/stdout-$AWO_STEP" && exit 0
[ -e "$folder/fail-$AWO_STEP" ] && exit "$(cat "$folder/fail-$AWO_STEP")"
[ -e "$folder/daemon" ] && [ "$AWO_STEP" = execute ] && setsid sh -c 'sleep 300' </dev/null >/dev/null 2>&1 &
# shellcheck source=/dev/null
[ -e "$folder/extra" ] && . "$folder/extra"
case "$AWO_STEP" in
planning) echo "1. Write a file." ;;
execute)
    [ -e "$folder/megabytes" ] && yes "a line of output that is somewhat long" | head -c "$(cat "$folder/megabytes")000000"
    [ -e "$folder/more" ] && cat "$folder/more" > more.txt
    [ -e "$folder/idle" ] || echo "written for $AWO_WORK_ORDER_ID" > "$AWO_WORK_ORDER_ID.txt" ;;
prp-review) echo '{"passed": true, "summary": "good", "issues": []}' ;;
commit) echo "feat: write a file" ;;
create-pr) printf 'Write a file\n\nAs ordered.\n' ;;
esac
