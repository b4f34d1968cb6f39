# Random reads, writes, mappings and length changes against a model in memory (fsx 0.3.2), for each configuration and seed.
# FSX_OPS and FSX_SEEDS choose how much.
need fsx "cargo install fsx@0.3.2"
for conf in "$HERE"/fsx/*.toml; do
    for seed in ${FSX_SEEDS:-1 2 3}; do
        name=$(basename "$conf" .toml)-$seed
        if timeout "${FSX_TIMEOUT:-1200}" fsx -q -q -f "$conf" -N "${FSX_OPS:-20000}" -S "$seed" -P "$WORK" "$MNT/$name" >"$WORK/out" 2>&1; then
            case_is passed "$name"
        else
            case_is failed "$name" "$(grep -vE '^ *[0-9]+:|^stack|^$' "$WORK/out" | tail -1)"
        fi
        { echo "== $name"; tail -60 "$WORK/out"; } >>"$LOG"
        rm -f "$MNT/$name" "$WORK/$name".*
    done
done
