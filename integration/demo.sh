#!/bin/sh
# demo.sh: takes one busybox container through its whole life and shows every
# command with what it prints. RT_BIN is the runtime, ./rt if not set.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
rt=$(realpath "${RT_BIN:-$here/../rt}")
name=$(basename "$rt")
id=rt-demo-$$
dir=$(mktemp -d)
trap '"$rt" --root "$dir/state" delete --force "$id"; rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM

# The state lies beside the bundle, so that nothing else on the machine is seen or touched.
rt() {
	printf '\n$ %s' "$name"
	for a; do case $a in *" "*) printf " '%s'" "$a" ;; *) printf ' %s' "$a" ;; esac; done
	echo
	"$rt" --root "$dir/state" "$@"
}
wait_until() {
	n=0
	until "$rt" --root "$dir/state" state "$id" | grep -q "\"status\": \"$1\""; do
		n=$((n + 1))
		[ $n -lt 100 ] || { echo "demo: $id is not $1 after 10 s" >&2; exit 1; }
		sleep 0.1
	done
}

mkdir -p "$dir/rootfs/bin"
cp /usr/bin/busybox "$dir/rootfs/bin/"
for applet in sh sleep ps hostname; do ln -s busybox "$dir/rootfs/bin/$applet"; done
cd "$dir"
echo "A bundle is a directory with a root file system, here busybox, and a config.json:"
rt spec
sed -i 's/"terminal": true/"terminal": false/; s/^\(\t*\)"sh"$/\1"sh", "-c", "echo the container runs; exec sleep 600"/' config.json
ls -x "$dir"

echo
echo "Its life, with the process of config.json changed to: sh -c 'echo the container runs; exec sleep 600'"
rt create "$id"
rt state "$id"
rt start "$id"
wait_until running
rt state "$id"
rt exec "$id" sh -c 'echo "on $(hostname), as pid $$:"; ps'
rt kill "$id" KILL
wait_until stopped
rt state "$id"
rt delete "$id"
rt list
echo
echo "demo: ok"
