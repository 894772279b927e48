// libtorch's process group on NVIDIA GPUs. It is a library of its own, which the trainer loads only
// with CUDA: its symbols are in the CUDA half of libtorch, which a machine without a GPU lacks.

#include "guarded.h"
#include "process_group.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include <chrono>
#include <utility>

extern "C" {

// Connects all processes that have met at the store with each other, each with its GPU.
char* densecl_nccl_connect(const densecl::Store* store, int rank, int size, int gpu, int64_t timeout_ms,
                           densecl::Group** group) {
  return densecl::guarded([&] {
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = std::chrono::milliseconds(timeout_ms);
    auto own_keys = c10::make_intrusive<c10d::PrefixStore>("nccl", store->store);
    auto backend = c10::make_intrusive<c10d::ProcessGroupNCCL>(std::move(own_keys), rank, size, std::move(options));
    // Now, so that what keeps the GPUs from each other is an error of this call.
    backend->eagerConnectSingleDevice(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(gpu)));
    *group = new densecl::Group{std::move(backend)};
  });
}

}  // extern "C"
