# What the scripts beside this share. They source it in the top folder.

say() { echo "${0##*/}: $*" >&2; }
fail() { say "$*"; exit 1; }

median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

# Builds everything, unless TMEM_BIN_DIR names where it is; it is in $bin then.
build() {
    bin=${TMEM_BIN_DIR-}
    [ -z "$bin" ] || return 0
    cargo build --release --quiet -p tmem-benches -p tmem-cli -p tmem-shim -p tmem-memserver
    bin=$(cd "${CARGO_TARGET_DIR:-target}/release" && pwd)
}

# Starts a memory server with so much capacity: $server is its process, $address
# where it listens. Keys of the terminal do not reach it.
serve() { # capacity
    local ready
    coproc memserver { exec setsid "$bin/tmem-memserver" --listen 127.0.0.1:0 --capacity "$1"; }
    server=$memserver_PID
    read -r -t 30 ready <&"${memserver[0]}" || fail "the memory server does not start"
    address=$(grep -oE '127\.0\.0\.1:[0-9]+' <<< "$ready") || fail "no address in: $ready"
}
