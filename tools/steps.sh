# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced: progress of steps that take time. One line a step; while it lasts, the last line of its log every 10 s.

# step NAME LOG COMMAND... - run COMMAND with its output in LOG; returns its status
step() {
  local name=$1 log=$2 pid rc=0 started=$SECONDS shown=0; shift 2
  echo "... $name"
  # In the background, so that progress can be told; `set -e` does not reach a command whose status is asked for.
  ("$@") >>"$log" 2>&1 &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    if [ $((SECONDS - started - shown)) -ge 10 ]; then
      shown=$((SECONDS - started)); echo "    ${shown} s: $(tail -n 1 "$log" 2>/dev/null | cut -c 1-100)"
    fi
  done
  wait "$pid" || rc=$?
  if [ $rc = 0 ]; then echo "ok  ${name%%:*} ($((SECONDS - started)) s)"; else
    echo "FAILED $name ($((SECONDS - started)) s). Last lines of $log:" >&2; tail -n 8 "$log" | sed 's/^/    /' >&2; fi
  return $rc
}

# fail MESSAGE - say what went wrong and what to do, end
fail() { echo "${0##*/}: $*" >&2; exit 1; }
