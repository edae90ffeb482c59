#!/bin/bash
# One shard: deploy/parallel.sh INPUT FOLDER SHARDS SHARD [options of score]
set -uo pipefail
[ $# -ge 4 ] || { echo "wanted INPUT FOLDER SHARDS SHARD [options of score]" >&2; exit 2; }
input=$1 folder=$2 shards=$3 shard=$4
shift 4
instructmining score "$input" -o "$folder" --shard "$shard/$shards" "$@"
code=$?
[ "$code" -eq 3 ] && code=0 # done, with rejects
exit "$code"
