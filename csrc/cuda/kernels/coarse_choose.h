/* Selection by coarse copies of the statistics, for page_choose.cu and sparse_attention.cu. */
#pragma once

#include "../backend.h"

namespace ps {

/* What tells another launch, row by row, that pages are chosen while other rows are still to be: every block that reads a row takes 1 off. */
struct RowFlags {
  int32_t *ready;  /* [rows], zero, or nullptr */
  int32_t readers; /* blocks that read a row */
};

/* Whether pages are chosen by statistics of groups, which come before coarse copies. */
bool chooses_by_groups(const PageChooseParams &params);

/* Chooses pages by the coarse copies, and by the statistics of the best of them; false, and nothing done, where that does not pay. */
bool coarse_choose(Backend &backend, const PageChooseParams &params, RowFlags flags = {});

}  // namespace ps
