#!/bin/bash
# Builds the Debian package: target/debian/tallyfs_*.deb. Needs `cargo install cargo-deb --locked` and dpkg-dev.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
command -v cargo-deb >/dev/null || { echo "missing cargo-deb: cargo install cargo-deb --locked" >&2; exit 2; }
command -v dpkg-shlibdeps >/dev/null || { echo "missing dpkg-shlibdeps: apt-get install dpkg-dev" >&2; exit 2; }

# Dates in the package are that of the last commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

# Nor does a path of this machine get into it: built elsewhere from the same commit by the same compilers it is the same, byte by byte.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
export RUSTFLAGS="--remap-path-prefix=$PWD=/usr/src/tallyfs --remap-path-prefix=$cargo_home=/usr/src/cargo"
export CFLAGS="-ffile-prefix-map=$PWD=/usr/src/tallyfs -ffile-prefix-map=$cargo_home=/usr/src/cargo"
export CARGO_TARGET_DIR=$PWD/target/reproducible

cargo build --release --locked --bin tallyfs --example manual
out=target/package
mkdir -p target/debian
rm -rf "$out"
mkdir -p "$out/links"
"$CARGO_TARGET_DIR/release/examples/manual" "$out"
for name in mount.tallyfs mount.fuse.tallyfs; do
    ln -s ../bin/tallyfs "$out/links/$name"
done
cargo deb --no-build --locked --strip --output target/debian/
ls -l target/debian/tallyfs_*.deb
