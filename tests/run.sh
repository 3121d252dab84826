#!/usr/bin/env bash
# Set up the environment, check the shell scripts, run the tests.
#
# Usage: bash tests/run.sh [PYTEST-ARGUMENTS]
#
# The tests of pages need Chromium: $CHROMIUM, or one on PATH. Where there is none it is installed
# (Debian, Ubuntu; by root), or these tests are left out, which is said. With BROWSER_TESTS=required
# that is an error.
#
# Examples:
#   bash tests/run.sh                            everything
#   bash tests/run.sh tests/unit                 one folder
#   bash tests/run.sh -k vocabulary -x           by name, up to the first failure
#   bash tests/run.sh -n 0                       in one process, so that a debugger can be used

set -euo pipefail

case "${1:-}" in
  -h | --help)
    sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
bash "$root/recipes/bootstrap.sh" --tests >/dev/null
source "$root/recipes/bootstrap.sh"

scripts=()
while IFS= read -r -d '' script; do scripts+=("$script"); done < <(
  find "$root/recipes" "$root/tests" "$root/.ci" -type f \
    \( -name '*.sh' -o -name '*.sbatch' -o -path "$root/.ci/run" \) -print0
)
for script in "${scripts[@]}"; do bash -n "$script"; done
if command -v shellcheck >/dev/null; then
  # errors only: of a file that is sourced it cannot know who uses its variables
  shellcheck --shell=bash --severity=error "${scripts[@]}"
fi
echo "shell syntax: ${#scripts[@]} scripts are fine"

# sets browser_tests to pytest's words for them
find_chromium() {
  browser_tests=()
  local name
  [[ ! ${CHROMIUM:-} ]] || return 0
  for name in chromium chromium-browser google-chrome google-chrome-stable; do
    if command -v "$name" >/dev/null; then return 0; fi
  done
  if (( EUID == 0 )) && command -v apt-get >/dev/null; then
    echo "installing Chromium for the tests of pages"
    if { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
      apt-get install -qq --no-install-recommends chromium fonts-dejavu-core; } >/dev/null; then
      return 0
    fi
  fi
  echo "no Chromium: the tests of pages are left out; install it (Debian: apt-get install chromium)" >&2
  [[ ${BROWSER_TESTS:-} != required ]] || exit 1
  browser_tests=(-m "not browser")
}
find_chromium

# tests are tiny: a second thread costs them more than it brings
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# the tests' own helpers are imported as `tests.fixtures`
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
folders=("$root/tests")
for word in "$@"; do
  if [[ -e "${word%%::*}" ]]; then folders=(); fi  # the caller names what to run
done
# files side by side, since most tests keep one core busy; a file stays together for its fixtures
beside=(-n 2 --dist loadfile)
# -P: not the copy of the project that may lie in the current folder
exec python -P -m pytest -c "$root/tests/pytest.ini" -q \
  "${beside[@]}" ${browser_tests[@]+"${browser_tests[@]}"} ${folders[@]+"${folders[@]}"} "$@"
