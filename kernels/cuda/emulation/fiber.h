// A thread of a block: a stack of its own, switched to and from by hand.
#pragma once

#include <cstddef>

namespace sextant::emulation {

class Fiber {
 public:
  // The calling thread's own stack.
  Fiber();
  // A new stack on which `entry` starts at the first Switch to it. `entry` begins with Arrived() and never
  // returns.
  explicit Fiber(void (*entry)());
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber();

  // Leaves `from`, which is running, and goes on in `to`. Returns when something switches back.
  static void Switch(Fiber& from, Fiber& to);
  static void Arrived();

 private:
  void* stack_pointer_ = nullptr;
  void* bottom_ = nullptr;  // lowest address
  size_t bytes_ = 0;
  void* mapping_ = nullptr;     // null: not ours
  void* fake_stack_ = nullptr;  // AddressSanitizer's
};

}  // namespace sextant::emulation
