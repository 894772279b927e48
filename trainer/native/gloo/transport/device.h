// Declares what libtorch's header asks of Gloo's transport; see README.md.
#pragma once

namespace gloo {
namespace transport {

class Device;
class UnboundBuffer {
 public:
  virtual ~UnboundBuffer();
};

}  // namespace transport
}  // namespace gloo
