/* Recorded work: operations that are replayed with one call. */
#include <memory>

#include "handles.h"

using namespace ps;

extern "C" {

int32_t ps_graph_begin(ps_device *device) {
  return guard(device, [&] {
    require_running(*device);
    graph_begin(*device->backend);
    device->recording = true;
  });
}

int32_t ps_graph_end(ps_device *device, ps_graph **out) {
  return guard(device, [&] {
    require(out != nullptr, "The pointer for the new graph is NULL");
    require(device->recording, "The device is not recording a graph");
    device->recording = false;
    auto graph = std::make_unique<ps_graph>(ps_graph{device, nullptr});
    graph->graph = graph_end(*device->backend);
    *out = graph.release();
    device->children++;
    ps_open_handles++;
  });
}

int32_t ps_graph_launch(ps_graph *graph) {
  return guard_child(graph, [&] {
    require_running(*graph->device);
    graph_launch(*graph->device->backend, graph->graph);
  });
}

int32_t ps_graph_close(ps_graph *graph) {
  return close_child(graph, [&](ps_device &device) {
    graph_close(*device.backend, graph->graph);
    device.children--;
  });
}

}  // extern "C"
