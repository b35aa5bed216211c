#!/bin/sh
# The scripted agent of `archon-awo demo`. It is NOT a model: it writes the same files for the same
# request every time, so that the demo needs no account and no key.
#
# It is started as any agent is: the prompt on standard input, the checkout as working directory,
# AWO_STEP and AWO_WORK_ORDER_ID in the environment. $1 is how many seconds `execute` takes.
# Backquotes in here are Markdown, and what is quoted is expanded by the command it becomes.
# shellcheck disable=SC2016
set -eu
seconds=${1:-2}
prompt=$(cat)
# Requests of the demo name one command in backquotes.
name=$(printf '%s\n' "$prompt" | sed -n 's/.*Add a command `\([a-z]*\)`.*/\1/p' | head -n 1)

about() {
    case $name in
    count) echo 'prints how many words it reads' ;;
    shout) echo 'prints what it reads in capitals' ;;
    flip) echo 'prints the words of each line from last to first' ;;
    rank) echo 'prints each word with how often it occurs, the most frequent first' ;;
    longest) echo 'prints the longest word it reads' ;;
    number) echo 'prints what it reads with a number before each line' ;;
    esac
}

program() {
    case $name in
    count) cat <<'SH' ;;
tr -s '[:space:]' '\n' | grep -c .
SH
    shout) cat <<'SH' ;;
tr '[:lower:]' '[:upper:]'
SH
    flip) cat <<'SH' ;;
awk '{ for (i = NF; i > 0; i--) printf "%s%s", $i, (i > 1 ? " " : "\n") }'
SH
    rank) cat <<'SH' ;;
tr -s '[:space:]' '\n' | sort | uniq -c | sort -k1,1nr -k2 | awk '{ print $2, $1 }'
SH
    longest) cat <<'SH' ;;
tr -s '[:space:]' '\n' | awk 'length > length(word) { word = $0 } END { print word }'
SH
    number) cat <<'SH' ;;
awk '{ print NR ": " $0 }'
SH
    esac
}

# What the command answers to "to be or not to be".
answer() {
    case $name in
    count) echo '6' ;;
    shout) echo 'TO BE OR NOT TO BE' ;;
    flip) echo 'be to not or be to' ;;
    rank) echo 'be 2 to 2 not 1 or 1' ;;
    longest) echo 'not' ;;
    number) echo '1: to be or not to be' ;;
    esac
}

work() {
    echo "scripted agent, not a model: order $AWO_WORK_ORDER_ID, attempt ${AWO_ATTEMPT:-1}"
    tick=1
    while [ "$tick" -le "$seconds" ]; do
        echo "working, second $tick of $seconds"
        sleep 1
        tick=$((tick + 1))
    done
    # Every line below leaves the same files when it runs a second time.
    if [ -z "$name" ]; then
        mkdir -p notes
        printf '# Note for %s\n\nWritten by the scripted agent of the demo.\n' \
            "$AWO_WORK_ORDER_ID" >"notes/$AWO_WORK_ORDER_ID.md"
        echo "wrote notes/$AWO_WORK_ORDER_ID.md"
        return
    fi
    printf '#!/bin/sh\n# %s: %s.\n%s\n' "$name" "$(about)" "$(program)" >"commands/$name"
    chmod +x "commands/$name"
    printf '#!/bin/sh\n[ "$(echo to be or not to be | commands/%s | xargs)" = "%s" ]\n' \
        "$name" "$(answer)" >"tests/${name}_test.sh"
    grep -q "^- \`$name\`" README.md || printf -- '- `%s` %s\n' "$name" "$(about)" >>README.md
    echo "wrote commands/$name and tests/${name}_test.sh, listed it in README.md"
    sh tests/run.sh
}

subject=${name:-a note}
case ${AWO_STEP:?} in
planning)
    cat <<PLAN
# Plan (scripted agent, not a model)

- **Goal**: there is ${name:+a command }\`$subject\`${name:+ that $(about)}.
- **Findings**: the project keeps its commands in \`commands/\` and its tests in \`tests/\`, where
  \`tests/run.sh\` runs every file that ends in \`_test.sh\`.
- **Changes**: add the file, list it in \`README.md\`.
- **Tests**: \`sh tests/run.sh\`.
PLAN
    ;;
execute) work ;;
prp-review)
    if out=$(sh tests/run.sh 2>&1); then
        echo "$out"
        echo '{"passed": true, "summary": "Scripted review: the tests pass.", "issues": []}'
    else
        echo "$out"
        echo '{"passed": false, "summary": "Scripted review: the tests fail.", "issues":' \
            '[{"severity": "blocker", "description": "sh tests/run.sh fails"}]}'
    fi
    ;;
commit)
    if [ -n "$name" ]; then
        printf 'feat: add the command %s\n\nIt %s.\n' "$name" "$(about)"
    else
        printf 'docs: add a note for %s\n' "$AWO_WORK_ORDER_ID"
    fi
    ;;
create-pr)
    if [ -n "$name" ]; then
        printf 'Add the command %s\n\nThe command `%s` %s.\n' "$name" "$name" "$(about)"
    else
        printf 'Add a note for %s\n\nOne file in notes/.\n' "$AWO_WORK_ORDER_ID"
    fi
    printf '\nChecked with `sh tests/run.sh`, which passes.\n\n'
    printf 'This text and the change come from the scripted agent of the demo, not from a model.\n'
    ;;
*)
    echo "the scripted agent does not know the step $AWO_STEP" >&2
    exit 1
    ;;
esac
