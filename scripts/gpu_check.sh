#!/usr/bin/env bash
# Checks speed and agreement on a machine that has a GPU and a Python with PyTorch, but neither Rust nor a network.
#
#   scripts/gpu_check.sh collect          on a machine with Rust: builds and puts all that is needed into target/gpu_check
#   scripts/gpu_check.sh run [ARGS]       on the machine with the GPU, in a copy of the repository with that folder
#   scripts/gpu_check.sh run --device cpu --quick     tries the checks themselves, on any machine
#
# To be carried: target/gpu_check/pieces, about 225 MB, most of it ONNX Runtime's CUDA provider, in files of at most
# 40 MB. GPU_PYTHON is the version of the other machine's Python (3.11). `run --help` lists what can be changed. It leaves
# out what would not end within ten minutes, prints a table, and writes results.json to --out.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$PWD/target/gpu_check

collect() {
    make setup-server setup-trainer
    # Of CUDA the provider alone: the libraries that it loads come with the other machine's PyTorch.
    python3 scripts/fetch_runtime.py onnxruntime-cuda
    # shellcheck source=scripts/env.sh
    . scripts/env.sh
    cargo build --release --locked -p densecl-server -p densecl-trainer
    cargo bench --locked -p densecl-server --bench ladder --no-run
    rm -rf "$folder"
    mkdir -p "$folder/content/bin" "$folder/pieces"
    cp target/release/densecl-server target/release/densecl-trainer "$folder/content/bin/"
    cp "$(newest target/release/deps/ladder-*)" "$folder/content/bin/ladder"
    strip "$folder"/content/bin/*
    # torchvision's networks, for the PyTorch side of the training step; the machine's own PyTorch runs them.
    grep -E '^(torchvision|numpy)==' trainer/bench/requirements.txt >"$folder/requirements.txt"
    echo pillow >>"$folder/requirements.txt"
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --python-version "${GPU_PYTHON:-3.11}" --target "$folder/content/python" -r "$folder/requirements.txt"
    cp -r .runtime/onnxruntime-cuda "$folder/content/"
    tar -C "$folder" -cf - content | xz -T0 | split -b 40M - "$folder/pieces/content.tar.xz."
    du -sh "$folder"/*
}

newest() {
    # shellcheck disable=SC2012 # the names are cargo's
    ls -t "$@" | grep -v '\.d$' | head -n 1
}

run() {
    if [ ! -d "$folder/content" ] && [ -n "$(ls "$folder/pieces" 2>/dev/null)" ]; then
        cat "$folder"/pieces/content.tar.xz.* | tar -C "$folder" -xJf -
    fi
    if [ ! -x "$folder/content/bin/ladder" ]; then
        echo "gpu_check.sh: $folder/pieces is missing: run \`scripts/gpu_check.sh collect\` where Rust is" >&2
        exit 2
    fi
    local site
    site=$(python3 -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parent.parent)')
    for libraries in "$site"/torch/lib "$site"/nvidia/*/lib; do
        export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$libraries"
    done
    exec python3 scripts/gpu_check.py --folder "$folder/content" "$@"
}

case "${1:-}" in
collect | run) "$@" ;;
*)
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
