#!/bin/sh
# Runs in a guest after each lease, before it is shelved again: remove what the job left behind.
# If it fails the guest is replaced instead of being shelved.
set -eu
rm -rf work
mkdir -p work
