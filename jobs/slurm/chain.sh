#!/usr/bin/env bash
# Submit a training job, what plays its runs when they are done, and what then writes a page on all of them.
#
#   jobs/slurm/chain.sh jobs/slurm/ensemble_8x2.sh --frames 1e7            whatever sbatch would be given
#   jobs/slurm/chain.sh --array=0-5%2 jobs/slurm/ensemble_8x2.sh
#   PAGE=pong.html EPISODES=100 jobs/slurm/chain.sh jobs/slurm/frameworks.sh
#
# A run that fails is not played, but is on the page.

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=jobs/slurm/common.sh
. "$here/common.sh" || exit 2
[ $# -gt 0 ] || die "name a job script, with the options that sbatch would be given"

train=$(sbatch --parsable --hold "$@") || exit
train=${train%%;*}
elements=() runs=()
while read -r name number; do
    [[ $number != *+[1-9]* ]] || continue # a further component of a heterogeneous job
    number=${number%+0}
    runs+=("$RUNS/${name//\//-}-$number")
    [[ $number != *_* ]] || elements+=("${number#*_}")
done < <(squeue --array --noheader --jobs="$train" --format='%j %i')
array=()
[ ${#elements[@]} = 0 ] || array=(--array="$(IFS=, && echo "${elements[*]}")" --output=%x-%A_%a.out)

evaluate=$(sbatch --parsable --dependency="aftercorr:$train" --kill-on-invalid-dep=yes "${array[@]}" \
    "$here/evaluate.sh" "${runs[@]}") || { scancel "$train"; exit 1; }
evaluate=${evaluate%%;*}
report=$(PAGE=${PAGE:-report-$train.html} sbatch --parsable --dependency="afterany:$train:$evaluate" \
    "$here/report.sh" "${runs[@]}") || { scancel "$train" "$evaluate"; exit 1; }
scontrol release "$train" || exit
echo "train $train, then evaluate $evaluate, then report ${report%%;*}: ${PAGE:-report-$train.html}"
