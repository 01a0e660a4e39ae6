#!/bin/bash
# Activations of a data set on one node: a vLLM server with replicas of the model, several capture
# workers that ask it, then a check. The server ends with the script.
#
#   PROMPTS=prompts.parquet MODEL=Llama-3.1-70B OUT=/scratch/captured REPLICAS=4 TENSOR=2 \
#     capture/recipes/data_parallel.sh --kind bf16
#
# Its words go to `capture run`. $WORKERS is how many ask (two a replica unless said), $VLLM_OPTIONS holds
# options of vLLM's own, $CAPTURE the program, $PORT the port. Residuals pass through a directory in
# $SHARED, which should lie in memory. `capture plan` says how long it takes and what it is bound by.
set -euo pipefail

capture=${CAPTURE:-capture}
port=${PORT:-8000}
workers=${WORKERS:-$((2 * ${REPLICAS:-1}))} # while one writes, another asks
: "${PROMPTS:?a file of prompts: .txt, .jsonl or .parquet}"
: "${MODEL:?the directory of a model}"
: "${OUT:?the directory to make}"

shared=$(mktemp -d "${SHARED:-/dev/shm}/residuals.XXXXXX")
running=()
finish() {
  trap - EXIT INT TERM
  for pid in ${running[@]+"${running[@]}"}; do kill "$pid" 2> /dev/null || true; done
  wait || true
  rm -rf "$shared"
}
trap finish EXIT
trap 'exit 130' INT TERM

read -ra options <<< "${VLLM_OPTIONS:-}"
"$capture" serve "$MODEL" --shared "$shared" --port "$port" --tensor-parallel "${TENSOR:-1}" \
  --data-parallel "${REPLICAS:-1}" ${options[@]+-- "${options[@]}"} &
server=$!
running+=("$server")

healthy() {
  timeout 5 bash -c 'exec 3<> "/dev/tcp/127.0.0.1/$0"
    printf "GET /health HTTP/1.0\r\n\r\n" >&3
    read -r line <&3 && [[ $line == *" 200"* ]]' "$port" 2> /dev/null
}
until healthy; do
  kill -0 "$server" 2> /dev/null || { echo "error: the server ended before it was up" >&2; exit 1; }
  sleep 1
done

asking=()
for ((i = 0; i < workers; i++)); do
  "$capture" run "$PROMPTS" "$OUT" --model "$MODEL" --server "http://127.0.0.1:$port" \
    --shared "$shared" --worker "$i/$workers" "$@" &
  asking+=($!)
done
running+=("${asking[@]}")
failed=0
for pid in "${asking[@]}"; do wait "$pid" || failed=$((failed + 1)); done
if ((failed > 0)); then
  echo "error: $failed of $workers workers failed; the same command goes on with what is missing" >&2
  exit 1
fi
"$capture" check "$OUT"
