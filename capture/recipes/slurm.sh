#!/bin/bash
#SBATCH --job-name=capture
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --open-mode=append
#
# Activations of a data set by an array of Slurm jobs. Each task captures its share of the shards; when
# all have ended, a last job checks that shards, index and manifest agree and nothing is missing or
# there twice. Called on the login node, it submits both:
#
#   PROMPTS=prompts.parquet MODEL=Llama-3.1-8B OUT=/scratch/captured TASKS=16 \
#     capture/recipes/slurm.sh --sites hook_resid_post --kind bf16
#
# Its words go to `capture run`, or with WHAT=statistics to `capture statistics`, of whose parts the last
# task merges all. $SBATCH_EACH holds options of the array's tasks (such as --gpus=1
# --partition=gpu), $CAPTURE the program. A task that reaches its time limit is told two minutes
# before, and leaves whole shards only: submit the same again, and it goes on with the rest.
set -euo pipefail

capture=${CAPTURE:-capture}
: "${PROMPTS:?a file of prompts: .txt, .jsonl or .parquet}"
: "${MODEL:?the directory of a model}"
: "${OUT:?the directory to make, which all tasks see}"

if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then
  # TASKS, for an array of which only some tasks are submitted again counts fewer.
  share=$SLURM_ARRAY_TASK_ID/${TASKS:-$SLURM_ARRAY_TASK_COUNT}
  # exec: so the signal reaches the capture itself.
  exec "$capture" "${WHAT:-run}" "$PROMPTS" "$OUT" --model "$MODEL" --worker "$share" "$@"
fi
if [[ -n ${SLURM_JOB_ID:-} ]]; then
  exec "$capture" check "$OUT"
fi

tasks=${TASKS:-8}
export CAPTURE=$capture WHAT=${WHAT:-run} PROMPTS MODEL OUT TASKS=$tasks
mkdir -p "$OUT"
read -ra each <<< "${SBATCH_EACH:-}"
array=$(sbatch --parsable --array="0-$((tasks - 1))" ${each[@]+"${each[@]}"} "$0" "$@")
check=$(sbatch --parsable --dependency="afterany:$array" --time=00:30:00 "$0")
echo "capture: array $array of $tasks tasks, then check $check"
