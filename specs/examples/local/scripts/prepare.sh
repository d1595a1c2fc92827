#!/bin/sh
# Runs once in a guest when it enters the cache: do here what is slow, so that no job waits for it.
set -eu
mkdir -p work
date -u +%Y-%m-%dT%H:%M:%SZ >prepared
