// The module, and the level of vector instructions it uses.

#include <nanobind/stl/vector.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "bindings/bindings.h"

// Python hands over descriptors, which are numbers of the universal C runtime; in another one they are other files.
#if defined(__MINGW32__) && !defined(_UCRT)
#error "needs a MinGW of the universal C runtime (UCRT), as Python's"
#endif

namespace nb = nanobind;
using namespace nb::literals;

namespace {

const cnnviz::Dispatch* fastest_level() {
    const cnnviz::Dispatch* levels[cnnviz::MAX_LEVELS];
    const size_t count = cnnviz::supported_levels(levels);
    const char* no_simd = std::getenv("CNNVIZ_NO_SIMD");
    const bool switched_off = no_simd != nullptr && *no_simd != '\0' && std::strcmp(no_simd, "0") != 0;
    return levels[switched_off ? 0 : count - 1];
}

// The one piece of state of the module: which of the constant dispatch tables all calls use.
std::atomic<const cnnviz::Dispatch*>& level_in_use() {
    static std::atomic<const cnnviz::Dispatch*> level{fastest_level()};
    return level;
}

std::vector<std::string> vector_levels() {
    const cnnviz::Dispatch* levels[cnnviz::MAX_LEVELS];
    std::vector<std::string> names;
    const size_t count = cnnviz::supported_levels(levels);
    for (size_t i = 0; i < count; i++) names.emplace_back(levels[i]->name);
    return names;
}

void set_vector_level(const std::string& name) {
    const cnnviz::Dispatch* level = cnnviz::find_level(name.c_str());
    if (level == nullptr) {
        std::string known;
        for (const std::string& supported : vector_levels()) known += (known.empty() ? "'" : ", '") + supported + "'";
        refuse("name must be one of " + known + " on this processor, got '" + name + "'.");
    }
    level_in_use() = level;
}

}  // namespace

const cnnviz::Dispatch& active_level() { return *level_in_use().load(); }

NB_MODULE(_native, m) {
    m.doc() = "The PNG encoder and the CPU kernels of cnnviz_fast. Its types are described in _native.pyi.";
    bind_encoder(m);
    bind_kernels(m);
    m.def(
        "vector_level", [] { return active_level().name; }, "Return the level of vector instructions in use.");
    m.def("vector_levels", &vector_levels, "Return the levels this processor has, slowest first.");
    m.def("set_vector_level", &set_vector_level, "name"_a, "Choose the level for all later calls, for tests.");
}
