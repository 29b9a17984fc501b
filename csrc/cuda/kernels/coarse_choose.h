/* Selection by coarse copies of the statistics, for page_choose.cu. */
#pragma once

#include "../backend.h"

namespace ps {

/* Chooses pages by the coarse copies, and by the statistics of the best of them; false, and nothing done, where that does not pay. */
bool coarse_choose(Backend &backend, const PageChooseParams &params);

}  // namespace ps
