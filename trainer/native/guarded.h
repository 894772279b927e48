// What the C functions of this folder have in common: lists of tensors, and C++ exceptions that
// become messages, which the caller owns.

#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>

#include <cstring>
#include <exception>
#include <vector>

namespace densecl {

inline std::vector<at::Tensor> list(at::Tensor* const* tensors, size_t count) {
  std::vector<at::Tensor> result;
  result.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    result.push_back(*tensors[i]);
  }
  return result;
}

// Runs `body` without recording gradients; returns null, or what went wrong.
template <typename Body>
char* guarded(Body body) noexcept {
  try {
    const c10::AutoGradMode no_gradient(false);
    body();
    return nullptr;
  } catch (const std::exception& error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("an exception that is no std::exception");
  }
}

}  // namespace densecl
