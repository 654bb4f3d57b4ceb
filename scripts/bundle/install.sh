#!/bin/sh
# Makes this bundle usable where it lies, without a network: finds a libtorch, builds the add-on for it or takes the one that
# came built, and checks that all is well. LIBTORCH=FOLDER chooses a libtorch.
set -eu
fail() {
  echo "install.sh: $1" >&2
  exit 1
}
[ $# -eq 0 ] || fail "no parameters were expected, and $1 came; LIBTORCH=FOLDER chooses a libtorch"
here=$(dirname -- "$(readlink -f -- "$0")")
system="$(uname -s)-$(uname -m)"
[ "$system" = Linux-x86_64 ] || fail "Linux-x86_64 was expected, since the bundle is for it, and this is $system"
[ -x "$here/bin/node" ] || fail "$here/bin/node was expected, and is missing; unpack the whole archive"
"$here/bin/node" --version >/dev/null || fail "the Node of this bundle was expected to run, and does not: see above"

# A libtorch in the bundle, unless one is chosen.
bundled=
if [ -z "${LIBTORCH:-}" ]; then
  for file in "$here"/with/*/lib/libtorch_cpu.so "$here"/with/*/torch/lib/libtorch_cpu.so; do
    [ -e "$file" ] || continue
    found=$(dirname -- "$(dirname -- "$file")")
    [ -z "$bundled" ] || fail "one libtorch was expected in the bundle, and $bundled and $found are; choose with LIBTORCH=FOLDER"
    bundled=$found
  done
fi
set -- setup
if [ -n "$bundled" ]; then set -- "$@" --libtorch "$bundled"; else set -- "$@" --offline; fi
"$here/bin/cleft" "$@"
"$here/bin/cleft" doctor
echo "installed: $here/bin/cleft --help" >&2
if [ -d "$here/with" ]; then
  echo "what came along:" >&2
  for folder in "$here"/with/*; do echo "  $folder" >&2; done
fi
echo "in a project of your own: ln -s $here/lib/node_modules node_modules, and then import 'cleft'" >&2
