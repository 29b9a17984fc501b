/* Calls made of bytes: of libFuzzer where it is linked in (PS_LIBFUZZER), else of a seeded generator.
 *
 *     fuzz ROUNDS [SEED]
 */
#include <cstdio>
#include <random>

#include "calls.h"

namespace {

constexpr size_t kRoundBytes = 120000; /* some 6,000 calls */
int64_t g_accepted = 0, g_refused = 0;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Bytes bytes(data, size);
  Calls calls(bytes);
  while (!bytes.empty()) calls.one();
  g_accepted += calls.accepted;
  g_refused += calls.refused;
  return 0;
}

#if !defined(PS_LIBFUZZER)
int main(int count, char **words) {
  const int rounds = count > 1 ? std::atoi(words[1]) : 100;
  const unsigned first = count > 2 ? static_cast<unsigned>(std::atoi(words[2])) : 1;
  for (int round = 0; round < rounds; round++) {
    std::mt19937 random(first + static_cast<unsigned>(round));
    std::vector<uint8_t> bytes(kRoundBytes);
    for (uint8_t &byte : bytes) byte = static_cast<uint8_t>(random());
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  std::printf("calls %lld accepted %lld refused %lld\n", static_cast<long long>(g_accepted + g_refused), static_cast<long long>(g_accepted),
              static_cast<long long>(g_refused));
  return g_accepted * 10 > g_refused ? 0 : 1; /* calls that are all refused would try nothing behind the checks */
}
#endif
