/* Recorded work: operations that are replayed with one call. */
#include <exception>
#include <memory>
#include <vector>

#include "handles.h"

using namespace ps;

namespace {

/* Ends the recording of every member, also where that of another fails. */
void end_members(ps_device &device, std::vector<void *> &graphs) {
  std::exception_ptr failure;
  for_members(device, [&] {
    try {
      graphs.push_back(graph_end(*device.backend));
    } catch (...) {
      failure = std::current_exception();
    }
  });
  if (!failure) return;
  if (graphs.size() < device.members.size()) graphs.resize(device.members.size(), nullptr);
  std::rethrow_exception(failure);
}

}  // namespace

extern "C" {

int32_t ps_graph_begin(ps_device *device) {
  return guard(device, [&] {
    require_running(*device);
    for_members(*device, [&] { graph_begin(*device->backend); });
    device->recording = true;
  });
}

int32_t ps_graph_end(ps_device *device, ps_graph **out) {
  return guard(device, [&] {
    require(out != nullptr, "The pointer for the new graph is NULL");
    require(device->recording, "The device is not recording a graph");
    device->recording = false;
    auto graph = std::make_unique<ps_graph>(ps_graph{device, {}});
    end_members(*device, graph->graphs);
    *out = graph.release();
    device->children++;
    ps_open_handles++;
  });
}

int32_t ps_graph_launch(ps_graph *graph) {
  return guard_each_child(graph, [&] {
    require_running(*graph->device);
    graph_launch(*graph->device->backend, graph->graphs[graph->device->member]);
  });
}

int32_t ps_graph_close(ps_graph *graph) {
  return close_child(graph, [&](ps_device &device) {
    for (size_t member = 0; member < graph->graphs.size(); member++) graph_close(*device.members[member], graph->graphs[member]);
    device.children--;
  });
}

}  // extern "C"
