#!/bin/bash
# Runs SCRIPT as Slurm would on the first of two nodes: slurm_nodes.sh FOLDER SCRIPT, with an empty FOLDER. Each node has a network and
# processes of its own, among which `ray stop` finds no other Ray, and a /tmp of its own at /tmp/ray-*. In the place of Slurm's programs
# stand two that do for two nodes what those do.
set -eu
folder=$1 script=$2 node=${3:-none}
export SLURM_JOB_ID=1 SLURM_JOB_NUM_NODES=2 SLURM_JOB_NODELIST=two
own="unshare --net --pid --mount --fork --mount-proc --kill-child"

case $node in
none) # the machine below the nodes
    mkfifo "$folder"/{told,ended}
    mkdir -p "$folder/bin" "/tmp/ray-$SLURM_JOB_ID"
    printf '#!/bin/sh\necho 10.77.0.1\necho 10.77.0.2\n' > "$folder/bin/scontrol"
    cat > "$folder/bin/srun" << END
#!/bin/bash
{ export -p; printf '%q ' "\$@"; } > "$folder/command"
echo > "$folder/told"
"\$@"
code=\$?
cat "$folder/ended"
exit \$code
END
    chmod +x "$folder"/bin/*
    exec unshare --pid --mount --fork --mount-proc --kill-child "$0" "$folder" "$script" both
    ;;
both)
    $own "$0" "$folder" "$script" second &
    second=$!
    $own "$0" "$folder" "$script" first &
    first=$!
    until one=$(pgrep -P $first) && two=$(pgrep -P $second); do sleep 0.05; done
    nsenter -t "$one" -n ip link add eth0 type veth peer name eth0 netns "$two"
    for pid in $one $two; do
        [ "$pid" = "$one" ] && address=10.77.0.1 || address=10.77.0.2
        nsenter -t "$pid" -n ip link set lo up
        nsenter -t "$pid" -n ip address add $address/24 dev eth0
        nsenter -t "$pid" -n ip link set eth0 up
    done
    touch "$folder/up"
    until [ -e "$folder/script" ]; do sleep 0.05; done
    trap 'nsenter -t "$one" -p -m kill -TERM "$(cat "$folder/script")"' TERM # as Slurm before the time limit: the script alone
    wait $first && code=0 || code=$?
    while kill -0 $first 2> /dev/null; do wait $first && code=0 || code=$?; done
    exit $code
    ;;
first)
    until [ -e "$folder/up" ]; do sleep 0.05; done
    mount -t tmpfs none "/tmp/ray-$SLURM_JOB_ID"
    PATH="$folder/bin:$PATH" bash "$script" &
    echo $! > "$folder/script.new" && mv "$folder/script.new" "$folder/script"
    wait $!
    ;;
second)
    mount -t tmpfs none "/tmp/ray-$SLURM_JOB_ID"
    while read -r < "$folder/told"; do
        bash "$folder/command" || true
        echo > "$folder/ended"
    done
    ;;
esac
