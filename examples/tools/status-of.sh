#!/bin/sh
# Prints an address's HTTP status as JSON.
set -eu
curl --silent --output /dev/null --write-out '%{http_code}' "$1" |
    jq --compact-output --arg url "$1" '{url: $url, status: .}'
