# What the examples share. Source it with `tmem` findable: in TMEM_BIN_DIR, in the
# release folder of this tree, or in PATH.
set -euo pipefail
shopt -s inherit_errexit

example=$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)
tree=$(cd "$example/../.." && pwd)
for folder in "${TMEM_BIN_DIR-}" "${CARGO_TARGET_DIR:-$tree/target}/release"; do
    if [[ -n $folder && -x $folder/tmem ]]; then
        PATH=$folder:$PATH
        break
    fi
done

fail() {
    echo "$(basename "$example"): $*" >&2
    exit 1
}
command -v tmem >/dev/null || fail "tmem is not built: cargo build --release"

# needs COMMAND PACKAGE: ends the example with status 77 where a command is missing.
needs() {
    command -v "$1" >/dev/null && return
    echo "skipped: $1 is missing; on Debian: apt-get install $2"
    exit 77
}

work=$(mktemp -d)
started=()
clean_up() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Runs a program within a budget, and notes statistics: "${paged[@]}" SIZE -- PROGRAM…
paged=(tmem run --strict --stats-file "$work/statistics" --local)

# statistic NAME: one of the figures of the last paged run.
statistic() {
    sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p" "$work/statistics"
}

# same FILE FILE: fails where two outputs differ.
same() {
    cmp "$1" "$2" || fail "the outputs differ"
}

# report: says what tmem did, and fails where it did nothing.
report() {
    local remote fetched
    remote=$(statistic remote_bytes) fetched=$(statistic fetched_pages)
    ((remote > 0)) || fail "nothing was on the memory server"
    echo "on the memory server: $((remote >> 20)) MiB at most; fetched from there: $fetched pages"
}
