#!/usr/bin/env bash
# Restores what ops/backup.sh saved, so that interrupted orders go on. See docs/backup.md.
#
#   ops/restore.sh [--compose] [--replace] [--only database|volumes] FOLDER
#
# Workers must be stopped. A database or a volume that is not empty is refused; with --replace it is set aside:
# the database is renamed to before_restore_DATE_NAME, and what a volume holds moves into a folder
# .before-restore-DATE in it. Delete them when you are sure.
set -euo pipefail
umask 077
# shellcheck source=ops/places.sh
. "$(dirname "$0")/places.sh"

from=
replace=no
only=both
while [ $# -gt 0 ]; do
    case $1 in
        --compose) compose=yes ;;
        --replace) replace=yes ;;
        --only) only=${2:?--only needs database or volumes}; shift ;;
        -*) usage "$0" ;;
        *) [ -z "$from" ] || usage "$0"; from=$1 ;;
    esac
    shift
done
case $only in both | database | volumes) ;; *) usage "$0" ;; esac
[ -n "$from" ] || usage "$0"
[ -f "$from/SHA256SUMS" ] || fail "$from is not a complete backup: it has no SHA256SUMS"
(cd "$from" && sha256sum --quiet --check SHA256SUMS) || fail "$from is damaged (above): take another backup"
find_places

sql() { on_database_named "$1" psql --no-psqlrc --quiet --tuples-only --no-align --set ON_ERROR_STOP=1 --command "$2"; }
ask() { sql '' "$1"; }
now=$(date -u +%Y-%m-%dT%H%M%SZ)

there=$(ask "select to_regclass('awo.jobs') is not null") || fail "the database does not answer (above): create it, empty, and start it"
if [ "$there" = t ]; then
    [ "$only" = volumes ] || [ "$replace" = yes ] || fail "the database holds archon-awo's tables already: give an empty one, or --replace"
    alive=$(ask "select count(*) from awo.workers where stopped_at is null and heartbeat_at > now() - interval '30 seconds'")
    [ "$alive" = 0 ] || fail "$alive workers are alive: stop them, wait 30 s, and start again"
fi

if [ "$only" != database ]; then
    aside=.before-restore-$now
    volumes=()
    for archive in "$from"/*.tar.gz; do
        volume=${archive##*/}
        volumes+=("${volume%.tar.gz}")
    done
    for volume in "${volumes[@]}"; do
        held=$(on_volume "$volume" rw find /volume -mindepth 1 -maxdepth 1 ! -name lost+found ! -name '.before-restore-*' -print)
        [ -z "$held" ] || [ "$replace" = yes ] || fail "the volume $volume is not empty: empty it, or --replace"
    done
    for volume in "${volumes[@]}"; do
        say "the volume $volume"
        on_volume "$volume" rw mkdir "/volume/$aside"
        on_volume "$volume" rw find /volume -mindepth 1 -maxdepth 1 ! -name lost+found ! -name '.before-restore-*' \
            -exec mv --target-directory "/volume/$aside" '{}' +
        on_volume "$volume" rw tar --extract --gzip --numeric-owner --same-permissions --directory /volume < "$from/$volume.tar.gz"
        on_volume "$volume" rw rmdir --ignore-fail-on-non-empty "/volume/$aside"
    done
fi

if [ "$only" != volumes ]; then
    if [ "$there" = t ]; then
        name=$(ask "select current_database()")
        quoted=$(ask "select format('%I', current_database())")
        # A name has at most 63 bytes.
        aside_name=$(ask "select format('%I', left('before_restore_$now' || '_' || current_database(), 60))")
        # A database cannot be renamed from within.
        beside=postgres
        [ "$name" != postgres ] || beside=template1
        sql "$beside" "alter database $quoted rename to $aside_name" ||
            fail "the database could not be renamed (above): stop whatever is connected to it; the user must own it and may create databases"
        sql "$beside" "create database $quoted"
        say "the database of before is $aside_name now"
    fi
    say "the database, in one transaction"
    # In the transaction of the restore: no worker ever sees the leases and epochs of the past.
    {
        echo '\o /dev/null'
        beside_database pg_restore --no-owner --file - < "$from/database.dump"
        echo '\o'
        echo "select * from public.awo_after_restore();"
    } | on_database psql --no-psqlrc --quiet --single-transaction --set ON_ERROR_STOP=1 || fail "nothing was restored into the database (the error is above)"
    say "these orders go on as soon as a worker starts; one whose branch is on the remote already had ended after the backup"
fi
