#!/bin/sh
# install.sh BIN: installs what the tests need and this machine lacks: Debian packages, and Terraform
# into the directory BIN (an absolute path). It changes nothing where everything is there.
set -eu
bin=$1
terraform=1.11.4
updated=

fail() {
	echo "install: $*" >&2
	exit 1
}

# need PROGRAM PACKAGE installs the Debian package of a program that is missing.
need() {
	command -v "$1" >/dev/null && return
	command -v apt-get >/dev/null || fail "$1 is missing, and there is no apt-get here: install it (Debian calls the package $2)"
	[ "$(id -u)" = 0 ] || fail "$1 is missing, and only root may install it: sudo apt-get install $2"
	if [ -z "$updated" ]; then
		apt-get update -qq || fail "$1 is missing, and apt-get update failed: see to the network, or install $2 by hand"
		updated=yes
	fi
	echo "install: $2, for $1" >&2
	# A package that starts a daemon must not do so for a test.
	DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -qq --no-install-recommends "$2" >/dev/null ||
		fail "apt-get install $2 failed; its messages are above"
}

need git git
need gcc build-essential # the race detector links by it
need redis-server redis-server
need ssh openssh-client
need ssh-keygen openssh-client
need sftp openssh-client
need unshare util-linux
need curl curl # with jq, what CI jobs post their comments with
need jq jq
need chromium chromium # with the fonts that it depends on
need man man-db
need prometheus prometheus
need promtool prometheus

command -v terraform >/dev/null || [ -x "$bin/terraform" ] || {
	echo "install: Terraform $terraform, from releases.hashicorp.com" >&2
	mkdir -p "$bin"
	go build -C "$(dirname "$0")" -o "$bin/hc-install" github.com/hashicorp/hc-install/cmd/hc-install &&
		"$bin/hc-install" install -version "$terraform" -path "$bin" terraform >&2 ||
		fail "Terraform is missing and could not be fetched: put it on PATH (https://developer.hashicorp.com/terraform/install)"
}
