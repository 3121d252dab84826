#!/usr/bin/env bash
# Russian to English: train, distil, adapt, distil on your own text. `run.sh --help` explains.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# nothing is to be installed for those who only look
[[ " $* " =~ " "(--help|-h|--dry-run|--plan)" " ]] || source "$here/../bootstrap.sh"
exec bash "$here/../chain.sh" --config "$here/config.sh" "$@"
