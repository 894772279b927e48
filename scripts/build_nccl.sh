#!/usr/bin/env bash
# Compiles the library through which several GPUs train together, against the fetched headers:
# trainer/native/nccl.cpp to .runtime/torch-cuda/lib/libdensecl_nccl.so. What it calls is in the CUDA
# half of libtorch, which the trainer has loaded by then; so it links nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

runtime=${RUNTIME:-.runtime}
library=$runtime/torch-cuda/lib/libdensecl_nccl.so
sources=(trainer/native/nccl.cpp trainer/native/guarded.h trainer/native/process_group.h)

if [ -f "$library" ] && [ -z "$(find "${sources[@]}" "$runtime/torch/.made-from" -newer "$library")" ]; then
    exit 0
fi
echo "Compiling $library ..." >&2
"${CXX:-g++}" -std=c++17 -O2 -fPIC -shared -w -D_GLIBCXX_USE_CXX11_ABI=1 -DUSE_C10D_NCCL -I trainer/native \
    -isystem "$runtime/torch/include" -isystem "$runtime/torch/include/torch/csrc/api/include" \
    -isystem "$runtime/cuda-math/include" -isystem "$runtime/torch-cuda/include" \
    trainer/native/nccl.cpp -o "$library.new"
mv "$library.new" "$library"
