#!/usr/bin/env bash
# Backs archon-awo up while it runs: the database, then the volumes. See docs/backup.md.
#
#   ops/backup.sh [--compose] [--without-sandboxes] [--into FOLDER]
#
# Makes FOLDER/archon-awo-DATE (default ./backups); what is not complete ends with .part. Of a bare host
# it takes DATABASE_URL, AWO_REPOSITORY_DIR, AWO_WORK_ORDER_DIR and AWO_CONFIG_DIR from the environment, with
# the defaults of archon-awo; with --compose it takes service and volumes of the compose project in this folder.
set -euo pipefail
umask 077
# shellcheck source=ops/places.sh
. "$(dirname "$0")/places.sh"

into=backups
sandboxes=yes
while [ $# -gt 0 ]; do
    case $1 in
        --compose) compose=yes ;;
        --without-sandboxes) sandboxes=no ;;
        --into) into=${2:?--into needs a folder}; shift ;;
        *) usage "$0" ;;
    esac
    shift
done
find_places

target=$into/archon-awo-$(date -u +%Y-%m-%dT%H%M%SZ)
[ ! -e "$target" ] || fail "$target is there already: try again in a second"
part=$target.part
mkdir -p "$part"

# First the database: what the volumes hold beyond it is work that is not recorded yet, which is done again. The
# other way round there would be steps that are recorded and whose work is missing.
say "the database"
dump > "$part/database.dump"
volumes=(work-orders config)
[ "$sandboxes" = no ] || volumes=(repositories "${volumes[@]}")
for volume in "${volumes[@]}"; do
    say "the volume $volume"
    # Status 1: a file changed or went while it was read, as it does while orders run.
    status=0
    pack "$volume" > "$part/$volume.tar.gz" || status=$?
    [ "$status" -le 1 ] || fail "the volume $volume could not be read (above)"
done
(cd "$part" && sha256sum -- * > SHA256SUMS)
sync "$part"/* "$part"
mv "$part" "$target"
say "complete: $(du -sh "$target" | tr '\t' ' ')"
