# shellcheck shell=bash
# Sourced by `stage`: the installer, under wine.

# The installer next to another plugin: refuses, and neither overwrites nor removes the other's files.
check_installer() {
  local folder="$WINEPREFIX/drive_c/Program Files/Amazon/SessionManagerPlugin" packages=$FOLDER/packages version
  if ! command -v wixl >/dev/null || ! command -v msibuild >/dev/null; then
    echo "scripts/windows: SKIPPED: the installer: there is no wixl or msibuild (Debian: wixl, msitools)"
    return
  fi
  # What a run that broke off has left.
  for version in 1.0.0 1.1.0; do
    [ ! -e "$packages/$version" ] || msiexec /x $version || true
  done
  rm -rf "$packages" "$folder"
  # Not with the program, whose debug information would be packed for a minute.
  for version in 1.0.0 1.1.0; do
    PACKAGE_VERSION=$version scripts/packaging/windows "$DRIVER" LICENSE "$packages/$version"
  done

  mkdir -p "$folder/bin"
  echo "another's" >"$folder/bin/session-manager-plugin.exe"
  refused 1.0.0 "another program in its place"
  grep -qx "another's" "$folder/bin/session-manager-plugin.exe" || wrong "another program was replaced"
  rm -r "$folder"
  mkdir -p "$folder"
  echo "AWS's" >"$folder/seelog.xml.template"
  refused 1.0.0 "AWS's files in its folder"
  [ "$(ls "$folder")" = seelog.xml.template ] || wrong "files were put among AWS's"
  rm -r "$folder"

  msiexec /i 1.0.0 || wrong "1.0.0 is not installed"
  cmp -s "$DRIVER" "$folder/bin/session-manager-plugin.exe" || wrong "the program is not there"
  msiexec /i 1.1.0 || wrong "1.0.0 cannot be upgraded"
  refused 1.0.0 "a newer version"
  msiexec /x 1.1.0 || wrong "1.1.0 cannot be removed"
  [ ! -e "$folder" ] || wrong "the removal left files"

  # AWS's installer, run after ours, puts its files over ours.
  msiexec /i 1.0.0 || wrong "1.0.0 is not installed again"
  echo "AWS's" | tee "$folder/seelog.xml.template" >"$folder/bin/session-manager-plugin.exe"
  refused 1.1.0 "an upgrade over AWS's files"
  msiexec /x 1.0.0 || wrong "1.0.0 cannot be removed"
  grep -qx "AWS's" "$folder/bin/session-manager-plugin.exe" || wrong "the removal took AWS's program"
  rm -r "$folder"
}
wrong() { echo "scripts/windows: the installer: $*" >&2; exit 1; }
refused() {
  ! msiexec /i "$1" || wrong "$2 does not stop it"
}
msiexec() { # /i|/x VERSION
  timeout --kill-after 10 300 wine msiexec "$1" \
    "Z:${FOLDER//\//\\}\\packages\\$2\\session-manager-plugin-$2-x86_64-windows.msi" /qn
}
