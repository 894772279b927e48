// libtorch's process groups: tensors that several processes sum, gather and exchange. One C
// function each; a C++ exception becomes a message that the caller owns.

#include "guarded.h"
#include "process_group.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <chrono>
#include <string>
#include <utility>

using densecl::Group;
using densecl::guarded;

namespace {

// A collective under way. It keeps the tensors that it reads and writes.
struct Pending {
  c10::intrusive_ptr<c10d::Work> work;
  std::vector<at::Tensor> tensors;
};

}  // namespace

extern "C" {

// Opens the store at this address, or reaches the one that another process opens there.
char* densecl_store_connect(const char* address, uint16_t port, int open, const char* prefix, int64_t timeout_ms,
                            densecl::Store** store) {
  return guarded([&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = open != 0;
    options.waitWorkers = false;  // densecl_store_meet does, and knows who is missing
    options.timeout = std::chrono::milliseconds(timeout_ms);
    auto tcp = c10::make_intrusive<c10d::TCPStore>(address, options);
    *store = new densecl::Store{c10::make_intrusive<c10d::PrefixStore>(prefix, std::move(tcp))};
  });
}

// Says that process `rank` is here and waits for the others of `size`; afterwards `here[r]` is
// whether process r has come.
char* densecl_store_meet(const densecl::Store* store, int rank, int size, int64_t timeout_ms, int* here) {
  return guarded([&] {
    std::vector<std::string> keys;
    for (int r = 0; r < size; ++r) {
      keys.push_back("here/" + std::to_string(r));
    }
    store->store->set(keys[rank], std::vector<uint8_t>{1});
    bool all = true;
    try {
      store->store->wait(keys, std::chrono::milliseconds(timeout_ms));
    } catch (const c10::DistStoreError&) {
      all = false;
    }
    for (int r = 0; r < size; ++r) {
      here[r] = all || store->store->check({keys[r]});
    }
  });
}

void densecl_store_free(densecl::Store* store) {
  delete store;
}

// Connects all processes that have met at the store with each other, on the CPU. The others reach
// this one by its network interface, if one is named, or else at its address.
char* densecl_gloo_connect(const densecl::Store* store, int rank, int size, const char* interface, const char* address,
                           int64_t connect_timeout_ms, int64_t timeout_ms, Group** group) {
  return guarded([&] {
    using c10d::ProcessGroupGloo;
    auto options = ProcessGroupGloo::Options::create(std::chrono::milliseconds(connect_timeout_ms));
    options->devices.push_back(interface != nullptr ? ProcessGroupGloo::createDeviceForInterface(interface)
                                                    : ProcessGroupGloo::createDeviceForHostname(address));
    c10::intrusive_ptr<c10d::Backend> backend =
        c10::make_intrusive<ProcessGroupGloo>(store->store, rank, size, std::move(options));
    backend->setTimeout(std::chrono::milliseconds(timeout_ms));
    *group = new Group{std::move(backend)};
  });
}

void densecl_group_free(Group* group) {
  delete group;
}

// tensor <- the sum of all processes' tensors.
char* densecl_group_sum(const Group* group, const at::Tensor* tensor, Pending** pending) {
  return guarded([&] {
    std::vector<at::Tensor> tensors{*tensor};
    auto work = group->backend->allreduce(tensors);
    *pending = new Pending{std::move(work), std::move(tensors)};
  });
}

// output <- the processes' inputs, one after the other along the first axis.
char* densecl_group_gather(const Group* group, const at::Tensor* output, const at::Tensor* input, Pending** pending) {
  return guarded([&] {
    at::Tensor to = *output;
    at::Tensor from = *input;
    auto work = group->backend->_allgather_base(to, from);
    *pending = new Pending{std::move(work), {std::move(to), std::move(from)}};
  });
}

// Gives each process its rows of `input`, `sent[r]` for process r in turn, and puts what they give
// into `output`, `received[r]` rows from process r.
char* densecl_group_exchange(const Group* group, const at::Tensor* output, const at::Tensor* input,
                             const int64_t* received, const int64_t* sent, size_t size, Pending** pending) {
  return guarded([&] {
    at::Tensor to = *output;
    at::Tensor from = *input;
    std::vector<int64_t> output_rows(received, received + size);
    std::vector<int64_t> input_rows(sent, sent + size);
    auto work = group->backend->alltoall_base(to, from, output_rows, input_rows);
    *pending = new Pending{std::move(work), {std::move(to), std::move(from)}};
  });
}

// Waits for the end of a collective for at most this time; afterwards `done` is whether it has ended.
// On a GPU this does not wait: later work on the device waits by itself.
char* densecl_pending_wait(const Pending* pending, int64_t timeout_ms, int* done) {
  return guarded([&] {
    *done = 0;
    if (pending->tensors.front().is_cuda()) {
      pending->work->wait();
      *done = 1;
      return;
    }
    try {
      pending->work->wait(std::chrono::milliseconds(timeout_ms));
    } catch (const std::exception&) {
      if (!pending->work->isCompleted()) {
        return;
      }
      // The collective has failed, or it has completed since the wait timed out: this returns its own
      // outcome at once.
      pending->work->wait();
    }
    *done = 1;
  });
}

void densecl_pending_free(Pending* pending) {
  delete pending;
}

}  // extern "C"
