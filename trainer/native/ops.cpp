// The operations of libtorch that its Rust bindings lack: whole-list updates, and autocast to
// bfloat16. One C function each; a C++ exception becomes a message that the caller owns.

#include "guarded.h"

#include <ATen/autocast_mode.h>
#include <ATen/ops/_foreach_lerp.h>
#include <ATen/ops/_fused_sgd.h>

#include <cstdlib>

using densecl::guarded;
using densecl::list;

namespace {

at::DeviceType device_type(int cuda) {
  return cuda ? at::kCUDA : at::kCPU;
}

}  // namespace

extern "C" {

// velocity <- momentum * velocity + gradient + weight_decay * parameter;
// parameter <- parameter - learning_rate * velocity.
char* densecl_sgd(at::Tensor* const* parameters, at::Tensor* const* gradients, at::Tensor* const* velocities,
                  size_t count, double learning_rate, double momentum, double weight_decay) {
  return guarded([&] {
    if (count > 0) {
      at::_fused_sgd_(list(parameters, count), list(gradients, count), list(velocities, count), weight_decay,
                      momentum, learning_rate, /*dampening=*/0.0, /*nesterov=*/false, /*maximize=*/false,
                      /*is_first_step=*/false);
    }
  });
}

// target <- target + weight * (source - target), for each pair.
char* densecl_lerp(at::Tensor* const* targets, at::Tensor* const* sources, size_t count, double weight) {
  return guarded([&] {
    if (count > 0) {
      at::_foreach_lerp_(list(targets, count), list(sources, count), weight);
    }
  });
}

// Forgets the gradient, so that the next backward pass stores its own instead of adding to zeros.
char* densecl_forget_gradients(at::Tensor* const* parameters, size_t count) {
  return guarded([&] {
    for (size_t i = 0; i < count; ++i) {
      parameters[i]->mutable_grad().reset();
    }
  });
}

// From here on this thread's convolutions and matrix products compute in bfloat16.
char* densecl_autocast_enter(int cuda) {
  return guarded([&] {
    at::autocast::set_autocast_dtype(device_type(cuda), at::kBFloat16);
    at::autocast::set_autocast_enabled(device_type(cuda), true);
    at::autocast::increment_nesting();
  });
}

// Ends what `densecl_autocast_enter` began, and drops the weights that were converted meanwhile.
char* densecl_autocast_leave(int cuda) {
  return guarded([&] {
    if (at::autocast::decrement_nesting() == 0) {
      at::autocast::clear_cache();
      at::autocast::set_autocast_enabled(device_type(cuda), false);
    }
  });
}

void densecl_free(char* message) {
  std::free(message);
}

}  // extern "C"
