# shellcheck shell=bash
# Sourced by the other scripts, with their arguments: prints a script's own heading for -h or --help, and exits.
case ${1-} in
  -h | --help)
    sed -n '2,/^[^#]/ s/^# \{0,1\}//p' "$0"
    exit
    ;;
esac
