#!/bin/sh
# vuln.sh GOVULNCHECK [ARG...]: runs govulncheck and fails for whatever it fails for but one thing:
# a vulnerability database that can't be reached, which it reports loudly on its last lines.
set -u
out=$("$@" 2>&1)
code=$?
echo "$out"
[ $code -eq 0 ] && exit 0
# Go's HTTP client words it so when no answer came at all; an answer that is an error reads otherwise.
why=$(echo "$out" | grep -E '^govulncheck: fetching vulnerabilities: Get "[^"]*": ') || exit $code
cat <<END
****************************************************************************
* NOT CHECKED for known vulnerabilities: the database can't be reached.
* $why
* Run "make vuln" again where there is a network.
****************************************************************************
END
