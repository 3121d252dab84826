#!/usr/bin/env bash
# Set up the Python environment of this project; when it is set up already, do nothing.
#
# Usage: bash recipes/bootstrap.sh [--tests] [--again]
#        source recipes/bootstrap.sh
#
# Executed, it prints the folder of the environment's commands. Sourced by a bash script, it
# also puts that folder first on PATH.
#
#   --tests   install what the tests need, too
#   --again   check and install everything again, even if nothing has changed
#
# The environment is the active virtual or conda environment (other than conda's base), else
# .venv in this checkout, made with $PYTHON or the first Python 3.11 to 3.13 on PATH. fairseq is
# compiled from source, so a C++ compiler is needed. From nothing it takes 3 to 6 minutes and
# 2 GB of disk with a CPU build of torch, 8 GB (downloads included) with a CUDA build. Killed at
# any time, it goes on when it is run again; two at once wait for each other.
#
#   PYTHON      interpreter to make .venv with; remakes .venv when it has another version
#   TORCH_SPEC  what to install as torch, in the words of pip, in place of requirements-torch.txt;
#               2.6 or newer. TORCH_SPEC="torch==2.13.0+cpu --find-links DIR" takes a CPU build
#               from a folder, TORCH_SPEC="torch==2.8.*" an older line. It is remembered until
#               another is given; TORCH_SPEC="" forgets it. Without it, an active environment
#               keeps the torch that it has, when that is 2.6 or newer.

if [[ "${BASH_SOURCE[0]}" != "$0" ]]; then
  # A child does the work, so that no option, variable or lock of ours stays in the caller's
  # shell. The caller's own arguments are none of its business.
  bootstrap_bin=$(bash "${BASH_SOURCE[0]}") || return 1
  case "$PATH" in
    "$bootstrap_bin":*) ;;
    *) export PATH="$bootstrap_bin:$PATH" ;;
  esac
  unset bootstrap_bin
  # Beside another busy process OpenMP's threads would spin while they wait for each other, and
  # take the time that the other needs.
  export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
  return 0
fi

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv="$root/.venv"
needed_gb=3

say() { printf '%s\n' "$*" >&2; }

die() {
  say "bootstrap: error: $1"
  shift
  if (( $# )); then say "$@"; fi
  exit 1
}

# --- finding Python ---------------------------------------------------------------------------

version_of() {  # prints 3.11.7, or nothing when the command does not run
  "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null || true
}

version_fits() { [[ "$1" =~ ^3\.1[123]\. ]]; }

has_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

find_python() {  # sets python and python_version
  local candidate version found="" without_venv=""
  local candidates=(python3 python3.13 python3.12 python3.11)
  if [[ -n "${PYTHON:-}" ]]; then candidates=("$PYTHON"); fi
  for candidate in "${candidates[@]}"; do
    command -v "$candidate" >/dev/null || continue
    version=$(version_of "$candidate")
    [[ -n "$version" ]] || continue
    found+="${found:+, }$candidate is $version"
    if version_fits "$version"; then
      if has_venv "$candidate"; then
        python=$candidate python_version=$version
        return
      fi
      without_venv+="${without_venv:+, }$candidate ($version)"
    fi
  done
  if [[ -n "$without_venv" ]]; then
    die "$without_venv cannot make environments: its venv or ensurepip module is missing." \
      "  Debian, Ubuntu: apt-get install python3-venv (or python3.12-venv, for that version)"$'\n' \
      " elsewhere:      install Python from your package manager, pyenv, uv or conda"
  fi
  die "this project needs Python 3.11, 3.12 or 3.13; ${found:-no python3 was found on PATH}." \
    "  Install one (package manager, pyenv, uv, conda) and, if it is not on PATH, name it:"$'\n' \
    "   PYTHON=/path/to/python3.12 bash recipes/bootstrap.sh"
}

# --- is there anything to do? -----------------------------------------------------------------

wanted() {  # the facts that an environment depends on, one a line: wanted FILE...
  local file
  printf 'Python %s\n' "$("$environment/bin/python" -c 'import sys; print(sys.version)' 2>&1 \
    | tr '\n' ' ')"
  printf 'TORCH_SPEC %s\n' "${TORCH_SPEC:-}"
  printf 'folder %s\n' "$root"
  for file in "$@"; do printf '%s %s\n' "$file" "$(cksum <"$root/$file")"; done
}

base_files=(requirements-torch.txt requirements.txt requirements-fairseq.txt setup.py)
wanted_base() { wanted "${base_files[@]}"; }
wanted_tests() { wanted "${base_files[@]}" requirements-test.txt requirements-ray.txt; }

is_done() { [[ -f "$1" && "$(<"$1")" == "$2" ]]; }  # is_done STAMP WANTED

everything_done() {
  [[ -x "$environment/bin/python" ]] || return 1
  is_done "$environment/bootstrap.stamp" "$(wanted_base)" || return 1
  (( ! tests )) || is_done "$environment/bootstrap-tests.stamp" "$(wanted_tests)"
}

reason() {  # reason STAMP WANTED: why the work is to be done, in words
  local line
  if (( again )); then echo "asked for with --again"; return; fi
  if [[ ! -f "$1" ]]; then echo "not set up yet, or not to the end"; return; fi
  while IFS= read -r line; do
    if ! grep -qxF -- "$line" "$1"; then echo "${line%% *} changed"; return; fi
  done <<<"$2"
  echo "something was removed from the requirements"
}

put_stamp() {  # put_stamp STAMP WANTED: whole or absent
  printf '%s\n' "$2" >"$1.part"
  mv -f "$1.part" "$1"
}

# --- doing it ---------------------------------------------------------------------------------

step() {  # step NAME COMMAND...: run quietly, everything that it says goes to the log
  local name=$1 began=$SECONDS
  shift
  printf '  %s ... ' "$name" >&2
  {
    printf '\n== %s\n$' "$name"
    printf ' %q' "$@"
    printf '\n'
  } >>"$log"
  if ! "$@" >>"$log" 2>&1 </dev/null; then
    say "failed after $((SECONDS - began)) s"
    say "The last lines of $log:"
    # pip repeats that warning about folders of packages that a machine has configured and lacks
    grep -v -e '^WARNING: Location .* is ignored' -e '^ *$' "$log" \
      | tail -n 15 | sed 's/^/  | /' >&2
    die "$name could not be installed; see the lines above. Mend it and run the command again."
  fi
  say "$((SECONDS - began)) s"
}

pip_install() { "$environment/bin/python" -m pip install "$@"; }

lock() {  # one bootstrap at a time; the lock goes with the last process that holds file 9 open
  exec 9>"$1"
  # Python's flock, because macOS has no such command
  if ! "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)' 2>/dev/null; then
    say "another set-up of this environment is at work; waiting for it"
    "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
  fi
}

check_disk() {
  local free_gb
  free_gb=$("$python" -c 'import shutil, sys; print(shutil.disk_usage(sys.argv[1]).free >> 30)' \
    "$1")
  if (( free_gb < needed_gb )); then
    die "$1 has $free_gb GB of free disk; setting up needs at least $needed_gb GB" \
      "  (8 GB where pip finds a CUDA build of torch). Free some, or move the checkout."
  fi
}

how_to_get_a_compiler="  fairseq is compiled from source while it is installed. What that needs:
    Debian, Ubuntu:  apt-get install build-essential python3-dev
    Fedora, RHEL:    dnf install gcc-c++ python3-devel
    macOS:           xcode-select --install
    without root:    conda create -n dad -c conda-forge python=3.12 cxx-compiler
                     conda activate dad
  then run the command again."

check_compiler() {
  local candidate include complaint compiler=()
  for candidate in "${CXX:-}" c++ g++ clang++; do
    read -r -a compiler <<<"$candidate"  # CXX may hold flags
    if (( ${#compiler[@]} )) && command -v "${compiler[0]}" >/dev/null; then break; fi
    compiler=()
  done
  if (( ! ${#compiler[@]} )); then
    die "no C++ compiler found (looked for \$CXX, c++, g++, clang++)." "$how_to_get_a_compiler"
  fi
  include=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
  if [[ ! -f "$include/Python.h" ]]; then
    die "Python.h, the header of Python $python_version, is missing from $include." \
      "$how_to_get_a_compiler"
  fi
  if ! complaint=$(printf '#include <vector>\n#include <Python.h>\n' \
    | "${compiler[@]}" -fsyntax-only -x c++ -I"$include" - 2>&1); then
    say "$(head -n 5 <<<"$complaint")"
    die "the C++ compiler ${compiler[*]} does not work (its words are above)." \
      "$how_to_get_a_compiler"
  fi
  if ! command -v c++ >/dev/null && ! command -v g++ >/dev/null && [[ -z "${CXX:-}" ]]; then
    export CC=clang CXX=clang++  # Python remembers the compiler that it was built with
  fi
}

version_in_environment() {  # version of an installed distribution, or nothing
  "$environment/bin/python" -c '
import importlib.metadata, sys
try:
    print(importlib.metadata.version(sys.argv[1]))
except importlib.metadata.PackageNotFoundError:
    pass' "$1"
}

fairseq_is_there() {  # the pinned release, whole
  local version
  version=$(version_in_environment fairseq-fixed)
  [[ -n "$version" ]] && grep -q "^fairseq-fixed==$version " "$root/requirements-fairseq.txt"
}

own_fairseq() {  # prints the version of another fairseq that works in an active environment
  local version
  version=$(version_in_environment fairseq)
  if [[ -n "$version" ]] && "$environment/bin/python" -c 'import fairseq' >>"$log" 2>&1; then
    printf '%s\n' "$version"
  fi
}

venv_state() {  # prints: absent, ready, remake (ours, but half-made, moved or broken) or foreign
  local version
  if [[ ! -e "$venv" && ! -L "$venv" ]]; then echo absent; return; fi
  version=$(version_of "$venv/bin/python")
  if version_fits "$version" && "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    if [[ ! -f "$venv/$mark" ]]; then echo ready; return; fi
    if [[ "$(<"$venv/$mark")" == "made for $venv" ]]; then
      if [[ -n "${PYTHON:-}" && "$(version_of "$PYTHON")" != "$version" ]]; then
        echo remake
      else
        echo ready
      fi
      return
    fi
  fi
  if [[ -f "$venv/$mark" ]]; then echo remake; else echo foreign; fi
}
# this file inside .venv says that we made it, and for which place: an environment cannot be moved
mark=bootstrap.made

make_venv() {
  case "$(venv_state)" in
    ready) return ;;
    foreign)
      die "$venv exists, was not made by this script and holds no working Python 3.11 to 3.13" \
        "  with pip. Remove it, or activate the environment that you want to use."
      ;;
    remake) say "  .venv is half-made, was moved or has another Python; making it anew" ;;
  esac
  find_python
  check_compiler
  # under its name only with our mark inside, so that a half-made one is known as ours
  rm -rf "$venv.part" "$venv"
  mkdir "$venv.part"
  echo "being made" >"$venv.part/$mark"
  mv "$venv.part" "$venv"
  step "environment .venv" "$python" -m venv "$venv"
  echo "made for $venv" >"$venv/$mark.part"
  mv -f "$venv/$mark.part" "$venv/$mark"
}

forget_half_installed() {
  # pip writes RECORD last: a package without it was being installed when something was killed,
  # and pip would take it for installed
  local info
  for info in "$venv"/lib/python3*/site-packages/*.dist-info; do
    if [[ -d "$info" && ! -f "$info/RECORD" ]]; then rm -rf "$info"; fi
  done
}

install_torch() {
  local version spec=()
  rm -f "$environment/bootstrap.torch"
  if [[ -n "${TORCH_SPEC:-}" ]]; then
    read -r -a spec <<<"$TORCH_SPEC"
    step "torch, as TORCH_SPEC says: $TORCH_SPEC" pip_install "${spec[@]}"
    printf '%s\n' "$TORCH_SPEC" >"$environment/bootstrap.torch"
    return
  fi
  if [[ "$environment" != "$venv" ]]; then
    version=$("$environment/bin/python" -c 'import torch; print(torch.__version__)' 2>>"$log") \
      || version=""
    if [[ "$version" =~ ^([0-9]+)\.([0-9]+) ]] \
      && (( BASH_REMATCH[1] > 2 || BASH_REMATCH[1] == 2 && BASH_REMATCH[2] >= 6 )); then
      say "  torch $version is there; kept"
      return
    fi
    if [[ -n "$version" ]]; then say "  torch $version is older than 2.6; replacing it"; fi
  fi
  step "$(grep '^torch==' "$root/requirements-torch.txt") (the largest download)" \
    pip_install -r "$root/requirements-torch.txt"
}

install_fairseq() {
  local version=""
  if [[ "$environment" != "$venv" ]]; then version=$(own_fairseq); fi
  if [[ -n "$version" ]]; then
    say "  fairseq $version is there; kept"
    return
  fi
  step "fairseq, compiled from source (2 minutes, unless pip has built it before)" \
    pip_install --no-deps --no-build-isolation -r "$root/requirements-fairseq.txt"
}

verify() {
  step "check that everything can be imported" \
    "$environment/bin/python" -P -c '
import torch, fairseq, ctranslate2, fastchrf, py3langid, sentencepiece, sacrebleu, data_prep
if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
    raise SystemExit("torch " + torch.__version__ + " is too old: 2.6 or newer is needed")
print("torch", torch.__version__, "fairseq", fairseq.__version__)'
}

install_base() {
  rm -f "$environment/bootstrap.stamp" "$environment/bootstrap-tests.stamp"
  if [[ "$environment" == "$venv" ]]; then forget_half_installed; fi
  if ! fairseq_is_there && [[ -z "$(own_fairseq)" ]]; then check_compiler; fi
  step "build tools" pip_install -c "$root/requirements.txt" setuptools wheel
  install_torch
  step "libraries" pip_install --no-build-isolation -r "$root/requirements.txt"
  install_fairseq
  step "this project" pip_install --no-deps --no-build-isolation -e "$root"
  verify
  put_stamp "$environment/bootstrap.stamp" "$(wanted_base)"
}

install_tests() {
  rm -f "$environment/bootstrap-tests.stamp"
  step "what the tests need" \
    pip_install -r "$root/requirements-test.txt" -r "$root/requirements-ray.txt"
  put_stamp "$environment/bootstrap-tests.stamp" "$(wanted_tests)"
}

# --- main -------------------------------------------------------------------------------------

tests=0 again=0
for word in "$@"; do
  case "$word" in
    --tests) tests=1 ;;
    --again) again=1 ;;
    -h | --help)
      sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *) die "$word is not an option; see bash recipes/bootstrap.sh --help" ;;
  esac
done

# a .venv that is first on PATH must not be the Python that remakes it
PATH=$(printf '%s' "$PATH" | tr ':' '\n' | grep -vxF "$venv/bin" | paste -sd: -)
unset PYTHONHOME PYTHONPATH  # they would hide what the environment lacks
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_PROGRESS_BAR=off PIP_USER=0

environment=$venv
if [[ -n "${VIRTUAL_ENV:-}" ]]; then
  environment=$VIRTUAL_ENV
elif [[ -n "${CONDA_PREFIX:-}" && "${CONDA_DEFAULT_ENV:-}" != base ]]; then
  environment=$CONDA_PREFIX
fi
if [[ -d "$environment" ]]; then environment=$(cd "$environment" && pwd -P); fi

if [[ "$environment" != "$venv" ]]; then
  [[ -x "$environment/bin/python" ]] \
    || die "the active environment $environment has no bin/python; deactivate it" \
      "  (or: unset VIRTUAL_ENV CONDA_PREFIX) and run the command again."
  python=$environment/bin/python
  python_version=$(version_of "$python")
  version_fits "$python_version" \
    || die "the active environment $environment has Python ${python_version:-that does not run};" \
      "  this project needs 3.11, 3.12 or 3.13. Deactivate it to get a .venv of its own, or make" \
      "one with another Python."
elif [[ "$(venv_state)" == remake ]]; then
  rm -f "$venv/bootstrap.stamp"  # for example because PYTHON names another version
fi
if [[ -z "${TORCH_SPEC+set}" && -f "$environment/bootstrap.torch" ]]; then
  TORCH_SPEC=$(<"$environment/bootstrap.torch")
fi

if (( ! again )) && everything_done; then
  printf '%s\n' "$environment/bin"
  exit 0
fi

if [[ "$environment" == "$venv" ]]; then
  [[ -w "$root" ]] || die "$root is read-only; .venv cannot be made there." \
    "  Copy the checkout to a place of your own, or activate an environment that you can write to."
  if [[ "$(venv_state)" == ready ]]; then
    python=$venv/bin/python python_version=$(version_of "$venv/bin/python")
  else
    find_python
  fi
  lock_file=$root/.venv.lock  # beside it, because it may be removed and made anew
else
  [[ -w "$environment" ]] || die "the active environment $environment is read-only." \
    "  Deactivate it to get a .venv of its own."
  "$python" -c 'import pip' 2>/dev/null \
    || die "the active environment $environment has no pip." \
      "  Install it: $python -m ensurepip (in an environment made by uv: uv pip install pip)"
  lock_file=$environment/bootstrap.lock
fi

lock "$lock_file"
if (( ! again )) && everything_done; then  # by the one that we waited for
  printf '%s\n' "$environment/bin"
  exit 0
fi

began=$SECONDS
log=$root/.venv.log
if [[ "$environment" != "$venv" ]]; then log=$environment/bootstrap.log; fi
date >"$log"
stamp=$environment/bootstrap.stamp
if [[ -x "$environment/bin/python" ]]; then
  if is_done "$stamp" "$(wanted_base)" && (( tests )); then
    why=$(reason "$environment/bootstrap-tests.stamp" "$(wanted_tests)")
  else
    why=$(reason "$stamp" "$(wanted_base)")
  fi
else
  why="not set up yet; 3 to 6 minutes"
fi
say "Setting up the environment $environment, Python $python_version ($why); log: $log"
check_disk "$(dirname "$environment")"
if [[ "$environment" == "$venv" ]]; then make_venv; fi
if (( again )) || ! is_done "$stamp" "$(wanted_base)"; then install_base; fi
if (( tests )); then install_tests; fi
say "Set up in $((SECONDS - began)) s."
printf '%s\n' "$environment/bin"
