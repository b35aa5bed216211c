#!/bin/sh
# Runs every test; each is a program that ends with 0 when all is well.
cd "$(dirname "$0")/.." || exit 1
failed=0
for test in tests/*_test.sh; do
    if sh "$test"; then
        echo "ok $test"
    else
        echo "FAILED $test"
        failed=1
    fi
done
exit $failed
