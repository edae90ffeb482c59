#!/bin/bash
#SBATCH --gres=gpu:1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
# One shard of an array: sbatch --array=1-64 deploy/slurm.sh INPUT FOLDER 64 [options of score]
# Without a GPU remove --gres. After a time limit submit the same array again: finished shards end at once, others go on.
# Not run here: no SLURM was at hand.
set -uo pipefail
input=$1 folder=$2 shards=$3
shift 3
srun instructmining score "$input" -o "$folder" --shard "$SLURM_ARRAY_TASK_ID/$shards" "$@"
code=$?
[ "$code" -eq 3 ] && code=0 # done, with rejects
exit "$code"
