/* Prints the processors that the control groups under a folder allow, 0 for no quota.
 *
 *     processors ROOT
 */
#include "../../csrc/cpu/processors.h"

#include <cstdio>

int main(int count, char **words) {
  if (count != 2) return 2;
  std::printf("%d", ps::quota_processors(words[1]));
  return 0;
}
