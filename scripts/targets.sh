# shellcheck shell=bash
# Sourced: cargo for targets whose standard library the toolchain may lack.
#
# `have_target TARGET` says whether cargo can build for it; `install_target` gets what is missing from Debian:
# `rustc-web`, its clippy and the source of its standard library, unpacked in target/tools/rust-web and not installed
# (860 MB). `cargo_for TARGET ...` runs cargo, with the toolchain's standard library where there is one, else it builds
# Debian's (`-Zbuild-std`), once for a target folder. `clippy_for TARGET ...` checks and lints, and links nothing.

readonly RUST_WEB=$PWD/target/tools/rust-web

has_own_std() {
  local libdir
  libdir=$(rustc --print target-libdir --target "$1" 2>/dev/null) && compgen -G "$libdir/libstd-*" >/dev/null
}

have_target() { has_own_std "$1" || { [ -e "$RUST_WEB/complete" ] && [ -e "$RUST_WEB/usr/bin/clippy-driver" ]; }; }

# What the unpacked compiler needs at run time is asked of the packages: their names carry versions.
rust_web_packages() {
  local std llvm
  std=$(dependency libstd-rust-web-dev libstd-rust-web-) && llvm=$(dependency "$std" libllvm) || return 1
  echo rustc-web rust-web-clippy libstd-rust-web-dev rust-web-src "$std" "$llvm"
}

# dependency PACKAGE NAME: what PACKAGE depends on whose name is NAME and a version.
dependency() {
  apt-cache depends "$1" 2>/dev/null |
    awk -v name="$2" '$1 == "Depends:" && $2 ~ "^" name "[0-9.]+$" { found = $2 } END { print found; exit !found }'
}

install_target() {
  have_target "$1" && return
  local packages folder=$RUST_WEB.part
  command -v apt-get >/dev/null || return 1
  packages=$(rust_web_packages) || return 1
  rm -rf "$folder"
  mkdir -p "$folder/debs" "$folder/bin"
  # shellcheck disable=SC2086 # a list
  (cd "$folder/debs" && apt-get download -q $packages >/dev/null 2>&1) || return 1
  for deb in "$folder"/debs/*.deb; do dpkg -x "$deb" "$folder"; done
  rm -r "$folder/debs"
  cat >"$folder/bin/rustc" <<'EOF'
#!/bin/sh
usr=$(dirname "$(dirname "$(readlink -f "$0")")")/usr
libraries=$(echo "$usr"/lib/*-linux-gnu)
LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$usr/bin/rustc" "$@"
EOF
  chmod +x "$folder/bin/rustc"
  "$folder/bin/rustc" --version >/dev/null || return 1
  touch "$folder/complete"
  rm -rf "$RUST_WEB"
  mv "$folder" "$RUST_WEB"
}

cargo_for() {
  local target=$1 command=$2
  shift 2
  if has_own_std "$target"; then
    cargo "$command" --locked --target "$target" "$@"
  else
    RUSTC=$RUST_WEB/bin/rustc RUSTC_BOOTSTRAP=1 \
      cargo "$command" --locked --target "$target" -Zbuild-std=std,panic_unwind,test "$@"
  fi
}

# Nothing is linked, so that a crate's own C (ring's) needs no compiler for the target: what stands for one writes empty
# files. Cargo's own subcommand would take the toolchain's linter, which cannot read what another compiler has made.
# Debian's is not started by a script as its compiler is: shells lose variables such as CARGO_BIN_EXE_ssm-sim.
clippy_for() {
  local target=$1 name=${1//-/_} stub=$PWD/target/tools/no-compiler
  shift
  mkdir -p target/tools
  cat >"$stub" <<'EOF'
#!/bin/sh
# Whose options it takes. A compiler cache preprocesses with other options before -E, the target's among them.
[ "$1" != -E ] || exec cc "$@"
while [ $# -gt 0 ]; do
  case $1 in
    -\?) exit 1 ;;
    -o) : >"$2" ;;
  esac
  shift
done
EOF
  chmod +x "$stub"
  if has_own_std "$target"; then
    env "CC_$name=$stub" SDKROOT=/ cargo clippy --locked --target "$target" "$@" -- -D warnings
  else
    env "CC_$name=$stub" SDKROOT=/ RUSTC="$RUST_WEB/bin/rustc" RUSTC_BOOTSTRAP=1 \
      LD_LIBRARY_PATH="$(echo "$RUST_WEB"/usr/lib/*-linux-gnu)" RUSTC_WORKSPACE_WRAPPER="$RUST_WEB/usr/bin/clippy-driver" \
      CLIPPY_ARGS="-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__" \
      cargo check --locked --target "$target" -Zbuild-std=std,panic_unwind,test "$@"
  fi
}
