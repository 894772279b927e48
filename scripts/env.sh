# Environment of the fetched native libraries. Source it from the repository's root, in bash or any
# POSIX shell: `. scripts/env.sh`. `make` uses the same file. DEVICE=cuda selects the CUDA builds.

if [ ! -f "$PWD/scripts/env.sh" ]; then
    echo "env.sh: source this from the repository's root" >&2
fi
densecl_runtime="$PWD/.runtime"

# The trainer: tch compiles against these headers and links libtorch_cpu and libc10 from there.
export LIBTORCH="$densecl_runtime/torch"
export LIBTORCH_CXX11_ABI=1

# libtorch_cpu itself needs libcudart and libcupti, when it is linked and when it runs.
densecl_libraries="$densecl_runtime/torch/lib:$densecl_runtime/cuda/lib"
densecl_onnxruntime="$densecl_runtime/onnxruntime/libonnxruntime.so"
if [ "${DEVICE:-auto}" = cuda ]; then
    densecl_libraries="$densecl_libraries:$densecl_runtime/cuda-math/lib:$densecl_runtime/torch-cuda/lib"
    densecl_onnxruntime="$densecl_runtime/onnxruntime-cuda/libonnxruntime.so"
fi
export LD_LIBRARY_PATH="$densecl_libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

# The server and everything else that runs ONNX models. A library that the user chose stays.
export DENSECL_ONNXRUNTIME="${DENSECL_ONNXRUNTIME:-$densecl_onnxruntime}"

unset densecl_runtime densecl_libraries densecl_onnxruntime
