"""Stand-ins for the commands of SLURM: jobs are processes of this machine, and their states are files."""

import os
from pathlib import Path

SCRIPTS = {
    "sbatch": """
id=$(( $(cat $DIR/count 2>/dev/null || echo 100) + 1 )); echo $id > $DIR/count
if [ -f $DIR/refuse ]; then echo "sbatch: error: invalid partition specified: $(cat $DIR/refuse)" >&2; exit 1; fi
last=$(sed -n 's/^#SBATCH --array=.*0-\\([0-9]*\\).*/\\1/p' "$1")
cp "$1" $DIR/$id.sh
for index in $(seq 0 ${last:-0}); do
    job=$id; [ -n "$last" ] && job=${id}_$index
    echo RUNNING > $DIR/$job.state
    (
        export SLURM_JOB_ID=$id SLURM_JOB_NUM_NODES=1 SLURM_NTASKS=1 FAKE_JOB=$job
        [ -n "$last" ] && export SLURM_ARRAY_JOB_ID=$id SLURM_ARRAY_TASK_ID=$index
        while true; do
            if bash $DIR/$id.sh; then state=COMPLETED; else state=FAILED; fi
            [ -f $DIR/$job.requeue ] || break
            rm $DIR/$job.requeue
        done
        [ -f $DIR/$job.cancelled ] && state=CANCELLED
        echo $state > $DIR/$job.state
    ) > $DIR/$job.out 2>&1 < /dev/null &
done
echo "Submitted batch job $id"
""",
    "srun": """
while [ "$#" -gt 0 ]; do
    path=$(echo "$2" | sed "s/%A/$SLURM_ARRAY_JOB_ID/; s/%a/$SLURM_ARRAY_TASK_ID/; s/%j/$SLURM_JOB_ID/; s/%t/0/")
    case "$1" in
        --unbuffered) shift;;
        --output) exec >> "$path"; shift 2;;
        --error) exec 2>> "$path"; shift 2;;
        *) break;;
    esac
done
echo $$ > $DIR/$FAKE_JOB.pid
export SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_STEP_NUM_TASKS=1
exec "$@"
""",
    "sacct": """
echo "JobID|State|NodeList"
for file in $DIR/*.state; do [ -f $file ] && echo "$(basename $file .state)|$(cat $file)|node1"; done
""",
    "squeue": """
for file in $(grep -l RUNNING $DIR/*.state 2>/dev/null); do basename $file .state; done
""",
    "scancel": """
kill -${3:-TERM} $(cat $DIR/$1.pid)
""",
    "scontrol": """
echo "$*" >> $DIR/scontrol.log
touch $DIR/$2.requeue
""",
}


def install(folder: Path, monkeypatch) -> Path:
    """Put the commands on the PATH; returns the folder with the states of the jobs."""
    states, commands = folder / "states", folder / "commands"
    states.mkdir(parents=True)
    commands.mkdir()
    for name, text in SCRIPTS.items():
        (commands / name).write_text(f"#!/bin/bash\nDIR={states}\n{text}")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    return states
