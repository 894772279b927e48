// What the shims of the backends, Gloo here and NCCL in a library of its own, hand to each other.

#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

namespace densecl {

// Where processes find each other.
struct Store {
  c10::intrusive_ptr<c10d::Store> store;
};

// Processes that are connected.
struct Group {
  c10::intrusive_ptr<c10d::Backend> backend;
};

}  // namespace densecl
