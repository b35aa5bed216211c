# shellcheck shell=bash
# Where the database and the volumes are, on a bare host or in a compose project: read by backup.sh and
# restore.sh.

compose=no
# Whether the database is a service of the project.
service=no

say() { echo "${0##*/}: $*" >&2; }
fail() { say "$*"; exit 1; }
usage() {
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$1" >&2
    exit 64
}

# A program of Postgres: from AWO_PG_BIN where that is set, else from the PATH.
client() {
    local program=$1
    shift
    [ -z "${AWO_PG_BIN:-}" ] || program=$AWO_PG_BIN/$program
    command -v "$program" > /dev/null || fail "$program is missing: apt-get install postgresql-client, or set AWO_PG_BIN to a folder with it"
    "$program" "$@"
}

find_places() {
    if [ "$compose" = yes ]; then
        docker compose version > /dev/null || fail "docker compose is missing"
        project=$(docker compose --profile awo config 2> /dev/null | sed -n 's/^name: //p')
        [ -n "$project" ] || fail "no compose project here: run this in the folder of compose.yaml, with its .env"
        if docker compose --profile awo config --services 2> /dev/null | grep -x postgres > /dev/null; then
            service=yes
            return
        fi
    fi
    : "${DATABASE_URL:=${SUPABASE_DB_URL:-}}"
    [ -n "$DATABASE_URL" ] || fail "DATABASE_URL is not set: expected postgres://user:password@host:port/database"
    # The password stays out of the arguments, which every user of this host can read.
    if [[ $DATABASE_URL =~ ^(postgres(ql)?://[^:/@?]*):([^@/]*)@(.*)$ ]]; then
        local word=${BASH_REMATCH[3]//\\/\\\\}
        printf -v PGPASSWORD '%b' "${word//%/\\x}"
        export PGPASSWORD
        DATABASE_URL=${BASH_REMATCH[1]}@${BASH_REMATCH[4]}
    fi
    if [ -n "${DATABASE_PASSWORD_FILE:-}" ] && [ -z "${PGPASSWORD:-}" ]; then
        PGPASSWORD=$(cat "$DATABASE_PASSWORD_FILE")
        export PGPASSWORD
    fi
    if [ -e /.dockerenv ] || [ -e /run/.containerenv ]; then home=/var/archon; else home=$HOME/.archon; fi
    : "${AWO_REPOSITORY_DIR:=$home/repositories}" "${AWO_WORK_ORDER_DIR:=$home/work-orders}"
    : "${AWO_CONFIG_DIR:=${ARCHON_CONFIG_DIR:-$home/config}}"
}

# Runs a program of Postgres where the database is, or on this host.
beside_database() {
    if [ "$service" = yes ]; then
        docker compose --profile awo exec -T postgres "$@"
    else
        client "$@"
    fi
}

# The same, on the database.
on_database() { on_database_named '' "$@"; }

# The same, on another database of the server; without a name, on the one that is backed up.
on_database_named() {
    local name=$1 program=$2
    shift 2
    if [ "$service" = yes ]; then
        # shellcheck disable=SC2016  # the container's shell expands it
        beside_database sh -c 'name=$1; program=$2; shift 2; exec "$program" --username "$POSTGRES_USER" --dbname "${name:-$POSTGRES_DB}" "$@"' \
            sh "$name" "$program" "$@"
    else
        local address=$DATABASE_URL
        if [ -n "$name" ] && [[ $address =~ ^([a-z]+://[^/?]*)(/[^?]*)?(.*)$ ]]; then
            address=${BASH_REMATCH[1]}/$name${BASH_REMATCH[3]}
        fi
        client "$program" --dbname "$address" "$@"
    fi
}

dump() { on_database pg_dump --format custom --no-owner --compress 6; }

# The folder of a volume on a bare host.
folder_of() {
    case $1 in
        repositories) echo "$AWO_REPOSITORY_DIR" ;;
        work-orders) echo "$AWO_WORK_ORDER_DIR" ;;
        config) echo "$AWO_CONFIG_DIR" ;;
    esac
}

# Runs a program over a volume: as root in a container of its own, with the volume at /volume, or on a bare host.
# In its arguments, /volume stands for the volume.
on_volume() {
    local volume=$1 access=$2 folder
    shift 2
    if [ "$compose" = yes ]; then
        local image
        image=$(docker compose --profile awo config --images archon-awo | sed -n '/postgres/!p' | sort -u)
        [[ $image =~ ^[^[:space:]]+$ ]] || fail "the image of the service archon-awo is not clear: $image"
        docker run --rm --interactive --network none --user 0 --entrypoint "$1" \
            --volume "${project}_awo-$volume:/volume:$access" "$image" "${@:2}"
    else
        folder=$(folder_of "$volume")
        mkdir -p "$folder"
        "${@/\/volume/"$folder"}"
    fi
}

# A volume as an archive. What is being deleted stays out; so does what an earlier restore set aside.
pack() {
    on_volume "$1" ro tar --create --gzip --sparse --numeric-owner --one-file-system \
        --exclude=./.trash --exclude='./.before-restore-*' --warning=no-file-changed --warning=no-file-removed \
        --directory /volume .
}
