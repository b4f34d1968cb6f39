#!/bin/bash
# Runs test suites that others wrote on a fresh mount, and prints one line for each: passed, failed, expected to fail, not run.
# Usage: tests/suites/run.sh [SUITE...]; see README.md beside this file. Ends with 1 when anything failed, with 2 when a tool is missing.
set -u
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$HERE/lib.sh"
ALL="pjdfstest fsx stress-ng fio names"
for suite in ${*:-$ALL}; do
    [ -f "$HERE/$suite.sh" ] || { echo "no suite $suite; there are: $ALL" >&2; exit 2; }
done
for suite in ${*:-$ALL}; do
    begin "$suite"
    . "$HERE/$suite.sh"
    end
done
exit "$FAILED"
