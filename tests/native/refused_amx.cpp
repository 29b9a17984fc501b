/* Prints the instruction set of a CPU device. With `refused`, in a process to which Linux refuses AMX, because the signal stack of its thread
 * has no room for the tile registers.
 *
 *     refused_amx [refused]
 */
#include <csignal>

#include "support.h"

int main(int count, char **) {
  static char memory[4096];
  stack_t stack{};
  stack.ss_sp = memory;
  stack.ss_size = sizeof memory;
  if (count > 1) MUST(sigaltstack(&stack, nullptr) == 0);
  ps_device_options options{};
  ps_device *device = nullptr;
  MUST(ps_device_open(&options, &device, nullptr, 0) == PS_OK);
  ps_device_info info{};
  MUST(ps_device_describe(device, &info) == PS_OK);
  std::printf("%s", info.name);
  return 0;
}
