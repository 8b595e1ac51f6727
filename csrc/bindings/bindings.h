// What the files of the bindings share. They alone see Python.

#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <string>

#include "dispatch.h"

// An array or tensor in the host's memory, C-contiguous.
template <class Value, int NDIM>
using Array = nanobind::ndarray<Value, nanobind::ndim<NDIM>, nanobind::c_contig, nanobind::device::cpu>;

[[noreturn]] inline void refuse(const std::string& message) { throw nanobind::value_error(message.c_str()); }

// The level of vector instructions that calls use.
const cnnviz::Dispatch& active_level();

// Refuses strips that do not fit one PNG chunk.
void check_strip(size_t rows, size_t row_bytes);

void bind_encoder(nanobind::module_& m);
void bind_kernels(nanobind::module_& m);
